package outbox

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/chainlearn/chainlearn/cache"
)

// DefaultMaxTags is how many tags one transaction or one batch of a relay names at most
// before it names families instead.
const DefaultMaxTags = 1000

// tagsOf returns the distinct tags of rows, in order, and at most most of them where families
// allow. What no answer can carry, because it is no tag, is left out: a stranger's row
// must not stand in the way of others for ever.
func tagsOf(rows []Row, most int) []cache.Tag {
	tags := make([]cache.Tag, 0, len(rows))
	for _, row := range rows {
		if isTag(row.Tag) {
			tags = append(tags, row.Tag)
		}
	}
	slices.Sort(tags)
	return coarsen(slices.Compact(tags), most)
}

func isTag(t cache.Tag) bool {
	return t != "" && utf8.ValidString(string(t)) && !strings.ContainsFunc(string(t), unicode.IsControl)
}

// coarsen replaces the tags of the largest families by the families, until at most most are
// left. A family of one is left alone: naming it would gain nothing, and answers need
// not carry the family of a tag that stands alone. tags are sorted and distinct.
func coarsen(tags []cache.Tag, most int) []cache.Tag {
	if len(tags) <= most {
		return tags
	}
	members := map[cache.Tag]int{}
	for _, t := range tags {
		members[t.Family()]++
	}
	largestFirst := slices.SortedFunc(maps.Keys(members), func(a, b cache.Tag) int {
		return cmp.Or(cmp.Compare(members[b], members[a]), cmp.Compare(a, b))
	})
	whole := map[cache.Tag]bool{}
	for left := len(tags); left > most && len(largestFirst) > 0 && members[largestFirst[0]] > 1; largestFirst = largestFirst[1:] {
		whole[largestFirst[0]] = true
		left -= members[largestFirst[0]] - 1
	}
	for i, t := range tags {
		if f := t.Family(); whole[f] {
			tags[i] = f
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

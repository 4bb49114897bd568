package outbox

import (
	"cmp"
	"maps"
	"slices"

	"github.com/chainlearn/chainlearn/cache"
)

// DefaultMaxTags is how many tags one transaction or one batch of a relay names at most
// before it names families instead.
const DefaultMaxTags = 1000

// tagsOf returns the distinct tags of rows, in order, and at most most of them. What is no tag
// (a row that some program wrote into the table itself) could have meant anything, so it
// becomes Everything, and malformed says that there was one.
func tagsOf(rows []Row, most int) (tags []cache.Tag, malformed bool) {
	tags = make([]cache.Tag, 0, len(rows))
	for _, row := range rows {
		if row.Tag.Check() != nil {
			return []cache.Tag{cache.Everything}, true
		}
		tags = append(tags, row.Tag)
	}
	slices.Sort(tags)
	return widen(slices.Compact(tags), most), false
}

// widen replaces the tags of the largest families by the families, until at most most are
// left, and all of them by Everything if there are more families. tags are sorted and
// distinct. Every answer depends on the families of its tags and on Everything, so no
// invalidation is lost by it.
func widen(tags []cache.Tag, most int) []cache.Tag {
	if len(tags) <= most {
		return tags
	}
	members := map[cache.Tag]int{}
	for _, t := range tags {
		members[t.Family()]++
	}
	if len(members) > most || members[cache.Everything] > 0 {
		return []cache.Tag{cache.Everything}
	}
	largestFirst := slices.SortedFunc(maps.Keys(members), func(a, b cache.Tag) int {
		return cmp.Or(cmp.Compare(members[b], members[a]), cmp.Compare(a, b))
	})
	whole := map[cache.Tag]bool{}
	for left := len(tags); left > most; largestFirst = largestFirst[1:] {
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

package cache

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Tag names something answers depend on, such as "product:7". A write bumps the
// tags of what it changed; every answer that carries one of them is invalid from then on.
//
// Make tags with T. Its spelling is that of the triggers which record what a row touches, so
// that a read and a write cannot differ; driver.Tag defines it. A tag that is spelled by hand
// and is not well formed is an error of the Get or the Invalidate that uses it.
type Tag = driver.Tag

// Everything is the tag that every answer depends on: Invalidate(ctx, Everything) makes all
// of them invalid.
const Everything = driver.Everything

// T returns the tag of a kind and of the values that tell one of its kind from another:
// T("product", 7) is "product:7", and T("stock", "north", 7) is "stock:north:7". A
// collection is a kind without values: T("catalog").
//
// A value is spelled as a template of a watch spells the column that holds it:
//
//	integers, strings, bool        as they are, escaped; true and false
//	[]byte                         hexadecimal
//	time.Time                      the instant, in UTC and microseconds: columns of type
//	                               timestamptz, and of type timestamp where they hold UTC;
//	                               for a column of type date use Date
//	driver.Valuer, fmt.Stringer    what it stores, or says: a UUID
//	pointers                       what they point to
//
// A value without such a text (nil, a float, a struct) makes a tag that is malformed and says
// so where it is used. T("product", 7).Family() stands for all products.
func T(kind string, values ...any) Tag {
	if len(values) == 0 {
		return driver.MakeTag(kind)
	}
	if len(values) == 1 { // the common ones, spelled in place
		b := append(append(make([]byte, 0, 64), kind...), ':')
		switch v := values[0].(type) {
		case string:
			return madeTag(kind, driver.EscapePart(b, v))
		case int:
			return madeTag(kind, strconv.AppendInt(b, int64(v), 10))
		case int64:
			return madeTag(kind, strconv.AppendInt(b, v, 10))
		}
	}
	parts := make([]string, len(values))
	for i, v := range values {
		text, problem := textOf(v)
		if problem != "" {
			return Tag(kind + ":!" + strings.ReplaceAll(fmt.Sprintf("value %d of T: %s", i+1, problem), "\x00", "?"))
		}
		parts[i] = string(driver.EscapePart(nil, text))
	}
	return driver.MakeTag(kind, parts...)
}

// madeTag returns a tag of kind that is spelled, hashed if it is too long.
func madeTag(kind string, spelled []byte) Tag {
	if len(spelled) > driver.MaxTag {
		return driver.MakeTag(kind, string(spelled[len(kind)+1:]))
	}
	return Tag(spelled)
}

// Tags returns the tag of a kind and of values, as the whole of what an answer depends on.
func Tags(kind string, values ...any) []Tag { return []Tag{T(kind, values...)} }

// dependencies returns the tags of both lists, each once, then the families of their kinds, then
// Everything: all that the answer depends on. A write that touches more tags of a kind than it
// can name bumps the family, and a write that cannot even name the kinds bumps Everything;
// neither may miss an answer because its Tags did not think of it.
// Decision 40.
func (s *seenKinds) dependencies(own, named []Tag) []Tag {
	n := len(own) + len(named)
	all := make([]Tag, 0, 2*n+1)
	var seen map[Tag]bool
	if n > fewTags {
		seen = make(map[Tag]bool, 2*n+1)
	}
	add := func(t Tag) {
		if seen == nil && slices.Contains(all, t) || seen[t] {
			return
		}
		if seen != nil {
			seen[t] = true
		}
		all = append(all, t)
	}
	for _, tags := range [2][]Tag{own, named} {
		for _, t := range tags {
			add(t)
		}
	}
	for _, t := range all { // as it is now
		add(s.family(t))
	}
	add(Everything)
	return all
}

// fewTags are looked through faster than a map.
const fewTags = 16

func checkTags(tags []Tag) error {
	for _, t := range tags {
		if err := t.Check(); err != nil {
			return err
		}
	}
	return nil
}

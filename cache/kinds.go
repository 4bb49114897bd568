package cache

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// maxSeenKinds bounds what is remembered of a query: no program writes down more kinds.
const maxSeenKinds = 64

// seenKinds are the kinds of the tags that a query's answers have depended on so far, for
// Cache.Check. Every request notes them, and nearly every one finds them there: the list is
// short, and copied when it grows.
type seenKinds struct {
	known atomic.Pointer[[]seenKind]
	none  atomic.Bool // an answer depended on nothing
	more  atomic.Bool // there are more than are kept

	mu sync.Mutex // of writers
}

// seenKind is a kind with the family of its tags, which every request would have to spell.
type seenKind struct {
	kind   string
	family Tag
}

func (s *seenKinds) list() []seenKind {
	if known := s.known.Load(); known != nil {
		return *known
	}
	return nil
}

func (s *seenKinds) kinds() []string {
	var kinds []string
	for _, k := range s.list() {
		kinds = append(kinds, k.kind)
	}
	return kinds
}

// family is Tag.Family, without spelling that of a kind that was noted.
func (s *seenKinds) family(t Tag) Tag {
	known, kind := s.list(), t.Kind()
	if i := indexOf(known, kind); i >= 0 {
		return known[i].family
	}
	return t.Family()
}

func indexOf(known []seenKind, kind string) int {
	return slices.IndexFunc(known, func(k seenKind) bool { return k.kind == kind })
}

// noteAnswer notes an answer, and whether it depends on nothing: on no tag of the query, and on none
// that its load named.
func (s *seenKinds) noteAnswer(own, named []Tag) {
	if len(own)+len(named) == 0 && !s.none.Load() {
		s.none.Store(true)
	}
	s.note(named)
}

func (s *seenKinds) note(tags []Tag) {
	if s.more.Load() {
		return
	}
	known, last := s.list(), ""
	for _, t := range tags {
		if kind := t.Kind(); kind != last {
			last = kind
			if indexOf(known, kind) < 0 {
				known = s.add(kind)
			}
		}
	}
}

func (s *seenKinds) add(kind string) []seenKind {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.list()
	switch {
	case indexOf(known, kind) >= 0:
		return known
	case len(known) == maxSeenKinds:
		s.more.Store(true)
		return known
	}
	kind = strings.Clone(kind) // not the whole of the tag
	grown := append(slices.Clone(known), seenKind{kind, Tag(kind).Family()})
	s.known.Store(&grown)
	return grown
}

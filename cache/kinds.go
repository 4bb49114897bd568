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
	known atomic.Pointer[[]string]
	none  atomic.Bool // an answer depended on nothing
	more  atomic.Bool // there are more than are kept

	mu sync.Mutex // of writers
}

func (s *seenKinds) list() []string {
	if known := s.known.Load(); known != nil {
		return *known
	}
	return nil
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
			if !slices.Contains(known, kind) {
				known = s.add(kind)
			}
		}
	}
}

func (s *seenKinds) add(kind string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.list()
	switch {
	case slices.Contains(known, kind):
		return known
	case len(known) == maxSeenKinds:
		s.more.Store(true)
		return known
	}
	grown := append(slices.Clone(known), strings.Clone(kind)) // not the whole of the tag
	s.known.Store(&grown)
	return grown
}

package cache

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	rememberBumps    = 15 * time.Second
	rememberMostTags = 16384
	replayRefusals   = 3 // replays in a row, after which families are bumped instead
)

// recentBumps remembers what this process bumped in the last seconds, so that it can be
// bumped again in a store that may have lost it (a replica promoted before it heard), and
// what it could not bump at all, for as long as it takes.
type recentBumps struct {
	mu      sync.Mutex
	seq     uint64   // of the latest in list
	refused int      // replays in a row that the store refused
	list    []bumped // oldest first
}

type bumped struct {
	tag            Tag
	at             time.Time
	seq            uint64
	unacknowledged bool // the store did not confirm it
}

// latest returns the number of the latest bump that is remembered, for add.
func (r *recentBumps) latest() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seq
}

// add remembers a bump. upTo is the latest that was remembered before it was made: what is not
// newer need not be, where its family or Everything has been bumped after it.
func (r *recentBumps) add(tags []Tag, unacknowledged bool, upTo uint64) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prune(now)
	if !unacknowledged && slices.ContainsFunc(tags, isFamily) {
		named := make(map[Tag]bool, len(tags))
		for _, tag := range tags {
			named[tag] = true
		}
		r.list = slices.DeleteFunc(r.list, func(b bumped) bool {
			return b.seq <= upTo && (named[Everything] || named[b.tag.Family()])
		})
	}
	for _, tag := range tags {
		r.seq++
		r.list = append(r.list, bumped{tag, now, r.seq, unacknowledged})
	}
	if len(r.list) > rememberMostTags {
		r.widen(now)
	}
}

func isFamily(t Tag) bool { return t == Everything || strings.HasSuffix(string(t), ":*") }

// owed says whether there is a bump that the store did not confirm.
func (r *recentBumps) owed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.list, func(b bumped) bool { return b.unacknowledged })
}

// prune forgets what is old and confirmed. It looks at the oldest only: what is unacknowledged
// keeps what is behind it, until the next replay.
func (r *recentBumps) prune(now time.Time) {
	n := 0
	for n < len(r.list) && !r.list[n].unacknowledged && now.Sub(r.list[n].at) > rememberBumps {
		n++
	}
	if n == len(r.list) {
		r.list = r.list[:0]
	} else if n > len(r.list)/2 { // amortised: not on every call
		r.list = slices.Delete(r.list, 0, n)
	}
}

// widen remembers families instead of tags, and Everything instead of too many families.
// Every answer depends on both, so bumping more than was needed costs loads and loses no
// invalidation.
func (r *recentBumps) widen(now time.Time) {
	families := map[Tag]bool{} // → unacknowledged
	for _, b := range r.list {
		f := b.tag.Family()
		families[f] = families[f] || b.unacknowledged
	}
	if len(families) > rememberMostTags/2 {
		any := slices.Contains(slices.Collect(maps.Values(families)), true)
		families = map[Tag]bool{Everything: any}
	}
	r.list = r.list[:0]
	for tag, unacknowledged := range families {
		r.seq++
		r.list = append(r.list, bumped{tag, now, r.seq, unacknowledged})
	}
}

// replay bumps what is unacknowledged, and with all everything remembered. A tag that the store
// refuses, again and again while it answers, must not end the recovery: then its family is
// bumped in its place, or Everything. replay returns what was bumped so.
func (r *recentBumps) replay(ctx context.Context, bump func(context.Context, []Tag) error, all bool) (instead []Tag, err error) {
	r.mu.Lock()
	refused := r.refused
	var tags []Tag
	for _, b := range r.list {
		if all || b.unacknowledged {
			tags = append(tags, b.tag)
		}
	}
	upTo := r.seq // what is added from here on is not ours to confirm
	r.mu.Unlock()

	slices.Sort(tags)
	tags = slices.Compact(tags)
	for batch := range slices.Chunk(tags, mostItems) {
		err := bump(ctx, batch)
		if err != nil && refused+1 >= replayRefusals {
			wide := familiesOf(batch)
			if bump(ctx, wide) != nil {
				if wide = []Tag{Everything}; bump(ctx, wide) != nil {
					return instead, err
				}
			}
			instead, err = append(instead, wide...), nil
		}
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				r.mu.Lock()
				r.refused++
				r.mu.Unlock()
			}
			return instead, err
		}
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = 0
	for i := range r.list {
		if r.list[i].seq <= upTo {
			r.list[i].unacknowledged = false
		}
	}
	return instead, nil
}

func familiesOf(tags []Tag) []Tag {
	families := make([]Tag, len(tags))
	for i, t := range tags {
		families[i] = t.Family()
	}
	slices.Sort(families)
	return slices.Compact(families)
}

package cache

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

const (
	rememberBumps    = 15 * time.Second
	rememberMostTags = 16384
	replayBatch      = 256
)

// recentBumps remembers what this process bumped in the last seconds, so that it can be
// bumped again in a store that may have lost it (a replica promoted before it heard), and
// what it could not bump at all, for as long as it takes.
type recentBumps struct {
	mu   sync.Mutex
	seq  uint64   // of the latest in list
	list []bumped // oldest first
}

type bumped struct {
	tag            Tag
	at             time.Time
	seq            uint64
	unacknowledged bool // the store did not confirm it
}

func (r *recentBumps) add(tags []Tag, unacknowledged bool) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prune(now)
	for _, tag := range tags {
		r.seq++
		r.list = append(r.list, bumped{tag, now, r.seq, unacknowledged})
	}
	if len(r.list) > rememberMostTags {
		r.widen(now)
	}
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

// replay bumps what is unacknowledged, and with all everything remembered, in the store.
func (r *recentBumps) replay(ctx context.Context, store driver.Store, all bool) error {
	r.mu.Lock()
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
	for batch := range slices.Chunk(tags, replayBatch) {
		if err := store.Bump(ctx, batch, driver.NoMark); err != nil {
			return err
		}
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.list {
		if r.list[i].seq <= upTo {
			r.list[i].unacknowledged = false
		}
	}
	return nil
}

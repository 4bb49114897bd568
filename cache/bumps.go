package cache

import (
	"context"
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
	tag  Tag
	at   time.Time
	seq  uint64
	owed bool // the store did not confirm it
}

func (r *recentBumps) add(tags []Tag, owed bool) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prune(now)
	for _, tag := range tags {
		r.seq++
		r.list = append(r.list, bumped{tag, now, r.seq, owed})
	}
	if len(r.list) > rememberMostTags {
		r.coarsen(now)
	}
}

// prune forgets what is old and confirmed. It looks at the oldest only: what is owed
// keeps what is behind it, until the next replay.
func (r *recentBumps) prune(now time.Time) {
	n := 0
	for n < len(r.list) && !r.list[n].owed && now.Sub(r.list[n].at) > rememberBumps {
		n++
	}
	if n == len(r.list) {
		r.list = r.list[:0]
	} else if n > len(r.list)/2 { // amortised: not on every call
		r.list = slices.Delete(r.list, 0, n)
	}
}

// coarsen remembers families instead of tags, which are few. Bumping more than was
// needed costs loads, never a wrong answer.
func (r *recentBumps) coarsen(now time.Time) {
	families := map[Tag]bool{} // → owed
	for _, b := range r.list {
		f := b.tag.Family()
		families[f] = families[f] || b.owed
	}
	r.list = r.list[:0]
	for tag, owed := range families {
		if len(r.list) < rememberMostTags/2 {
			r.seq++
			r.list = append(r.list, bumped{tag, now, r.seq, owed})
		}
	}
}

// replay bumps what is owed, and with all everything remembered, in the store.
func (r *recentBumps) replay(ctx context.Context, store driver.Store, all bool) error {
	r.mu.Lock()
	var tags []Tag
	for _, b := range r.list {
		if all || b.owed {
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
			r.list[i].owed = false
		}
	}
	return nil
}

package cache

import (
	"context"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"

	"github.com/maypok86/otter/v2"
)

const (
	// Beyond so many tags everything near is dropped and begins anew: as many as most programs
	// have, and as the answers that may be kept can have between them.
	minNearTags       = 1 << 17
	tagsPerNearAnswer = 8
	defaultNearSize   = 10_000

	never = math.MinInt64 / 2 // longer ago than any bound, and its distance from now is a number
)

// hearing is what this process has heard of tags that change: the truth that near
// answers are checked against. It keeps a count of changes for each tag that a near answer
// depends on; an answer is valid while the counts are what they were before it was read.
type hearing struct {
	birth   time.Time
	gaps    func()        // counts
	trusted *atomic.Bool  // health's: while it is not, bumps may not have reached the store, nor be reported
	proven  atomic.Int64  // since birth: everything before has been reported
	era     atomic.Uint32 // raised when anything may have changed
	deaf    atomic.Bool   // the store tells nothing, and never will

	seed maphash.Seed

	mu sync.RWMutex
	// tags are known by their hash, which needs no memory for their text. Of two with the same
	// hash each ends the other's answers too, which is no harm.
	tags map[uint64]*nearTag // guarded by mu
	most int                 // of tags; guarded by mu
}

type nearTag struct{ changes atomic.Uint64 }

// heards are the tags of an answer as they were before it was read. Two are kept in the answer
// itself: many have no more, and a hit follows a pointer less.
type heards struct {
	first [2]heard
	more  []heard
}

type heard struct {
	tag     *nearTag // nil: none
	changes uint64
}

func (h *heard) changed() bool { return h.tag != nil && h.tag.changes.Load() != h.changes }

// changed says whether any of the tags is not as it was.
func (l *heards) changed() bool {
	if l.first[0].changed() || l.first[1].changed() {
		return true
	}
	for i := range l.more {
		if l.more[i].changed() {
			return true
		}
	}
	return false
}

func newHearing(gaps func(), trusted *atomic.Bool) *hearing {
	h := &hearing{birth: time.Now(), gaps: gaps, trusted: trusted, seed: maphash.MakeSeed(), tags: map[uint64]*nearTag{}}
	h.proven.Store(never)
	return h
}

// now is the monotonic clock of near answers.
func (h *hearing) now() int64 { return int64(time.Since(h.birth)) }

func (h *hearing) hash(tag Tag) uint64 { return maphash.String(h.seed, string(tag)) }

// Changed implements Watcher.
func (h *hearing) Changed(tags ...Tag) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, tag := range tags {
		// A tag nobody depends on has no count. Who begins to depend on it after
		// this reads it after this.
		if t := h.tags[h.hash(tag)]; t != nil {
			t.changes.Add(1)
		}
	}
}

// Missed implements Watcher.
func (h *hearing) Missed() {
	h.gaps()
	h.forget()
}

func (h *hearing) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.era.Add(1)
	clear(h.tags)
}

// Proven implements Watcher.
func (h *hearing) Proven(at time.Time) { h.proven.Store(int64(at.Sub(h.birth))) }

// listen notes how tags are now. Call it before reading what depends on them: whatever
// changes afterwards will make a difference, also if it does before the read.
func (h *hearing) listen(tags []Tag) (era uint32, list heards) {
	h.mu.RLock()
	era = h.era.Load()
	list, known := h.look(tags, false)
	h.mu.RUnlock()
	if known {
		return era, list
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.tags)+len(tags) > max(h.most, minNearTags) {
		h.era.Add(1)
		clear(h.tags)
	}
	list, _ = h.look(tags, true)
	return h.era.Load(), list
}

// look notes how tags are, if all of them are known or may be created, which takes the lock for
// writing.
func (h *hearing) look(tags []Tag, create bool) (list heards, known bool) {
	if more := len(tags) - len(list.first); more > 0 {
		list.more = make([]heard, more)
	}
	for i, tag := range tags {
		hash := h.hash(tag)
		t := h.tags[hash]
		if t == nil {
			if !create {
				return heards{}, false
			}
			t = &nearTag{}
			h.tags[hash] = t
		}
		now := heard{t, t.changes.Load()}
		if i < len(list.first) {
			list.first[i] = now
		} else {
			list.more[i-len(list.first)] = now
		}
	}
	return list, true
}

// near keeps a query's answers in process, as values: no bytes, no decoding.
type near[P comparable, V any] struct {
	*hearing
	bound int64 // Query.Near
	byAge bool  // Query.NearByAge
	table *otter.Cache[P, *nearAnswer[V]]
}

// nearAnswer has first what every hit looks at, in as few cache lines as that takes.
type nearAnswer[V any] struct {
	value  V
	until  int64 // fresh
	era    uint32
	found  bool
	heards heards

	etag ETag
	at   int64 // when the source was asked, by hearing.now
	read int64 // when the store was asked
}

// expect makes room for the tags of so many answers more.
func (h *hearing) expect(answers int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.most += tagsPerNearAnswer * answers
}

// newNear makes the table of a query. Its upkeep, which now and then falls due with a read, is
// run apart from the readers, by goroutines that do not outlive c.
func newNear[P comparable, V any](c *Cache, bound time.Duration, size int) *near[P, V] {
	c.hearing.expect(size)
	return &near[P, V]{
		hearing: c.hearing, bound: int64(bound),
		table: otter.Must(&otter.Options[P, *nearAnswer[V]]{
			MaximumSize: size,
			Executor: func(task func()) {
				if !c.spawn(func(context.Context) { task() }) {
					task()
				}
			},
		}),
	}
}

// get returns the answer for p if it is provably not older than the bound.
func (n *near[P, V]) get(p P) (a *nearAnswer[V], now int64) {
	a, ok := n.table.GetIfPresent(p)
	if !ok {
		return nil, 0
	}
	now = n.now()
	if !n.trusted.Load() || now >= a.until || now-max(n.proven.Load(), n.unproven(a)) > n.bound || a.era != n.era.Load() || a.heards.changed() {
		return nil, now
	}
	return a, now
}

// unproven is from when on an answer's age counts where the store tells nothing.
func (n *near[P, V]) unproven(a *nearAnswer[V]) int64 {
	if n.byAge && n.deaf.Load() {
		return a.read
	}
	return never
}

// nearby is what must be known before an answer is read, to keep it near afterwards.
type nearby struct {
	read   int64
	era    uint32
	heards heards
}

func (n *near[P, V]) listen(tags []Tag) nearby {
	b := nearby{read: n.now()}
	b.era, b.heards = n.hearing.listen(tags)
	return b
}

// put keeps an answer that the store vouched for after b was noted.
func (n *near[P, V]) put(p P, b nearby, value V, etag ETag, found bool, age, ttl time.Duration) {
	if ttl <= 0 {
		return
	}
	now := n.now()
	n.table.Set(p, &nearAnswer[V]{
		value: value, etag: etag, found: found,
		at: now - int64(age), until: now + int64(ttl), read: b.read, era: b.era, heards: b.heards,
	})
}

// watch keeps c's hearing up to date. It is started with the first query that wants it.
func (c *Cache) watch() {
	c.watching.Do(func() {
		store, ok := c.cfg.Store.(driver.Watcher)
		if !ok {
			c.cfg.Logger.Warn("near answers are off: this store does not tell of changes")
			c.hearing.deaf.Store(true)
			return
		}
		c.spawn(func(ctx context.Context) {
			err := store.Watch(ctx, c.hearing)
			c.hearing.proven.Store(never) // also what it proved of a moment to come
			if ctx.Err() == nil {
				c.cfg.Logger.WarnContext(ctx, "near answers are off, except those kept by age: the store does not tell of changes",
					"err", err)
				c.hearing.deaf.Store(true)
			}
		})
	})
}

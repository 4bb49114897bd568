package cache

import (
	"context"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/coalesce"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/event"
)

const (
	// Beyond this many tags all near answers are dropped and begin again: as many as most
	// programs have, and as the answers that may be kept can have between them.
	minTrackedTags    = 1 << 17
	tagsPerNearAnswer = 8
	mostNearAnswers   = 1 << 30 // of one query: more do not fit into a process

	never = math.MinInt64 / 2 // longer ago than any bound, and its distance from now is a number
)

// changeTracker knows which tags have changed since an answer was read: the truth that near
// answers are checked against. It implements driver.Listener.
//
// It counts changes, for each tag that a near answer depends on. A near answer holds the
// counts from before it was read, and is valid while they are the same:
//
//	reader               tracker              store
//	snapshot(tags) ----> course:7 = 4
//	read ---------------------------------->  value, versions
//	                     course:7 = 5  <----  Changed(course:7)   (a writer fences)
//	keep the answer with course:7 = 4
//	next hit: 4 is not 5, a miss
//
// The snapshot comes first. A change that is reported between the snapshot and the read is
// counted, so the answer that is kept is invalid at once: a needless miss, never an old
// answer. A change that happens after the read, and is reported later, is the reason for
// the staleness bound: the store proves, several times in the bound, that everything
// which happened before a moment has been reported (Proven), and no near answer is served
// when the latest proof is older than the bound.
//
// When reports may have been missed, the epoch is raised and every near answer is invalid.
// While the store is not validated (health), nothing near is served: bumps of this process
// may not have reached the store, so that no report of them will come.
// Decision 8.
type changeTracker struct {
	birth       time.Time
	onGap       func()
	validated   *atomic.Bool  // of health
	proven      atomic.Int64  // since birth: everything before has been reported
	epoch       atomic.Uint32 // raised when anything may have changed
	unavailable atomic.Bool   // the store reports no changes, and never will

	prover     driver.Prover // nil: the store does not prove when it is asked
	proofs     coalesce.Calls[struct{}, struct{}, struct{}]
	unprovable atomic.Bool // the last proof that was asked for failed, and none has come since

	seed maphash.Seed

	mu sync.RWMutex
	// tags are known by their hash, which needs no memory for their text. A hash collision
	// only causes extra invalidations.
	tags map[uint64]*trackedTag // guarded by mu
	most int                    // of tags; guarded by mu
}

type trackedTag struct{ changes atomic.Uint64 }

// generations are the change counts of an answer's tags, from before it was read. Two are
// kept in place: many answers have no more, and a hit follows a pointer less.
type generations struct {
	first [2]generation
	more  []generation
}

type generation struct {
	tag     *trackedTag // nil: none
	changes uint64
}

func (g *generation) changed() bool { return g.tag != nil && g.tag.changes.Load() != g.changes }

// changed says whether any of the tags has changed since.
func (g *generations) changed() bool {
	if g.first[0].changed() || g.first[1].changed() {
		return true
	}
	for i := range g.more {
		if g.more[i].changed() {
			return true
		}
	}
	return false
}

func newChangeTracker(onGap func(), validated *atomic.Bool) *changeTracker {
	t := &changeTracker{birth: time.Now(), onGap: onGap, validated: validated, seed: maphash.MakeSeed(), tags: map[uint64]*trackedTag{}}
	t.proven.Store(never)
	return t
}

// now is the monotonic clock of near answers, and time the wall clock for it.
func (t *changeTracker) now() int64               { return int64(time.Since(t.birth)) }
func (t *changeTracker) time(now int64) time.Time { return t.birth.Add(time.Duration(now)) }

// Decision 32.
func (t *changeTracker) hash(tag Tag) uint64 { return maphash.String(t.seed, string(tag)) }

// Changed implements driver.Listener.
func (t *changeTracker) Changed(tags ...Tag) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, tag := range tags {
		// A tag that no near answer depends on has no count. An answer that begins to
		// depend on it later is also read later.
		if tracked := t.tags[t.hash(tag)]; tracked != nil {
			tracked.changes.Add(1)
		}
	}
}

// Missed implements driver.Listener.
func (t *changeTracker) Missed() {
	t.onGap()
	t.forget()
}

// forget makes every near answer invalid.
func (t *changeTracker) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.epoch.Add(1)
	clear(t.tags)
}

// Proven implements driver.Listener.
func (t *changeTracker) Proven(at time.Time) {
	t.proven.Store(int64(at.Sub(t.birth)))
	t.unprovable.Store(false)
}

// expect makes room for the tags of this many more near answers.
func (t *changeTracker) expect(answers int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.most += tagsPerNearAnswer * min(answers, mostNearAnswers)
}

// snapshotToken is what must be known before an answer is read, to keep it near afterwards.
type snapshotToken struct {
	epoch       uint32
	generations generations
}

// snapshot notes how tags are now. Call it before reading what depends on them: a later
// change makes a difference, also if it comes before the read.
func (t *changeTracker) snapshot(tags []Tag) snapshotToken {
	t.mu.RLock()
	epoch := t.epoch.Load()
	g, known := t.generationsOf(tags, false)
	t.mu.RUnlock()
	if known {
		return snapshotToken{epoch, g}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.tags)+len(tags) > max(t.most, minTrackedTags) {
		t.epoch.Add(1)
		clear(t.tags)
	}
	g, _ = t.generationsOf(tags, true)
	return snapshotToken{t.epoch.Load(), g}
}

// generationsOf returns the counts of tags, if all of them are known or may be created,
// which takes the lock for writing.
func (t *changeTracker) generationsOf(tags []Tag, create bool) (g generations, known bool) {
	if more := len(tags) - len(g.first); more > 0 {
		g.more = make([]generation, more)
	}
	for i, tag := range tags {
		hash := t.hash(tag)
		tracked := t.tags[hash]
		if tracked == nil {
			if !create {
				return generations{}, false
			}
			tracked = &trackedTag{}
			t.tags[hash] = tracked
		}
		now := generation{tracked, tracked.changes.Load()}
		if i < len(g.first) {
			g.first[i] = now
		} else {
			g.more[i-len(g.first)] = now
		}
	}
	return g, true
}

// coalesceProofs makes one small call of the store serve all callers who wait for a proof. A proof is as
// good to them as one of their own: it begins after they have come.
func (c *Cache) coalesceProofs() {
	t := c.changes
	t.prover, _ = c.cfg.Store.(driver.Prover)
	prove := func(ctx context.Context) error {
		if c.health.down.Load() {
			return ErrUnavailable
		}
		limited, _, cancel := c.health.withDeadline(ctx, 0)
		defer cancel()
		err := callStore(limited, t.prover.Prove)
		if err != nil && ctx.Err() == nil {
			// It does not report at present, or is slow: until it proves something of itself,
			// callers ask it for the answers.
			t.unprovable.Store(true)
			c.Observe(ctx, event.StoreFailed{Op: "prove", Err: err})
		}
		return err
	}
	t.proofs.Alone, t.proofs.Most, t.proofs.Wait = 1, 1, c.cfg.StoreTimeout
	t.proofs.Spawn, t.proofs.Closed = c.start, ErrClosed
	t.proofs.One = func(ctx context.Context, _, _ struct{}) (none struct{}, err error) { return none, prove(ctx) }
	t.proofs.Many = func(ctx context.Context, _, _ []struct{}) ([]struct{}, error) {
		return make([]struct{}, 1), prove(ctx)
	}
}

// prove asks for a proof, and says whether everything that changed before the call has been reported.
func (t *changeTracker) prove(ctx context.Context) bool {
	if t.prover == nil || t.unprovable.Load() {
		return false
	}
	at := t.now()
	_, err := t.proofs.Do(ctx, struct{}{}, struct{}{})
	// A proof speaks of what was before it, and what the caller must see may be of this very moment.
	return err == nil && t.proven.Load() > at
}

// watch keeps the change tracker up to date. It is started with the first query that
// keeps near answers.
func (c *Cache) watch() {
	c.watching.Do(func() {
		store, ok := c.cfg.Store.(driver.Watcher)
		if !ok {
			c.cfg.Logger.Warn("near answers are off: this store does not report changes")
			c.changes.unavailable.Store(true)
			return
		}
		c.start(func(ctx context.Context) {
			err := callStore(ctx, func(ctx context.Context) error { return store.Watch(ctx, c.changes) })
			c.changes.proven.Store(never) // also what it proved of a moment to come
			if ctx.Err() == nil {
				c.cfg.Logger.WarnContext(ctx, "near answers are off: the store does not report changes", "err", err)
				c.changes.unavailable.Store(true)
			}
		})
	})
}

package cache

import (
	"context"
	"math"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/chainlearn/chainlearn/cache/driver"
)

const (
	defaultNearSize = 10_000
	nearUnit        = 4 << 10 // bytes of an answer, encoded, that count as one
)

// near keeps a query's answers in process, as values: no bytes, no decoding. What makes an
// answer invalid is told at changeTracker.
type near[P comparable, V any] struct {
	*changeTracker
	bound  int64  // Query.Near
	strict bool   // Query.NearStrict
	detail string // of a hit that was not proven for its caller
	table  *otter.Cache[P, *nearAnswer[V]]
}

// nearAnswer has first what every hit looks at, in as few cache lines as that takes.
type nearAnswer[V any] struct {
	value V
	until int64 // fresh
	found bool
	as    snapshotToken // of its tags, before it was read

	etag  ETag
	at    int64 // when the source was asked, by changeTracker.now
	bytes int   // encoded
}

func (a *nearAnswer[V]) err() error {
	if !a.found {
		return ErrNotFound
	}
	return nil
}

func (n *near[P, V]) answer(a *nearAnswer[V], now int64, detail string) Answer[V] {
	return Answer[V]{
		Value: a.value, Status: Hit, Detail: detail, ETag: a.etag, bytes: a.bytes,
		Age: time.Duration(now - a.at), TTL: time.Duration(a.until - now),
	}
}

// newNear makes the table of a query. A bound of 0 is for a store that reports changes at once:
// what is near is then a part of the store, and a hit no other than the store's. Its upkeep, which
// now and then falls due with a read, is run apart from the readers, by goroutines that do not
// outlive c.
// Decision 45.
func newNear[P comparable, V any](c *Cache, bound time.Duration, strict bool, size int) *near[P, V] {
	c.changes.expect(size)
	detail := DetailNear
	if bound == 0 {
		detail = ""
	}
	return &near[P, V]{
		changeTracker: c.changes, bound: min(int64(bound), -never/2), strict: strict, detail: detail, // never is beyond any bound
		table: otter.Must(&otter.Options[P, *nearAnswer[V]]{
			MaximumWeight: uint64(size),
			Weigher: func(_ P, a *nearAnswer[V]) uint32 {
				return uint32(min(1+a.bytes/nearUnit, math.MaxUint32))
			},
			Executor: c.upkeep,
		}),
	}
}

// upkeep runs what a table has to do now and then, apart from its readers if that is still possible.
func (c *Cache) upkeep(task func()) {
	if !c.start(func(context.Context) { task() }) {
		task()
	}
}

// keepsValues says whether answers are kept as values unasked: those of a store in process.
func (c *Cache) keepsValues() bool { return isInProcess(c.cfg.Store) }

func isInProcess(store driver.Store) bool {
	w, ok := store.(driver.ExactWatcher)
	return ok && w.ReportsAtOnce()
}

// get returns the answer for p if it may be served, by detail, to a caller who comes now.
func (n *near[P, V]) get(ctx context.Context, p P) (a *nearAnswer[V], now int64, detail string) {
	if n.strict || isStrict(ctx) {
		a, now = n.getProven(ctx, p)
		return a, now, DetailNearProven
	}
	a, now = n.getBounded(p)
	return a, now, n.detail
}

// getBounded returns the answer for p if it is provably not older than the bound.
// Decision 25.
func (n *near[P, V]) getBounded(p P) (a *nearAnswer[V], now int64) {
	a, ok := n.table.GetIfPresent(p)
	if !ok {
		return nil, 0
	}
	now = n.now()
	if now-n.proven.Load() > n.bound || !n.unchanged(a, now) {
		return nil, now
	}
	return a, now
}

// getProven returns the answer for p if nothing that it depends on had changed when the caller came.
// That takes a proof that begins now: what has been reported when it has come includes all that was
// acknowledged before. Package internal/proof/model/strictnear has the protocol.
// Decision 53.
func (n *near[P, V]) getProven(ctx context.Context, p P) (a *nearAnswer[V], now int64) {
	a, ok := n.table.GetIfPresent(p)
	if !ok || !n.unchanged(a, n.now()) || !n.prove(ctx) {
		return nil, 0
	}
	now = n.now()
	if !n.unchanged(a, now) {
		return nil, now
	}
	return a, now
}

// unchanged says whether a is fresh, and nothing was reported that changed it.
func (n *near[P, V]) unchanged(a *nearAnswer[V], now int64) bool {
	return n.validated.Load() && now < a.until && a.as.epoch == n.epoch.Load() && !a.as.generations.changed()
}

// put keeps an answer that the store vouched for after the snapshot was taken.
func (n *near[P, V]) put(p P, as snapshotToken, a Answer[V], found bool) {
	if a.TTL <= 0 {
		return
	}
	now := n.now()
	n.table.Set(p, &nearAnswer[V]{
		value: a.Value, etag: a.ETag, bytes: a.bytes, found: found,
		at: now - int64(a.Age), until: int64(sum(time.Duration(now), a.TTL)), as: as,
	})
}

type strictKey struct{}

// WithStrict returns a context whose reads are checked in the store, even where their query
// keeps answers near: where the store can prove that what is kept is as of now, that is all that it
// is asked. It is for a caller who must see a write that this process cannot know of.
func WithStrict(ctx context.Context) context.Context {
	return context.WithValue(ctx, strictKey{}, true)
}

func isStrict(ctx context.Context) bool { return ctx.Value(strictKey{}) != nil }

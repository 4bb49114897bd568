package cache

import (
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// call is one load under way, for every caller in this process that may share its result.
type call[V any] struct {
	guard driver.Guard  // the versions it loads under; zero for a bypass
	done  chan struct{} // closed when out is set
	out   outcome[V]
	begun bool   // of a bypass: its loader may have read the source; guarded by calls.mu
	start func() // of a bypass that waits for the one before it
}

func (c *call[V]) completed() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// outcome is how a call ended.
type outcome[V any] struct {
	sourceAnswer[V]
	status Status
	detail string
	fresh  time.Duration // granted to the answer from its load on; 0 if it was not stored
}

// calls holds the loads of a query that are under way. Which caller may join which load is
// what keeps answers exact:
//
//   - Under versions (guard) that the caller has just seen to be current, it may join a load
//     that began under the same versions: no write has been acknowledged since.
//   - Under a fence, or without a store to ask, versions prove nothing. The caller may join
//     only a load that begins after it arrived. So at most one such load runs and one
//     waits, per key.
type calls[V any] struct {
	mu         sync.Mutex
	byKey      map[string]*keyCalls[V] // removed when empty
	refreshing int                     // keys that are
}

// keyCalls are the loads of one key.
type keyCalls[V any] struct {
	guarded    *call[V] // the latest; those under older guards go on, and no caller joins them
	bypass     *call[V] // running or about to
	next       *call[V] // to run after bypass
	refreshing bool
}

func (k *keyCalls[V]) empty() bool {
	return k.guarded == nil && k.bypass == nil && k.next == nil && !k.refreshing
}

// of returns the loads of key; mu is held.
func (c *calls[V]) of(key string) *keyCalls[V] {
	if c.byKey == nil {
		c.byKey = map[string]*keyCalls[V]{}
	}
	k := c.byKey[key]
	if k == nil {
		k = &keyCalls[V]{}
		c.byKey[key] = k
	}
	return k
}

// join returns the load of key under guard. If lead, it is new, and the caller must see
// that it runs and ends.
func (c *calls[V]) join(key string, guard driver.Guard) (joined *call[V], lead bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.of(key)
	if k.guarded != nil && k.guarded.guard == guard {
		return k.guarded, false
	}
	k.guarded = &call[V]{guard: guard, done: make(chan struct{})}
	return k.guarded, true
}

// joinBypass returns a load that has not begun to read the source. If lead, the caller must
// see that it runs and ends; else it was there, or start will be called when its turn comes.
func (c *calls[V]) joinBypass(key string, start func(*call[V])) (joined *call[V], lead bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.of(key)
	switch {
	case k.bypass == nil:
		k.bypass = &call[V]{done: make(chan struct{})}
		return k.bypass, true
	case !k.bypass.begun:
		return k.bypass, false
	case k.next == nil:
		next := &call[V]{done: make(chan struct{})}
		next.start = func() { start(next) }
		k.next = next
	}
	return k.next, false
}

// begin says that the loader of a bypass is about to read the source.
func (c *calls[V]) begin(bypass *call[V]) {
	c.mu.Lock()
	bypass.begun = true
	c.mu.Unlock()
}

// end removes a load that is over, and starts the bypass that waited for it.
func (c *calls[V]) end(key string, ended *call[V]) {
	c.mu.Lock()
	k := c.of(key)
	var next *call[V]
	switch ended {
	case k.guarded:
		k.guarded = nil
	case k.bypass:
		next = k.next
		k.bypass, k.next = next, nil
	}
	c.drop(key, k)
	c.mu.Unlock()
	if next != nil {
		next.start()
	}
}

// beginRefresh claims the one background refresh of key, unless there are most already, and
// endRefresh gives it back.
func (c *calls[V]) beginRefresh(key string, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refreshing >= most {
		return false
	}
	k := c.of(key)
	if k.refreshing {
		return false
	}
	k.refreshing = true
	c.refreshing++
	return true
}

func (c *calls[V]) endRefresh(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.of(key)
	k.refreshing = false
	c.refreshing--
	c.drop(key, k)
}

// drop forgets a key without loads; mu is held.
func (c *calls[V]) drop(key string, k *keyCalls[V]) {
	if k.empty() {
		delete(c.byKey, key)
	}
}

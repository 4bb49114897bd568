package cache

import (
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// flight is one load under way, for everybody in this process who may share its result.
type flight[V any] struct {
	guard driver.Guard  // the versions it loads under; zero for a bypass
	done  chan struct{} // closed when out is set
	out   outcome[V]
	begun bool   // of a bypass: its loader may have read the source; guarded by group.mu
	start func() // of a bypass that waits for the one before it
}

func (f *flight[V]) landed() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// outcome is what a flight brings home.
type outcome[V any] struct {
	loaded[V]
	status Status
	detail string
	fresh  time.Duration // granted to the answer from loaded.at on; 0 if it was not stored
}

// group holds the flights of a query. Who may join which is what keeps answers exact:
//
//   - Under versions (guard) that the caller has just seen to be current, it may join a load
//     that began under the same versions: no write has been acknowledged since.
//   - Under a fence, or without a store to ask, versions prove nothing. The caller may join
//     only a load that begins after it arrived. So at most one such load runs and one
//     waits, per key.
type group[V any] struct {
	mu         sync.Mutex
	byKey      map[string]*slot[V] // removed when empty
	refreshing int                 // slots that are
}

type slot[V any] struct {
	guarded    *flight[V] // the latest; those under older guards go on, joined by nobody new
	bypass     *flight[V] // running or about to
	next       *flight[V] // to run after bypass
	refreshing bool
}

func (s *slot[V]) empty() bool {
	return s.guarded == nil && s.bypass == nil && s.next == nil && !s.refreshing
}

// slot returns the slot of key; mu is held.
func (g *group[V]) slot(key string) *slot[V] {
	if g.byKey == nil {
		g.byKey = map[string]*slot[V]{}
	}
	s := g.byKey[key]
	if s == nil {
		s = &slot[V]{}
		g.byKey[key] = s
	}
	return s
}

// join returns the flight that loads key under guard. If lead, it is new, and the caller
// must see that it flies and ends.
func (g *group[V]) join(key string, guard driver.Guard) (f *flight[V], lead bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.slot(key)
	if s.guarded != nil && s.guarded.guard == guard {
		return s.guarded, false
	}
	s.guarded = &flight[V]{guard: guard, done: make(chan struct{})}
	return s.guarded, true
}

// joinBypass returns a flight that has not begun to load. If lead, the caller must see that
// it flies and ends; else it was there, or start will be called when its turn comes.
func (g *group[V]) joinBypass(key string, start func(*flight[V])) (f *flight[V], lead bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.slot(key)
	switch {
	case s.bypass == nil:
		s.bypass = &flight[V]{done: make(chan struct{})}
		return s.bypass, true
	case !s.bypass.begun:
		return s.bypass, false
	case s.next == nil:
		f := &flight[V]{done: make(chan struct{})}
		f.start = func() { start(f) }
		s.next = f
	}
	return s.next, false
}

// begin says that the loader of a bypass is about to read the source.
func (g *group[V]) begin(f *flight[V]) {
	g.mu.Lock()
	f.begun = true
	g.mu.Unlock()
}

// end removes a flight that is done, and starts the bypass that waited for it.
func (g *group[V]) end(key string, f *flight[V]) {
	g.mu.Lock()
	s := g.slot(key)
	var next *flight[V]
	switch f {
	case s.guarded:
		s.guarded = nil
	case s.bypass:
		next = s.next
		s.bypass, s.next = next, nil
	}
	g.drop(key, s)
	g.mu.Unlock()
	if next != nil {
		next.start()
	}
}

// refresh claims the one background refresh of key, unless there are most already, and
// endRefresh gives it back.
func (g *group[V]) refresh(key string, most int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refreshing >= most {
		return false
	}
	s := g.slot(key)
	if s.refreshing {
		return false
	}
	s.refreshing = true
	g.refreshing++
	return true
}

func (g *group[V]) endRefresh(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.slot(key)
	s.refreshing = false
	g.refreshing--
	g.drop(key, s)
}

// drop forgets an empty slot; mu is held.
func (g *group[V]) drop(key string, s *slot[V]) {
	if s.empty() {
		delete(g.byKey, key)
	}
}

package memstore

import (
	"hash/maphash"
	"sync"
)

// hub tells whoever waits for a key that it was settled. It is split by key so that loads
// of different keys seldom meet; each part is as large as the number of waiters.
type hub struct {
	seed  maphash.Seed
	parts [64]hubPart
}

type hubPart struct {
	mu      sync.Mutex
	waiters map[string]map[*waiter]struct{} // key → who waits for it; guarded by mu
}

// waiter has room for one value. One that is not yet taken says all that a second would,
// so announcing never waits.
type waiter struct{ settled chan struct{} }

func newHub() *hub {
	h := &hub{seed: maphash.MakeSeed()}
	for i := range h.parts {
		h.parts[i].waiters = make(map[string]map[*waiter]struct{})
	}
	return h
}

func (h *hub) part(key string) *hubPart {
	return &h.parts[maphash.String(h.seed, key)%uint64(len(h.parts))]
}

// subscribe returns a channel that hears of key, and the function that ends it.
func (h *hub) subscribe(key string) (<-chan struct{}, func()) {
	w := &waiter{settled: make(chan struct{}, 1)}
	p := h.part(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiters[key] == nil {
		p.waiters[key] = make(map[*waiter]struct{}, 1)
	}
	p.waiters[key][w] = struct{}{}
	return w.settled, func() { p.remove(key, w) }
}

// remove may be called more than once.
func (p *hubPart) remove(key string, w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiters[key], w)
	if len(p.waiters[key]) == 0 {
		delete(p.waiters, key)
	}
}

func (h *hub) announce(key string) {
	p := h.part(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.waiters[key] {
		select {
		case w.settled <- struct{}{}:
		default:
		}
	}
}

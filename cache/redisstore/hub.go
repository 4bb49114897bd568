package redisstore

import "sync"

// hub tells whoever waits for a key that it was settled. It is as large as the number of
// those who wait.
type hub struct {
	mu      sync.Mutex
	waiters map[string]map[*waiter]struct{} // key → who waits for it; guarded by mu
}

// waiter has room for one value. One that is not yet taken says all that a second would,
// so announcing never waits.
type waiter struct{ settled chan struct{} }

func newHub() *hub {
	return &hub{waiters: make(map[string]map[*waiter]struct{})}
}

// subscribe returns a channel that hears of key, and the function that ends it.
func (h *hub) subscribe(key string) (<-chan struct{}, func()) {
	w := &waiter{settled: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiters[key] == nil {
		h.waiters[key] = make(map[*waiter]struct{}, 1)
	}
	h.waiters[key][w] = struct{}{}
	return w.settled, func() { h.remove(key, w) }
}

// remove may be called more than once.
func (h *hub) remove(key string, w *waiter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.waiters[key], w)
	if len(h.waiters[key]) == 0 {
		delete(h.waiters, key)
	}
}

func (h *hub) announce(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	tell(h.waiters[key])
}

// announceAll makes everybody look again, after what may have been missed.
func (h *hub) announceAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ws := range h.waiters {
		tell(ws)
	}
}

func tell(waiters map[*waiter]struct{}) {
	for w := range waiters {
		select {
		case w.settled <- struct{}{}:
		default:
		}
	}
}

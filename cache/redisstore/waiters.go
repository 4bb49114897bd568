package redisstore

import "sync"

// waiters notifies the callers of this process that wait for a key to be settled. It is as
// large as the number of callers that wait.
type waiters struct {
	mu    sync.Mutex
	byKey map[string]map[*waiter]struct{} // key → callers that wait for it; guarded by mu
}

// waiter has room for one value. A value that was not taken yet says all that a second one
// would, so announcing never blocks.
type waiter struct{ settled chan struct{} }

func newWaiters() *waiters {
	return &waiters{byKey: make(map[string]map[*waiter]struct{})}
}

// subscribe returns a channel that receives when key is settled, and the function that ends
// the subscription.
func (ws *waiters) subscribe(key string) (<-chan struct{}, func()) {
	w := &waiter{settled: make(chan struct{}, 1)}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.byKey[key] == nil {
		ws.byKey[key] = make(map[*waiter]struct{}, 1)
	}
	ws.byKey[key][w] = struct{}{}
	return w.settled, func() { ws.remove(key, w) }
}

// remove may be called more than once.
func (ws *waiters) remove(key string, w *waiter) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.byKey[key], w)
	if len(ws.byKey[key]) == 0 {
		delete(ws.byKey, key)
	}
}

func (ws *waiters) announce(key string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	notify(ws.byKey[key])
}

// announceAll makes every waiter read again, after announcements may have been lost.
func (ws *waiters) announceAll() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, set := range ws.byKey {
		notify(set)
	}
}

func notify(set map[*waiter]struct{}) {
	for w := range set {
		select {
		case w.settled <- struct{}{}:
		default:
		}
	}
}

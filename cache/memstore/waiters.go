package memstore

import (
	"hash/maphash"
	"sync"
)

// waiters notifies the callers that wait for a key to be settled. It is sharded by key so that
// loads of different keys seldom contend. Each shard is as large as its number of waiters.
type waiters struct {
	seed   maphash.Seed
	shards [64]waitersShard
}

type waitersShard struct {
	mu    sync.Mutex
	byKey map[string]map[*waiter]struct{} // key → callers that wait for it; guarded by mu
}

// waiter has room for one value. A value that was not taken yet says all that a second one
// would, so announcing never blocks.
type waiter struct{ settled chan struct{} }

func newWaiters() *waiters {
	ws := &waiters{seed: maphash.MakeSeed()}
	for i := range ws.shards {
		ws.shards[i].byKey = make(map[string]map[*waiter]struct{})
	}
	return ws
}

func (ws *waiters) shard(key string) *waitersShard {
	return &ws.shards[maphash.String(ws.seed, key)%uint64(len(ws.shards))]
}

// subscribe returns a channel that receives when key is settled, and the function that ends
// the subscription.
func (ws *waiters) subscribe(key string) (<-chan struct{}, func()) {
	w := &waiter{settled: make(chan struct{}, 1)}
	s := ws.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byKey[key] == nil {
		s.byKey[key] = make(map[*waiter]struct{}, 1)
	}
	s.byKey[key][w] = struct{}{}
	return w.settled, func() { s.remove(key, w) }
}

// remove may be called more than once.
func (s *waitersShard) remove(key string, w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byKey[key], w)
	if len(s.byKey[key]) == 0 {
		delete(s.byKey, key)
	}
}

func (ws *waiters) announce(key string) {
	s := ws.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.byKey[key] {
		select {
		case w.settled <- struct{}{}:
		default:
		}
	}
}

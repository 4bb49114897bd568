package postgres

import (
	"context"
	"errors"
	"sync"
)

// crew is the goroutines that work for callers who share a question. None outlives close.
type goroutineGroup struct {
	mu      sync.Mutex
	closed  bool
	ctx     context.Context // of the crew's work
	cancel  context.CancelFunc
	running sync.WaitGroup // added to under mu while not closed
}

var errClosed = errors.New("the storage is closed")

func newGoroutineGroup() *goroutineGroup {
	g := &goroutineGroup{}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// spawn returns false after close.
func (g *goroutineGroup) start(f func(context.Context)) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.running.Go(func() { f(g.ctx) })
	return true
}

func (g *goroutineGroup) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	g.running.Wait()
}

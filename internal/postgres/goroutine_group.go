package postgres

import (
	"context"
	"errors"
	"sync"
)

// goroutineGroup runs the shared calls of several callers. close cancels them and waits: no
// goroutine outlives it.
type goroutineGroup struct {
	mu      sync.Mutex
	closed  bool
	ctx     context.Context // cancelled by close
	cancel  context.CancelFunc
	running sync.WaitGroup // added to under mu while not closed
}

var errClosed = errors.New("the storage is closed")

func newGoroutineGroup() *goroutineGroup {
	g := &goroutineGroup{}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// start returns false after close.
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

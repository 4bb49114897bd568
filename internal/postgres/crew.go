package postgres

import (
	"context"
	"errors"
	"sync"
)

// crew is the goroutines that work for callers who share a question. None outlives close.
type crew struct {
	mu      sync.Mutex
	closed  bool
	life    context.Context // of the crew's work
	end     context.CancelFunc
	running sync.WaitGroup // added to under mu while not closed
}

var errClosed = errors.New("the storage is closed")

func newCrew() *crew {
	c := &crew{}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// spawn returns false after close.
func (c *crew) spawn(f func(context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.running.Go(func() { f(c.life) })
	return true
}

func (c *crew) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.running.Wait()
}

// Package coalesce combines concurrent calls into shared calls.
//
// Up to Calls.Alone calls, of different keys, run at the same time, each for one caller. Callers
// that come meanwhile wait for the next call and share it. The shared call begins after all of
// them have come, so its answer is as good as that to a call of their own: it shows everything
// that was so before they asked. (Single flight, which joins a call that is running, does not
// give that.) The more callers come, the more of them share a call. No call is delayed to
// collect more callers.
package coalesce

import (
	"context"
	"sync"
	"time"
)

// Calls coalesces the calls of one kind. Set the fields before the first call. The methods are
// safe for concurrent use.
type Calls[K comparable, A, R any] struct {
	Alone int           // running calls from which on callers share the next; for the same key it is one
	Most  int           // keys of a shared call
	Wait  time.Duration // for a running call, at most; then the shared call begins beside it

	// One answers one caller, with the caller's context.
	One func(ctx context.Context, key K, arg A) (R, error)
	// Many answers callers of different keys, in order. Callers of the same key share a result.
	Many func(ctx context.Context, keys []K, args []A) ([]R, error)
	// Spawn runs a shared call on a goroutine, or returns false if no more may start. Then its
	// callers get Closed.
	Spawn  func(func(context.Context)) bool
	Closed error

	mu      sync.Mutex
	running int              // all running calls
	keys    map[K]int        // key → running calls; absent is none
	next    *shared[K, A, R] // waits for a running call, and may be joined; nil if there is none
}

// shared is one call for several callers.
type shared[K comparable, A, R any] struct {
	keys  []K
	args  []A
	index map[K]int // of each key in keys and args
	timer *time.Timer

	done    chan struct{} // closed when what follows is set
	results []R
	err     error
}

// Do answers a caller by a call that begins after Do was called. arg says what the call needs
// to know about key. If callers share a key, the arg of one of them is used. Do returns the error
// of the call, or the cause of ctx if that ends first.
func (c *Calls[K, A, R]) Do(ctx context.Context, key K, arg A) (R, error) {
	call, i := c.joinOrStart(key, arg)
	if call == nil {
		defer c.finish(key)
		return c.One(ctx, key, arg)
	}
	var none R
	select {
	case <-call.done:
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	if call.err != nil {
		return none, call.err
	}
	return call.results[i], nil
}

// joinOrStart counts a call of the caller's own and returns nil, or returns the call that the
// caller shares and its index in it.
func (c *Calls[K, A, R]) joinOrStart(key K, arg A) (call *shared[K, A, R], i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	call = c.next
	if call != nil {
		if i, ok := call.index[key]; ok {
			return call, i
		}
	}
	if c.running < c.Alone && c.keys[key] == 0 || call != nil && len(call.keys) == c.Most {
		c.running++
		c.count(key, 1)
		return nil, 0
	}
	if call == nil {
		next := &shared[K, A, R]{index: map[K]int{}, done: make(chan struct{})}
		next.timer = time.AfterFunc(c.Wait, func() { c.sendLate(next) }) // capturing call would cost callers that go alone an allocation
		c.next, call = next, next
	}
	i = len(call.keys)
	call.index[key] = i
	call.keys, call.args = append(call.keys, key), append(call.args, arg)
	return call, i
}

// count adds more to the running calls of key; mu is held.
func (c *Calls[K, A, R]) count(key K, more int) {
	if c.keys == nil {
		c.keys = map[K]int{}
	}
	if c.keys[key] += more; c.keys[key] == 0 {
		delete(c.keys, key)
	}
}

// finish ends a call, and sends the one that waits for it.
func (c *Calls[K, A, R]) finish(keys ...K) {
	if call := c.finishAndBegin(keys...); call != nil {
		c.send(call)
	}
}

// finishAndBegin ends a call and begins the next, if any, which it returns.
func (c *Calls[K, A, R]) finishAndBegin(ended ...K) *shared[K, A, R] {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	for _, key := range ended {
		c.count(key, -1)
	}
	return c.begin(c.next)
}

// begin begins call, which cannot be joined from then on. It returns nil if call is not the
// next; mu is held.
func (c *Calls[K, A, R]) begin(call *shared[K, A, R]) *shared[K, A, R] {
	if call == nil || c.next != call {
		return nil
	}
	c.next = nil
	c.running++
	for _, key := range call.keys {
		c.count(key, 1)
	}
	return call
}

// sendLate sends a call that has waited for Wait.
func (c *Calls[K, A, R]) sendLate(call *shared[K, A, R]) {
	c.mu.Lock()
	call = c.begin(call)
	c.mu.Unlock()
	if call != nil {
		c.send(call)
	}
}

// send makes the call, and then each that has waited for the one before it.
func (c *Calls[K, A, R]) send(call *shared[K, A, R]) {
	spawned := c.Spawn(func(ctx context.Context) {
		for due := call; due != nil; due = c.finishAndBegin(due.keys...) {
			due.timer.Stop()
			due.results, due.err = c.Many(ctx, due.keys, due.args)
			close(due.done)
		}
	})
	if !spawned {
		call.err = c.Closed
		close(call.done)
		c.finish(call.keys...)
	}
}

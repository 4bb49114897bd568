// Package coalesce makes one call of many that come at the same time.
//
// As many calls as keep the way to a server busy go at once, each alone, of different keys.
// Callers who come meanwhile wait for the next call and share it. It begins after all of them have come, which
// makes its answer as good as that to a call of their own: what was so before they asked
// shows in it. (What single flight does, joining a call that is under way, does not give
// that.) The busier it is, the more callers share a call: nothing is ever held back to
// wait for company.
package coalesce

import (
	"context"
	"sync"
	"time"
)

// Calls are those of one kind. Set the fields before the first call; the methods are safe for
// concurrent use.
type Calls[K comparable, A, R any] struct {
	Alone int           // calls under way, from which on callers share the next; of the same key: one
	Most  int           // keys of a shared call
	Wait  time.Duration // for a call under way to return, at most: who waits for a slow server waits once

	// One answers one caller, with the caller's context.
	One func(ctx context.Context, key K, arg A) (R, error)
	// Many answers callers of different keys, in order. Callers of the same key share a result.
	Many func(ctx context.Context, keys []K, args []A) ([]R, error)
	// Spawn runs a shared call on a goroutine, or returns false if that cannot be any more;
	// then its callers get Closed.
	Spawn  func(func(context.Context)) bool
	Closed error

	mu   sync.Mutex
	busy int              // calls under way
	keys map[K]int        // of calls under way; absent is none
	next *shared[K, A, R] // whoever comes may join it; nil if nobody waits
}

// shared is one call for several callers.
type shared[K comparable, A, R any] struct {
	keys []K
	args []A
	at   map[K]int // index by key
	late *time.Timer

	done    chan struct{} // closed when what follows is set
	results []R
	err     error
}

// Do answers a caller by a call that begins after Do was called. arg says what the call needs
// to know of key; of callers who share a key, one's is used. It returns the error of the
// call, or the cause of ctx if that ends first.
func (c *Calls[K, A, R]) Do(ctx context.Context, key K, arg A) (R, error) {
	call, i := c.join(key, arg)
	if call == nil {
		defer c.leave(key)
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

// join takes a place for a call of the caller's own, or if there is none returns the call that
// the caller shares.
func (c *Calls[K, A, R]) join(key K, arg A) (call *shared[K, A, R], i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	call = c.next
	if call != nil {
		if i, ok := call.at[key]; ok {
			return call, i
		}
	}
	if c.busy < c.Alone && c.keys[key] == 0 || call != nil && len(call.keys) == c.Most {
		c.busy++
		c.count(key, 1)
		return nil, 0
	}
	if call == nil {
		next := &shared[K, A, R]{at: map[K]int{}, done: make(chan struct{})}
		next.late = time.AfterFunc(c.Wait, func() { c.hurry(next) }) // not call: who goes alone would pay for it
		c.next, call = next, next
	}
	i = len(call.keys)
	call.at[key] = i
	call.keys, call.args = append(call.keys, key), append(call.args, arg)
	return call, i
}

// count notes that so many more calls of key are under way; mu is held.
func (c *Calls[K, A, R]) count(key K, more int) {
	if c.keys == nil {
		c.keys = map[K]int{}
	}
	if c.keys[key] += more; c.keys[key] == 0 {
		delete(c.keys, key)
	}
}

// leave ends a call, and sends the one that waits for it.
func (c *Calls[K, A, R]) leave(keys ...K) {
	if call := c.turn(keys...); call != nil {
		c.send(call)
	}
}

// turn ends a call and begins the next, if any, which it returns.
func (c *Calls[K, A, R]) turn(ended ...K) *shared[K, A, R] {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy--
	for _, key := range ended {
		c.count(key, -1)
	}
	return c.take(c.next)
}

// take begins call, which nobody joins any more, unless it is not the next; mu is held.
func (c *Calls[K, A, R]) take(call *shared[K, A, R]) *shared[K, A, R] {
	if call == nil || c.next != call {
		return nil
	}
	c.next = nil
	c.busy++
	for _, key := range call.keys {
		c.count(key, 1)
	}
	return call
}

// hurry sends a call that has waited long enough.
func (c *Calls[K, A, R]) hurry(call *shared[K, A, R]) {
	c.mu.Lock()
	call = c.take(call)
	c.mu.Unlock()
	if call != nil {
		c.send(call)
	}
}

// send makes the call, and then those that became due meanwhile.
func (c *Calls[K, A, R]) send(call *shared[K, A, R]) {
	spawned := c.Spawn(func(ctx context.Context) {
		for due := call; due != nil; due = c.turn(due.keys...) {
			due.late.Stop()
			due.results, due.err = c.Many(ctx, due.keys, due.args)
			close(due.done)
		}
	})
	if !spawned {
		call.err = c.Closed
		close(call.done)
		c.leave(call.keys...)
	}
}

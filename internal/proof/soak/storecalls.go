package soak

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// storeCalls counts the store calls that a worker's cache makes for each key. So a test
// knows what a request waited for without a clock: a busy machine delays calls, but adds none.
type storeCalls struct {
	mu        sync.Mutex
	byKey     map[string]callCount // nil: nothing is counted; guarded by mu
	longest   time.Duration        // the furthest deadline of a call, from its beginning; guarded by mu
	unbounded int                  // calls without a deadline; guarded by mu
}

type callCount struct{ Begun, Failed int }

// itemStoreKey is the store's name of item k.
func itemStoreKey(k int) string { return fmt.Sprintf("soak:item:%d", k) }

// reset begins to count from zero.
func (c *storeCalls) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byKey, c.longest, c.unbounded = map[string]callCount{}, 0, 0
}

// begin counts a call for keys. The function that it returns counts the call's failure, if err
// is one.
func (c *storeCalls) begin(ctx context.Context, keys []string) (end func(err error)) {
	deadline, bounded := ctx.Deadline()
	wait := time.Until(deadline)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey == nil || len(keys) == 0 {
		return func(error) {}
	}
	if bounded {
		c.longest = max(c.longest, wait)
	} else {
		c.unbounded++
	}
	for _, k := range keys {
		n := c.byKey[k]
		n.Begun++
		c.byKey[k] = n
	}
	return func(err error) {
		if err == nil {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, k := range keys {
			n := c.byKey[k]
			n.Failed++
			c.byKey[k] = n
		}
	}
}

func (c *storeCalls) of(key string) callCount {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byKey[key]
}

// deadlines returns the furthest deadline of the calls, and how many had none.
func (c *storeCalls) deadlines() (longest time.Duration, unbounded int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.longest, c.unbounded
}

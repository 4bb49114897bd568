package cache

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// admission bounds the loads of one query: so many run, so many wait, the rest is refused.
type admission struct {
	query     string
	slots     *semaphore.Weighted
	max       int
	maxQueue  int64
	waitLimit time.Duration
	queue     atomic.Int64
	pace      atomic.Int64 // a moving average of how long loads take, in nanoseconds
}

func newAdmission(query string, loads, queue int, waitLimit time.Duration) *admission {
	return &admission{
		query: query, slots: semaphore.NewWeighted(int64(loads)), max: loads,
		maxQueue: int64(queue), waitLimit: waitLimit,
	}
}

// enter waits for a slot, at most as long as a load may take, and fails with an
// *OverloadError when the queue is full or the wait too long, or with ctx's cause.
func (a *admission) enter(ctx context.Context) error {
	if a.slots.TryAcquire(1) {
		return nil
	}
	if a.queue.Add(1) > a.maxQueue {
		a.queue.Add(-1)
		return a.overload()
	}
	defer a.queue.Add(-1)
	waitCtx, cancel := context.WithTimeout(ctx, a.waitLimit)
	defer cancel()
	if a.slots.Acquire(waitCtx, 1) == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return a.overload()
}

// tryEnter takes a slot only if one is free: for work that can be left undone.
func (a *admission) tryEnter() bool { return a.slots.TryAcquire(1) }

// release gives back a slot that was not used.
func (a *admission) release() { a.slots.Release(1) }

// leave gives back a slot after a load.
func (a *admission) leave(took time.Duration) {
	old := a.pace.Load()
	if old == 0 {
		old = int64(took)
	}
	a.pace.Store(old + (int64(took)-old)/8) // a lost update loses one sample of an average
	a.slots.Release(1)
}

func (a *admission) overload() error {
	const most = 30 * time.Second
	rounds := a.queue.Load()/int64(a.max) + 1
	after := time.Duration(a.pace.Load() * rounds)
	return &OverloadError{Query: a.query, RetryAfter: min(max(after, 100*time.Millisecond), most)}
}

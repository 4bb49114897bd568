package cache

import (
	fifo "container/list" // list is a function
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// admission bounds the loads of one query: so many run, so many wait, the rest is refused. A load
// that waits for another load gives its slot back meanwhile (see runningLoad), so no load ever
// waits for a slot that is held by one which waits for it.
type admission struct {
	query     string
	max       int
	maxQueue  int
	waitLimit time.Duration
	pace      atomic.Int64 // a moving average of how long loads take, in nanoseconds

	mu      sync.Mutex
	running int              // loads that have a slot; guarded by mu
	waiting [lanes]fifo.List // of *ticket; empty while a slot is free; guarded by mu
}

// lane is a queue for slots.
type lane uint8

const (
	laneCallers lane = iota // at most MaxQueue
	laneNested              // for loads that are waited for by loads, which were admitted before: never refused
	laneRest                // all but one of the loads of a GetMany, which count as one caller: at most MaxLoads of each
	lanes
)

// laneOrder is that in which a free slot is given away. Nested loads come first: what was begun is
// to end. The rest of a batch comes last, so that other callers keep their share.
var laneOrder = [lanes]lane{laneNested, laneCallers, laneRest}

type ticket struct {
	granted chan struct{} // closed when the slot is its own
	lane    lane          // guarded by admission.mu, as is what follows
	place   *fifo.Element // nil once granted
}

func newAdmission(query string, loads, queue int, waitLimit time.Duration) *admission {
	return &admission{query: query, max: loads, maxQueue: queue, waitLimit: waitLimit}
}

// enter waits for a slot, at most as long as a load may take, and fails with an
// *OverloadError when the queue is full or the wait too long, or with ctx's cause. The rest of a
// batch waits with the callers after that time, until ctx ends.
func (a *admission) enter(ctx context.Context, l lane) error {
	t, err := a.queueUp(l)
	if t == nil {
		return err
	}
	late := time.NewTimer(a.waitLimit)
	defer late.Stop()
	for {
		select {
		case <-t.granted:
			return nil
		case <-ctx.Done():
			if !a.giveUp(t) {
				a.release()
			}
			return context.Cause(ctx)
		case <-late.C:
			if l == laneRest {
				a.move(t, laneCallers)
			} else if a.giveUp(t) {
				return a.overload()
			}
		}
	}
}

// queueUp takes a slot if one is free, and returns nil; else a ticket for one, or an error.
func (a *admission) queueUp(l lane) (*ticket, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running < a.max {
		a.running++
		return nil, nil
	}
	if l == laneCallers && a.waiting[l].Len() >= a.maxQueue {
		return nil, a.overloadOf(a.waiting[l].Len())
	}
	t := &ticket{granted: make(chan struct{}), lane: l}
	t.place = a.waiting[l].PushBack(t)
	return t, nil
}

// giveUp takes a ticket from its queue, unless its slot was granted.
func (a *admission) giveUp(t *ticket) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.place == nil {
		return false
	}
	a.waiting[t.lane].Remove(t.place)
	return true
}

func (a *admission) move(t *ticket, to lane) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.place != nil {
		a.waiting[t.lane].Remove(t.place)
		t.lane, t.place = to, a.waiting[to].PushBack(t)
	}
}

// tryEnter takes a slot only if one is free: for work that can be left undone.
func (a *admission) tryEnter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running >= a.max {
		return false
	}
	a.running++
	return true
}

// take takes a slot whether or not one is free: for a load that goes on in any case.
func (a *admission) take() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running++
}

// release gives back a slot, to the next that waits.
func (a *admission) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
	for _, l := range laneOrder {
		for a.running < a.max && a.waiting[l].Len() > 0 {
			t := a.waiting[l].Remove(a.waiting[l].Front()).(*ticket)
			t.place = nil
			a.running++
			close(t.granted)
		}
	}
}

// measure notes how long a load took.
func (a *admission) measure(took time.Duration) {
	old := a.pace.Load()
	if old == 0 {
		old = int64(took)
	}
	a.pace.Store(old + (int64(took)-old)/8) // a lost update loses one sample of an average
}

func (a *admission) overload() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.overloadOf(a.waiting[laneCallers].Len())
}

func (a *admission) overloadOf(queue int) error {
	const most = 30 * time.Second
	rounds := min(queue/a.max+1, 1000) // more would be beyond most, or overflow
	after := min(time.Duration(a.pace.Load()), most) * time.Duration(rounds)
	return &OverloadError{Query: a.query, RetryAfter: min(max(after, 100*time.Millisecond), most)}
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/event"
)

// One call of the store.
//
// A call that runs out of time says little: it may have been large, or stood in line behind a
// large one, or the machine was busy. The more so during a recovery, in which every answer comes
// from the source: if what is slow then opened the breaker, the load that an outage leaves behind
// would keep the recovery from ever coming to its end. So while the store is validated, or has
// answered the last probe of a recovery, a timeout is put aside, and the prober makes small calls
// of both kinds, a read and a write. Only if they get no answer either has the store failed.
// Otherwise the timeouts are reported (StoreFailed), their callers went to the source, and the
// store keeps its trust.
//
// A deadline is shared by the calls that begin at about the same time (see withDeadline), and a
// change of identity that a call meets (ErrUnproven) is no failure of the store but a reason to
// recover.
//
// The breaker judges the store by StoreTimeout, never by the patience of a caller. A caller that
// would leave before StoreTimeout must not count as a failure: callers in a hurry would open the
// breaker for all others. Nor may it end the call: if every caller is in a hurry, no call would
// ever last long enough to show that the store hangs, and each caller would spend its whole time
// on it. So such a call runs on a goroutine of its own, to its own end, and the caller leaves it
// behind (detached).

const mostDetached = 64 // calls of the store on goroutines of their own

// errCallerLeft marks a store call that ended with its caller's context: it says
// nothing about the store.
var errCallerLeft = errors.New("caller left")

// errSlow marks a store call that ran out of time while nothing else was known to be wrong.
var errSlow = errors.New("no answer in time")

// call runs one store operation within the timeout, unless the breaker is open. A caller whose
// deadline is nearer gets the cause of its context then, and f may still be running: what f
// writes may only be read if there was no error.
func (h *health) call(ctx context.Context, op string, f func(context.Context) error) error {
	return h.callFor(ctx, op, 0, f)
}

// callFor is call with extra time for what the operation carries.
func (h *health) callFor(ctx context.Context, op string, extra time.Duration, f func(context.Context) error) error {
	if h.down.Load() {
		return ErrUnavailable
	}
	if h.inHurry(ctx, extra) {
		done := make(chan error, 1)
		if h.detach(func() { done <- h.callAttached(context.WithoutCancel(ctx), op, extra, f) }) {
			select {
			case err := <-done:
				return err
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return h.callAttached(ctx, op, extra, f)
}

// inHurry says whether a caller leaves before the timeout of a call.
func (h *health) inHurry(ctx context.Context, extra time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < h.timeout+extra
}

// detach runs f on a goroutine of its own, unless too many do already: then callers bring their
// own, and what they leave is not counted.
func (h *health) detach(f func()) bool {
	select {
	case h.detached <- struct{}{}:
	default:
		return false
	}
	started := h.start(func(context.Context) {
		defer func() { <-h.detached }()
		f()
	})
	if !started {
		<-h.detached
	}
	return started
}

// callAttached runs f on the goroutine of the caller.
func (h *health) callAttached(ctx context.Context, op string, extra time.Duration, f func(context.Context) error) error {
	err := h.try(ctx, extra, f)
	switch {
	case err == nil, errors.Is(err, driver.ErrLeaseLost):
		return err
	case errors.Is(err, errCallerLeft):
		return context.Cause(ctx)
	case errors.Is(err, driver.ErrUnproven):
		h.suspect(err, false)
		return err
	}
	h.observe(ctx, event.StoreFailed{Op: op, Err: err})
	if h.down.Load() {
		h.suspect(err, true)
	} else if errors.Is(err, errSlow) {
		h.slow.Add(1)
		select {
		case h.confirms <- struct{}{}:
		default: // it is due already
		}
	}
	return err
}

func (h *health) try(ctx context.Context, extra time.Duration, f func(context.Context) error) error {
	_, err := h.breaker.Execute(func() (struct{}, error) {
		limited, own, cancel := h.withDeadline(ctx, extra)
		defer cancel()
		err := callStore(limited, f)
		switch {
		case err == nil:
		case own && ctx.Err() != nil:
			err = fmt.Errorf("%w: %w", errCallerLeft, err)
		case errors.Is(err, context.DeadlineExceeded) && (h.validated.Load() || h.answering.Load()):
			err = fmt.Errorf("%w: %w", errSlow, err)
		}
		return struct{}{}, err
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return ErrUnavailable
	}
	return err
}

// callStore runs a call of the store, whose panic is a failure like any other.
func callStore(ctx context.Context, f func(context.Context) error) (err error) {
	defer caught("Store", &err)
	return f(ctx)
}

// confirmTime is how long the store has to prove that it answers small calls: what stands before
// them in a connection has to pass first.
func (h *health) confirmTime() time.Duration { return min(4*h.timeout, trustLimit/2) }

// confirm finds out who is to blame for calls that ran out of time, and opens the breaker if the
// store does not answer small ones either.
func (h *health) confirm(ctx context.Context) {
	probe, cancel := context.WithTimeout(ctx, h.confirmTime())
	defer cancel()
	err := callStore(probe, func(ctx context.Context) error {
		if _, err := h.store.Read(ctx, []Tag{Everything}, nil); err != nil {
			return err
		}
		return h.store.CheckWrites(ctx) // perhaps over another connection
	})
	slow := h.slow.Swap(0) // with those that ran out of time during these two
	switch {
	case ctx.Err() != nil:
	case err == nil:
		if h.said.due("slow calls") > 0 {
			h.log.WarnContext(ctx, "calls of the store ran out of time, but it answers small ones: their callers went to the source",
				"calls", slow, "remedy", "look for large answers and a busy network or machine, or raise Config.StoreTimeout", "next_reminder", remindEvery)
		}
	case errors.Is(err, driver.ErrUnproven):
		h.suspect(err, false)
	default:
		for range tripAfter {
			_, _ = h.breaker.Execute(func() (struct{}, error) { return struct{}{}, err })
		}
		h.suspect(err, true)
	}
}

// sharedDeadline is a context for the calls that begin at about the same time.
type sharedDeadline struct {
	context.Context
	cancel context.CancelFunc
	since  time.Time
}

// withDeadline returns a context that ends within the timeout, give or take a tenth. Calls that
// begin at about the same time share it: a timer for each would cost a hit more than
// all the rest. It does not end when the caller cancels: by then no caller waits for the
// result. A caller with a nearer deadline keeps its own context: own. A call that carries much has
// one that ends later.
// Decision 19.
func (h *health) withDeadline(ctx context.Context, extra time.Duration) (limited context.Context, own bool, cancel context.CancelFunc) {
	if h.inHurry(ctx, extra) {
		return ctx, true, noCancel
	}
	if extra > 0 {
		limited, cancel = context.WithTimeout(ctx, h.timeout+extra)
		return limited, true, cancel
	}
	now := time.Now()
	d := h.deadline.Load()
	if d == nil || now.Sub(d.since) > h.timeout/10 {
		ends, cancel := context.WithDeadline(context.Background(), now.Add(h.timeout))
		d = &sharedDeadline{ends, cancel, now}
		h.deadline.Store(d) // the one before ends by itself, with the last call that uses it
	}
	return d, false, noCancel
}

func noCancel() {}

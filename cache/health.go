package cache

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/event"
)

const (
	tripAfter  = 5   // failures in a row
	tripRatio  = 0.5 // or this share of at least tripVolume calls within tripWindow
	tripVolume = 20
	tripWindow = 10 * time.Second
)

// health decides what the store is good for. Two questions, two answers:
//
//   - May it be asked at all? Not while the breaker is open: then nothing is paid for it.
//     Only the prober closes the breaker; no request is spent on trying.
//   - Is it validated: may its entries be served? Not at the start, after an outage, a failed
//     bump, or a change of identity, until everything that was written meanwhile has
//     been delivered.
//
// While it is not validated, every answer comes from the source and none is stored. This is why
// an answer is never wrong after trouble. What "delivered" takes is in recovery.go; how one call
// is made, and who is to blame when it fails, in storecall.go.
type health struct {
	store   driver.Store
	timeout time.Duration // of one call
	log     *slog.Logger
	observe func(context.Context, Event)
	bumps   *recentBumps
	breaker *gobreaker.CircuitBreaker[struct{}]
	start   func(func(context.Context)) bool // Cache.start
	said    reminders                        // also of what the Cache says
	written time.Time                        // begin of the last check of writes that succeeded; of run's goroutine

	detached  chan struct{} // a slot for each detached call
	deadline  atomic.Pointer[sharedDeadline]
	slow      atomic.Uint32 // calls that ran out of time since it was last found out who is to blame
	confirms  chan struct{} // to find that out
	down      atomic.Bool   // the breaker is not closed
	answering atomic.Bool   // the last probe was answered: what runs out of time is slow, and no failure
	validated atomic.Bool   // changed under mu
	wake      chan struct{}

	mu         sync.Mutex
	suspicions uint64 // reasons to distrust so far, without the bumps that failed
	undrained  bool   // what other writers committed may be missing from the store
	outage     bool   // the store was unreachable since it was last validated
	outages    uint64 // how often it was found to be
	identity   string // of the store that was last brought up to date; empty before
	since      time.Time
	err        error         // why it is not validated
	serving    chan struct{} // closed while validated
	drains     []*func(context.Context) error
}

func newHealth(cfg Config, observe func(context.Context, Event), start func(func(context.Context)) bool, bumps *recentBumps) *health {
	h := &health{
		store: cfg.Store, timeout: cfg.StoreTimeout, log: cfg.Logger, observe: observe, bumps: bumps,
		start: start, detached: make(chan struct{}, mostDetached), confirms: make(chan struct{}, 1),
		wake: make(chan struct{}, 1), since: time.Now(), serving: make(chan struct{}),
	}
	h.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  1,
		Interval:     tripWindow,
		BucketPeriod: tripWindow / 10,
		Timeout:      probeEvery / 2, // the prober sets the pace: by its next try, one is allowed
		ReadyToTrip: func(n gobreaker.Counts) bool {
			return n.ConsecutiveFailures >= tripAfter ||
				n.Requests >= tripVolume && float64(n.TotalFailures) >= tripRatio*float64(n.Requests)
		},
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, driver.ErrLeaseLost) },
		IsExcluded: func(err error) bool {
			return errors.Is(err, errCallerLeft) || errors.Is(err, errSlow) || errors.Is(err, driver.ErrUnproven)
		},
		OnStateChange: func(_ string, _, to gobreaker.State) {
			h.down.Store(to != gobreaker.StateClosed)
			h.tell(to)
		},
	})
	return h
}

// suspect ends the trust in entries and starts a recovery.
func (h *health) suspect(err error, outage bool) { h.suspectAs(slog.LevelWarn, err, outage) }

func (h *health) suspectAs(level slog.Level, err error, outage bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.suspicions++
	h.undrained = true
	if outage {
		h.noteOutage()
	}
	h.distrust(level, err)
}

// bumpFailed is suspect for a bump of this process, which is all that may be missing: recentBumps
// has it.
func (h *health) bumpFailed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.distrust(slog.LevelWarn, err)
}

// distrust ends the trust in entries. mu is held.
func (h *health) distrust(level slog.Level, err error) {
	h.err = err
	if h.validated.Swap(false) {
		h.serving = make(chan struct{})
		h.since = time.Now()
		h.tell(h.breaker.State())
		h.log.Log(context.Background(), level, "stored answers are not served until the cache has recovered; answering from the source", "err", err)
	}
	select {
	case h.wake <- struct{}{}:
	default: // a recovery is due already
	}
}

// noteOutage notes that the store does not answer. mu is held.
func (h *health) noteOutage() {
	h.outage, h.undrained = true, true
	h.outages++
	h.answering.Store(false)
}

// tell tells the observer of the state of the store.
func (h *health) tell(s gobreaker.State) {
	state := event.StoreState{Validated: h.validated.Load()}
	switch s {
	case gobreaker.StateHalfOpen:
		state.Breaker = event.BreakerHalfOpen
	case gobreaker.StateOpen:
		state.Breaker = event.BreakerOpen
	}
	h.observe(context.Background(), state)
}

// begin tries the store once, before there is anything to protect.
// Decision 6.
func (h *health) begin(ctx context.Context) {
	h.suspect(errors.New("not yet asked"), false)
	if h.recover(ctx) {
		<-h.wake
	}
}

// run recovers whenever there is doubt, until ctx ends.
func (h *health) run(ctx context.Context) {
	check := time.NewTimer(jitter(checkEvery))
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.confirms:
			h.confirm(ctx)
			continue
		case <-h.wake:
		case <-check.C:
			check.Reset(h.checkWrites(ctx))
		}
		for !h.isValidated() && !h.recover(ctx) {
			if !pause(ctx, jitter(probeEvery)) {
				return
			}
		}
	}
}

func (h *health) isValidated() bool { return h.validated.Load() }

// WaitServing returns nil as soon as stored answers are served: the store answers, and what may
// have been missing from it has been delivered. A program that has just made the relay of an
// outbox waits for it before it takes requests, with a bound: answers come without it too,
// from the source. It returns the cause of ctx if that ends first, or ErrClosed.
func (c *Cache) WaitServing(ctx context.Context) error {
	c.health.mu.Lock()
	serving := c.health.serving
	c.health.mu.Unlock()
	select {
	case <-serving:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.ctx.Done():
		return ErrClosed
	}
}

// Health of the shared tier as one process sees it.
type Health struct {
	// State is "ok"; "recovering" while the store answers and what it holds is not served yet,
	// also because it takes no writes;
	// or "down". Answers come in every state.
	State string
	Since time.Time // when it became "ok", or ceased to be
	Err   error     // why not ok; nil when ok
}

// Health returns what the cache presently thinks of its store. It asks no server.
func (c *Cache) Health() Health {
	h := c.health
	h.mu.Lock()
	defer h.mu.Unlock()
	state := "ok"
	switch {
	case h.down.Load():
		state = "down"
	case !h.validated.Load():
		state = "recovering"
	}
	return Health{State: state, Since: h.since, Err: h.err}
}

// Suspect says that invalidations may be missing from the store: nothing stored is served
// until every function of OnRecovery has returned nil. It is for adapters, like the relay of
// an outbox that begins to take part.
func (c *Cache) Suspect(why error) { c.health.suspectAs(slog.LevelInfo, why, false) }

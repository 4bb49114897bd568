package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"

	"github.com/sony/gobreaker/v2"
)

const (
	tripAfter    = 5   // failures in a row
	tripRatio    = 0.5 // or this share of at least tripVolume calls within tripWindow
	tripVolume   = 20
	tripWindow   = 10 * time.Second
	probeEvery   = 100 * time.Millisecond
	drainTimeout = 30 * time.Second
	mostDetached = 64 // calls of the store on goroutines of their own

	// checkEvery is how often the store must prove that it takes writes, and trustLimit how long
	// after the last proof, at most, its entries are served. A refusal ends the trust at once; a
	// slow store has some tries.
	checkEvery = 400 * time.Millisecond
	trustLimit = 900 * time.Millisecond // and probeEvery, if this process was held up itself
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
// an answer is never wrong after trouble, and the whole story is what "delivered" takes.
//
// What can be missing from the store after an outage is of three kinds. This process's own bumps
// that failed: recentBumps has them. Those that the store had and lost, because another
// incarnation of it answers now (a restart, the promotion of a replica that lagged): the
// identity differs, and recentBumps has those of the last seconds. And what other processes
// and programs committed meanwhile: that is in the outbox, which the functions of OnRecovery
// drain.
//
// One interleaving needs a wait. The breaker of this process closes, but another process has
// not found the store yet. It still commits without a fence:
//
//	this process             other process            store
//	probe: it answers
//	drain: all delivered
//	serve stored answers     COMMIT, not fenced
//	hit: the old answer      (row in the outbox)
//
// So after an outage, and after a change of identity, the recovery first waits for as long as
// any process takes to find the store: two probes and one call. Then every process that can
// reach the store fences again, and what was committed without a fence is in the outbox before
// it is drained.
//
// What goes wrong during a recovery counts. Each suspicion raises a counter; a recovery that
// ends under another count than it began with has not seen the end of it, and begins again.
//
//	suspect(1) -> recover: identity, wait, deliver ……………… count is 2: not validated
//	                              suspect(2): a bump fails
//	           -> recover again
//
// Reads prove little. A store that answers reads and refuses writes (it is full, it lacks replicas,
// an operator paused it) still has the entries of before, while writers cannot bump them:
//
//	this process             other process            store
//	                                                  refuses writes from here on
//	                         fence: refused
//	                         COMMIT, bump: refused    (row in the outbox)
//	hit: the old answer      serves nothing stored
//
// The other process knows; this one might never. So the trust is a lease that each process renews
// by a write of its own, CheckWrites, and it ends trustLimit after the last that succeeded. A
// recovery needs such a write before it waits and drains: what other processes could not bump
// before is in the outbox then.
//
// A call that runs out of time says little: it may have been large, or stood in line behind a
// large one, or the machine was busy. So while the store is validated, a timeout is put aside,
// and the prober makes small calls of both kinds, a read and a write. Only if they get no answer
// either has the store failed. Otherwise the timeouts are reported (StoreFailed), their callers
// went to the source, and the store keeps its trust.
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
	validated atomic.Bool   // changed under mu
	wake      chan struct{}

	mu         sync.Mutex
	suspicions uint64 // reasons to distrust so far
	outage     bool   // the store was unreachable since it was last validated
	identity   string // when it was last validated; empty before
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
	h.observe(ctx, StoreFailed{Op: op, Err: err})
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
		case errors.Is(err, context.DeadlineExceeded) && h.validated.Load():
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

// suspect ends the trust in entries and starts a recovery.
func (h *health) suspect(err error, outage bool) { h.suspectAs(slog.LevelWarn, err, outage) }

func (h *health) suspectAs(level slog.Level, err error, outage bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.suspicions++
	h.outage = h.outage || outage
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

// tell tells the observer of the state of the store.
func (h *health) tell(s gobreaker.State) {
	state := StoreState{Validated: h.validated.Load()}
	switch s {
	case gobreaker.StateHalfOpen:
		state.Breaker = BreakerHalfOpen
	case gobreaker.StateOpen:
		state.Breaker = BreakerOpen
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

// checkWrites ends the trust in a store that takes no writes. It returns when to check again.
// Decision 42.
func (h *health) checkWrites(ctx context.Context) time.Duration {
	began := time.Now()
	limit := h.written.Add(trustLimit)
	if once := began.Add(probeEvery); once.After(limit) {
		limit = once // this process was held up itself
	}
	bounded, cancel := context.WithDeadline(ctx, limit)
	defer cancel()
	err := h.call(bounded, "check writes", h.store.CheckWrites)
	switch {
	case err == nil:
		h.written = began
	case ctx.Err() != nil || !h.isValidated(): // closing, or the trust has ended for another reason
	case errors.Is(err, context.DeadlineExceeded) && time.Until(limit) > probeEvery:
		return probeEvery // it may only be slow
	default:
		h.suspect(fmt.Errorf("the store does not prove that it takes writes: %w", err), true)
	}
	return jitter(checkEvery)
}

func (h *health) isValidated() bool { return h.validated.Load() }

// recover makes one attempt at trusting the store again.
func (h *health) recover(ctx context.Context) bool {
	h.mu.Lock()
	seen, outage, before := h.suspicions, h.outage, h.identity
	h.mu.Unlock()

	var identity string
	err := h.try(ctx, 0, func(ctx context.Context) (err error) {
		identity, err = h.store.Identity(ctx)
		return err
	})
	if err != nil {
		return h.failed(ctx, "identity", err, "see that the store runs at the configured address and lets this program in")
	}
	if !h.takesWrites(ctx) {
		return false
	}
	// The breaker is closed: this process fences and bumps again. Others may need another
	// probe to find the store, and until then they commit without fencing. Whoever
	// drained the outbox now and served stored answers would miss those writes; so first wait until
	// every process that can reach the store has begun to use it.
	changed := before != "" && identity != before
	if (outage && before != "" || changed) && !pause(ctx, 2*probeEvery+h.timeout) {
		return false
	}
	if err := h.deliver(ctx, changed); err != nil {
		return h.failed(ctx, "recover", err, "what was invalidated meanwhile could not be delivered")
	}
	if time.Since(h.written) > checkEvery && !h.takesWrites(ctx) {
		return false
	}

	h.mu.Lock()
	defer h.mu.Unlock()
	if h.suspicions != seen {
		return false // something else went wrong meanwhile
	}
	if before != "" {
		h.log.InfoContext(ctx, "stored answers are served again", "after", time.Since(h.since), "identity_changed", changed)
	}
	h.identity, h.outage, h.err, h.since = identity, false, nil, time.Now()
	h.validated.Store(true)
	close(h.serving)
	h.tell(h.breaker.State())
	return true
}

// takesWrites checks that the store does, for a recovery.
func (h *health) takesWrites(ctx context.Context) bool {
	began := time.Now()
	if err := h.try(ctx, 0, h.store.CheckWrites); err != nil {
		return h.failed(ctx, "check writes", fmt.Errorf("the store answers and does not take writes: %w", err),
			"see the store's memory and eviction, its replicas, and the rights of the account")
	}
	h.written = began
	return true
}

// failed notes why an attempt to recover failed, and says so now and then. It returns false.
func (h *health) failed(ctx context.Context, op string, err error, remedy string) bool {
	if ctx.Err() != nil {
		return false // closing
	}
	ofStore := op != "recover"
	h.mu.Lock()
	h.err, h.outage = err, h.outage || ofStore
	h.mu.Unlock()
	if ofStore {
		h.observe(ctx, StoreFailed{Op: op, Err: err})
	}
	if n := h.said.due(op); n > 0 {
		h.log.WarnContext(ctx, "stored answers cannot be served, trying again", "attempts", n, "err", err, "remedy", remedy)
	}
	return false
}

// deliver brings to the store every bump that it may lack: this process's own,
// and those that the outbox still holds, of any writer.
func (h *health) deliver(ctx context.Context, all bool) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	var instead []Tag
	err := callStore(ctx, func(ctx context.Context) (err error) {
		instead, err = h.bumps.replay(ctx, func(ctx context.Context, tags []Tag) error {
			ctx, cancel := context.WithTimeout(ctx, h.confirmTime()+allowance(len(tags), 0))
			defer cancel()
			return h.store.Bump(ctx, tags, driver.NoMark)
		}, all)
		return err
	})
	if len(instead) > 0 {
		h.observe(ctx, Widened{Tags: instead})
		h.log.ErrorContext(ctx, "the store refuses to invalidate some tags, so their families were invalidated instead",
			"families", instead[:min(len(instead), 10)], "remedy", "see in the log of the store, or in the rights of its account, which tags it refuses")
	}
	if err != nil {
		return fmt.Errorf("replay bumps: %w", err)
	}
	h.mu.Lock()
	drains := h.drains
	h.mu.Unlock()
	for _, drain := range drains {
		if err := (*drain)(ctx); err != nil {
			return fmt.Errorf("drain outbox: %w", err)
		}
	}
	return nil
}

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

// OnRecovery adds a function that delivers invalidations recorded elsewhere, such as the
// outbox of a database. After an outage no entry is served before it has returned nil;
// it is tried again until it does. Its context ends after 30 s. The function that OnRecovery
// returns removes it.
func (c *Cache) OnRecovery(drain func(context.Context) error) (remove func()) {
	h := c.health
	h.mu.Lock()
	defer h.mu.Unlock()
	drain = c.protectDrain(drain)
	added := &drain
	h.drains = append(h.drains, added)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.drains = slices.DeleteFunc(slices.Clone(h.drains), func(d *func(context.Context) error) bool { return d == added })
	}
}

// protectDrain makes of a function of OnRecovery one that returns an error whatever it does, when
// its context ends at the latest. One that goes on after that is not called again until it has
// ended.
func (c *Cache) protectDrain(drain func(context.Context) error) func(context.Context) error {
	var runs atomic.Bool
	return func(ctx context.Context) error {
		if !runs.CompareAndSwap(false, true) {
			return errors.New("the last call still runs, though its context has ended")
		}
		_, err := protect(ctx, c, "OnRecovery", func() { runs.Store(false) }, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, drain(ctx)
		})
		c.uncaught(ctx, "", err)
		return err
	}
}

// Suspect says that invalidations may be missing from the store: nothing stored is served
// until every function of OnRecovery has returned nil. It is for adapters, like the relay of
// an outbox that begins to take part.
func (c *Cache) Suspect(why error) { c.health.suspectAs(slog.LevelInfo, why, false) }

// pause waits for d, and returns false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/event"
)

// How a store comes to be trusted, and ceases to be.
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
// ends under another count than it had before it delivered has not seen the end of it, and begins again.
// Another outage, or another identity, begins the wait again too.
//
//	suspect(1) -> recover: identity, wait, deliver ……………… count is 2: not validated
//	                                       suspect(2): the identity differs
//	           -> recover again
//
// A bump of this process that fails is no such reason. It is known what is missing, and it is
// repeated before anything stored is served, however far the recovery is; if it fails alone, the
// outbox is not drained at all. To drain takes the database, which has all the load while nothing
// stored is served, and a busy machine is what makes bumps run out of time: each would prolong
// what makes the next one fail. Decision 52.
//
//	suspect(1) -> recover: identity, wait, deliver ……………… one is owed: not validated
//	                                          a bump fails
//	           -> recover: identity, bump it
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

const (
	probeEvery   = 100 * time.Millisecond
	drainTimeout = 30 * time.Second

	// checkEvery is how often the store must prove that it takes writes, and trustLimit how long
	// after the last proof, at most, its entries are served. A refusal ends the trust at once; a
	// slow store has some tries.
	checkEvery = 400 * time.Millisecond
	trustLimit = 900 * time.Millisecond // and probeEvery, if this process was held up itself
)

// checkWrites ends the trust in a store that takes no writes. It returns when to check again.
// Decision 42.
func (h *health) checkWrites(ctx context.Context) time.Duration {
	if isInProcess(h.store) {
		// Nothing lies between it and this process. That a proof is late would only show that
		// the processor is busy, and then is no time to ask the source for every answer.
		return time.Hour
	}
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

// recover makes one attempt at trusting the store again.
func (h *health) recover(ctx context.Context) bool {
	h.mu.Lock()
	outages, outage, before := h.outages, h.outage, h.identity
	h.mu.Unlock()

	identity, ok := h.identify(ctx)
	if !ok || !h.takesWrites(ctx) {
		return false
	}
	h.answering.Store(true)
	// The breaker is closed: this process fences and bumps again. Others may need another
	// probe to find the store, and until then they commit without fencing. A process that
	// drained the outbox now and served stored answers would miss those writes; so first wait until
	// every process that can reach the store has begun to use it.
	changed := before != "" && identity != before
	waits := outage && before != "" || changed
	if waits && !pause(ctx, 2*probeEvery+h.timeout) {
		return false
	}
	h.mu.Lock()
	seen, again, drain := h.suspicions, h.outages != outages, h.undrained || changed
	h.mu.Unlock()
	if again {
		return false
	}
	if waits { // after the count: an identity that changes now is a suspicion that counts
		if now, ok := h.identify(ctx); !ok || now != identity {
			return false
		}
	}
	if err := h.deliver(ctx, changed, drain); err != nil {
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
	h.identity, h.outage, h.undrained = identity, false, false
	if h.bumps.owed() {
		return false // a bump failed meanwhile, and is all that is missing
	}
	if before != "" {
		h.log.InfoContext(ctx, "stored answers are served again", "after", time.Since(h.since), "identity_changed", changed)
	}
	h.err, h.since = nil, time.Now()
	// What ran out of time meanwhile is of the past. The load is never higher than now, when all
	// answers came from the source; who is to blame for what is slow can be seen when they do not.
	select {
	case <-h.confirms:
	default:
	}
	h.validated.Store(true)
	close(h.serving)
	h.tell(h.breaker.State())
	return true
}

// identify asks for the identity of the store.
func (h *health) identify(ctx context.Context) (identity string, ok bool) {
	err := h.try(ctx, 0, func(ctx context.Context) (err error) {
		identity, err = h.store.Identity(ctx)
		return err
	})
	if err != nil {
		return "", h.failed(ctx, "identity", err, "see that the store runs at the configured address and lets this program in")
	}
	return identity, true
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
	if h.err = err; ofStore {
		h.noteOutage()
	}
	h.mu.Unlock()
	if ofStore {
		h.observe(ctx, event.StoreFailed{Op: op, Err: err})
	}
	if n := h.said.due(op); n > 0 {
		h.log.WarnContext(ctx, "stored answers cannot be served, trying again", "attempts", n, "err", err, "remedy", remedy)
	}
	return false
}

// deliver brings to the store every bump that it may lack: this process's own, all of the last
// seconds or those that failed, and with drain those that the outbox still holds, of any writer.
func (h *health) deliver(ctx context.Context, all, drain bool) error {
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
		h.observe(ctx, event.Widened{Tags: instead})
		h.log.ErrorContext(ctx, "the store refuses to invalidate some tags, so their families were invalidated instead",
			"families", instead[:min(len(instead), 10)], "remedy", "see in the log of the store, or in the rights of its account, which tags it refuses")
	}
	if err != nil {
		return fmt.Errorf("replay bumps: %w", err)
	}
	if !drain {
		return nil
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

package cache

import (
	"context"
	"errors"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/event"
)

// A miss, from the caller that finds nothing to the entry in the store.
//
// Three rules keep it exact, and two keep it cheap.
//
// The guard is from before the load. The caller has read the versions of the tags together with
// the entry that was not there, or not valid. Whatever is loaded now is stored under the guard
// of those versions, however long the load takes:
//
//	loader                           writer
//	read versions: course:7 = a
//	SELECT title            -> old
//	                                 UPDATE title, fence: course:7 = b, COMMIT, bump: course:7 = c
//	store old under guard(a)
//	next reader: guard(c), a miss
//
// So a late fill needs no coordination with the writer; its entry is born invalid.
//
// A mark means that versions prove nothing. While a writer is in flight, its commit may become
// visible at any moment, so a reader that meets a mark loads and stores nothing (bypass). The
// same holds when the store cannot be asked.
//
// A caller joins a load only if the load cannot have begun before something that the caller
// must see. Under a guard that the caller has just seen to be current, it may join a load
// that runs under the same guard: no write was acknowledged between the two. In a bypass it may
// only join a load that has not begun. calls holds these rules.
//
// One process loads. The first caller of a process claims the lease of the key in the store,
// for its guard. Claims under other guards do not stand in its way: a load that began under
// older versions is of no use now. The other processes wait until the key is settled, which the
// store announces, or until the lease may have run out because its holder died, and then look
// again: at the versions first, since what they waited for may be outdated by then.
//
// A load that fails is settled too, as a failure that is held for a moment, so that a thousand
// callers of a source that is down are one load each time.
//
//	process A                       store                     process B
//	claim key, guard a  ----------> lease: A, a
//	                                held: wait 750 ms <------ claim key, guard a
//	load … renew, renew             lease: A, a
//	answer the waiters of A
//	settle: entry under a  -------> entry, no lease
//	                                announce key -----------> read versions and entry: a hit
//
// The waiters of A are answered before the store has the entry. The call of A goes on until it
// has, so a caller of A that comes in between joins it instead of loading again.
//
// A load may ask for other answers, and waits for their loads like any caller (runningLoad).
//
// A load belongs to the cache and not to the caller that began it: it has a context of its
// own, with its own deadline, and each waiter leaves with its own. Close ends all loads.

const (
	// leaseTTL is how long a loader that vanished delays the next one, at most. It is
	// renewed thrice in that time, so that one lost renewal does no harm.
	leaseTTL   = 750 * time.Millisecond
	renewEvery = leaseTTL / 3
)

// join waits for the load of an answer under guard, beginning it if there is none.
func (d *Cached[P, V]) join(ctx context.Context, r *request[P], guard driver.Guard) (Answer[V], error) {
	if err := d.mayAsk(ctx, r.key); err != nil {
		return Answer[V]{}, err
	}
	call, lead := d.calls.join(r.key, guard)
	completed := !lead && call.completed()
	if lead {
		d.launch(ctx, r.key, call, func(ctx context.Context) { d.runGuarded(ctx, call, r, guard) })
	}
	return d.wait(ctx, call, lead, completed)
}

// bypass waits for a load that begins after now and is stored nowhere.
func (d *Cached[P, V]) bypass(ctx context.Context, r *request[P], detail string) (Answer[V], error) {
	if err := d.mayAsk(ctx, r.key); err != nil {
		return Answer[V]{}, err
	}
	run := func(call *call[V]) {
		d.launch(ctx, r.key, call, func(ctx context.Context) { d.runBypass(ctx, call, r, detail) })
	}
	call, lead := d.calls.joinBypass(r.key, run)
	if lead {
		run(call)
	}
	return d.wait(ctx, call, lead, false)
}

// launch runs a call on a goroutine of the cache, with a context that no caller can cancel. After
// Close it ends the call instead, and returns false.
func (d *Cached[P, V]) launch(ctx context.Context, key string, call *call[V], run func(context.Context)) bool {
	started := d.c.start(func(context.Context) {
		ctx, cancel := d.c.detach(ctx, d.q.ContextKeys)
		defer cancel()
		defer d.ensureEnded(key, call)
		run(ctx)
	})
	if !started {
		d.complete(call, outcome[V]{sourceAnswer: sourceAnswer[V]{err: ErrClosed}})
		d.calls.end(key, call)
	}
	return started
}

// ensureEnded ends a call that its goroutine did not: something panicked in it, or called
// runtime.Goexit. Its waiters must not wait for ever, and later callers must not join it.
func (d *Cached[P, V]) ensureEnded(key string, call *call[V]) {
	if !call.completed() {
		d.complete(call, outcome[V]{sourceAnswer: sourceAnswer[V]{err: &LoadError{Query: d.q.Name, Key: key, Err: errAborted}}})
	}
	d.calls.end(key, call)
}

// errAborted stands for a load whose goroutine ended before it had an outcome.
var errAborted = errors.New("cache: the load was aborted by a panic, which was logged, or by runtime.Goexit")

// complete gives a call its outcome and wakes its waiters.
func (d *Cached[P, V]) complete(call *call[V], out outcome[V]) {
	call.out = out
	close(call.done)
}

// wait returns the outcome of a call, or leaves with its caller's context. completed says
// that the load was over before the caller came.
func (d *Cached[P, V]) wait(ctx context.Context, call *call[V], lead, completed bool) (Answer[V], error) {
	if !call.completed() {
		d.observe(ctx, event.WaitBegan{})
		defer d.observe(ctx, event.WaitEnded{})
		if l := askingLoad(ctx); l != nil {
			l.suspend()
			defer l.resume(ctx)
		}
	}
	select {
	case <-call.done:
		return answerOf(&call.out, lead, completed)
	case <-ctx.Done():
		return Answer[V]{}, context.Cause(ctx)
	}
}

// answerOf turns an outcome into one caller's answer.
func answerOf[V any](out *outcome[V], lead, completed bool) (Answer[V], error) {
	now := time.Now()
	status := out.status
	if !lead && status == Miss {
		status = Collapsed
		if completed { // it had been loaded before this caller asked, and is on its way to the store
			status = Hit
		}
	}
	if out.err != nil {
		return Answer[V]{Status: status, Detail: out.detail}, out.err
	}
	a := Answer[V]{Status: status, Detail: out.detail, Age: max(now.Sub(out.at), 0), named: out.named}
	if out.fresh > 0 {
		a.TTL = out.fresh - a.Age
	}
	if !out.found {
		return a, ErrNotFound
	}
	a.Value, a.ETag, a.bytes = out.value, out.etag, out.bytes
	return a, nil
}

// runBypass loads for callers who may not rely on the store.
func (d *Cached[P, V]) runBypass(ctx context.Context, call *call[V], r *request[P], detail string) {
	a := d.loadOne(ctx, r, func() { d.calls.begin(call) })
	d.rememberLoad(r, a)
	d.bypassed(ctx, r, detail)
	d.calls.end(r.key, call) // before it completes: a caller who comes now is too late for it
	d.complete(call, outcome[V]{sourceAnswer: a, status: Bypass, detail: detail})
}

// bypassed tells of an answer that is not stored.
func (d *Cached[P, V]) bypassed(ctx context.Context, r *request[P], detail string) {
	d.observe(ctx, event.NotStored{Answers: 1})
	if detail == DetailTooLarge {
		d.refuseSize(ctx, event.TooLarge{Key: r.key, Tags: r.tooMany})
	}
}

// runGuarded gets an answer to the waiters of call: loaded here, or by another process.
func (d *Cached[P, V]) runGuarded(ctx context.Context, call *call[V], r *request[P], guard driver.Guard) {
	out, settle := d.loadOrWait(ctx, r, guard, func() { d.calls.end(r.key, call) })
	// The waiters need not wait for the store. A caller who comes meanwhile joins this
	// call, which is not over until the answer can be read there.
	d.complete(call, out)
	if settle != nil {
		settle()
	}
	d.calls.end(r.key, call)
}

// loadOrWait loads under a lease, or waits for the process that holds it. It returns a
// function that brings the answer to the store, nil if there is nothing to bring. From the moment
// when it goes by more tags than the callers have seen, no other may join: it calls closeCall.
// Decision 5.
func (d *Cached[P, V]) loadOrWait(ctx context.Context, r *request[P], guard driver.Guard, closeCall func()) (outcome[V], func()) {
	unstored := func(detail string) (outcome[V], func()) {
		d.observe(ctx, event.NotStored{Answers: 1})
		return outcome[V]{sourceAnswer: d.loadOne(ctx, r, nil), status: Bypass, detail: detail}, nil
	}
	token := driver.Token(driver.NewVersion())
	announced, unsubscribe := d.c.cfg.Store.Announced(r.key) // before the claim: nothing is missed
	defer unsubscribe()
	limit := time.Now().Add(d.q.LoadTimeout)
	for {
		claims, err := d.c.claim(ctx, []driver.Claim{{Key: r.key, Token: token, Guard: guard, TTL: leaseTTL}}, d.entrySize())
		if err != nil {
			return unstored(DetailUnavailable)
		}
		claimed := claims[0]
		if e := d.classify(ctx, r, claimed.Entry, guard, time.Now()); e.state == entryFresh {
			// Another load has stored it between our read and our claim.
			out := outcomeOf(e, Hit)
			if claimed.State == driver.Granted {
				return out, func() { _, _ = d.c.settle(ctx, []driver.Fill{{Key: r.key, Token: token}}) }
			}
			return out, nil
		}
		switch claimed.State {
		case driver.Failed:
			return d.rememberedFailure(r.key, claimed.Failure), nil
		case driver.Held:
			// Another process is loading. Look again when it has settled, or when its lease may
			// have run out because it died; but load when it takes too long.
			if await(ctx, announced, claimed.Wait, limit) {
				break
			}
			fallthrough
		default:
			out, settle := d.loadUnderLease(ctx, r, guard, token, claimed.Failure)
			if r.covers(out.named) || r.repeated {
				return out, settle
			}
			// Some who wait came while it ran, and it depends on what they have not seen.
			closeCall()
			settle()
			r = d.naming(r, out.named)
			r.repeated = true
			token = driver.Token(driver.NewVersion())
		}
		if ctx.Err() != nil { // only closing ends a call; the store may answer yet, and would again and again
			return outcome[V]{sourceAnswer: sourceAnswer[V]{err: ErrClosed}}, nil
		}
		for n := 0; ; n++ {
			snapshot, err := d.c.read(ctx, r.tags, []string{r.key}, d.entrySize())
			if err != nil {
				return unstored(DetailUnavailable)
			}
			if anyFenced(snapshot.States) {
				return unstored(DetailFenced)
			}
			guard = guardOf(r.tags, snapshot.States) // what was waited for may be outdated by now
			r = r.having(snapshot.States)
			e := d.classify(ctx, r, snapshot.Entries[0], guard, time.Now())
			if e.state == entryFresh {
				d.remember(r, e.named, 0)
				return outcomeOf(e, Collapsed), nil
			}
			if e.state != entryNamesMore || n == maxRereads {
				break
			}
			closeCall()
			r = d.naming(r, e.named)
		}
	}
}

// await returns true when it is time to look again, and false when the limit is reached.
func await(ctx context.Context, announced <-chan struct{}, lease time.Duration, limit time.Time) bool {
	left := time.Until(limit)
	if left <= 0 {
		return false
	}
	t := time.NewTimer(min(max(lease, time.Millisecond), left))
	defer t.Stop()
	select {
	case <-announced:
	case <-t.C:
	case <-ctx.Done():
	}
	return true
}

func outcomeOf[V any](e storedEntry[V], status Status) outcome[V] {
	out := outcome[V]{status: status, fresh: e.answer.Age + e.answer.TTL}
	out.at = time.Now().Add(-e.answer.Age)
	out.found, out.value, out.etag, out.bytes, out.named = e.found, e.answer.Value, e.answer.ETag, e.answer.bytes, e.named
	return out
}

// rememberedFailure is the outcome of a load that failed a moment ago and is not repeated yet.
func (d *Cached[P, V]) rememberedFailure(key string, failure []byte) outcome[V] {
	_, text := decodeFailure(failure)
	err := &LoadError{Query: d.q.Name, Key: key, Err: d.failures.get(key, text)}
	return outcome[V]{sourceAnswer: sourceAnswer[V]{err: err}, status: Miss}
}

// loadUnderLease loads, keeping the lease alive until it is settled.
func (d *Cached[P, V]) loadUnderLease(ctx context.Context, r *request[P], guard driver.Guard, token driver.Token, failure []byte) (outcome[V], func()) {
	stop := d.c.keepLeases(ctx, []driver.Claim{{Key: r.key, Token: token}})
	loaded := false
	defer func() {
		if !loaded { // the loader ended the goroutine
			stop()
		}
	}()
	a := d.loadOne(ctx, r, nil)
	loaded = true
	fill, out := d.fillFor(ctx, r, guard, token, a, failure)
	return out, func() {
		d.settleAll(ctx, []driver.Fill{fill})
		stop() // not before: a large entry takes its time
	}
}

// fillFor says what a load leaves in the store, and what its callers get.
func (d *Cached[P, V]) fillFor(ctx context.Context, r *request[P], guard driver.Guard, token driver.Token, a sourceAnswer[V], failure []byte) (driver.Fill, outcome[V]) {
	out := outcome[V]{sourceAnswer: a, status: Miss}
	fill := driver.Fill{Key: r.key, Token: token, Tags: r.tags}
	d.rememberLoad(r, a)
	unstored := func(detail string) (driver.Fill, outcome[V]) { // only give the lease back
		d.observe(ctx, event.NotStored{Answers: 1})
		out.status, out.detail = Bypass, detail
		return fill, out
	}
	guard, known := d.guardFor(r, a.named, guard)
	switch tags := len(r.own) + len(a.named); {
	case tags > mostTags:
		d.refuseSize(ctx, event.TooLarge{Key: r.key, Tags: tags})
		return unstored(DetailTooLarge)
	case !known && r.repeated:
		return unstored(DetailNewTags)
	case !known: // it is repeated
		return fill, out
	}
	if a.err != nil {
		var e *LoadError
		if errors.As(a.err, &e) && !transient(e.Err) {
			failures, _ := decodeFailure(failure)
			fill.Failure = encodeFailure(failures+1, e.Err)
			fill.Hold = jitter(holdAfter(failures + 1))
			d.failures.put(r.key, e.Err)
		}
		return fill, out
	}
	keep := d.q.FreshFor
	if !a.found {
		keep = d.q.NotFound
	}
	if a.keep != nil {
		if keep = *a.keep; keep < resolution {
			return unstored(DetailNotKept)
		}
	}
	e := envelope{found: a.found, guard: guard, etag: a.etag, loadedAt: a.at, fresh: shorten(keep), named: a.named, payload: a.payload}
	switch {
	case !a.found:
		fill.Life = e.fresh
	case a.payload == nil:
		return fill, out // not encodable
	case len(a.payload) > d.c.cfg.MaxEntryBytes:
		d.observe(ctx, event.NotStored{Answers: 1})
		d.refuseSize(ctx, event.TooLarge{Key: r.key, Bytes: len(a.payload)})
		return fill, out
	default:
		e.stale = d.q.StaleWhileRevalidate
		fill.Life = sum(e.fresh, max(d.q.StaleWhileRevalidate, d.q.StaleIfError))
	}
	fill.Entry, out.fresh = e.encode(), e.fresh
	return fill, out
}

// rememberLoad keeps what a load named, for the next. One that failed may not have come to all.
func (d *Cached[P, V]) rememberLoad(r *request[P], a sourceAnswer[V]) {
	if a.err != nil && r.covers(a.named) {
		return
	}
	if tags := len(r.own) + len(a.named); tags > mostTags && len(a.named) > 0 {
		d.remember(r, nil, tags)
		return
	}
	d.remember(r, a.named, 0)
}

func (d *Cached[P, V]) settleAll(ctx context.Context, fills []driver.Fill) {
	if left, _ := d.c.settle(ctx, fills); left > 0 {
		d.observe(ctx, event.NotStored{Answers: left})
	}
}

// keepLeases renews leases until the returned function is called.
func (c *Cache) keepLeases(ctx context.Context, leases []driver.Claim) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	if len(leases) == 0 {
		return cancel
	}
	c.start(func(context.Context) {
		t := time.NewTicker(renewEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			for _, l := range leases {
				if ctx.Err() != nil {
					return // loaded meanwhile
				}
				// A lease taken over under newer versions is no matter: the load
				// still serves its own waiters, and its entry is invalid already.
				_ = c.health.call(ctx, "renew", func(ctx context.Context) error {
					return c.cfg.Store.Renew(ctx, l.Key, l.Token, leaseTTL)
				})
			}
		}
	})
	return cancel
}

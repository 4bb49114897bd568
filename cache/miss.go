package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

const (
	// leaseTTL is how long a loader that vanished delays the next one, at most. It is
	// renewed thrice in that time, so that one lost renewal does no harm.
	leaseTTL   = 750 * time.Millisecond
	renewEvery = leaseTTL / 3
)

// join waits for the load of key under guard, beginning it if nobody has.
func (d *Cached[P, V]) join(ctx context.Context, p P, key string, tags []Tag, guard driver.Guard) (Answer[V], error) {
	f, lead := d.flights.join(key, guard)
	if lead {
		d.launch(ctx, f, func(ctx context.Context) { d.fly(ctx, f, p, key, tags) }, key)
	}
	return d.wait(ctx, f, lead, f.landed() && !lead)
}

// bypass waits for a load that begins after now and is stored nowhere.
func (d *Cached[P, V]) bypass(ctx context.Context, p P, key, detail string) (Answer[V], error) {
	d.countBypass(detail)
	fly := func(f *flight[V]) {
		d.launch(ctx, f, func(ctx context.Context) { d.flyBypass(ctx, f, p, key, detail) }, key)
	}
	f, lead := d.flights.joinBypass(key, fly)
	if lead {
		fly(f)
	}
	return d.wait(ctx, f, lead, false)
}

func (d *Cached[P, V]) countBypass(detail string) {
	if detail == DetailFenced {
		d.m.fenced.Inc()
	} else {
		d.m.unavailable.Inc()
	}
}

// launch runs fly on a goroutine of the cache, with a context that is nobody's.
func (d *Cached[P, V]) launch(ctx context.Context, f *flight[V], fly func(context.Context), key string) {
	spawned := d.c.spawn(func(context.Context) {
		ctx, cancel := d.c.detach(ctx)
		defer cancel()
		fly(ctx)
	})
	if !spawned {
		d.land(f, outcome[V]{loaded: loaded[V]{err: ErrClosed}})
		d.flights.end(key, f)
	}
}

func (d *Cached[P, V]) land(f *flight[V], out outcome[V]) {
	f.out = out
	close(f.done)
}

// wait returns what the flight brings home, or leaves with its caller's context. had says
// that the flight had landed when the caller came.
func (d *Cached[P, V]) wait(ctx context.Context, f *flight[V], lead, had bool) (Answer[V], error) {
	if !f.landed() {
		d.m.waiters.Inc()
		defer d.m.waiters.Dec()
	}
	select {
	case <-f.done:
		return d.report(&f.out, lead, had)
	case <-ctx.Done():
		d.m.miss(time.Now())
		return Answer[V]{}, context.Cause(ctx)
	}
}

// report turns an outcome into one caller's answer, and counts it.
func (d *Cached[P, V]) report(out *outcome[V], lead, had bool) (Answer[V], error) {
	now := time.Now()
	status := out.status
	if !lead && status == Miss {
		status = Collapsed
		if had { // it had been loaded before this caller asked, and is on its way to the store
			status = Hit
		}
	}
	if status == Hit {
		d.m.hit(now)
	} else {
		d.m.miss(now)
	}
	if out.err != nil {
		if _, ok := errors.AsType[*OverloadError](out.err); ok {
			d.m.overloads.Inc()
		}
		return Answer[V]{Status: status, Detail: out.detail}, out.err
	}
	a := Answer[V]{Status: status, Detail: out.detail, Age: max(now.Sub(out.at), 0)}
	if out.fresh > 0 {
		a.TTL = out.fresh - a.Age
	}
	if !out.found {
		return a, ErrNotFound
	}
	a.Value, a.ETag = out.value, out.etag
	return a, nil
}

// flyBypass loads for callers who may not rely on the store.
func (d *Cached[P, V]) flyBypass(ctx context.Context, f *flight[V], p P, key, detail string) {
	l := d.load(ctx, p, key, func() { d.flights.begin(f) })
	d.m.refused.Inc()
	d.flights.end(key, f) // before it lands: who comes now is too late for it
	d.land(f, outcome[V]{loaded: l, status: Bypass, detail: detail})
}

// fly gets the answer of key to the waiters of f: loaded here, or by another process.
func (d *Cached[P, V]) fly(ctx context.Context, f *flight[V], p P, key string, tags []Tag) {
	out, settle := d.obtain(ctx, p, key, tags, f.guard)
	// The waiters need not wait for the store; who comes meanwhile joins this flight, for
	// it is not over until the answer can be read there.
	d.land(f, out)
	if settle != nil {
		settle()
	}
	d.flights.end(key, f)
}

// obtain returns the answer, and a function that brings it to the store (nil if there is
// nothing to bring).
func (d *Cached[P, V]) obtain(ctx context.Context, p P, key string, tags []Tag, guard driver.Guard) (outcome[V], func()) {
	unstored := func(detail string) (outcome[V], func()) {
		d.countBypass(detail)
		d.m.refused.Inc()
		return outcome[V]{loaded: d.load(ctx, p, key, nil), status: Bypass, detail: detail}, nil
	}
	token := driver.Token(driver.NewVersion())
	announced, unsubscribe := d.c.cfg.Store.Announced(key) // before the claim: nothing is missed
	defer unsubscribe()
	patience := time.Now().Add(d.LoadTimeout)
	for {
		claims, err := d.c.claim(ctx, []driver.Claim{{Key: key, Token: token, Guard: guard, TTL: leaseTTL}})
		if err != nil {
			return unstored(DetailUnavailable)
		}
		claimed := claims[0]
		if k := d.examine(claimed.Entry, guard, time.Now()); k.state == entryFresh {
			// Another load has stored it between our read and our claim.
			out := d.outcomeOf(k, Hit)
			if claimed.State == driver.Granted {
				return out, func() { _ = d.c.settle(ctx, []driver.Fill{{Key: key, Token: token}}) }
			}
			return out, nil
		}
		switch claimed.State {
		case driver.Granted:
			return d.loadUnderLease(ctx, p, key, tags, guard, token, claimed.Failure)
		case driver.Failed:
			return d.remembered(key, claimed.Failure), nil
		}
		// Held: another process is loading. Look again when it has settled, or when its
		// lease may have run out because it died.
		if !await(ctx, announced, claimed.Wait, patience) {
			return d.loadUnderLease(ctx, p, key, tags, guard, token, nil) // waited long enough
		}
		if ctx.Err() != nil { // only closing ends a flight; the store may answer yet, and would again and again
			return outcome[V]{loaded: loaded[V]{err: ErrClosed}}, nil
		}
		snapshot, err := d.c.read(ctx, tags, []string{key})
		if err != nil {
			return unstored(DetailUnavailable)
		}
		if anyFenced(snapshot.States) {
			return unstored(DetailFenced)
		}
		guard = guardOf(tags, snapshot.States) // what was waited for may be outdated by now
		if k := d.examine(snapshot.Entries[0], guard, time.Now()); k.state == entryFresh {
			return d.outcomeOf(k, Collapsed), nil
		}
	}
}

// await returns true when it is time to look again, and false when patience is over.
func await(ctx context.Context, announced <-chan struct{}, lease time.Duration, patience time.Time) bool {
	left := time.Until(patience)
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

func (d *Cached[P, V]) outcomeOf(k kept[V], status Status) outcome[V] {
	out := outcome[V]{status: status, fresh: k.answer.Age + k.answer.TTL}
	out.at = time.Now().Add(-k.answer.Age)
	out.found, out.value, out.etag = k.found, k.answer.Value, k.answer.ETag
	return out
}

// remembered is the outcome of a load that failed a moment ago and is not repeated yet.
func (d *Cached[P, V]) remembered(key string, failure []byte) outcome[V] {
	_, text := decodeFailure(failure)
	err := &LoadError{Query: d.Name, Key: key, Err: d.failures.get(key, text)}
	return outcome[V]{loaded: loaded[V]{err: err}, status: Miss}
}

// loadUnderLease loads, keeping the lease alive meanwhile.
func (d *Cached[P, V]) loadUnderLease(ctx context.Context, p P, key string, tags []Tag, guard driver.Guard, token driver.Token, failure []byte) (outcome[V], func()) {
	stop := d.c.keepLeases(ctx, []driver.Claim{{Key: key, Token: token}})
	l := d.load(ctx, p, key, nil)
	stop()
	fill, fresh := d.fillFor(key, tags, guard, token, l, failure)
	return outcome[V]{loaded: l, status: Miss, fresh: fresh}, func() { d.settleAll(ctx, []driver.Fill{fill}) }
}

// fillFor says what a load leaves in the store, and for how long the answer is fresh.
func (d *Cached[P, V]) fillFor(key string, tags []Tag, guard driver.Guard, token driver.Token, l loaded[V], failure []byte) (driver.Fill, time.Duration) {
	fill := driver.Fill{Key: key, Token: token, Tags: tags}
	if l.err != nil {
		if e, ok := errors.AsType[*LoadError](l.err); ok {
			failures, _ := decodeFailure(failure)
			fill.Failure = encodeFailure(failures+1, e.Err)
			fill.Hold = jitter(holdAfter(failures + 1))
			d.failures.put(key, e.Err)
		}
		return fill, 0
	}
	e := envelope{found: l.found, guard: guard, etag: l.etag, loadedAt: l.at, payload: l.payload}
	switch {
	case !l.found:
		e.fresh = shorten(d.NotFound)
		fill.Life = e.fresh
	case l.payload == nil:
		return fill, 0 // not encodable: only give the lease back
	default:
		e.fresh, e.stale = shorten(d.Fresh), d.Stale
		fill.Life = e.fresh + max(d.Stale, d.StaleIfError)
	}
	fill.Entry = e.encode()
	return fill, e.fresh
}

// shorten takes up to a tenth from a lifetime, at random.
func shorten(d time.Duration) time.Duration {
	return d - time.Duration(rand.Float64()*float64(d)/10)
}

func (c *Cache) claim(ctx context.Context, claims []driver.Claim) (claimed []driver.Claimed, err error) {
	err = c.health.call(ctx, "claim", func(ctx context.Context) (err error) {
		claimed, err = c.cfg.Store.Claim(ctx, claims)
		return err
	})
	return claimed, err
}

func (d *Cached[P, V]) settleAll(ctx context.Context, fills []driver.Fill) {
	if d.c.settle(ctx, fills) != nil {
		d.m.refused.Add(float64(len(fills)))
	}
}

func (c *Cache) settle(ctx context.Context, fills []driver.Fill) error {
	// Also when the cache is closing: who waits for the lease elsewhere should not have to.
	ctx = context.WithoutCancel(ctx)
	return c.health.call(ctx, "settle", func(ctx context.Context) error {
		return c.cfg.Store.Settle(ctx, fills)
	})
}

// keepLeases renews leases until the returned function is called.
func (c *Cache) keepLeases(ctx context.Context, leases []driver.Claim) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	if len(leases) == 0 {
		return cancel
	}
	c.spawn(func(context.Context) {
		t := time.NewTicker(renewEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			for _, l := range leases {
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

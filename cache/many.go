package cache

import (
	"context"
	"errors"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// GetMany returns the answers for ps, in order: what is stored is read in one round trip,
// and what is missing is loaded in one go if the query has LoadMany. Each Result has its
// own error, so that one failure spoils nothing else. The second result is not nil only
// when there are no answers: the cause of ctx if that ended first, or ErrClosed. Every key is
// looked up in the store: the query's Near and Tolerate do not apply.
func (d *Cached[P, V]) GetMany(ctx context.Context, ps []P) ([]Result[V], error) {
	if len(ps) == 0 {
		return nil, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if d.c.life.Err() != nil {
		return nil, ErrClosed
	}
	m := &many[P, V]{Cached: d, asked: make([]asked[P, V], len(ps))}
	results := make([]Result[V], len(ps))
	for i, p := range ps {
		a := &m.asked[i]
		a.p, a.result = p, &results[i]
		if a.key, a.result.Err = d.keyOf(p); a.result.Err != nil {
			continue
		}
		a.tags = d.Tags(p)
	}
	m.look(ctx)
	m.board(ctx)
	for i := range m.asked {
		if err := m.asked[i].collect(ctx, d); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// many is one call of GetMany.
type many[P comparable, V any] struct {
	*Cached[P, V]
	asked []asked[P, V]
}

// asked is one parameter of a call of GetMany, on its way to a result.
type asked[P comparable, V any] struct {
	p      P
	key    string
	tags   []Tag
	guard  driver.Guard
	detail string  // why it must bypass, if it must
	kept   kept[V] // what the store had
	result *Result[V]

	flight *flight[V] // what it waits for; nil if it has its result
	lead   bool
	had    bool // the flight had landed when this call came

	// While it leads its flight in a batch.
	token   driver.Token
	claimed driver.Claimed
	ended   bool // or handed over to a goroutine that ends it
}

// look reads everything in one round trip and answers what it can.
func (m *many[P, V]) look(ctx context.Context) {
	var keys []string
	var u union
	for i := range m.asked {
		keys = append(keys, m.asked[i].key)
		u.add(m.asked[i].tags)
	}
	snapshot, err := m.c.read(ctx, u.tags, keys)
	now := time.Now()
	for i := range m.asked {
		a := &m.asked[i]
		if a.result.Err != nil {
			continue
		}
		if err != nil {
			a.detail = DetailUnavailable
			continue
		}
		states := u.statesOf(a.tags, snapshot.States)
		if anyFenced(states) {
			a.detail = DetailFenced
			continue
		}
		a.guard = guardOf(a.tags, states)
		a.kept = m.examine(snapshot.Entries[i], a.guard, now)
		switch a.kept.state {
		case entryStale:
			m.refresh(ctx, a.p, a.key, a.tags, a.guard, false)
			fallthrough
		case entryFresh:
			m.m.hit(now)
			a.result.Answer, a.result.Err = a.kept.answer, a.kept.err()
		}
	}
}

// board finds a flight for what has no answer yet: one that is under way, one batch for the
// rest if the query can load in batches, else one each.
func (m *many[P, V]) board(ctx context.Context) {
	var batch []*asked[P, V]
	for i := range m.asked {
		a := &m.asked[i]
		if a.result.Err != nil || a.result.Status != 0 {
			continue
		}
		one := func(f *flight[V]) {
			m.launch(ctx, f, func(ctx context.Context) {
				if a.detail != "" {
					m.flyBypass(ctx, f, a.p, a.key, a.detail)
				} else {
					m.fly(ctx, f, a.p, a.key, a.tags)
				}
			}, a.key)
		}
		if a.detail != "" {
			m.countBypass(a.detail)
			a.flight, a.lead = m.flights.joinBypass(a.key, one)
		} else {
			a.flight, a.lead = m.flights.join(a.key, a.guard)
			a.had = a.flight.landed() && !a.lead
		}
		switch {
		case !a.lead:
		case m.LoadMany == nil:
			one(a.flight)
		default:
			batch = append(batch, a)
		}
	}
	if len(batch) == 0 {
		return
	}
	spawned := m.c.spawn(func(context.Context) {
		ctx, cancel := m.c.detach(ctx)
		defer cancel()
		m.flyTogether(ctx, batch)
	})
	if !spawned {
		for _, a := range batch {
			m.land(a.flight, outcome[V]{loaded: loaded[V]{err: ErrClosed}})
			m.flights.end(a.key, a.flight)
		}
	}
}

// collect waits for an answer that is still due. It fails only when there is no more
// waiting for any.
func (a *asked[P, V]) collect(ctx context.Context, d *Cached[P, V]) error {
	if a.flight == nil {
		return nil
	}
	a.result.Answer, a.result.Err = d.wait(ctx, a.flight, a.lead, a.had)
	if ctx.Err() != nil && errors.Is(a.result.Err, context.Cause(ctx)) {
		return context.Cause(ctx)
	}
	if a.result.Err != nil && a.kept.state == entryExpired && failedToLoad(a.result.Err) {
		a.result.Answer, a.result.Err = a.kept.answer, a.kept.err()
		a.result.Detail = DetailError
	}
	return nil
}

// flyTogether leads the flights of a batch: one claim for all of them, one load for those
// that are granted or bypass, one settling. What another process is loading is waited
// for one by one.
func (m *many[P, V]) flyTogether(ctx context.Context, batch []*asked[P, V]) {
	m.claimTogether(ctx, batch)
	var aboard []*asked[P, V]
	var leases []driver.Claim
	var fills []driver.Fill
	for _, a := range batch {
		k := m.examine(a.claimed.Entry, a.guard, time.Now())
		switch granted := a.claimed.State == driver.Granted; {
		case a.detail != "":
			aboard = append(aboard, a)
		case k.state == entryFresh:
			m.land(a.flight, m.outcomeOf(k, Hit))
			if granted {
				fills = append(fills, driver.Fill{Key: a.key, Token: a.token})
			}
		case granted:
			aboard = append(aboard, a)
			leases = append(leases, driver.Claim{Key: a.key, Token: a.token})
		default:
			m.launch(ctx, a.flight, func(ctx context.Context) { m.fly(ctx, a.flight, a.p, a.key, a.tags) }, a.key)
			a.ended = true
		}
	}
	if len(aboard) > 0 {
		stop := m.c.keepLeases(ctx, leases)
		fills = append(fills, m.loadTogether(ctx, aboard)...)
		stop()
	}
	if len(fills) > 0 {
		m.settleAll(ctx, fills)
	}
	for _, a := range batch {
		if !a.ended {
			m.flights.end(a.key, a.flight)
		}
	}
}

func (m *many[P, V]) claimTogether(ctx context.Context, batch []*asked[P, V]) {
	var claims []driver.Claim
	var claiming []*asked[P, V]
	for _, a := range batch {
		if a.detail == "" {
			a.token = driver.Token(driver.NewVersion())
			claims = append(claims, driver.Claim{Key: a.key, Token: a.token, Guard: a.guard, TTL: leaseTTL})
			claiming = append(claiming, a)
		}
	}
	if len(claims) == 0 {
		return
	}
	claimed, err := m.c.claim(ctx, claims)
	for i, a := range claiming {
		if err != nil {
			a.detail = DetailUnavailable
			m.countBypass(a.detail)
			continue
		}
		a.claimed = claimed[i]
	}
}

// loadTogether loads and lands aboard, and returns what is to be stored.
func (m *many[P, V]) loadTogether(ctx context.Context, aboard []*asked[P, V]) (fills []driver.Fill) {
	ps, keys := make([]P, len(aboard)), make([]string, len(aboard))
	for i, a := range aboard {
		ps[i], keys[i] = a.p, a.key
	}
	begin := func() {
		for _, a := range aboard {
			m.flights.begin(a.flight)
		}
	}
	for i, l := range m.loadAll(ctx, ps, keys, begin) {
		a := aboard[i]
		if a.detail != "" {
			m.m.refused.Inc()
			m.flights.end(a.key, a.flight)
			a.ended = true
			m.land(a.flight, outcome[V]{loaded: l, status: Bypass, detail: a.detail})
			continue
		}
		fill, fresh := m.fillFor(a.key, a.tags, a.guard, a.token, l, a.claimed.Failure)
		m.land(a.flight, outcome[V]{loaded: l, status: Miss, fresh: fresh})
		fills = append(fills, fill)
	}
	return fills
}

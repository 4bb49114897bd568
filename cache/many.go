package cache

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// GetMany returns the answers for ps, in order: what is stored is read in one round trip,
// and what is missing is loaded in one go if the query has LoadMany. Of more than 1,000 it does
// so for 1,000 at a time (for fewer, within MaxLoads and MaxQueue, without LoadMany). Each Result has its
// own error, so that one failure spoils nothing else. The second result is not nil only
// when there are no answers: the cause of ctx if that ended first, or ErrClosed. Every key is
// looked up in the store: the query's Near and NearStrict do not apply.
func (d *Cached[P, V]) GetMany(ctx context.Context, ps []P) ([]Result[V], error) {
	if len(ps) == 0 {
		return nil, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if d.c.ctx.Err() != nil {
		return nil, ErrClosed
	}
	results := make([]Result[V], 0, len(ps))
	for some := range slices.Chunk(ps, d.manyAtOnce()) {
		answers, err := d.getSome(ctx, some)
		if err != nil {
			return nil, err
		}
		results = append(results, answers...)
	}
	return results, nil
}

// mostMany bounds what one batch loads at a time: the leases of its keys have to be renewed, and
// a source has its own bound of what one statement may ask for.
const mostMany = 1000

// manyAtOnce is how many answers GetMany gets at a time. Without LoadMany each that is missing
// needs a slot of admission: a batch must not overload itself.
func (d *Cached[P, V]) manyAtOnce() int {
	if d.q.LoadMany == nil {
		return min(mostMany, d.q.MaxLoads+d.q.MaxQueue/2)
	}
	return mostMany
}

// getSome is GetMany for a part of its parameters.
func (d *Cached[P, V]) getSome(ctx context.Context, ps []P) ([]Result[V], error) {
	b := &batch[P, V]{Cached: d, items: make([]item[P, V], len(ps))}
	results := make([]Result[V], len(ps))
	for i, p := range ps {
		it := &b.items[i]
		it.result = &results[i]
		it.p = p
		if it.key, it.result.Err = d.keyOf(p); it.result.Err == nil {
			it.result.Err = d.findTags(&it.request)
		}
	}
	b.readAll(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if l := askingLoad(ctx); l != nil && b.wanting() {
		l.suspend() // once for all of them
		defer l.resume(ctx)
	}
	if err := b.joinCalls(ctx); err != nil {
		return nil, err
	}
	for i := range b.items {
		if err := b.items[i].collect(ctx, d); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// batch is one call of GetMany.
type batch[P comparable, V any] struct {
	*Cached[P, V]
	items []item[P, V]
}

// item is one parameter of a batch, on its way to a result.
type item[P comparable, V any] struct {
	request[P]
	guard  driver.Guard
	detail string         // why it must bypass, if it must
	entry  storedEntry[V] // what the store had
	result *Result[V]

	call      *call[V] // what it waits for; nil if it has its result
	lead      bool
	completed bool // the call was over when this batch came

	// While it leads its call in a batch.
	token   driver.Token
	claimed driver.Claimed
	ended   bool // or handed over to a goroutine that ends it
}

// readAll reads everything in one round trip and answers what it can. Entries with tags that this
// process did not know of take another.
func (b *batch[P, V]) readAll(ctx context.Context) {
	var asking []*item[P, V]
	for i := range b.items {
		switch it := &b.items[i]; {
		case it.result.Err != nil:
		case it.tooMany > 0:
			it.detail = DetailTooLarge
		default:
			asking = append(asking, it)
		}
	}
	for n := 0; len(asking) > 0; n++ {
		b.readVersions(ctx, asking)
		var more []*item[P, V]
		for _, it := range asking {
			if it.entry.state == entryNamesMore && n < maxRereads {
				it.request = *b.naming(&it.request, it.entry.named)
				more = append(more, it)
			}
		}
		asking = more
	}
	for i := range b.items {
		it := &b.items[i]
		if it.result.Err != nil || it.detail != "" {
			continue
		}
		switch it.entry.state {
		case entryStale:
			b.refresh(ctx, &it.request, it.guard, false)
			fallthrough
		case entryFresh:
			b.remember(&it.request, it.entry.named, 0)
			it.result.Answer, it.result.Err = it.entry.answer, it.entry.err()
			b.served(ctx, it.result.Status, it.result.Detail, it.result.Err)
			if it.result.Status == Hit {
				b.hit(ctx, it.p)
			}
		}
	}
}

// readVersions reads items and the versions of their tags, and says which must bypass.
func (b *batch[P, V]) readVersions(ctx context.Context, items []*item[P, V]) {
	keys := make([]string, len(items))
	var u union
	for i, it := range items {
		keys[i] = it.key
		u.add(it.tags)
	}
	snapshot, err := b.c.read(ctx, u.tags, keys, b.entrySize())
	now := time.Now()
	for i, it := range items {
		if err != nil {
			it.detail, it.entry = DetailUnavailable, storedEntry[V]{}
			continue
		}
		states := u.statesOf(it.tags, snapshot.States)
		if anyFenced(states) {
			it.detail, it.entry = DetailFenced, storedEntry[V]{}
			continue
		}
		it.guard = guardOf(it.tags, states)
		it.request = *it.having(states)
		it.entry = b.classify(ctx, &it.request, snapshot.Entries[i], it.guard, now)
	}
}

// wanting says whether anything has no answer yet.
func (b *batch[P, V]) wanting() bool {
	for i := range b.items {
		if it := &b.items[i]; it.result.Err == nil && it.result.Status == 0 {
			return true
		}
	}
	return false
}

// joinCalls finds a call for what has no answer yet: one that is under way, one load for
// the rest if the query can load in batches, else one each. It fails when ctx ends first.
//
// Loads of one answer each are begun as those before them end, MaxLoads at a time. They are the
// loads of one caller: one of them waits for a slot like any caller, and may be refused; the
// others run where slots are free. What has not begun is no call yet, so that another caller that
// asks for it does not wait for the whole batch.
func (b *batch[P, V]) joinCalls(ctx context.Context) error {
	var together []*item[P, V]
	window := make(chan struct{}, min(b.q.MaxLoads, len(b.items)))
	var first atomic.Bool // one of the loads waits as a caller
	for i := range b.items {
		it := &b.items[i]
		if it.result.Err != nil || it.result.Status != 0 {
			continue
		}
		alone := func(call *call[V]) {
			b.launch(ctx, it.key, call, func(ctx context.Context) { b.run(ctx, it, call) })
		}
		if it.result.Err = b.mayAsk(ctx, it.key); it.result.Err != nil {
			continue
		}
		if b.q.LoadMany == nil {
			select {
			case window <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if it.detail != "" {
			it.call, it.lead = b.calls.joinBypass(it.key, alone)
		} else {
			it.call, it.lead = b.calls.join(it.key, it.guard)
			it.completed = !it.lead && it.call.completed()
		}
		switch {
		case b.q.LoadMany != nil && it.lead:
			together = append(together, it)
		case b.q.LoadMany != nil:
		case !it.lead:
			<-window
		default:
			asCaller := first.CompareAndSwap(false, true)
			if !asCaller {
				it.lane = laneRest
			}
			b.launchThen(ctx, it, func() {
				if asCaller {
					first.Store(false)
				}
				<-window
			})
		}
	}
	if len(together) == 0 {
		return nil
	}
	started := b.c.start(func(context.Context) {
		ctx, cancel := b.c.detach(ctx, b.q.ContextKeys)
		defer cancel()
		defer func() {
			for _, it := range together {
				if !it.ended {
					b.ensureEnded(it.key, it.call)
				}
			}
		}()
		b.runTogether(ctx, together)
	})
	if !started {
		for _, it := range together {
			b.complete(it.call, outcome[V]{sourceAnswer: sourceAnswer[V]{err: ErrClosed}})
			b.calls.end(it.key, it.call)
		}
	}
	return nil
}

// run is the call of one item.
func (b *batch[P, V]) run(ctx context.Context, it *item[P, V], call *call[V]) {
	if it.detail != "" {
		b.runBypass(ctx, call, &it.request, it.detail)
	} else {
		b.runGuarded(ctx, call, &it.request, it.guard)
	}
}

// launchThen runs the call of an item, and then done, also if it cannot start.
func (b *batch[P, V]) launchThen(ctx context.Context, it *item[P, V], done func()) {
	launched := b.launch(ctx, it.key, it.call, func(ctx context.Context) {
		defer done()
		b.run(ctx, it, it.call)
	})
	if !launched {
		done()
	}
}

// collect waits for an answer that is still to come. It fails only when there is no more
// waiting for any.
func (it *item[P, V]) collect(ctx context.Context, d *Cached[P, V]) error {
	if it.call == nil {
		return nil
	}
	it.result.Answer, it.result.Err = d.wait(ctx, it.call, it.lead, it.completed)
	defer func() { d.served(ctx, it.result.Status, it.result.Detail, it.result.Err) }()
	if ctx.Err() != nil && errors.Is(it.result.Err, context.Cause(ctx)) {
		return context.Cause(ctx)
	}
	if it.entry.state == entryExpired && failedToLoad(it.result.Err) {
		it.result.Answer, it.result.Err = it.entry.answer, it.entry.err()
		it.result.Detail = DetailError
	}
	return nil
}

// runTogether leads the calls of a batch: one claim for all of them, one load for those
// that are granted or bypass, one settling. What another process is loading is waited
// for one by one.
func (b *batch[P, V]) runTogether(ctx context.Context, together []*item[P, V]) {
	b.claimTogether(ctx, together)
	var loading []*item[P, V]
	var leases []driver.Claim
	var fills []driver.Fill
	for _, it := range together {
		e := b.classify(ctx, &it.request, it.claimed.Entry, it.guard, time.Now())
		switch granted := it.claimed.State == driver.Granted; {
		case it.detail != "":
			loading = append(loading, it)
		case e.state == entryFresh:
			b.complete(it.call, outcomeOf(e, Hit))
			if granted {
				fills = append(fills, driver.Fill{Key: it.key, Token: it.token})
			}
		case granted:
			loading = append(loading, it)
			leases = append(leases, driver.Claim{Key: it.key, Token: it.token})
		default:
			b.launch(ctx, it.key, it.call, func(ctx context.Context) { b.runGuarded(ctx, it.call, &it.request, it.guard) })
			it.ended = true
		}
	}
	stop := b.c.keepLeases(ctx, leases)
	defer stop()
	var again []*item[P, V]
	if len(loading) > 0 {
		var loaded []driver.Fill
		loaded, again = b.loadTogether(ctx, loading)
		fills = append(fills, loaded...)
	}
	if len(fills) > 0 {
		b.settleAll(ctx, fills)
	}
	stop()
	if len(again) > 0 {
		b.repeat(ctx, again)
	}
}

// repeat loads again what depends on tags that were not known, once their versions are read.
func (b *batch[P, V]) repeat(ctx context.Context, again []*item[P, V]) {
	for _, it := range again {
		it.repeated = true
		it.token, it.claimed = driver.Token{}, driver.Claimed{}
	}
	b.readVersions(ctx, again)
	b.runTogether(ctx, again)
}

func (b *batch[P, V]) claimTogether(ctx context.Context, together []*item[P, V]) {
	var claims []driver.Claim
	var claiming []*item[P, V]
	for _, it := range together {
		if it.detail == "" {
			it.token = driver.Token(driver.NewVersion())
			claims = append(claims, driver.Claim{Key: it.key, Token: it.token, Guard: it.guard, TTL: leaseTTL})
			claiming = append(claiming, it)
		}
	}
	if len(claims) == 0 {
		return
	}
	claimed, _ := b.c.claim(ctx, claims, b.entrySize())
	for i, it := range claiming {
		if i >= len(claimed) {
			it.detail = DetailUnavailable
			continue
		}
		it.claimed = claimed[i]
	}
}

// loadTogether loads, completes the calls, and returns what is to be stored, and what is to be
// loaded again.
func (b *batch[P, V]) loadTogether(ctx context.Context, loading []*item[P, V]) (fills []driver.Fill, again []*item[P, V]) {
	rs := make([]*request[P], len(loading))
	for i, it := range loading {
		rs[i] = &it.request
	}
	begin := func() {
		for _, it := range loading {
			b.calls.begin(it.call)
		}
	}
	for i, a := range b.loadAll(ctx, rs, begin) {
		it := loading[i]
		if it.detail != "" {
			b.rememberLoad(&it.request, a)
			b.bypassed(ctx, &it.request, it.detail)
			b.calls.end(it.key, it.call)
			it.ended = true
			b.complete(it.call, outcome[V]{sourceAnswer: a, status: Bypass, detail: it.detail})
			continue
		}
		fill, out := b.fillFor(ctx, &it.request, it.guard, it.token, a, it.claimed.Failure)
		fills = append(fills, fill)
		if !it.covers(a.named) && !it.repeated {
			b.calls.end(it.key, it.call) // some who wait came while it ran: see loadOrWait
			it.request = *b.naming(&it.request, a.named)
			again = append(again, it)
			continue
		}
		b.complete(it.call, out)
	}
	return fills, again
}

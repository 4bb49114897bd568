package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/event"
)

const (
	auditsBegin = 70 * time.Second // after New, give or take a tenth: a program that starts has other things to load
	auditEvery  = time.Second      // at most

	// auditGrace is how long an answer that differs from the source may still be on its way out. A write of
	// a program that does not know of the cache shows in the source first; the relay delivers it within a
	// quarter of a second, and on a machine that is busy within a second.
	auditGrace = 2 * time.Second
)

// audits compare answers that are served with the source, one at a time. What they find is a write that
// nothing told the cache of: a table that is not watched, a trigger that is gone, a Load that reads
// what Tags does not name.
// Decision 54.
type audits struct {
	share float64                   // of the time that they may keep the source busy
	due   atomic.Bool               // the next hit is to be compared
	next  chan func() time.Duration // takes it, when it was due; returns how long the source was busy
}

func newAudits(share float64) *audits {
	return &audits{share: share, next: make(chan func() time.Duration, 1)}
}

func (a *audits) run(ctx context.Context) {
	for wait := auditsBegin; pause(ctx, jitter(wait)); {
		a.due.Store(true)
		select {
		case audit := <-a.next:
			wait = max(auditEvery, time.Duration(min(float64(audit())/a.share, float64(forever/2))))
		case <-ctx.Done():
			return
		}
	}
}

// hit is called with each answer that was served from the cache as fresh. Now and then one is compared
// with the source, after it was served.
func (d *Cached[P, V]) hit(ctx context.Context, p P) {
	if d.c.audits.due.Load() {
		d.sample(ctx, p)
	}
}

func (d *Cached[P, V]) sample(ctx context.Context, p P) {
	if !d.c.audits.due.CompareAndSwap(true, false) {
		return // another hit is
	}
	d.c.audits.next <- func() time.Duration {
		ctx, cancel := d.c.detach(asRoot(ctx), d.q.ContextKeys)
		defer cancel()
		return d.audit(ctx, p)
	}
}

// errNotAudited: the answer is no longer served, nothing but time ends it, or the source has enough to do.
var errNotAudited = errors.New("not audited")

// audit compares the answer for p with the source, and reports what came of it. It returns how long the
// source was busy.
func (d *Cached[P, V]) audit(ctx context.Context, p P) (took time.Duration) {
	r, err := d.request(ctx, p)
	if err != nil || r.tooMany > 0 {
		return 0
	}
	served, ok := d.servedNow(ctx, p)
	if !ok || len(r.own) == 0 && len(r.named.list()) == 0 {
		return 0
	}
	began := time.Now()
	result, err := d.compare(ctx, r, served, &took)
	switch {
	case errors.Is(err, errNotAudited) || ctx.Err() != nil:
		return took
	case err != nil:
		result = event.AuditFailed
	}
	age := sum(served.age, time.Since(began))
	d.observe(ctx, event.Audited{Key: r.key, Result: result, Age: age, Took: took})
	switch result {
	case event.AuditUnsteady:
		d.sayUnsteady(ctx, r.key)
	case event.AuditOld:
		d.endOld(ctx, p, r.key, age)
	}
	return took
}

// compare says whether the source agrees with what was served.
//
// Reads and writes go on meanwhile, and no lock holds them. So a difference is no more than a reason to
// look again:
//
//	audit                          writer that does not know of the cache
//	the answer is A
//	                               UPDATE, COMMIT          (the outbox has a row)
//	the source says B
//	                               the relay delivers      (A is invalid now)
//	A is not served any more: all is well
//
// An answer that is still served auditGrace after the source contradicted it is old. A source that says
// something else each time proves nothing: it is asked twice more.
func (d *Cached[P, V]) compare(ctx context.Context, r *request[P], served servedAnswer, took *time.Duration) (event.AuditResult, error) {
	began := time.Now()
	stillServed := func() bool {
		now, ok := d.servedNow(ctx, r.p)
		// One that was loaded again meanwhile is another, even if it says the same.
		return ok && now.auditedAnswer == served.auditedAnswer && now.age >= time.Since(began)
	}
	first, err := d.askForAudit(ctx, r, took)
	if err != nil {
		return "", err
	}
	if first == served.auditedAnswer {
		return event.AuditAgreed, nil
	}
	if !pause(ctx, sum(auditGrace, d.q.Near)) || !stillServed() {
		return event.AuditChanged, nil
	}
	second, err := d.askForAudit(ctx, r, took)
	if err != nil {
		return "", err
	}
	third, err := d.askForAudit(ctx, r, took)
	switch {
	case err != nil:
		return "", err
	case second != third:
		return event.AuditUnsteady, nil
	case second == served.auditedAnswer || !stillServed():
		return event.AuditChanged, nil
	}
	return event.AuditOld, nil
}

// askForAudit asks the source, if it has a slot to spare, and adds to took how long that was.
func (d *Cached[P, V]) askForAudit(ctx context.Context, r *request[P], took *time.Duration) (auditedAnswer, error) {
	if !d.loads.tryEnter() {
		return auditedAnswer{}, errNotAudited
	}
	began := time.Now()
	a := d.loadAdmitted(ctx, []*request[P]{r}, nil)[0]
	*took += time.Since(began)
	if a.err == nil && a.found && a.payload == nil {
		return auditedAnswer{}, errNotAudited // it cannot be encoded
	}
	return auditedAnswer{found: a.found, etag: a.etag}, a.err
}

// auditedAnswer is what two answers are compared by.
type auditedAnswer struct {
	found bool
	etag  ETag
}

type servedAnswer struct {
	auditedAnswer
	age time.Duration
}

// servedNow returns what a caller who came now would be served as fresh.
func (d *Cached[P, V]) servedNow(ctx context.Context, p P) (servedAnswer, bool) {
	a, ok, err := d.Peek(ctx, p)
	found := err == nil
	if !ok || a.Status != Hit || !found && !errors.Is(err, ErrNotFound) || found && a.ETag == (ETag{}) {
		return servedAnswer{}, false
	}
	return servedAnswer{auditedAnswer{found, a.ETag}, a.Age}, true
}

func (d *Cached[P, V]) sayUnsteady(ctx context.Context, key string) {
	if times := d.c.said.due("unsteady: " + d.q.Name); times > 0 {
		d.c.cfg.Logger.WarnContext(ctx, "the source gives another answer each time, so an audit cannot say whether the cached one is right",
			"query", d.q.Name, "key", key, "times", times,
			"remedy", "let the answer depend on its parameter and on the data alone: no clock, no random order, no row that changes without an invalidation")
	}
}

// endOld ends an answer that was found to be old.
func (d *Cached[P, V]) endOld(ctx context.Context, p P, key string, age time.Duration) {
	err := d.Forget(ctx, p)
	if times := d.c.said.due("old: " + d.q.Name); times > 0 {
		d.c.cfg.Logger.ErrorContext(ctx, "an answer was old: the source contradicts it, and no invalidation came; what depends on the same tags is loaded again",
			"query", d.q.Name, "key", key, "age", age, "times", times, "err", err,
			"remedy", "a table is not watched, its trigger is gone or switched off, Load reads what Tags does not name, Key leaves out what tells answers apart, or time alone changes the answer and KeepFor does not say when: run Cache.Check, and cachetest.Verify in a test")
	}
}

package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/event"
)

const (
	auditsBegin = time.Minute // after New: a program that starts has other things to load
	auditEvery  = time.Second // at most

	// auditGrace is how long an answer that differs from the source may still be on its way out. A write of
	// a program that does not know of the cache shows in the source first; the outbox tells the
	// cache within a quarter of a second.
	auditGrace = 2 * time.Second
)

// audits compare answers that are served with the source, one at a time. What they find is a write that
// nothing told the cache of: a table that nobody watches, a trigger that is gone, a Load that reads
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
		audited, ok := d.audit(ctx, p)
		if ok && d.c.ctx.Err() == nil {
			d.observe(ctx, audited)
			d.tellOf(ctx, p, audited)
		}
		return audited.Took
	}
}

// audit compares the answer for p with the source. ok is false if that means nothing: it is no longer served,
// it depends on nothing, so that nothing but time ends it, or the source has enough to do.
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
// What is still served auditGrace after the source said otherwise is old. A source that says something else
// each time proves nothing: it is asked twice more.
func (d *Cached[P, V]) audit(ctx context.Context, p P) (audited event.Audited, ok bool) {
	r, err := d.request(ctx, p)
	if err != nil || r.tooMany > 0 {
		return audited, false
	}
	served, ok := d.auditable(ctx, p)
	if !ok || len(r.own) == 0 && len(r.named.list()) == 0 {
		return audited, false
	}
	began := time.Now()
	audited = event.Audited{Key: r.key, Age: served.age}
	ask := func() (said auditedAnswer, ok bool) {
		if !d.loads.tryEnter() {
			return said, false
		}
		at := time.Now()
		a := d.loadAdmitted(ctx, []*request[P]{r}, nil)[0]
		audited.Took += time.Since(at)
		if a.err != nil || a.found && a.payload == nil {
			audited.Result = event.AuditFailed
		}
		return auditedAnswer{found: a.found, etag: a.etag}, true
	}
	stillServed := func() bool {
		now, ok := d.auditable(ctx, p)
		// One that was loaded again meanwhile is another, even if it says the same.
		return ok && now.auditedAnswer == served.auditedAnswer && now.age >= time.Since(began)
	}

	first, ok := ask()
	switch {
	case !ok || audited.Result != "":
		return audited, ok
	case first == served.auditedAnswer:
		audited.Result = event.AuditAgreed
		return audited, true
	}
	audited.Result = event.AuditChanged
	if !pause(ctx, sum(auditGrace, d.q.Near)) || !stillServed() {
		return audited, ctx.Err() == nil
	}
	audited.Result = ""
	second, ok := ask()
	third, again := ask()
	switch {
	case !ok || !again || audited.Result != "":
		return audited, ok && again
	case second != third:
		audited.Result = event.AuditUnsteady
	case second == served.auditedAnswer || !stillServed():
		audited.Result = event.AuditChanged
	default:
		audited.Result, audited.Age = event.AuditOld, sum(served.age, time.Since(began))
	}
	return audited, true
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

// auditable returns what a caller who came now would be served as fresh.
func (d *Cached[P, V]) auditable(ctx context.Context, p P) (servedAnswer, bool) {
	a, ok, err := d.Peek(ctx, p)
	found := err == nil
	if !ok || a.Status != Hit || !found && !errors.Is(err, ErrNotFound) || found && a.ETag == (ETag{}) {
		return servedAnswer{}, false
	}
	return servedAnswer{auditedAnswer{found, a.ETag}, a.Age}, true
}

// tellOf ends an answer that was found to be old, and says so.
func (d *Cached[P, V]) tellOf(ctx context.Context, p P, audited event.Audited) {
	log := d.c.cfg.Logger
	switch audited.Result {
	case event.AuditUnsteady:
		if times := d.c.said.due("unsteady: " + d.q.Name); times > 0 {
			log.WarnContext(ctx, "the source answers otherwise each time that it is asked, so that nobody can say whether what is cached is as it should be",
				"query", d.q.Name, "key", audited.Key, "times", times,
				"remedy", "let the answer depend on its parameter and on the data alone: no clock, no random order, no row that changes without an invalidation")
		}
	case event.AuditOld:
		err := d.Forget(ctx, p)
		if times := d.c.said.due("old: " + d.q.Name); times > 0 {
			log.ErrorContext(ctx, "an answer was old: the source says otherwise, and nothing had told the cache; what depends on the same tags is loaded again",
				"query", d.q.Name, "key", audited.Key, "age", audited.Age, "times", times, "err", err,
				"remedy", "a table is not watched, its trigger is gone or switched off, Load reads what Tags does not name, Key leaves out what tells answers apart, or time alone changes the answer and KeepFor does not say when: run Cache.Check, and cachetest.Verify in a test")
		}
	}
}

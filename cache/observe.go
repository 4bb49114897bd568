package cache

import (
	"context"
	"errors"
	"time"
)

// Observer is told what a Cache does, for metrics and traces: package cacheprom is one.
// Without an Observer nothing is measured and nothing is paid. Its methods, and those of
// the QueryObservers it returns, must be safe for concurrent use and return at once: they
// are called on the way of requests. One that panics is logged, once a minute, and harms no
// request.
type Observer interface {
	// Query is called once for each query that is defined. What it returns is told what
	// becomes of the query's answers; nil means nothing is.
	Query(name string) QueryObserver

	// Observe is told of an Event that concerns no single query. Ignore events of a type
	// you do not know: later releases, and adapters, have more.
	Observe(ctx context.Context, e Event)
}

// QueryObserver is told what becomes of the answers of one query.
type QueryObserver interface {
	// Served is called once for each answer that a caller got, also for an error. The warmer is no
	// caller.
	Served(ctx context.Context, s Served)

	// Observe is told of everything else that happens to the query's answers.
	Observe(ctx context.Context, e Event)
}

// Served is one caller's answer.
type Served struct {
	At     time.Time
	Status Status // zero if there was none: the caller left while waiting, or the cache was closed
	Detail string // one of the Detail constants, or empty
	Err    error  // what the caller got, other than ErrNotFound
}

// Cached says whether the answer came from the cache, fresh or stale.
func (s Served) Cached() bool { return s.Status == Hit || s.Status == Stale }

// Event is something that happened: one of package event, or one of an adapter's.
type Event interface {
	// CacheEvent does nothing. It marks the type.
	CacheEvent()
}

// Observe passes an event on to the Observer of the cache, if there is one. It is for
// adapters, such as the relay of an outbox.
func (c *Cache) Observe(ctx context.Context, e Event) {
	if c.cfg.Observer != nil {
		c.cfg.Observer.Observe(ctx, e)
	}
}

// observe passes an event of the query on.
func (d *Cached[P, V]) observe(ctx context.Context, e Event) {
	if d.observer != nil {
		d.observer.Observe(ctx, e)
	}
}

// served tells of one caller's answer.
func (d *Cached[P, V]) served(ctx context.Context, status Status, detail string, err error) {
	if d.observer != nil {
		d.servedAt(ctx, time.Now(), status, detail, err)
	}
}

func (d *Cached[P, V]) servedAt(ctx context.Context, at time.Time, status Status, detail string, err error) {
	if d.observer == nil || ctx.Value(warmerKey{}) != nil {
		return
	}
	if err != nil && errors.Is(err, ErrNotFound) {
		err = nil
	}
	d.observer.Served(ctx, Served{At: at, Status: status, Detail: detail, Err: err})
}

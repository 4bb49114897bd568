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

// Event is something that happened: one of the types below, or one of an adapter's.
type Event interface {
	// CacheEvent does nothing. It marks the type.
	CacheEvent()
}

// Events of a query.
type (
	// LoadEnded: the source was asked, by one call of Load or LoadMany.
	LoadEnded struct {
		Took    time.Duration
		Results []LoadStatus // one for each answer
		Err     error        // the first there was; nil also when not found
	}

	// WaitBegan and WaitEnded: a caller waits for a load, its own or one that it joined.
	WaitBegan struct{}
	WaitEnded struct{}

	// NotStored: loaded answers were not stored, because their tags changed or were fenced,
	// because the store failed, or because they are too large.
	NotStored struct{ Answers int }

	// TooLarge: an answer was not stored because Bytes is more than Config.MaxEntryBytes, or
	// Tags more than an answer may have; the other is 0. NotStored is told, too.
	TooLarge struct {
		Key         string
		Bytes, Tags int
	}

	// Undecodable: an entry of the store could not be read. It is another release's, or
	// damaged; it counts as absent.
	Undecodable struct{ Key string }
)

// Events of the whole cache.
type (
	// StoreFailed: a call of the store failed or took longer than it may.
	StoreFailed struct {
		Op  string // "read", "claim", "settle", "renew", "fence", "bump", "identity", "check writes", "name"
		Err error
	}

	// StoreState: what the cache thinks of its store has changed, or was found at the start.
	StoreState struct {
		Breaker   BreakerState
		Validated bool // stored answers are served
	}

	// Invalidated: this process gave tags new versions, or tried to.
	Invalidated struct {
		Tags []Tag
		Err  error
	}

	// Widened: families were invalidated, or Everything, in place of tags that the store refused.
	Widened struct{ Tags []Tag }

	// Unfenced: a write went on without a fence because the store could not be told, or its
	// fence lapsed while it was being committed because the store could not be told again.
	Unfenced struct {
		Tags []Tag
		Err  error
	}

	// Panicked: a function of the program panicked where no caller waited for it, so that it
	// was logged. Query is empty if it belongs to none. The panic of a Load that callers
	// wait for is a LoadEnded.
	Panicked struct {
		Func  string // "Load", "LoadMany", "Codec", "Warm", "OnRecovery", "Logger" or "goroutine"
		Query string
	}

	// ChangesMissed: changes of tags may have gone unnoticed, so near answers were dropped.
	ChangesMissed struct{}
)

func (LoadEnded) CacheEvent()     {}
func (WaitBegan) CacheEvent()     {}
func (WaitEnded) CacheEvent()     {}
func (NotStored) CacheEvent()     {}
func (TooLarge) CacheEvent()      {}
func (Undecodable) CacheEvent()   {}
func (StoreFailed) CacheEvent()   {}
func (StoreState) CacheEvent()    {}
func (Invalidated) CacheEvent()   {}
func (Widened) CacheEvent()       {}
func (Unfenced) CacheEvent()      {}
func (Panicked) CacheEvent()      {}
func (ChangesMissed) CacheEvent() {}

// LoadStatus says how the load of an answer ended.
type LoadStatus string

const (
	LoadFound    LoadStatus = "found"
	LoadNotFound LoadStatus = "not_found"
	LoadFailed   LoadStatus = "error"
	LoadTimedOut LoadStatus = "timeout"
	LoadPanicked LoadStatus = "panic"
)

// BreakerState is the state of the circuit breaker before the store. Its numbers are those
// of the metric cache_breaker_state.
type BreakerState uint8

const (
	BreakerClosed   BreakerState = iota // calls go through
	BreakerHalfOpen                     // one call finds out
	BreakerOpen                         // no call is made
)

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

// Package event has what a cache tells its Observer besides the answers it served: each type is
// something that happened.
package event

import (
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

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

	// Audited: an answer that was served from the cache was compared with the source.
	Audited struct {
		Key    string
		Result AuditResult
		Age    time.Duration // of the answer, since the source was asked for it
		Took   time.Duration // for which the source was busy
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
		Tags []driver.Tag
		Err  error
	}

	// Widened: families were invalidated, or Everything, in place of tags that the store refused.
	Widened struct{ Tags []driver.Tag }

	// Unfenced: a write went on without a fence because the store could not be told, or its
	// fence lapsed while it was being committed because the store could not be told again.
	Unfenced struct {
		Tags []driver.Tag
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

// CacheEvent marks LoadEnded as a cache.Event.
func (LoadEnded) CacheEvent() {}

// CacheEvent marks WaitBegan as a cache.Event.
func (WaitBegan) CacheEvent() {}

// CacheEvent marks WaitEnded as a cache.Event.
func (WaitEnded) CacheEvent() {}

// CacheEvent marks NotStored as a cache.Event.
func (NotStored) CacheEvent() {}

// CacheEvent marks TooLarge as a cache.Event.
func (TooLarge) CacheEvent() {}

// CacheEvent marks Audited as a cache.Event.
func (Audited) CacheEvent() {}

// CacheEvent marks Undecodable as a cache.Event.
func (Undecodable) CacheEvent() {}

// CacheEvent marks StoreFailed as a cache.Event.
func (StoreFailed) CacheEvent() {}

// CacheEvent marks StoreState as a cache.Event.
func (StoreState) CacheEvent() {}

// CacheEvent marks Invalidated as a cache.Event.
func (Invalidated) CacheEvent() {}

// CacheEvent marks Widened as a cache.Event.
func (Widened) CacheEvent() {}

// CacheEvent marks Unfenced as a cache.Event.
func (Unfenced) CacheEvent() {}

// CacheEvent marks Panicked as a cache.Event.
func (Panicked) CacheEvent() {}

// CacheEvent marks ChangesMissed as a cache.Event.
func (ChangesMissed) CacheEvent() {}

// LoadStatus says how the load of an answer ended.
type LoadStatus string

// How a load can end.
const (
	LoadFound    LoadStatus = "found"
	LoadNotFound LoadStatus = "not_found"
	LoadFailed   LoadStatus = "error"
	LoadTimedOut LoadStatus = "timeout"
	LoadPanicked LoadStatus = "panic"
)

// AuditResult says what came of comparing a cached answer with the source.
type AuditResult string

// What an audit can find.
const (
	AuditAgreed   AuditResult = "agreed"
	AuditChanged  AuditResult = "changed"  // there was a write meanwhile, which the cache was told of
	AuditOld      AuditResult = "old"      // it was served though the source said otherwise; it is invalidated
	AuditUnsteady AuditResult = "unsteady" // the source says something else each time
	AuditFailed   AuditResult = "error"    // of the source
)

// BreakerState is the state of the circuit breaker before the store. Its numbers are those
// of the metric cache_breaker_state.
type BreakerState uint8

// The states of a breaker.
const (
	BreakerClosed   BreakerState = iota // calls go through
	BreakerHalfOpen                     // one call finds out
	BreakerOpen                         // no call is made
)

package cache

import "time"

// Status says how an answer came about.
type Status uint8

const (
	Hit       Status = iota + 1 // stored before, valid and fresh
	Stale                       // stored before, valid, past its time; it is being refreshed, or could not be
	Miss                        // loaded for this caller
	Collapsed                   // loaded for another caller, whose load this one joined
	Bypass                      // loaded and not stored: see Detail
)

func (s Status) String() string {
	switch s {
	case Hit:
		return "hit"
	case Stale:
		return "stale"
	case Miss:
		return "miss"
	case Collapsed:
		return "collapsed"
	case Bypass:
		return "bypass"
	}
	return "none"
}

// Details of answers.
const (
	DetailNear        = "near"        // hit in process
	DetailNearProven  = "near_proven" // hit in process, after the store has proven that it is as of now
	DetailFenced      = "fenced"      // a writer of one of the answer's tags is in flight
	DetailUnavailable = "unavailable" // the shared tier is out of reach, or not yet trusted again
	DetailTooLarge    = "too_large"   // the answer has more tags than may be: it is not stored
	DetailNotKept     = "not_kept"    // the load said so, with KeepFor
	DetailNewTags     = "new_tags"    // the load, and its repetition, depended on tags that were not known before
	DetailError       = "error"       // stale because the load failed
)

// Answer is a value and what happened on the way to it.
type Answer[V any] struct {
	// Value is shared with other callers: those who wait for the same load or read of the store,
	// and all of them where values are kept in process. Read it, do not change it. It is the zero value when the error is not nil.
	Value  V
	Status Status
	Detail string        // one of the Detail constants, or empty
	Age    time.Duration // since the source was asked; not negative
	TTL    time.Duration // until it is no longer fresh; negative when Stale, 0 on Bypass
	ETag   ETag          // of the encoded value; zero if it could not be encoded, and for ErrNotFound

	bytes int   // of the encoded value
	named []Tag // by the load
}

// Result is one answer of GetMany.
type Result[V any] struct {
	Answer[V]
	Err error // ErrNotFound, *LoadError, *OverloadError
}

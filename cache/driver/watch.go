package driver

import (
	"context"
	"time"
)

// Watcher is a Store that tells of changes as they happen. Near answers need it.
type Watcher interface {
	Store

	// Watch reports to w until ctx ends, and then returns nil. It reconnects by itself
	// after a gap. It fails at once when the store does not offer this at all.
	Watch(ctx context.Context, w Listener) error
}

// Prover is a Watcher that proves when it is asked to. Then a cache can serve what it keeps near as
// exactly as what it reads: after one small call, which all callers share.
type Prover interface {
	Watcher

	// Prove returns nil once everything that changed before the call has been reported to every
	// Listener, which has been told so (Listener.Proven). It returns an error at once where a
	// part of the store does not report at present, and the cause of ctx when that ends.
	Prove(ctx context.Context) error
}

// ExactWatcher is a Watcher that reports a change before the call that makes it returns, whichever process
// makes it, as only a store in process can. What a cache keeps near is then as exact as what it
// reads from the store, and it keeps answers near unasked.
type ExactWatcher interface {
	Watcher

	// ReportsAtOnce says that this is so.
	ReportsAtOnce() bool
}

// Listener is told of changes by a Watcher. Its methods return at once and are safe for
// concurrent use.
type Listener interface {
	// Changed says that tags have other versions, or other marks, than before.
	Changed(tags ...Tag)
	// Missed says that there may have been changes which were not reported: it comes after
	// the watching began, and began again after a gap.
	Missed()
	// Proven says that everything which changed before at has been reported. at is by
	// this process's monotonic clock; a store that reports within the call that makes
	// a change may name a moment to come.
	Proven(at time.Time)
}

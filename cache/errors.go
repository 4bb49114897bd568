package cache

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrNotFound is returned by a Load that looked and found nothing, and by Get for as
	// long as that answer is cached. What the Load wrapped around it is not kept.
	ErrNotFound = errors.New("cache: not found")

	// ErrClosed is returned by every call after Cache.Close.
	ErrClosed = errors.New("cache: closed")

	// ErrUnavailable is matched by the error of Invalidate when the shared tier could not be
	// told. Get does not return it: it answers from the source.
	ErrUnavailable = errors.New("cache: shared tier unavailable")

	// ErrTransient is matched by the error of a Load that failed for a reason that may be over
	// at once, such as a lost connection. Those who waited for the load get the error, and it is
	// not remembered: the next caller loads again. Wrap it, or an error of your own around it.
	// A load that outlasted its deadline is not remembered either.
	ErrTransient = errors.New("cache: transient failure")

	// ErrLoadTimeout is in the LoadError of a load that outlasted its deadline.
	ErrLoadTimeout = errors.New("cache: load took longer than its deadline")

	// ErrLoadCycle is in the error of a Get that a load makes for its own answer, or for one
	// whose load waits for it, and of one beneath a hundred loads that wait for each other. It
	// is told by the context, so pass on that of Load. A cycle of which no context tells ends with
	// LoadTimeout.
	ErrLoadCycle = errors.New("cache: a load waits for itself")

	// errGoexit stands for a function that ended its goroutine instead of returning.
	errGoexit = errors.New("runtime.Goexit was called")
)

// LoadError is returned when a query's Load failed: to everyone who waited for it, and,
// for a moment that grows with repeated failures, to those who ask next, unless the failure is
// transient (ErrTransient). Those who waited
// can reach the loader's own error through errors.Is and errors.As; another process
// knows only its text.
type LoadError struct {
	Query string // "namespace:query"
	Key   string
	Err   error
}

func (e *LoadError) Error() string {
	return fmt.Sprintf("load %s: %v", e.Key, e.Err)
}

func (e *LoadError) Unwrap() error { return e.Err }

// PanicError stands for a panic of a function that the program gave to the cache. It is in the
// LoadError of a Load or LoadMany that panicked, called runtime.Goexit, or returned an error that
// cannot be asked what it is, such as a nil pointer in an interface. It is in the error of the
// call that ran a Key, Tags, Owner or Warm. Where no caller waits, it is logged and counted
// (Panicked).
type PanicError struct {
	Func  string // what panicked: "Load", "Tags"
	Value any    // of the panic
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("%s panicked: %v", e.Func, e.Value) }

// Unwrap returns the panic's value if it is an error, else nil.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// OverloadError is returned when a query has as many loads running and waiting as it may:
// the source is protected at the expense of this caller.
type OverloadError struct {
	Query string
	// RetryAfter is when a place is likely to be free, by the pace of recent loads.
	RetryAfter time.Duration
}

func (e *OverloadError) Error() string {
	return fmt.Sprintf("%s is overloaded: as many loads as allowed are running and waiting; retry after %v", e.Query, e.RetryAfter)
}

// remoteError is a loader's error as another process remembered it.
type remoteError string

func (e remoteError) Error() string { return string(e) }

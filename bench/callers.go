package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/bench/internal/child"
	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
)

// callersRole is a process in which several callers ask for one key at the same moment.
const callersRole = "callers"

type callersSpec struct {
	Library, Addr string
	Prefix        string // of the library
	Key           string // prefix of the key
	Callers       int
	Load          time.Duration // how long the source takes
	Fail          bool          // the source fails in the end
	Panics        int           // the number of first loads that panic after Load
	// FirstCancel is when the first caller's context ends; 0 for never. The others come OthersDelay
	// after it, and their contexts end after Timeout.
	FirstCancel, OthersDelay time.Duration
	Timeout                  time.Duration
	// Retry is how long to ask again afterwards, until there is an answer.
	Retry time.Duration
	Near  bool
}

type callersResult struct {
	Calls     []call
	Loads     []span
	Recovered int64 // when Retry got an answer, Unix nanoseconds; 0 for never
}

type span struct{ Start, End int64 } // Unix nanoseconds

type call struct {
	span
	Err      string
	Panicked bool
	Hung     bool // did not return even when its context had ended
	Empty    bool // no error, and no answer either
}

func (c call) served() bool { return c.Err == "" && !c.Panicked && !c.Hung && !c.Empty }

// hangAfter is how long after its context's end a call counts as hung.
const hangAfter = 2 * time.Second

func callers(ctx context.Context, parent *child.Parent) (any, error) {
	var spec callersSpec
	if err := parent.Spec(&spec); err != nil {
		return nil, err
	}
	src := &failingSource{spec: spec}
	c, err := peers.Open(ctx, spec.Library, peers.Config[[]byte]{
		Addr: spec.Addr, Prefix: spec.Prefix, Codec: peers.Raw, Load: src.load, Near: spec.Near,
	})
	if err != nil {
		return nil, err
	}
	// The process ends with the role, and with it whatever the library still holds:
	// some cannot be closed while a load hangs.
	other := payload.KeyOf(spec.Key, 1)
	if _, err := c.Get(ctx, &other); err != nil { // connections are made here, not in what is measured
		return nil, fmt.Errorf("%s: first call: %w", spec.Library, err)
	}
	src.active.Store(true)
	begin, err := parent.Ready()
	if err != nil {
		return nil, err
	}
	var result callersResult
	key := payload.KeyOf(spec.Key, 0)
	result.Calls = askTogether(ctx, spec, begin, func(ctx context.Context) ([]byte, error) { return c.Get(ctx, &key) })
	if spec.Retry > 0 {
		result.Recovered = askUntilServed(ctx, spec.Retry, func(ctx context.Context) ([]byte, error) { return c.Get(ctx, &key) })
	}
	result.Loads = src.spans()
	return result, nil
}

// askTogether has the callers call get, and returns what became of each when all have
// returned or are overdue.
func askTogether(ctx context.Context, spec callersSpec, begin time.Time, get func(context.Context) ([]byte, error)) []call {
	calls := make([]chan call, spec.Callers)
	for n := range calls {
		calls[n] = make(chan call, 1)
		timeout, delay := spec.Timeout, spec.OthersDelay
		if n == 0 {
			delay = 0
			if spec.FirstCancel > 0 {
				timeout = spec.FirstCancel
			}
		}
		go func() { // may never return: that is one of the things looked for
			time.Sleep(time.Until(begin.Add(delay)))
			calls[n] <- askOnce(ctx, timeout, get)
		}()
	}
	overdue := time.After(time.Until(begin.Add(spec.OthersDelay + spec.Timeout + hangAfter)))
	results := make([]call, 0, spec.Callers)
	for n := range calls {
		select {
		case c := <-calls[n]:
			results = append(results, c)
		case <-overdue:
			overdue = closedTimer // the others have not got more time
			select {
			case c := <-calls[n]:
				results = append(results, c)
			default:
				results = append(results, call{Hung: true, span: span{begin.UnixNano(), time.Now().UnixNano()}})
			}
		}
	}
	return results
}

// closedTimer has always fired.
var closedTimer = func() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()

func askOnce(ctx context.Context, timeout time.Duration, get func(context.Context) ([]byte, error)) (c call) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c.Start = time.Now().UnixNano()
	defer func() {
		c.End = time.Now().UnixNano()
		if v := recover(); v != nil {
			c.Panicked, c.Err = true, fmt.Sprint(v)
		}
	}()
	b, err := get(ctx)
	if err != nil {
		c.Err = err.Error()
	}
	c.Empty = err == nil && len(b) == 0
	return c
}

// askUntilServed asks repeatedly, each time with a short timeout, and returns when
// it was answered; 0 if not within limit.
func askUntilServed(ctx context.Context, limit time.Duration, get func(context.Context) ([]byte, error)) int64 {
	const timeout = 500 * time.Millisecond
	until := time.Now().Add(limit)
	for time.Now().Before(until) {
		answers := make(chan call, 1)
		go func() { answers <- askOnce(ctx, timeout, get) }()
		select {
		case c := <-answers:
			if c.served() {
				return c.End
			}
		case <-time.After(timeout + 100*time.Millisecond): // it does not heed its context
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0
}

// failingSource takes its time, and may then fail or panic.
type failingSource struct {
	spec   callersSpec
	active atomic.Bool // before, it answers at once

	mu    sync.Mutex
	loads []span // guarded by mu
}

func (s *failingSource) load(ctx context.Context, id uuid.UUID) ([]byte, error) {
	if !s.active.Load() {
		return loadBytes(ctx, id)
	}
	s.mu.Lock()
	n := len(s.loads)
	s.loads = append(s.loads, span{Start: time.Now().UnixNano()})
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.loads[n].End = time.Now().UnixNano()
	}()
	if err := pause(ctx, s.spec.Load); err != nil {
		return nil, fmt.Errorf("source: %w", err) // as a query does whose context ends
	}
	switch {
	case n < s.spec.Panics:
		panic("the loader panics")
	case s.spec.Fail:
		return nil, fmt.Errorf("source: it cannot be done")
	}
	return loadBytes(ctx, id)
}

func (s *failingSource) spans() []span {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]span(nil), s.loads...)
}

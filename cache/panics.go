package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache/event"
)

// The functions that a program gives to the cache run in the midst of it: on goroutines that
// many callers wait for, with a lease, a slot, or a lock. None of them may take the others down.
// So each is called under one of these:
//
//   - caught, where it runs on the goroutine of the caller that gets the error: Key, Tags, Owner,
//     and those that are over at once: codecs.
//   - protect, where it may take long, or call runtime.Goexit: Load, LoadMany, Warm, and the
//     functions of OnRecovery. It runs on a goroutine of its own, and its caller leaves with the
//     context.
//   - safeObserver and safeHandler, which are put around the Observer and the Logger by New.
//
// A panic becomes a *PanicError for the callers that wait. Where there are none, Cache.uncaught
// counts it and logs it with its stack. Beneath all that, Cache.start recovers on every goroutine
// of the cache, and each goroutine that others wait for tells them in a deferred call.

// caught is deferred around a call of a function of the program: a panic becomes its error.
func caught(what string, err *error) {
	if v := recover(); v != nil {
		*err = newPanicError(what, v)
	}
}

func newPanicError(what string, v any) *PanicError {
	if !printable(v) {
		v = fmt.Sprintf("a value of type %T", v)
	}
	return &PanicError{Func: what, Value: v, Stack: debug.Stack()}
}

// printable says whether a value of the program can be printed and, if it is an error, asked for
// what it wraps, without a panic.
func printable(v any) (ok bool) {
	defer func() { ok = recover() == nil }()
	err, isError := v.(error)
	if !isError {
		_ = fmt.Sprint(v)
		return true
	}
	_ = err.Error()
	_ = errors.Is(err, ErrNotFound) // asks each error of the chain
	_ = errors.As(err, new(*OverloadError))
	return true
}

// usable returns an error of the program if it can be asked what it is. One that cannot, such as
// a nil pointer in an interface, is replaced: a caller that logs or compares it would panic.
func usable(err error) error {
	if err == nil || printable(err) {
		return err
	}
	return &PanicError{
		Func:  "Error",
		Value: fmt.Sprintf("an error of type %T cannot say what it is: is it a nil pointer? return a nil error instead", err),
		Stack: debug.Stack(),
	}
}

// errorText returns what an error says, which may have become unusable since it was returned.
func errorText(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = fmt.Sprintf("an error of type %T", err)
		}
	}()
	return err.Error()
}

// panicLogEvery bounds the messages about one function of one query.
const panicLogEvery = time.Minute

// panicLog remembers which functions were complained of lately. It is as large as a program has
// functions.
type panicLog struct {
	mu   sync.Mutex
	last map[[2]string]time.Time
}

func (l *panicLog) due(what, query string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = map[[2]string]time.Time{}
	}
	at, ok := l.last[[2]string{what, query}]
	if ok && time.Since(at) < panicLogEvery {
		return false
	}
	l.last[[2]string{what, query}] = time.Now()
	return true
}

// uncaught counts and logs a panic that no caller is told of. Other errors are left alone.
func (c *Cache) uncaught(ctx context.Context, query string, err error) {
	var p *PanicError
	if !errors.As(err, &p) {
		return
	}
	c.Observe(ctx, event.Panicked{Func: p.Func, Query: query})
	c.logPanic(ctx, query, p)
}

func (c *Cache) logPanic(ctx context.Context, query string, p *PanicError) {
	if c.panics.due(p.Func, query) {
		c.cfg.Logger.ErrorContext(ctx, "a function of the program panicked, and the cache goes on without its result: mend the function; for a minute its further panics are only counted",
			"function", p.Func, "query", query, "panic", p.Value, "stack", string(p.Stack))
	}
}

// safeObserver keeps the panics of an Observer from those that are observed.
type safeObserver struct {
	Observer
	c *Cache
}

func (s safeObserver) recovered(query string) {
	if v := recover(); v != nil {
		s.c.logPanic(context.Background(), query, newPanicError("Observer", v))
	}
}

func (s safeObserver) Query(name string) (q QueryObserver) {
	defer s.recovered(name)
	if q = s.Observer.Query(name); q != nil {
		q = safeQueryObserver{q, s, name}
	}
	return q
}

func (s safeObserver) Observe(ctx context.Context, e Event) {
	defer s.recovered("")
	s.Observer.Observe(ctx, e)
}

type safeQueryObserver struct {
	QueryObserver
	all   safeObserver
	query string
}

func (s safeQueryObserver) Served(ctx context.Context, served Served) {
	defer s.all.recovered(s.query)
	s.QueryObserver.Served(ctx, served)
}

func (s safeQueryObserver) Observe(ctx context.Context, e Event) {
	defer s.all.recovered(s.query)
	s.QueryObserver.Observe(ctx, e)
}

// safeHandler keeps the panics of a Logger from what is logged. There is nowhere to log them.
type safeHandler struct {
	slog.Handler
	panicked func()
}

func (s safeHandler) recovered() {
	if recover() != nil {
		s.panicked()
	}
}

func (s safeHandler) Enabled(ctx context.Context, level slog.Level) bool {
	defer s.recovered()
	return s.Handler.Enabled(ctx, level)
}

func (s safeHandler) Handle(ctx context.Context, r slog.Record) error {
	defer s.recovered()
	return s.Handler.Handle(ctx, r)
}

func (s safeHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return safeHandler{s.Handler.WithAttrs(attrs), s.panicked}
}

func (s safeHandler) WithGroup(name string) slog.Handler {
	return safeHandler{s.Handler.WithGroup(name), s.panicked}
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// loaded is what came of asking the source for one answer.
type loaded[V any] struct {
	value   V
	found   bool
	payload []byte // to be stored; nil if there is none, or it could not be encoded
	etag    ETag   // of payload
	at      time.Time
	err     error // *LoadError, *OverloadError, or ErrClosed; nil also when not found
}

// load asks the source for one answer, when admitted.
func (d *Cached[P, V]) load(ctx context.Context, p P, key string, begin func()) loaded[V] {
	return d.loadAll(ctx, []P{p}, []string{key}, begin)[0]
}

// loadAll asks the source for answers, with one place of admission for all of them. begin,
// if not nil, is called when the source is about to be read.
func (d *Cached[P, V]) loadAll(ctx context.Context, ps []P, keys []string, begin func()) []loaded[V] {
	if err := d.loads.enter(ctx); err != nil {
		return d.failAll(keys, err)
	}
	return d.loadAdmitted(ctx, ps, keys, begin)
}

// loadAdmitted is loadAll for a caller that has entered d.loads.
func (d *Cached[P, V]) loadAdmitted(ctx context.Context, ps []P, keys []string, begin func()) []loaded[V] {
	if begin != nil {
		begin()
	}
	at := time.Now()
	leave := func() {
		took := time.Since(at)
		d.loads.leave(took)
		d.m.loadTime.Observe(took.Seconds())
	}
	outs, err := protect(ctx, d.c, d.LoadTimeout, leave, func(ctx context.Context) ([]loaded[V], error) {
		results, err := d.ask(ctx, ps)
		if err != nil {
			return nil, err
		}
		outs := make([]loaded[V], len(ps))
		for i, r := range results {
			outs[i] = d.encode(r)
		}
		return outs, nil
	})
	if err != nil {
		outs = d.failAll(keys, err)
	}
	for i := range outs {
		outs[i].at = at
		outs[i].err = d.describeError(keys[i], outs[i].err)
		d.m.loads[resultOf(outs[i].found, outs[i].err)].Inc()
	}
	return outs
}

// ask calls the query's loader.
func (d *Cached[P, V]) ask(ctx context.Context, ps []P) ([]Loaded[V], error) {
	if len(ps) == 1 {
		v, err := d.Load(ctx, ps[0])
		return []Loaded[V]{{v, err}}, nil
	}
	results, err := d.LoadMany(ctx, ps)
	if err == nil && len(results) != len(ps) {
		err = fmt.Errorf("LoadMany returned %d results for %d parameters", len(results), len(ps))
	}
	return results, err
}

func (d *Cached[P, V]) encode(r Loaded[V]) loaded[V] {
	switch {
	case errors.Is(r.Err, ErrNotFound):
		return loaded[V]{}
	case r.Err != nil:
		return loaded[V]{err: r.Err}
	}
	out := loaded[V]{value: r.Value, found: true}
	payload, err := d.Codec.Encode(r.Value)
	if err != nil {
		// The answer is good; it merely cannot be kept.
		d.c.cfg.Logger.Error("answer cannot be encoded, so it is not cached", "query", d.Name, "err", err)
		return out
	}
	if payload == nil {
		payload = []byte{}
	}
	out.payload, out.etag = payload, etagOf(payload)
	return out
}

func (d *Cached[P, V]) failAll(keys []string, err error) []loaded[V] {
	outs := make([]loaded[V], len(keys))
	for i := range outs {
		outs[i].err = err
	}
	return outs
}

// describeError makes a *LoadError of a loader's error, and leaves the cache's own alone.
func (d *Cached[P, V]) describeError(key string, err error) error {
	if err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	if _, ok := errors.AsType[*OverloadError](err); ok {
		return err
	}
	return &LoadError{Query: d.Name, Key: key, Err: err}
}

func resultOf(found bool, err error) string {
	switch {
	case err == nil && found:
		return resultFound
	case err == nil:
		return resultNotFound
	case errors.Is(err, ErrLoadTimeout):
		return resultTimeout
	case errors.Is(err, errGoexit):
		return resultPanic
	}
	if _, ok := errors.AsType[*PanicError](err); ok {
		return resultPanic
	}
	return resultError
}

// detach returns a context that keeps ctx's values, outlives it, and ends with the cache.
func (c *Cache) detach(ctx context.Context) (context.Context, context.CancelFunc) {
	detached, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(c.life, func() { cancel(context.Cause(c.life)) })
	return detached, func() {
		stop()
		cancel(nil)
	}
}

// protect runs f, a user's loader, so that whatever it does the caller gets a result in
// time: a panic or runtime.Goexit becomes an error, and when the timeout is over the
// caller goes on without it. after is called when f has really ended, so that a
// loader that ignores its context keeps its place, and the source stays protected.
func protect[T any](ctx context.Context, c *Cache, timeout time.Duration, after func(), f func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, ErrLoadTimeout)
	results := make(chan result, 1)
	spawned := c.spawn(func(context.Context) {
		defer cancel()
		defer after()
		r := result{err: errGoexit} // unless f returns or panics
		defer func() {
			if v := recover(); v != nil {
				r = result{err: &PanicError{Value: v, Stack: debug.Stack()}}
			}
			results <- r
		}()
		value, err := f(ctx)
		r = result{value, err}
	})
	if !spawned {
		after()
		cancel()
		return none, ErrClosed
	}
	select {
	case r := <-results:
		return r.value, timely(ctx, r.err)
	case <-ctx.Done():
		select {
		case r := <-results: // ended at the same moment
			return r.value, timely(ctx, r.err)
		default:
			return none, context.Cause(ctx)
		}
	}
}

// timely names the deadline in the error of a loader that ran into it.
func timely(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err != nil && errors.Is(cause, ErrLoadTimeout) && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrLoadTimeout, err)
	}
	return err
}

package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chainlearn/chainlearn/cache/event"
)

// sourceAnswer is what came of asking the source for one answer.
type sourceAnswer[V any] struct {
	value   V
	found   bool
	payload []byte         // to be stored; nil if there is none, or it could not be encoded
	etag    ETag           // of payload
	bytes   int            // of payload, also of one that was stored
	named   []Tag          // by the load: sorted, each once, without those of Query.Tags
	keep    *time.Duration // how long it is fresh, if the load said so
	at      time.Time
	err     error // *LoadError, *OverloadError, or ErrClosed; nil also when not found
}

// loadOne asks the source for one answer, when admitted.
func (d *Cached[P, V]) loadOne(ctx context.Context, r *request[P], begin func()) sourceAnswer[V] {
	return d.loadAll(ctx, []*request[P]{r}, begin)[0]
}

// loadAll asks the source for answers, with one slot of admission for all of them. begin,
// if not nil, is called when the source is about to be read.
func (d *Cached[P, V]) loadAll(ctx context.Context, rs []*request[P], begin func()) []sourceAnswer[V] {
	lane := rs[0].lane
	if askingLoad(ctx) != nil {
		lane = laneNested
	}
	if err := d.loads.enter(ctx, lane); err != nil {
		return failAll[V](len(rs), err)
	}
	return d.loadAdmitted(ctx, rs, begin)
}

// loadAdmitted is loadAll for a caller that has entered d.loads.
func (d *Cached[P, V]) loadAdmitted(ctx context.Context, rs []*request[P], begin func()) []sourceAnswer[V] {
	if begin != nil {
		begin()
	}
	at := time.Now()
	load := newRunningLoad(ctx, d.loads, rs)
	say := &said{late: func(what string) { d.saidTooLate(ctx, rs[0].key, what) }}
	leave := func() { load.end(time.Since(at)) }
	loadCtx, cancel := context.WithTimeoutCause(ctx, d.q.LoadTimeout, ErrLoadTimeout)
	defer cancel()
	loadCtx = context.WithValue(context.WithValue(loadCtx, runningLoadKey{}, load), saidKey{}, say)
	what := "Load"
	if len(rs) > 1 {
		what = "LoadMany"
	}
	answers, err := protect(loadCtx, d.c, what, leave, func(ctx context.Context) ([]sourceAnswer[V], error) {
		results, err := d.askSource(ctx, rs)
		if wrong := say.finish(); err == nil {
			err = wrong
		}
		if err != nil {
			return nil, err
		}
		answers := make([]sourceAnswer[V], len(rs))
		for i, r := range results {
			if err := checkTags(r.Tags); err != nil {
				r = Loaded[V]{Err: cmp.Or(r.Err, fmt.Errorf("Loaded.Tags: %w", err))}
			}
			answers[i] = d.encode(ctx, r)
			answers[i].named, answers[i].keep = say.about(rs[i].own, r.Tags, r.KeepFor)
		}
		return answers, nil
	})
	if err != nil {
		answers = failAll[V](len(rs), err)
		for i := range answers {
			answers[i].named, _ = say.about(rs[i].own, nil, 0)
		}
	}
	closing := d.c.ctx.Err() != nil
	for i := range answers {
		answers[i].at = at
		if closing && answers[i].err != nil && !errors.As(answers[i].err, new(*PanicError)) {
			// The end of this cache ended the load, however the loader words it. That is no
			// failure of the source: it is not remembered, and another process loads.
			answers[i].err = ErrClosed
		}
		answers[i].err = d.describeError(rs[i].key, answers[i].err)
	}
	if d.observer != nil {
		ended := event.LoadEnded{Took: time.Since(at), Results: make([]event.LoadStatus, len(answers)), Err: err}
		for i, a := range answers {
			ended.Results[i] = statusOf(a.found, a.err)
			ended.Err = cmp.Or(ended.Err, a.err)
		}
		d.observe(ctx, ended)
	}
	return answers
}

// askSource calls the query's loader.
func (d *Cached[P, V]) askSource(ctx context.Context, rs []*request[P]) ([]Loaded[V], error) {
	if len(rs) == 1 {
		v, err := d.q.Load(ctx, rs[0].p)
		return []Loaded[V]{{Value: v, Err: err}}, nil
	}
	ps := make([]P, len(rs))
	for i, r := range rs {
		ps[i] = r.p
	}
	results, err := d.q.LoadMany(ctx, ps)
	if err == nil && len(results) != len(ps) {
		err = fmt.Errorf("LoadMany returned %d results for %d parameters", len(results), len(ps))
	}
	return results, err
}

func (d *Cached[P, V]) encode(ctx context.Context, r Loaded[V]) sourceAnswer[V] {
	switch r.Err = usable(r.Err); {
	case errors.Is(r.Err, ErrNotFound):
		return sourceAnswer[V]{}
	case r.Err != nil:
		return sourceAnswer[V]{err: r.Err}
	}
	out := sourceAnswer[V]{value: r.Value, found: true}
	payload, err := d.encodeValue(r.Value)
	if err != nil {
		// The answer is good; it merely cannot be kept.
		d.c.uncaught(ctx, d.q.Name, err)
		d.c.cfg.Logger.ErrorContext(ctx, "answer cannot be encoded, so it is not cached", "query", d.q.Name, "err", err)
		return out
	}
	if payload == nil {
		payload = []byte{}
	}
	d.noteSize(len(payload))
	out.payload, out.etag, out.bytes = payload, etagOf(payload), len(payload)
	return out
}

// encodeValue calls the codec.
func (d *Cached[P, V]) encodeValue(v V) (payload []byte, err error) {
	defer caught("Codec", &err)
	payload, err = d.q.Codec.Encode(v)
	return payload, usable(err)
}

// saidTooLate tells of what a load said after it had returned, which its answer does not know of.
func (d *Cached[P, V]) saidTooLate(ctx context.Context, key, what string) {
	d.saidLate.Do(func() {
		d.c.cfg.Logger.ErrorContext(ctx, "a load said more of its answer after it had returned: that is lost, and the answer may become wrong",
			"query", d.q.Name, "key", key, "said", what, "remedy", "wait in Load for the goroutines that it starts")
	})
}

func failAll[V any](n int, err error) []sourceAnswer[V] {
	answers := make([]sourceAnswer[V], n)
	for i := range answers {
		answers[i].err = err
	}
	return answers
}

// describeError makes a *LoadError of a loader's error, and leaves the cache's own alone.
func (d *Cached[P, V]) describeError(key string, err error) error {
	if err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	if errors.As(err, new(*OverloadError)) {
		return err
	}
	return &LoadError{Query: d.q.Name, Key: key, Err: err}
}

func statusOf(found bool, err error) event.LoadStatus {
	switch {
	case err == nil && found:
		return event.LoadFound
	case err == nil:
		return event.LoadNotFound
	case errors.Is(err, ErrLoadTimeout):
		return event.LoadTimedOut
	}
	if errors.As(err, new(*PanicError)) {
		return event.LoadPanicked
	}
	return event.LoadFailed
}

// detach returns a context for work that serves many callers: it ends with the cache and not
// with ctx, and of the values of ctx it has only those of keys, and which load asks.
func (c *Cache) detach(ctx context.Context, keys []any) (context.Context, context.CancelFunc) {
	detached, cancel := context.WithCancelCause(onlyValues{ctx, keys})
	stop := context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })
	return detached, func() {
		stop()
		cancel(nil)
	}
}

// onlyValues is a context that never ends and has some of the values of another. A load that saw
// all of them could answer for one caller's tenant or user, and the answer is for everyone.
type onlyValues struct {
	from context.Context
	keys []any
}

func (onlyValues) Deadline() (time.Time, bool) { return time.Time{}, false }
func (onlyValues) Done() <-chan struct{}       { return nil }
func (onlyValues) Err() error                  { return nil }

func (o onlyValues) Value(key any) any {
	if key == (runningLoadKey{}) || slices.Contains(o.keys, key) {
		return o.from.Value(key)
	}
	return nil
}

// protect runs f, a function of the program, so that whatever it does the caller gets a result in
// time: a panic or runtime.Goexit becomes an error, and when ctx ends the
// caller goes on without it. after is called when f has really ended, so that a
// loader that ignores its context keeps its place, and the source stays protected.
func protect[T any](ctx context.Context, c *Cache, what string, after func(), f func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	results := make(chan result, 1)
	started := c.start(func(context.Context) {
		defer after()
		var r result
		returned := false
		defer func() {
			if v := recover(); v != nil {
				r = result{err: newPanicError(what, v)}
			} else if !returned {
				r = result{err: newPanicError(what, errGoexit)}
			}
			results <- r
		}()
		value, err := f(ctx)
		r = result{value, usable(err)}
		returned = true
	})
	if !started {
		after()
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

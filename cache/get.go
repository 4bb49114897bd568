package cache

import (
	"context"
	"errors"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Get returns the answer for p: from the cache if it is there and nothing it depends on
// was written since, else from the source. Errors: ErrNotFound, *LoadError,
// *OverloadError, the cause of ctx if that ended first, ErrClosed. Safe for concurrent use.
func (d *Cached[P, V]) Get(ctx context.Context, p P) (V, error) {
	if d.near != nil && !wantsFresh(ctx) {
		if a, now := d.near.get(p); a != nil { // as Ask does, without making an Answer
			d.m.nearHit(d.near.birth.Add(time.Duration(now)))
			if !a.found {
				return a.value, ErrNotFound
			}
			return a.value, nil
		}
	}
	a, err := d.Ask(ctx, p)
	return a.Value, err
}

// Ask is Get for callers who also want to know where the answer comes from. With
// ErrNotFound the Answer says where that was known from, and has no Value.
func (d *Cached[P, V]) Ask(ctx context.Context, p P) (Answer[V], error) {
	if d.near != nil && !wantsFresh(ctx) {
		if a, now := d.near.get(p); a != nil {
			return d.fromNear(a, now)
		}
	}
	if ctx.Err() != nil {
		return Answer[V]{}, context.Cause(ctx)
	}
	if d.c.life.Err() != nil {
		return Answer[V]{}, ErrClosed
	}
	key, err := d.keyOf(p)
	if err != nil {
		return Answer[V]{}, err
	}
	tags := d.Tags(p)
	var before nearby
	if d.near != nil {
		before = d.near.listen(tags)
	}
	seen, err := d.look(ctx, key, tags)
	if err != nil {
		if ctx.Err() != nil {
			return Answer[V]{}, context.Cause(ctx)
		}
		return d.bypass(ctx, p, key, DetailUnavailable)
	}
	now, guard, fenced, kept := seen.at, seen.guard, seen.fenced, seen.kept
	switch kept.state {
	case entryFresh:
		d.m.hit(now)
		d.keepNear(p, before, kept.answer, kept.err())
		return kept.answer, kept.err()
	case entryStale:
		d.m.hit(now)
		d.refresh(ctx, p, key, tags, guard, false)
		return kept.answer, kept.err()
	}

	rains := false
	if d.storms != nil {
		var last Answer[V]
		var ok bool
		written := fenced || kept.state == entryOutdated
		if last, rains, ok = d.storms.see(p, guard, written, now); ok && !wantsFresh(ctx) {
			d.m.hit(now)
			return last, nil
		}
	}
	var answer Answer[V]
	if fenced {
		answer, err = d.bypass(ctx, p, key, DetailFenced)
	} else {
		answer, err = d.join(ctx, p, key, tags, guard)
	}
	switch {
	case err != nil && kept.state == entryExpired && failedToLoad(err):
		kept.answer.Detail = DetailError
		return kept.answer, kept.err()
	case answer.Status == Collapsed: // one of those who waited is enough
		return answer, err
	}
	d.keepNear(p, before, answer, err)
	if d.storms != nil && err == nil {
		d.storms.keep(p, answer, rains, time.Now())
	}
	return answer, err
}

func (d *Cached[P, V]) fromNear(a *nearAnswer[V], now int64) (Answer[V], error) {
	d.m.nearHit(d.near.birth.Add(time.Duration(now)))
	answer := Answer[V]{
		Value: a.value, Status: Hit, Detail: DetailNear, ETag: a.etag,
		Age: time.Duration(now - a.at), TTL: time.Duration(a.until - now),
	}
	if !a.found {
		return answer, ErrNotFound
	}
	return answer, nil
}

// keepNear keeps a stored answer in process, if the query wants that.
func (d *Cached[P, V]) keepNear(p P, before nearby, a Answer[V], err error) {
	if d.near != nil && (err == nil || errors.Is(err, ErrNotFound)) && a.Status != Bypass {
		d.near.put(p, before, a.Value, a.ETag, err == nil, a.Age, a.TTL)
	}
}

// read asks the store for the versions of tags and for entries, unless entries are not to
// be trusted.
func (c *Cache) read(ctx context.Context, tags []Tag, keys []string) (s driver.Snapshot, err error) {
	if !c.health.isTrusted() {
		return s, ErrUnavailable
	}
	err = c.health.call(ctx, "read", func(ctx context.Context) (err error) {
		s, err = c.cfg.Store.Read(ctx, tags, keys)
		return err
	})
	return s, err
}

func failedToLoad(err error) bool {
	if _, ok := errors.AsType[*OverloadError](err); ok {
		return true
	}
	_, ok := errors.AsType[*LoadError](err)
	return ok
}

type entryState uint8

const (
	entryAbsent   entryState = iota // or unreadable, or too old for anything
	entryOutdated                   // invalidated: never serve it
	entryFresh                      // serve it
	entryStale                      // serve it, and refresh it
	entryExpired                    // serve it only if it cannot be loaded anew
)

// kept is what an entry of the store is worth now.
type kept[V any] struct {
	state  entryState
	found  bool
	answer Answer[V]
}

func (k *kept[V]) err() error {
	if !k.found {
		return ErrNotFound
	}
	return nil
}

// examine reads an entry. Validity comes first: of an entry under another guard nothing is
// served, however fresh it is.
func (d *Cached[P, V]) examine(raw []byte, guard driver.Guard, now time.Time) (k kept[V]) {
	if raw == nil {
		return k
	}
	var e envelope
	if !e.decode(raw) {
		d.m.undecodable.Inc()
		return k
	}
	if e.guard != guard {
		k.state = entryOutdated
		return k
	}
	age := max(now.Sub(e.loadedAt), 0)
	switch {
	case age < e.fresh:
		k.state = entryFresh
	case age < e.fresh+e.stale:
		k.state = entryStale
	case age < e.fresh+d.StaleIfError && e.found:
		k.state = entryExpired
	default:
		return k
	}
	k.found = e.found
	k.answer = Answer[V]{Status: Hit, Age: age, TTL: e.fresh - age}
	if k.state != entryFresh {
		k.answer.Status = Stale
	}
	if !e.found {
		return k
	}
	v, err := d.decode(e.payload)
	if err != nil {
		d.m.undecodable.Inc()
		return kept[V]{}
	}
	k.answer.Value, k.answer.ETag = v, e.etag
	return k
}

var errDecodePanic = errors.New("codec panicked")

// decode calls the codec, which may be at a loss with another release's bytes.
func (d *Cached[P, V]) decode(payload []byte) (v V, err error) {
	defer func() {
		if recover() != nil {
			err = errDecodePanic
		}
	}()
	return d.Codec.Decode(payload)
}

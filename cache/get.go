package cache

import (
	"context"
	"errors"
	"fmt"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Get returns the answer for p: from the cache if it is there and nothing it depends on
// was written since, else from the source. Errors: ErrNotFound, *LoadError,
// *OverloadError, *PanicError of a Key or Tags, the cause of ctx if that ended first, ErrClosed.
// Safe for concurrent use.
func (d *Cached[P, V]) Get(ctx context.Context, p P) (V, error) {
	if d.near != nil {
		if a, now, detail := d.near.get(ctx, p); a != nil { // as Lookup does, without making an Answer
			d.servedAt(ctx, d.near.time(now), Hit, detail, nil)
			d.hit(ctx, p)
			return a.value, a.err()
		}
	}
	a, err := d.Lookup(ctx, p)
	return a.Value, err
}

// Lookup is Get for callers who also want to know how the answer came. With ErrNotFound
// the Answer says where that was known from, and has no Value.
func (d *Cached[P, V]) Lookup(ctx context.Context, p P) (Answer[V], error) {
	if d.near != nil {
		if a, now, detail := d.near.get(ctx, p); a != nil {
			d.servedAt(ctx, d.near.time(now), Hit, detail, nil)
			d.hit(ctx, p)
			return d.near.answer(a, now, detail), a.err()
		}
	}
	r, err := d.request(ctx, p)
	if err != nil {
		return Answer[V]{}, err
	}
	a, err := d.lookup(ctx, r)
	d.served(ctx, a.Status, a.Detail, err)
	return a, err
}

// lookup reads the answer from the store, or gets it loaded.
func (d *Cached[P, V]) lookup(ctx context.Context, r *request[P]) (Answer[V], error) {
	if r.tooMany > 0 {
		return d.bypass(ctx, r, DetailTooLarge)
	}
	read, err := d.readEntry(ctx, &r)
	switch {
	case err != nil && ctx.Err() != nil:
		return Answer[V]{}, context.Cause(ctx)
	case err != nil:
		return d.bypass(ctx, r, DetailUnavailable)
	case read.fenced:
		return d.bypass(ctx, r, DetailFenced)
	}
	switch e := read.entry; e.state {
	case entryFresh:
		d.remember(r, e.named, 0)
		d.keepNear(r, e.answer, e.err())
		d.hit(ctx, r.p)
		return e.answer, e.err()
	case entryStale:
		d.refresh(ctx, r, read.guard, false)
		return e.answer, e.err()
	case entryExpired:
		a, err := d.load(ctx, r, read.guard)
		if failedToLoad(err) {
			e.answer.Detail = DetailError
			return e.answer, e.err()
		}
		return a, err
	default:
		return d.load(ctx, r, read.guard)
	}
}

// readEntry reads what the store has of an answer. If its load named tags that were not known, the
// request becomes one that has them.
func (d *Cached[P, V]) readEntry(ctx context.Context, r **request[P]) (readResult[V], error) {
	read, err := d.read(ctx, *r)
	for n := 0; err == nil && read.entry.state == entryNamesMore && n < maxRereads; n++ {
		*r = d.naming(*r, read.entry.named)
		read, err = d.read(ctx, *r)
	}
	*r = (*r).having(read.states)
	return read, err
}

// load waits for a load of the answer under guard, and keeps what came of it near.
func (d *Cached[P, V]) load(ctx context.Context, r *request[P], guard driver.Guard) (Answer[V], error) {
	a, err := d.join(ctx, r, guard)
	if a.Status != Collapsed { // one of those who waited is enough
		d.keepNear(r, a, err)
	}
	return a, err
}

// request is one question on its way to an answer.
type request[P comparable] struct {
	p    P
	key  string
	own  []Tag // what Query.Tags returned
	lane lane  // in which its load waits for a slot
	// tooMany is the number of tags of an answer that has more than may be; tags is then nil.
	tooMany int

	named    *namedTags        // by loads of the answer, as far as this process knows
	tags     []Tag             // all that own and named depend on
	states   []driver.TagState // of tags, as they were read; nil if named is
	repeated bool              // a load named others, and this is its repetition

	near snapshotToken // of the tags before they were read, for keeping the answer near
}

// request says what p asks for, unless the caller or the cache has gone.
func (d *Cached[P, V]) request(ctx context.Context, p P) (*request[P], error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if d.c.ctx.Err() != nil {
		return nil, ErrClosed
	}
	key, err := d.keyOf(p)
	if err != nil {
		return nil, err
	}
	r := &request[P]{p: p, key: key}
	if err := d.findTags(r); err != nil {
		return nil, err
	}
	if d.near != nil && r.tooMany == 0 {
		r.near = d.near.snapshot(r.tags)
	}
	return r, nil
}

// findTags sets all that the answer of r depends on, or how many tags it has if they are more than
// may be.
func (d *Cached[P, V]) findTags(r *request[P]) (err error) {
	if r.own, err = d.ownTags(r.p); err != nil {
		return err
	}
	if err := checkTags(r.own); err != nil {
		return fmt.Errorf("cache: Tags of query %q: %w", d.q.Name, err)
	}
	r.named = d.learnt.get(r.key)
	d.seen.note(r.own)
	if r.tooMany = len(r.own); r.tooMany <= mostTags {
		r.tooMany = 0
		if r.named != nil {
			r.tooMany = r.named.tooMany
		}
	}
	if r.tooMany == 0 {
		r.tags = d.seen.dependencies(r.own, r.named.list())
	}
	return nil
}

// ownTags calls Tags.
func (d *Cached[P, V]) ownTags(p P) (tags []Tag, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cache: Tags of query %q: %w", d.q.Name, err)
		}
	}()
	defer caught("Tags", &err)
	return d.q.Tags(p), nil
}

// keepNear keeps an answer that the store vouched for in process, if the query wants that.
func (d *Cached[P, V]) keepNear(r *request[P], a Answer[V], err error) {
	if d.near != nil && (err == nil || errors.Is(err, ErrNotFound)) && a.Status != Bypass && r.covers(a.named) {
		d.near.put(r.p, r.near, a, err == nil)
	}
}

func failedToLoad(err error) bool {
	if errors.As(err, new(*OverloadError)) {
		return true
	}
	return errors.As(err, new(*LoadError))
}

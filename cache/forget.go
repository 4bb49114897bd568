package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// For one answer, on every process. All of it goes by versions, like a write: what Forget ends,
// no process serves any more, also of its near answers, and no load that began before can bring
// it back.
//
// There is no way to store a value. A value that the program has at hand was read, or computed, at
// some moment, and a write may be acknowledged between that moment and the storing:
//
//	program                     writer
//	SELECT price  -> 10
//	                            UPDATE price = 12, COMMIT, bump: 12 is acknowledged
//	Set(price, 10)              (under which versions? those of now say that 10 is current)
//
// Only a load has its versions from before it asked.

// Forget ends the answer for p on every process: no Get that starts after it has returned serves
// what was loaded before. It does so by invalidating the tags of the answer, of Query.Tags or, if
// there are none, those that its load named; so other answers that depend on the same are loaded
// again too: whatever made this one doubtful is in them as well. It works whether or not anything
// is stored. Errors: those of Invalidate, and of a Get that cannot ask. Safe for concurrent use.
func (d *Cached[P, V]) Forget(ctx context.Context, p P) error {
	in, err := d.Inspect(ctx, p)
	if err != nil {
		return err
	}
	tags := in.Tags
	if len(tags) == 0 {
		tags = in.Named
	}
	if len(tags) == 0 {
		return fmt.Errorf("forget %s: %w: return a tag from Query.Tags", in.Key, errNoTags)
	}
	if err := d.c.Invalidate(ctx, slices.Compact(slices.Sorted(slices.Values(tags)))...); err != nil {
		return fmt.Errorf("forget %s: %w", in.Key, err)
	}
	return nil
}

var errNoTags = errors.New("nothing is known that the answer depends on")

// Refresh loads the answer for p again, whatever is stored: it is Forget, and then Lookup. All
// processes that ask at this time share one load, which begins after Refresh was called. If Forget
// fails, so does Refresh.
func (d *Cached[P, V]) Refresh(ctx context.Context, p P) (Answer[V], error) {
	if err := d.Forget(ctx, p); err != nil {
		return Answer[V]{}, err
	}
	return d.Lookup(ctx, p)
}

// Peek returns the answer for p if a Lookup would find it: a Hit or Stale, or ErrNotFound with its
// Answer. It loads nothing, refreshes nothing, and counts nothing. ok is false if there is none: it
// is not stored, or invalid, or must not be served now. Errors: those of a Get that cannot ask, and
// ErrUnavailable.
func (d *Cached[P, V]) Peek(ctx context.Context, p P) (a Answer[V], ok bool, err error) {
	if d.near != nil {
		if a, now, detail := d.near.get(ctx, p); a != nil {
			return d.near.answer(a, now, detail), true, a.err()
		}
	}
	r, err := d.request(ctx, p)
	if err != nil || r.tooMany > 0 {
		return Answer[V]{}, false, err
	}
	read, err := d.readEntry(ctx, &r)
	switch {
	case err != nil && ctx.Err() != nil:
		return Answer[V]{}, false, context.Cause(ctx)
	case err != nil:
		return Answer[V]{}, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case read.entry.state == entryFresh, read.entry.state == entryStale:
		return read.entry.answer, true, read.entry.err()
	}
	return Answer[V]{}, false, nil
}

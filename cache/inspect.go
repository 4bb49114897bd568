package cache

import (
	"context"
	"slices"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Inspection is what there is to know of one answer: see Cached.Inspect.
type Inspection struct {
	Query string
	Key   string // in the store, without the store's prefix

	Tags  []Tag // what Tags returned
	Named []Tag // what its load named with DependOn, as far as the entry, or this process, knows
	Added []Tag // what the answer depends on besides: the families of Tags and Named, and Everything

	// What the store has. StoreErr is why it was not asked, or did not answer.
	StoreErr error
	Fenced   []Tag // with a writer in flight
	Stored   bool  // there is an entry under the key
	Valid    bool  // and nothing that it depends on was written since it was loaded
	Found    bool  // of a valid entry: it holds a value, not that there is none
	Bytes    int   // of the entry
	Age      time.Duration
	TTL      time.Duration // of a valid entry, until it is no longer fresh; negative after that

	// What a Lookup at this moment would do. Next is Hit, Stale, Miss or Bypass, and Detail
	// one of the Detail constants, or empty.
	Next   Status
	Detail string
}

// Inspect says what is known of the answer for p and what a Lookup would do. It asks the store,
// loads nothing and counts nothing. A context of WithStrict leaves near answers aside.
//
// The error is that of a Get that cannot even ask: a malformed tag, a missing owner, the cause
// of ctx, ErrClosed. That the store does not answer is part of the Inspection. Safe for
// concurrent use; it is for tests and for tools.
func (d *Cached[P, V]) Inspect(ctx context.Context, p P) (Inspection, error) {
	r, err := d.request(ctx, p)
	if err != nil {
		return Inspection{}, err
	}
	own, err := d.ownTags(p)
	if err != nil {
		return Inspection{}, err
	}
	in := Inspection{Query: d.q.Name, Key: r.key, Tags: own, Next: Miss}
	if r.tooMany > 0 {
		in.Next, in.Detail = Bypass, DetailTooLarge
		return in, nil
	}
	snapshot, err := d.c.read(ctx, r.tags, []string{r.key}, d.entrySize())
	var e envelope
	for n := 0; err == nil && e.decode(snapshot.Entries[0]) && !r.covers(e.named) && n < maxRereads; n++ {
		r = d.naming(r, e.named)
		snapshot, err = d.c.read(ctx, r.tags, []string{r.key}, d.entrySize())
	}
	in.Named = r.named.list()
	in.Added = addedTo(slices.Concat(own, in.Named), r.tags)
	switch {
	case err != nil && ctx.Err() != nil:
		return Inspection{}, context.Cause(ctx)
	case err != nil:
		in.StoreErr, in.Next, in.Detail = err, Bypass, DetailUnavailable
	default:
		d.inspectEntry(ctx, &in, r.having(snapshot.States), snapshot)
	}
	if d.near != nil {
		if a, _, detail := d.near.get(ctx, p); a != nil {
			in.Next, in.Detail = Hit, detail
		}
	}
	return in, nil
}

func (d *Cached[P, V]) inspectEntry(ctx context.Context, in *Inspection, r *request[P], snapshot driver.Snapshot) {
	for i, state := range snapshot.States {
		if state.Fenced {
			in.Fenced = append(in.Fenced, r.tags[i])
		}
	}
	raw, now := snapshot.Entries[0], time.Now()
	guard := guardOf(r.tags, snapshot.States)
	var e envelope
	if in.Stored, in.Bytes = raw != nil, len(raw); e.decode(raw) {
		in.Named = e.named
		valid, known := d.guardFor(r, e.named, guard)
		if in.Valid = known && e.guard == valid; e.parted {
			in.Bytes += partedSize(e.payload)
		}
		in.Age = max(now.Sub(e.loadedAt), 0)
		if in.Valid {
			in.Found, in.TTL = e.found, e.fresh-in.Age
		}
	}
	if len(in.Fenced) > 0 {
		in.Next, in.Detail = Bypass, DetailFenced
		return
	}
	switch d.classify(ctx, r, raw, guard, now).state {
	case entryFresh:
		in.Next = Hit
	case entryStale:
		in.Next = Stale
	}
}

// addedTo returns what the library added to a query's own tags.
func addedTo(own, all []Tag) []Tag {
	had := make(map[Tag]bool, len(own))
	for _, t := range own {
		had[t] = true
	}
	var added []Tag
	for _, t := range all {
		if !had[t] {
			added = append(added, t)
		}
	}
	return added
}

// Query returns the definition, with every default filled in. It is for tests and for tools that
// load, encode or name an answer themselves.
func (d *Cached[P, V]) Query() Query[P, V] { return d.q }

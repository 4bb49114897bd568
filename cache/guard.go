package cache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/event"
)

// guardOf digests tags with their states' versions. Names are length-prefixed, so that
// no two lists digest alike; SHA-256 is cut to 128 bits, the size of a version.
func guardOf(tags []Tag, states []driver.TagState) driver.Guard {
	var room [256]byte // most answers have a few short tags: no allocation
	b := room[:0]
	for i, tag := range tags {
		b = binary.AppendUvarint(b, uint64(len(tag)))
		b = append(b, tag...)
		b = append(b, states[i].Version[:]...)
	}
	sum := sha256.Sum256(b)
	return driver.Guard(sum[:16])
}

func anyFenced(states []driver.TagState) bool {
	for _, s := range states {
		if s.Fenced {
			return true
		}
	}
	return false
}

type entryState uint8

const (
	entryAbsent    entryState = iota // or invalidated, unreadable, or too old for anything
	entryFresh                       // serve it
	entryStale                       // serve it, and refresh it
	entryExpired                     // serve it only if it cannot be loaded again
	entryNamesMore                   // its load named tags whose versions were not read
)

// storedEntry is what an entry of the store is worth now.
type storedEntry[V any] struct {
	state  entryState
	found  bool
	named  []Tag // by its load
	answer Answer[V]
}

func (e *storedEntry[V]) err() error {
	if !e.found {
		return ErrNotFound
	}
	return nil
}

// classify says what an entry is worth to a reader who has seen guard, of the tags of r. Validity comes
// first: an entry that was stored under another guard is not served, however fresh it is.
func (d *Cached[P, V]) classify(ctx context.Context, r *request[P], raw []byte, guard driver.Guard, now time.Time) (stored storedEntry[V]) {
	if raw == nil {
		return stored
	}
	var e envelope
	if !e.decode(raw) {
		d.observe(ctx, event.Undecodable{Key: r.key})
		return stored
	}
	guard, known := d.guardFor(r, e.named, guard)
	if !known {
		return storedEntry[V]{state: entryNamesMore, named: e.named}
	}
	if e.guard != guard {
		return stored
	}
	age := max(now.Sub(e.loadedAt), 0)
	switch {
	case age < e.fresh:
		stored.state = entryFresh
	case age < sum(e.fresh, e.stale):
		stored.state = entryStale
	case age < sum(e.fresh, d.q.StaleIfError) && e.found:
		stored.state = entryExpired
	default:
		return stored
	}
	stored.found, stored.named = e.found, e.named
	stored.answer = Answer[V]{Status: Hit, Age: age, TTL: e.fresh - age, named: e.named}
	if stored.state != entryFresh {
		stored.answer.Status = Stale
	}
	if !e.found {
		return stored
	}
	if e.parted {
		var err error
		if e.payload, err = d.c.readParts(ctx, r.key, e.payload); err != nil {
			if errors.Is(err, errTorn) {
				d.observe(ctx, event.Undecodable{Key: r.key})
			}
			return storedEntry[V]{}
		}
	}
	v, err := d.decode(e.payload)
	if err != nil {
		d.c.uncaught(ctx, d.q.Name, err)
		d.observe(ctx, event.Undecodable{Key: r.key})
		return storedEntry[V]{}
	}
	stored.answer.Value, stored.answer.ETag, stored.answer.bytes = v, e.etag, len(e.payload)
	return stored
}

// decode calls the codec, which may be at a loss with another release's bytes.
func (d *Cached[P, V]) decode(payload []byte) (v V, err error) {
	defer caught("Codec", &err)
	return d.q.Codec.Decode(payload)
}

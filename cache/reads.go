package cache

import (
	"context"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"

	"github.com/chainlearn/chainlearn/cache/coalesce"
)

// Many callers ask a store for less when they ask together: one command instead of a hundred,
// one reading and decoding of an answer that many want.
const (
	readsAlone  = 8
	readsShared = 128 // keys: what one command may hold up the store for
	readsWait   = time.Millisecond
)

// reads are those of one query.
type reads[V any] = coalesce.Calls[string, []Tag, found[V]]

// found is what the store said of one key.
type found[V any] struct {
	states []driver.TagState
	entry  []byte
	shared *sharedSight[V] // nil if nobody shares it
}

// sharedSight is what several callers see in the same: one of them looks.
type sharedSight[V any] struct {
	sync.Once
	sight[V]
}

// sight is what a read of the store showed of one key.
type sight[V any] struct {
	at     time.Time
	guard  driver.Guard
	fenced bool
	kept   kept[V] // nothing if fenced
}

// look reads one key and its tags, alone or with others.
func (d *Cached[P, V]) look(ctx context.Context, key string, tags []Tag) (sight[V], error) {
	f, err := d.reads.Do(ctx, key, tags)
	switch {
	case err != nil:
		return sight[V]{}, err
	case f.shared == nil:
		return d.see(f, tags), nil
	}
	f.shared.Do(func() { f.shared.sight = d.see(f, tags) })
	return f.shared.sight, nil
}

// see makes sense of what the store said.
func (d *Cached[P, V]) see(f found[V], tags []Tag) sight[V] {
	s := sight[V]{at: time.Now(), guard: guardOf(tags, f.states), fenced: anyFenced(f.states)}
	if !s.fenced {
		s.kept = d.examine(f.entry, s.guard, s.at)
	}
	return s
}

func (d *Cached[P, V]) coalesceReads() {
	d.reads.Alone, d.reads.Most, d.reads.Wait = readsAlone, readsShared, readsWait
	d.reads.Spawn, d.reads.Closed = d.c.spawn, ErrClosed
	d.reads.One = func(ctx context.Context, key string, tags []Tag) (f found[V], err error) {
		snapshot, err := d.c.read(ctx, tags, []string{key})
		if err != nil {
			return f, err
		}
		return found[V]{states: snapshot.States, entry: snapshot.Entries[0]}, nil
	}
	d.reads.Many = func(ctx context.Context, keys []string, tags [][]Tag) ([]found[V], error) {
		var u union
		for _, ts := range tags {
			u.add(ts)
		}
		snapshot, err := d.c.read(ctx, u.tags, keys)
		if err != nil {
			return nil, err
		}
		results := make([]found[V], len(keys))
		for i := range keys {
			results[i] = found[V]{u.statesOf(tags[i], snapshot.States), snapshot.Entries[i], new(sharedSight[V])}
		}
		return results, nil
	}
}

// union is the tags of several keys, each once.
type union struct {
	tags []Tag
	at   map[Tag]int
}

func (u *union) add(tags []Tag) {
	if u.at == nil {
		u.at = map[Tag]int{}
	}
	for _, tag := range tags {
		if _, ok := u.at[tag]; !ok {
			u.at[tag] = len(u.tags)
			u.tags = append(u.tags, tag)
		}
	}
}

// statesOf picks the states of tags from those of the union.
func (u *union) statesOf(tags []Tag, states []driver.TagState) []driver.TagState {
	own := make([]driver.TagState, len(tags))
	for i, tag := range tags {
		own[i] = states[u.at[tag]]
	}
	return own
}

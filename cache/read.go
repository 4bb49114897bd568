package cache

import (
	"context"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache/coalesce"
	"github.com/chainlearn/chainlearn/cache/driver"
)

// Many callers ask a store for less when they ask together: one command instead of a hundred,
// one reading and decoding of an answer that many want.
const (
	readsAlone  = 8
	readsShared = 128 // keys: what one command may hold up the store for
	readsWait   = time.Millisecond
)

// reads are the reads of one query, alone or together.
type reads[V any] = coalesce.Calls[readKey, []Tag, storeReply[V]]

// readKey tells reads of the same key apart that ask for different tags: by callers who know, and
// do not know, what its load named.
type readKey struct {
	key   string
	named *namedTags
}

// storeReply is what the store returned for one key.
type storeReply[V any] struct {
	states []driver.TagState
	entry  []byte
	shared *sharedRead[V] // nil if no other caller has the same reply
}

// sharedRead is made of a reply once, by the first of the callers that share it.
type sharedRead[V any] struct {
	sync.Once
	readResult[V]
}

// readResult is what a read of the store showed of one key.
type readResult[V any] struct {
	at     time.Time
	states []driver.TagState
	guard  driver.Guard
	fenced bool
	entry  storedEntry[V] // zero if fenced
}

// read reads one key and its tags, alone or with others.
func (d *Cached[P, V]) read(ctx context.Context, r *request[P]) (readResult[V], error) {
	reply, err := d.reads.Do(ctx, readKey{r.key, r.named}, r.tags)
	switch {
	case err != nil:
		return readResult[V]{}, err
	case reply.shared == nil:
		return d.interpret(ctx, r, reply), nil
	}
	// A caller that leaves must not spoil what the others share.
	reply.shared.Do(func() {
		reply.shared.readResult = d.interpret(context.WithoutCancel(ctx), r, reply)
	})
	if reply.shared.at.IsZero() { // the first caller's goroutine ended in a codec
		return d.interpret(ctx, r, reply), nil
	}
	return reply.shared.readResult, nil
}

func (d *Cached[P, V]) interpret(ctx context.Context, r *request[P], reply storeReply[V]) readResult[V] {
	result := readResult[V]{at: time.Now(), states: reply.states, guard: guardOf(r.tags, reply.states), fenced: anyFenced(reply.states)}
	if !result.fenced {
		result.entry = d.classify(ctx, r.having(reply.states), reply.entry, result.guard, result.at)
	}
	return result
}

// Decision 29.
func (d *Cached[P, V]) coalesceReads() {
	d.reads.Alone, d.reads.Most, d.reads.Wait = readsAlone, readsShared, readsWait
	d.reads.Spawn, d.reads.Closed = d.c.start, ErrClosed
	d.reads.One = func(ctx context.Context, key readKey, tags []Tag) (reply storeReply[V], err error) {
		snapshot, err := d.c.read(ctx, tags, []string{key.key}, d.entrySize())
		if err != nil {
			return reply, err
		}
		return storeReply[V]{states: snapshot.States, entry: snapshot.Entries[0]}, nil
	}
	d.reads.Many = func(ctx context.Context, asked []readKey, tags [][]Tag) ([]storeReply[V], error) {
		var u union
		for _, ts := range tags {
			u.add(ts)
		}
		keys := make([]string, len(asked))
		for i, k := range asked {
			keys[i] = k.key
		}
		snapshot, err := d.c.read(ctx, u.tags, keys, d.entrySize())
		if err != nil {
			return nil, err
		}
		replies := make([]storeReply[V], len(keys))
		for i := range keys {
			replies[i] = storeReply[V]{u.statesOf(tags[i], snapshot.States), snapshot.Entries[i], new(sharedRead[V])}
		}
		return replies, nil
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

package cache

import (
	"context"
	"sync"
	"time"
)

// Many callers ask a store for less when they ask together. While as many reads are under way
// as keep the way to the store busy, those who come wait for the next one and share it: one
// command instead of sixty, one reading and decoding of an answer that many want.
//
// It begins after all of them have come, which makes it as good as one of their own: what
// was acknowledged before they asked shows in it.
const (
	readsAlone  = 8                // reads of a query under way, from which on callers share
	readsShared = 128              // keys of a shared read, at most
	readsWait   = time.Millisecond // for one under way to return, at most
)

// reads are those of one query that are under way, and the next one.
type reads[V any] struct {
	mu   sync.Mutex
	busy int            // places that are taken
	next *sharedRead[V] // whoever comes may join it; nil if nobody waits
}

// sharedRead is one read of the store for several callers.
type sharedRead[V any] struct {
	keys   []string
	shares map[string]*share[V] // by key
	tags   []Tag                // of all keys, each once
	tagAt  map[Tag]int
	late   *time.Timer

	done     chan struct{} // closed when what follows is set
	snapshot Snapshot
	err      error
}

// share is what several callers want to know of one key.
type share[V any] struct {
	index int
	tags  []Tag
	once  sync.Once // of those who wait, one makes sense of it for all, each of another key
	seen  seen[V]
}

// seen is what a read of the store showed of one key.
type seen[V any] struct {
	at     time.Time
	guard  Guard
	fenced bool
	kept   kept[V] // nothing if fenced
}

// look reads one key and its tags, alone or with others.
func (d *Cached[P, V]) look(ctx context.Context, key string, tags []Tag) (seen[V], error) {
	r, mine := d.reads.join(key, tags, d.overdue)
	if r == nil {
		defer d.leave()
		snapshot, err := d.c.read(ctx, tags, []string{key})
		if err != nil {
			return seen[V]{}, err
		}
		return d.see(tags, snapshot.States, snapshot.Entries[0]), nil
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		return seen[V]{}, context.Cause(ctx)
	}
	if r.err != nil {
		return seen[V]{}, r.err
	}
	mine.once.Do(func() {
		states := make([]TagState, len(mine.tags))
		for i, tag := range mine.tags {
			states[i] = r.snapshot.States[r.tagAt[tag]]
		}
		mine.seen = d.see(mine.tags, states, r.snapshot.Entries[mine.index])
	})
	return mine.seen, nil
}

// see makes sense of what the store said.
func (d *Cached[P, V]) see(tags []Tag, states []TagState, entry []byte) seen[V] {
	s := seen[V]{at: time.Now(), guard: guardOf(tags, states), fenced: anyFenced(states)}
	if !s.fenced {
		s.kept = d.examine(entry, s.guard, s.at)
	}
	return s
}

// join takes a place for a read of the caller's own, or if there is none returns the read that
// the caller shares. overdue is called if it has not been sent in time.
func (r *reads[V]) join(key string, tags []Tag, overdue func(*sharedRead[V])) (*sharedRead[V], *share[V]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.next
	if next != nil {
		if mine := next.shares[key]; mine != nil {
			return next, mine
		}
	}
	if r.busy < readsAlone || next != nil && len(next.keys) == readsShared {
		r.busy++
		return nil, nil
	}
	if next == nil {
		next = &sharedRead[V]{shares: map[string]*share[V]{}, tagAt: map[Tag]int{}, done: make(chan struct{})}
		next.late = time.AfterFunc(readsWait, func() { overdue(next) })
		r.next = next
	}
	mine := &share[V]{index: len(next.keys), tags: tags}
	next.keys = append(next.keys, key)
	next.shares[key] = mine
	for _, tag := range tags {
		if _, ok := next.tagAt[tag]; !ok {
			next.tagAt[tag] = len(next.tags)
			next.tags = append(next.tags, tag)
		}
	}
	return next, mine
}

// leave gives a place to the next read, or back. It returns that read, which nobody can join
// any more; the caller must send it.
func (r *reads[V]) leave() *sharedRead[V] {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.next
	if next == nil {
		r.busy--
		return nil
	}
	r.next = nil
	return next
}

// leave gives a place back, or to the next read.
func (d *Cached[P, V]) leave() {
	if next := d.reads.leave(); next != nil {
		d.send(next)
	}
}

// overdue makes a place for a read that has waited long enough: the store is slow, and waiting
// for it twice may be too long for those who wait.
func (d *Cached[P, V]) overdue(r *sharedRead[V]) {
	d.reads.mu.Lock()
	waits := d.reads.next == r
	if waits {
		d.reads.next = nil
		d.reads.busy++
	}
	d.reads.mu.Unlock()
	if waits {
		d.send(r)
	}
}

// send reads for all who share r, on a goroutine that is nobody's, and then for those who came
// meanwhile.
func (d *Cached[P, V]) send(r *sharedRead[V]) {
	spawned := d.c.spawn(func(ctx context.Context) {
		for ; r != nil; r = d.reads.leave() {
			r.late.Stop()
			r.snapshot, r.err = d.c.read(ctx, r.tags, r.keys)
			close(r.done)
		}
	})
	if !spawned {
		r.err = ErrClosed
		close(r.done)
		d.leave()
	}
}

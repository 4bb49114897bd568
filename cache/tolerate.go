package cache

import (
	"context"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"

	"github.com/maypok86/otter/v2"
)

type freshKey struct{}

// Fresh returns a context whose reads are strict whatever their query tolerates: nothing
// near, nothing tolerated. It is for a caller who must see a write that only somebody
// else knows to have happened.
func Fresh(ctx context.Context) context.Context { return context.WithValue(ctx, freshKey{}, true) }

func wantsFresh(ctx context.Context) bool { return ctx.Value(freshKey{}) != nil }

// storms knows which answers writes rain on, and what was last loaded of them, so that a
// query that tolerates it need not load anew after every drop.
//
// It rains on an answer when its tags were seen in three states within the tolerated time. A
// single write shows two (fenced, bumped), so in calm every write shows at once.
type storms[P comparable, V any] struct {
	tolerate time.Duration
	table    *otter.Cache[P, *storm[V]]
}

type storm[V any] struct {
	mu     sync.Mutex
	states [3]seenState // the latest distinct ones, newest first
	answer Answer[V]    // what was loaded last
	begun  time.Time    // when; zero for nothing
}

type seenState struct {
	guard driver.Guard
	at    time.Time // when first seen
}

func newStorms[P comparable, V any](tolerate time.Duration, size int) *storms[P, V] {
	return &storms[P, V]{
		tolerate: tolerate,
		table: otter.Must(&otter.Options[P, *storm[V]]{
			MaximumSize: size,
			Executor:    func(task func()) { task() },
		}),
	}
}

func (s *storms[P, V]) of(p P) *storm[V] {
	st, _ := s.table.ComputeIfAbsent(p, func() (*storm[V], bool) { return &storm[V]{}, false })
	return st
}

// see is called when an answer must be loaded, and notes the state of its tags if a write
// is the reason. It returns whether it rains, and if so what was loaded last, unless that
// is older than is tolerated.
func (s *storms[P, V]) see(p P, guard driver.Guard, written bool, now time.Time) (a Answer[V], rains, ok bool) {
	st := s.of(p)
	st.mu.Lock()
	defer st.mu.Unlock()
	if written && st.states[0].guard != guard {
		st.states[2], st.states[1], st.states[0] = st.states[1], st.states[0], seenState{guard, now}
	}
	rains = now.Sub(st.states[2].at) < s.tolerate
	age := now.Sub(st.begun)
	if !rains || age >= s.tolerate {
		return a, rains, false
	}
	a = st.answer
	a.Status, a.Detail, a.Age, a.TTL = Stale, DetailTolerated, age, s.tolerate-age
	return a, rains, true
}

// keep notes what was loaded. Under the fence of a single write it may be older than that
// write, and must not be kept: in calm the write is to show at once.
func (s *storms[P, V]) keep(p P, a Answer[V], rains bool, now time.Time) {
	if a.Status == Bypass && !rains {
		return
	}
	st := s.of(p)
	st.mu.Lock()
	defer st.mu.Unlock()
	if begun := now.Add(-a.Age); begun.After(st.begun) {
		st.answer, st.begun = a, begun
	}
}

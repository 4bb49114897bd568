package cache_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// nearStrictQuery is query, kept near and proven for each caller.
func (s *source) nearStrictQuery() cache.Query[int, string] {
	q := s.query()
	q.NearStrict = true
	return q
}

func wantProven(t *testing.T, q *cache.Cached[int, string], id int, want string) {
	t.Helper()
	a := mustLookup(t, q, id, cache.Hit)
	if a.Detail != cache.DetailNearProven || a.Value != want {
		t.Errorf("row %d came as %q, %v %s, want %q, proven", id, a.Value, a.Status, a.Detail, want)
	}
}

// An answer that is kept near and proven for its caller is as exact as one of the store, and takes no
// read of it.
func TestNearStrictHitReadsNothing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		s.delay = 0
		q := defineNear(fleet[0], s.nearStrictQuery())
		keep := func(want string) {
			t.Helper()
			mustGet(t, q, 1, want)
			synctest.Wait()
			mustGet(t, q, 1, want)
		}
		keep("one")
		reads, proofs := fleet[0].calls(), fleet[0].store.Calls(storetest.OpProve)
		for range 100 {
			wantProven(t, q, 1, "one")
		}
		if n := fleet[0].calls() - reads; n != 0 {
			t.Errorf("100 hits read the store %d times", n)
		}
		if n := fleet[0].store.Calls(storetest.OpProve) - proofs; n != 100 {
			t.Errorf("100 hits, one after the other, asked for %d proofs", n)
		}
		if got := fleet[0].counts.Total().Hits; got < 100 {
			t.Errorf("%d hits counted", got)
		}
		if a, ok, err := q.Peek(t.Context(), 1); !ok || err != nil || a.Detail != cache.DetailNearProven {
			t.Errorf("Peek: %+v, %v, %v", a, ok, err)
		}
		s.set(1, "uno")
		mustInvalidate(t, fleet[1], rowTag(1))
		keep("uno")
		wantProven(t, q, 1, "uno")
		s.set(1, "ein")
		mustInvalidate(t, fleet[0], rowTag(1)) // its own
		keep("ein")
		wantProven(t, q, 1, "ein")
	})
}

// Reports may be late by any time: the proof is late as well, or there is none, and then the store is
// read.
func TestNearStrictWaitsForWhatIsReportedLate(t *testing.T) {
	for _, late := range []time.Duration{time.Millisecond, 30 * time.Millisecond, 300 * time.Millisecond, time.Hour} {
		t.Run(late.String(), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, fleet := newSource(), newFleet(t, 2)
				s.delay = 0
				q := defineNear(fleet[1], s.nearStrictQuery())
				mustGet(t, q, 1, "one")
				synctest.Wait()
				wantProven(t, q, 1, "one")
				fleet[1].store.Delay(late, storetest.OpWatch)
				for i := range 20 {
					want := fmt.Sprint("write ", i)
					s.set(1, want)
					mustInvalidate(t, fleet[0], rowTag(1))
					began := time.Now()
					mustGet(t, q, 1, want)
					if took := time.Since(began); took > 200*time.Millisecond {
						t.Fatalf("the answer took %v", took)
					}
					synctest.Wait()
				}
			})
		})
	}
}

// Without reports callers are not made to wait for proofs: one of them, and then they ask the store.
func TestNearStrictWithoutReports(t *testing.T) {
	for name, fall := range map[string]func(*storetest.Faulty){
		"nothing is watched": nil,
		"reports are lost":   func(f *storetest.Faulty) { f.Hang(storetest.OpWatch) },
		"proofs fail":        func(f *storetest.Faulty) { f.Fail(errDown, storetest.OpProve); f.Hang(storetest.OpWatch) },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, fleet := newSource(), newFleet(t, 2)
				c := fleet[0]
				s.delay = 0
				if fall == nil {
					c.store.Fail(errDown, storetest.OpWatch) // and a proof without a watch succeeds at once
				}
				q := defineNear(c, s.nearStrictQuery())
				mustGet(t, q, 1, "one")
				synctest.Wait()
				if fall == nil {
					s.set(1, "uno")
					mustInvalidate(t, fleet[1], rowTag(1))
					mustGet(t, q, 1, "uno")
					return
				}
				wantProven(t, q, 1, "one")
				fall(c.store)
				began := time.Now()
				for range 50 {
					if a := mustLookup(t, q, 1, cache.Hit); a.Detail != "" {
						t.Fatalf("the answer is %+v", a)
					}
				}
				if took := time.Since(began); took > 100*time.Millisecond {
					t.Errorf("50 hits took %v", took)
				}
				if h := c.Health(); h.State != "ok" {
					t.Errorf("health is %+v", h)
				}
				c.store.Heal()
				time.Sleep(time.Second)
				mustGet(t, q, 1, "one")
				wantProven(t, q, 1, "one")
			})
		})
	}
}

// All callers of a process share proofs, whatever they ask for.
func TestNearStrictCallersShareProofs(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = 0
		first := s.nearStrictQuery()
		other := s.nearStrictQuery()
		other.Name = "rows:other"
		queries := []*cache.Cached[int, string]{defineNear(c, first), defineNear(c, other)}
		for _, q := range queries {
			for id, row := range map[int]string{1: "one", 2: "two", 3: "three"} {
				mustGet(t, q, id, row)
			}
		}
		synctest.Wait()
		proofs := c.store.Calls(storetest.OpProve)
		var callers sync.WaitGroup
		for i := range 300 {
			callers.Go(func() {
				a, err := queries[i%2].Lookup(t.Context(), 1+i%3)
				if err != nil || a.Detail != cache.DetailNearProven {
					t.Errorf("%+v, %v", a, err)
				}
			})
		}
		callers.Wait()
		if n := c.store.Calls(storetest.OpProve) - proofs; n < 1 || n > 2 {
			t.Errorf("300 callers at once asked for %d proofs, want 2 at most", n)
		}
	})
}

// A caller that leaves spoils nothing for the others.
func TestNearStrictCallerLeaves(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = 0
		q := defineNear(c, s.nearStrictQuery())
		mustGet(t, q, 1, "one")
		synctest.Wait()
		ctx, leave := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		callers.Go(func() { _, _ = q.Get(ctx, 1) })
		callers.Go(func() { wantProven(t, q, 1, "one") })
		synctest.Wait()
		leave()
		callers.Wait()
		wantProven(t, q, 1, "one")
	})
}

func TestNearStrictNeedsAStoreThatProves(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSource()
		c := newProcess(t, storetest.NewFaulty(memstore.New(memstore.Config{MaxBytes: 1 << 20, MaxTags: 1000})), cache.Config{})
		q := cache.Define(c.Cache, s.nearStrictQuery()) // reports, and proves
		mustGet(t, q, 1, "one")

		store := memstore.New(memstore.Config{MaxBytes: 1 << 20, MaxTags: 1000})
		t.Cleanup(func() { _ = store.Close() })
		in, err := cache.New(cache.Config{Store: store})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Close() })
		values := cache.Define(in, s.nearStrictQuery()) // in process, what is near is exact without a proof
		mustGet(t, values, 1, "one")
		synctest.Wait()
		mustGet(t, values, 1, "one")
		if a := mustLookup(t, values, 1, cache.Hit); a.Detail != "" {
			t.Errorf("in process the answer comes as %+v", a)
		}
	})
	virtual(t, func(t *testing.T) {
		q := newSource().nearStrictQuery()
		q.Near = time.Second
		c := newCache(t)
		if message := panicOf(func() { cache.Define(c.Cache, q) }); !strings.Contains(message, "Near is 1s and NearStrict is set") {
			t.Errorf("both kinds of near: %q", message)
		}
	})
}

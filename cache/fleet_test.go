package cache_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// A process that vanished while loading delays the next load by at most a second.
func TestLoaderThatVanishedIsReplaced(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		dead, alive := fleet[0], fleet[1]
		qDead, qAlive := cache.Define(dead.Cache, s.query()), cache.Define(alive.Cache, s.query())
		s.delay = time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = qDead.Get(ctx, 1) })
		synctest.Wait()
		dead.store.Hang() // what a killed process does for its lease
		time.Sleep(100 * time.Millisecond)
		s.delay = time.Millisecond
		began := time.Now()
		mustGet(t, qAlive, 1, "one")
		if took := time.Since(began); took > time.Second {
			t.Errorf("the next load ended %v after the loader had vanished, want at most 1s", took)
		}
		cancel()
		wg.Wait()
	})
}

// A cache that is closed while it waits for another process's load does not go on asking for it.
func TestCloseEndsTheWaitForAnotherProcess(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		s.delay = 5 * time.Second
		loading, waiting := cache.Define(fleet[0].Cache, s.query()), cache.Define(fleet[1].Cache, s.query())
		var wg sync.WaitGroup
		wg.Go(func() { mustGet(t, loading, 1, "one") })
		synctest.Wait()
		wg.Go(func() {
			if _, err := waiting.Get(t.Context(), 1); !errors.Is(err, cache.ErrClosed) {
				t.Errorf("got error %v, want ErrClosed", err)
			}
		})
		synctest.Wait()
		began := time.Now()
		if err := fleet[1].Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("closing took %v", took)
		}
		wg.Wait()
		wantLoads(t, s, 1)
	})
}

// A process that is closed while it loads hands the load over. That its loader was canceled says
// nothing of the source.
func TestCloseHandsTheLoadOver(t *testing.T) {
	for name, many := range map[string]bool{"Get": false, "GetMany": true} {
		t.Run(name, func(t *testing.T) {
			for range 50 { // the loader returns as its context ends, or a moment later
				virtual(t, func(t *testing.T) { closeWhileLoading(t, many) })
			}
		})
	}
}

func closeWhileLoading(t *testing.T, many bool) {
	s, fleet := newSource(), newFleet(t, 2)
	s.delay = 5 * time.Second
	query := s.query()
	query.LoadMany = func(ctx context.Context, ids []int) ([]cache.Loaded[string], error) {
		results := make([]cache.Loaded[string], len(ids))
		for i, id := range ids {
			results[i].Value, results[i].Err = s.load(ctx, id) // an error of each answer, not of the call
		}
		return results, nil
	}
	closing, waiting := cache.Define(fleet[0].Cache, query), cache.Define(fleet[1].Cache, s.query())
	get := func() error {
		if !many {
			_, err := closing.Get(t.Context(), 1)
			return err
		}
		results, err := closing.GetMany(t.Context(), []int{1, 2})
		if err == nil {
			err = results[0].Err
		}
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := get(); !errors.Is(err, cache.ErrClosed) {
			t.Errorf("a caller of the closed cache got %v, want ErrClosed", err)
		}
	})
	synctest.Wait()
	wg.Go(func() { mustGet(t, waiting, 1, "one") })
	synctest.Wait()
	closed := time.Now()
	if err := fleet[0].Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if took := time.Since(closed); took > s.delay+time.Millisecond {
		t.Errorf("the waiter had its answer %v after the close, want one load of %v", took, s.delay)
	}
}

// Between a caller's look and its claim another process may have loaded and stored.
func TestClaimLooksAgain(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		s.delay = 0
		q0, q1 := cache.Define(fleet[0].Cache, s.query()), cache.Define(fleet[1].Cache, s.query())
		fleet[1].store.Delay(20*time.Millisecond, storetest.OpClaim)
		var wg sync.WaitGroup
		wg.Go(func() { mustLookup(t, q1, 1, cache.Hit) })
		synctest.Wait() // it has found nothing, and is about to claim
		mustGet(t, q0, 1, "one")
		wg.Wait()
		wantLoads(t, s, 1)
	})
}

func TestLeaseIsRenewedWhileTheLoaderLives(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		s.delay = 5 * time.Second // many times the lease
		var wg sync.WaitGroup
		for _, p := range fleet {
			q := cache.Define(p.Cache, s.query())
			wg.Go(func() { mustGet(t, q, 1, "one") })
		}
		wg.Wait()
		wantLoads(t, s, 1)
	})
}

// Announcements may be lost; waiting is bounded all the same.
func TestLostAnnouncementsOnlyDelay(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		fleet[1].store.DropAnnouncements()
		q0, q1 := cache.Define(fleet[0].Cache, s.query()), cache.Define(fleet[1].Cache, s.query())
		var wg sync.WaitGroup
		wg.Go(func() { mustGet(t, q0, 1, "one") })
		synctest.Wait()
		began := time.Now()
		mustGet(t, q1, 1, "one")
		wg.Wait()
		if took := time.Since(began); took > time.Second {
			t.Errorf("the deaf process waited %v", took)
		}
		wantLoads(t, s, 1)
	})
}

// A write while another process loads makes that load useless for who asks after it:
// the lease of the old versions does not stand in the way.
func TestLoadUnderOldVersionsHoldsNobodyUp(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		q0, q1 := cache.Define(fleet[0].Cache, s.query()), cache.Define(fleet[1].Cache, s.query())
		s.gate = make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { mustGet(t, q0, 1, "one") })
		time.Sleep(s.delay)
		synctest.Wait()
		slow := s.gate
		s.gate = nil
		s.set(1, "uno")
		if err := fleet[0].Invalidate(t.Context(), rowTag(1)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		mustGet(t, q1, 1, "uno")
		if took := time.Since(began); took > s.delay {
			t.Errorf("waited %v, want one load of %v", took, s.delay)
		}
		close(slow)
		wg.Wait()
		mustGet(t, q0, 1, "uno")
	})
}

func TestFailureIsSharedByTheFleet(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		s.fail(errors.New("disk is full"))
		q0, q1 := cache.Define(fleet[0].Cache, s.query()), cache.Define(fleet[1].Cache, s.query())
		_, err0 := q0.Get(t.Context(), 1)
		_, err1 := q1.Get(t.Context(), 1)
		if err0 == nil || err1 == nil || err0.Error() != err1.Error() {
			t.Errorf("one process reports %v, the other %v", err0, err1)
		}
		wantLoads(t, s, 1)
	})
}

// A write that ends the cause of a failure ends the memory of it, at once and on every process.
func TestWriteEndsARememberedFailure(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		q0, q1 := cache.Define(fleet[0].Cache, s.query()), cache.Define(fleet[1].Cache, s.query())
		for round := range 5 { // each failure in a row would be held longer
			s.fail(errors.New("not enrolled"))
			for _, q := range []*cache.Cached[int, string]{q0, q1, q0} {
				if _, err := q.Get(t.Context(), 1); err == nil {
					t.Fatal("a failing source has an answer")
				}
			}
			wantLoads(t, s, int64(2*round+1)) // the failure is remembered for both
			s.fail(nil)
			if err := fleet[round%2].Invalidate(t.Context(), rowTag(1)); err != nil {
				t.Fatal(err)
			}
			mustGet(t, q0, 1, "one")
			mustGet(t, q1, 1, "one")
			if err := fleet[1].Invalidate(t.Context(), rowTag(1)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Two releases that shape an answer differently share a store without a quarrel.
func TestRevisionsKeepApart(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		before, after := s.query(), s.query()
		after.Revision = 1
		q0, q1 := cache.Define(fleet[0].Cache, before), cache.Define(fleet[1].Cache, after)
		for range 3 {
			mustGet(t, q0, 1, "one")
			mustGet(t, q1, 1, "one")
		}
		wantLoads(t, s, 2)
	})
}

// A failure that says nothing about the answer is that of those who waited for it: no later caller gets
// it, in this process or in another, which would only have its text.
func TestTransientFailuresAreNotRemembered(t *testing.T) {
	for name, failure := range map[string]error{
		"transient": fmt.Errorf("connection lost: %w", cache.ErrTransient),
		"timeout":   cache.ErrLoadTimeout,
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, processes := newSource(), newFleet(t, 2)
				var queries []*cache.Cached[int, string]
				for _, p := range processes {
					queries = append(queries, cache.Define(p.Cache, s.query()))
				}
				for range 3 {
					s.fail(failure)
					if _, err := queries[0].Get(t.Context(), 1); !errors.Is(err, failure) {
						t.Fatalf("got %v, want the loader's error", err)
					}
					synctest.Wait()
					if _, err := queries[1].Get(t.Context(), 1); !errors.Is(err, failure) {
						t.Fatalf("another process got %v, want the loader's own error", err)
					}
				}
				synctest.Wait()
				s.fail(nil)
				mustGet(t, queries[1], 1, "one")
				mustGet(t, queries[0], 1, "one")
			})
		})
	}
}

package cache_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

var errDown = errors.New("connection refused")

func TestSickStoreFailsNoRequest(t *testing.T) {
	for name, fall := range map[string]func(*storetest.Faulty){
		"fails":          func(s *storetest.Faulty) { s.Fail(errDown) },
		"hangs":          func(s *storetest.Faulty) { s.Hang() },
		"loses replies":  func(s *storetest.Faulty) { s.LoseReplies(errDown) },
		"fails to claim": func(s *storetest.Faulty) { s.Fail(errDown, storetest.OpClaim) },
		"fails to store": func(s *storetest.Faulty) { s.Hang(storetest.OpSettle) },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newSource(), newCache(t)
				s.delay = time.Millisecond
				q := cache.Define(c.Cache, s.query())
				mustGet(t, q, 1, "one")
				fall(c.store)
				for range 100 {
					mustGet(t, q, 1, "one")
					mustGet(t, q, 2, "two")
				}
			})
		})
	}
}

// A hung store costs its callers the timeout until the breaker opens, and then nothing.
func TestHungStoreIsPaidForOnceAndLoadsStayBounded(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = 5 * time.Millisecond // four loads at a time serve 800 requests a second
		query := s.query()
		query.MaxLoads = 4
		q := cache.Define(c.Cache, query)
		for id := range 100 {
			s.set(id, "row")
		}
		c.store.Hang()
		var wg sync.WaitGroup
		var slowest atomic.Int64
		began := time.Now()
		for i := range 1000 { // 500 requests a second, for 2 seconds
			wg.Go(func() {
				asked := time.Now()
				if _, err := q.Get(t.Context(), i%100); err != nil {
					t.Error(err)
				}
				took := time.Since(asked) - s.delay
				if time.Since(began) > time.Second && took > 2*s.delay {
					t.Errorf("a request paid %v after the breaker had opened", took)
				}
				if int64(took) > slowest.Load() {
					slowest.Store(int64(took))
				}
			})
			time.Sleep(2 * time.Millisecond)
		}
		wg.Wait()
		if worst := time.Duration(slowest.Load()); worst > 200*time.Millisecond {
			t.Errorf("the slowest request paid %v", worst)
		}
		if s.most.Load() > 4 {
			t.Errorf("%d loads at the same time, want at most 4", s.most.Load())
		}
		if h := c.Health(); h.State != "down" || h.Err == nil {
			t.Errorf("health is %+v, want down and why", h)
		}
		// Only the prober asks a store behind an open breaker.
		reads := c.store.Calls(storetest.OpRead)
		mustGet(t, q, 1, "row")
		if c.store.Calls(storetest.OpRead) != reads {
			t.Error("a request was spent on a store behind an open breaker")
		}
	})
}

// While the store is away, loads are shared only by those who came before they began.
func TestWithoutAStoreCallersStillShareLoads(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		c.store.Fail(errDown)
		trip(t, q)
		asked := s.loads.Load()
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() { mustGet(t, q, 1, "one") })
		}
		wg.Wait()
		if n := s.loads.Load() - asked; n > 2 {
			t.Errorf("1000 callers caused %d loads, want one running and one waiting", n)
		}
	})
}

// trip asks until the breaker is open.
func trip(t *testing.T, q *cache.Cached[int, string]) {
	t.Helper()
	for range 10 {
		_, _ = q.Get(t.Context(), 3)
	}
}

// Entries from before an outage are served again only after what was written during
// the outage has been delivered.
func TestNothingWrittenDuringAnOutageIsServedStaleAfterIt(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		c, other := fleet[0], fleet[1]
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		mustGet(t, q, 2, "two")

		// The outbox stands for writers whose bumps did not arrive.
		var pending atomic.Bool
		var drained atomic.Int64
		c.OnRecovery(func(ctx context.Context) error {
			if drained.Add(1) == 1 {
				return errors.New("database is busy")
			}
			if pending.Swap(false) {
				return c.Bump(ctx, driver.NoMark, []cache.Tag{rowTag(2)})
			}
			return nil
		})
		c.store.Fail(errDown)
		trip(t, q)
		s.set(1, "uno")
		if err := c.Invalidate(t.Context(), rowTag(1)); !errors.Is(err, cache.ErrUnavailable) {
			t.Errorf("Invalidate without a store: %v, want ErrUnavailable", err)
		}
		s.set(2, "due")
		pending.Store(true)
		time.Sleep(time.Minute / 2)
		c.store.Heal()

		healed := time.Now()
		for c.Health().State != "ok" {
			mustGet(t, q, 1, "uno")
			mustGet(t, q, 2, "due")
			time.Sleep(time.Millisecond)
			if time.Since(healed) > 5*time.Second {
				t.Fatalf("not trusted 5s after the store came back: %+v", c.Health())
			}
		}
		mustGet(t, q, 1, "uno")
		mustGet(t, q, 2, "due")
		mustLookup(t, q, 1, cache.Hit)
		if pending.Load() {
			t.Error("entries were trusted before the outbox was drained")
		}
		qOther := cache.Define(other.Cache, s.query())
		mustGet(t, qOther, 1, "uno") // the bump that failed was delivered to everybody
	})
}

// Processes find out one after another that the store is back. What the last of them
// writes before it knows must not be missed by the first.
func TestTrustWaitsForTheLastProcessToFenceAgain(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		s.delay = 0
		first, last := fleet[0], fleet[1]
		q, qLast := cache.Define(first.Cache, s.query()), cache.Define(last.Cache, s.query())
		mustGet(t, q, 1, "one")
		var pending atomic.Bool // in the outbox
		first.OnRecovery(func(ctx context.Context) error {
			if pending.Swap(false) {
				return first.Bump(ctx, driver.NoMark, []cache.Tag{rowTag(1)})
			}
			return nil
		})
		first.store.Fail(errDown)
		last.store.Fail(errDown)
		trip(t, q)
		trip(t, qLast)
		time.Sleep(time.Second)
		first.store.Heal()
		time.Sleep(120 * time.Millisecond) // its prober has been there by now
		synctest.Wait()
		s.set(1, "uno")
		if f, err := last.Fence(t.Context(), writer, []cache.Tag{rowTag(1)}); err == nil || f.Remaining() > 0 {
			t.Fatal("the last process fenced, though it cannot know that the store is back")
		}
		pending.Store(true) // committed and acknowledged
		for first.Health().State != "ok" {
			mustGet(t, q, 1, "uno")
			time.Sleep(time.Millisecond)
		}
		mustGet(t, q, 1, "uno")
	})
}

// A failed bump is a doubt about this process's own entries, though the store answers.
func TestFailedBumpIsNotForgotten(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		c.store.Fail(errDown, storetest.OpBump)
		s.set(1, "uno")
		if err := c.Invalidate(t.Context(), rowTag(1)); err == nil {
			t.Fatal("a bump that failed was reported as done")
		}
		mustGet(t, q, 1, "uno")
		c.store.Heal()
		time.Sleep(5 * time.Second)
		mustGet(t, q, 1, "uno")
		mustLookup(t, q, 1, cache.Hit)
	})
}

// A store that comes back as another (a replica promoted without the last bumps) is
// told again what this process bumped a moment ago.
func TestRecentBumpsAreReplayedIntoAnotherIncarnation(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		if err := c.Invalidate(t.Context(), rowTag(1)); err != nil {
			t.Fatal(err)
		}
		bumps := c.store.Calls(storetest.OpBump)
		c.store.ChangeIdentity()
		mustLookup(t, q, 1, cache.Bypass) // unproven: not trusted
		time.Sleep(time.Second)
		synctest.Wait()
		if n := c.store.Calls(storetest.OpBump) - bumps; n != 1 {
			t.Errorf("%d bumps after the change of identity, want the recent one again", n)
		}
		mustGet(t, q, 1, "one")
		mustLookup(t, q, 1, cache.Hit)
	})
}

func TestUnprovenStoreIsProvenAndTrustedAgain(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		c.store.Unprove() // a new connection, to the same data
		mustLookup(t, q, 1, cache.Bypass)
		synctest.Wait()
		mustLookup(t, q, 1, cache.Hit)
	})
}

func TestCacheStartsWithoutItsStore(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, shared := newSource(), newFleet(t, 1)[0].store
		shared.Hang()
		began := time.Now()
		c := newProcess(t, shared.Peer(), cache.Config{})
		c.store.Hang()
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Errorf("New took %v", took)
		}
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		c.store.Heal()
		time.Sleep(time.Second)
		mustGet(t, q, 1, "one")
		mustLookup(t, q, 1, cache.Hit)
	})
}

func TestFenceWithoutAStoreSaysSoAndTheWriteMayGoOn(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCache(t)
		c.store.Fail(errDown)
		f, err := c.Fence(t.Context(), writer, []cache.Tag{rowTag(1)})
		if err == nil || f == nil || f.Remaining() > 0 {
			t.Errorf("fence is %+v, error %v; want a fence that does not stand and an error", f, err)
		}
		if n := c.counts.Total().Unfenced; n != 1 {
			t.Errorf("cache_fence_downgrades_total is %v, want 1", n)
		}
	})
}

// A caller that leaves before StoreTimeout cannot tell whether the store hangs. Its call can: it
// goes on without it. So callers in a hurry open the breaker too, and later ones get answers.
func TestCallersInAHurryOpenTheBreaker(t *testing.T) {
	for name, inHurry := range map[string]func(context.Context) (context.Context, context.CancelFunc){
		"near deadlines": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 20*time.Millisecond)
		},
		"callers that cancel": func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(20*time.Millisecond, cancel)
			return ctx, cancel
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newSource(), newCache(t)
				s.delay = time.Millisecond
				q := cache.Define(c.Cache, s.query())
				mustGet(t, q, 1, "one")
				synctest.Wait()
				c.store.Hang(storetest.OpRead)
				began, failed := time.Now(), 0
				for range 100 {
					ctx, cancel := inHurry(t.Context())
					v, err := q.Get(ctx, 1)
					cancel()
					if err != nil {
						failed++
						if time.Since(began) > 400*time.Millisecond {
							t.Fatalf("%v after the store hung, a caller got %v", time.Since(began), err)
						}
					} else if v != "one" {
						t.Fatalf("row 1 is %q", v)
					}
				}
				if failed > 16 { // one timeout, and four in which the store proves nothing
					t.Errorf("%d callers of 100 got no answer, want the few before the breaker opened", failed)
				}
				if h := c.Health(); h.State == "ok" {
					t.Errorf("health is %+v while reads hang", h)
				}
			})
		})
	}
}

// Nor do callers in a hurry open the breaker of a store that answers in time for all others.
func TestCallersInAHurryDoNotOpenTheBreakerOfASlowStore(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = time.Millisecond
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		synctest.Wait()
		c.store.Delay(30 * time.Millisecond)
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			if _, err := q.Get(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a caller with 20 ms got %v from a store that takes 30", err)
			}
			cancel()
		}
		if h := c.Health(); h.State != "ok" {
			t.Errorf("health is %+v, want ok", h)
		}
		mustLookup(t, q, 1, cache.Hit)
	})
}

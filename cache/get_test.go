package cache_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

func TestSecondGetAsksNobody(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		first := mustLookup(t, q, 1, cache.Miss)
		second := mustLookup(t, q, 1, cache.Hit)
		wantLoads(t, s, 1)
		if second.Value != "one" || second.ETag != first.ETag || len(first.ETag.String()) != 22 {
			t.Errorf("second answer is %+v, first was %+v", second, first)
		}
		if second.TTL <= 53*time.Second || second.TTL > time.Minute {
			t.Errorf("TTL is %v, want a minute less at most a tenth", second.TTL)
		}
	})
}

func TestInvalidateReachesExactlyWhatDependsOnTheTag(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		mustGet(t, q, 2, "two")
		s.set(1, "uno")
		if err := c.Invalidate(t.Context(), rowTag(1)); err != nil {
			t.Fatal(err)
		}
		mustGet(t, q, 1, "uno")
		mustLookup(t, q, 2, cache.Hit)
		wantLoads(t, s, 3)
	})
}

func TestInvalidateIsHeardByEveryProcess(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		q0, q1 := cache.Define(fleet[0].Cache, s.query()), cache.Define(fleet[1].Cache, s.query())
		mustGet(t, q0, 1, "one")
		synctest.Wait() // it is stored
		mustLookup(t, q1, 1, cache.Hit)
		s.set(1, "uno")
		if err := fleet[0].Invalidate(t.Context(), rowTag(1)); err != nil {
			t.Fatal(err)
		}
		mustGet(t, q1, 1, "uno")
	})
}

// A reader loads the old row and pauses; the row is written and invalidated; the reader
// stores what it read. No caller may ever see that.
func TestLateFillIsNeverServed(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		s.gate = make(chan struct{})
		var slow sync.WaitGroup
		slow.Go(func() { mustGet(t, q, 1, "one") })
		time.Sleep(s.delay) // it has read
		synctest.Wait()
		s.set(1, "uno")
		if err := c.Invalidate(t.Context(), rowTag(1)); err != nil {
			t.Fatal(err)
		}
		close(s.gate)
		slow.Wait()
		synctest.Wait() // it has stored
		s.gate = nil
		mustGet(t, q, 1, "uno")
	})
}

// A caller that asks after a write does not share a load that began before it, even while
// that load is still under way.
func TestLoadUnderOldVersionsIsNotJoined(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		slow := make(chan struct{})
		s.gate = slow
		var early sync.WaitGroup
		early.Go(func() { mustGet(t, q, 1, "one") })
		time.Sleep(s.delay)
		synctest.Wait() // it has read, and is not back
		s.gate = nil
		s.set(1, "uno")
		if err := c.Invalidate(t.Context(), rowTag(1)); err != nil {
			t.Fatal(err)
		}
		mustGet(t, q, 1, "uno")
		close(slow)
		early.Wait()
		synctest.Wait()
		mustGet(t, q, 1, "uno")
	})
}

func TestManyCallersCauseOneLoad(t *testing.T) {
	failure := errors.New("down")
	for _, test := range []struct {
		name    string
		id      int
		err     error
		callers int
		want    error
	}{
		{"a row", 1, nil, 100, nil},
		{"a row, for a thousand", 1, nil, 1000, nil},
		{"no such row", 99, nil, 1000, cache.ErrNotFound},
		{"a failing source", 1, failure, 1000, failure},
	} {
		t.Run(test.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, fleet := newSource(), newFleet(t, 4)
				s.err = test.err
				var wg sync.WaitGroup
				for i := range fleet {
					q := cache.Define(fleet[i].Cache, s.query())
					for range test.callers / len(fleet) {
						wg.Go(func() {
							_, err := q.Get(t.Context(), test.id)
							if test.want == nil && err != nil || test.want != nil && !isOrReads(err, test.want) {
								t.Errorf("got error %v, want %v", err, test.want)
							}
						})
					}
				}
				began := time.Now()
				wg.Wait()
				wantLoads(t, s, 1)
				if took := time.Since(began); took > s.delay+10*time.Millisecond {
					t.Errorf("the last caller was served after %v; the load took %v", took, s.delay)
				}
			})
		})
	}
}

// isOrReads accepts an error that is want, or that another process reports in its words.
func isOrReads(err, want error) bool {
	if errors.Is(err, want) {
		return true
	}
	var e *cache.LoadError
	ok := errors.As(err, &e)
	return ok && e.Err.Error() == want.Error()
}

func TestCallerWhoHangsUpHarmsNobody(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		gone := errors.New("hung up")
		leader, hangUp := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := q.Get(leader, 1); !errors.Is(err, gone) {
				t.Errorf("the caller who left got %v, want its own cause", err)
			}
		})
		synctest.Wait() // the load is under way
		for range 5 {
			wg.Go(func() { mustGet(t, q, 1, "one") })
		}
		synctest.Wait()
		hangUp(gone)
		wg.Wait()
		mustLookup(t, q, 1, cache.Hit)
		wantLoads(t, s, 1)
	})
}

func TestEachCallerWaitsOnItsOwnContext(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		short, cancel := context.WithTimeout(t.Context(), s.delay/2)
		defer cancel()
		began := time.Now()
		if _, err := q.Get(short, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
		if took := time.Since(began); took != s.delay/2 {
			t.Errorf("the caller left after %v, want %v", took, s.delay/2)
		}
		time.Sleep(s.delay)
		mustLookup(t, q, 1, cache.Hit) // the load went on without it
	})
}

func TestLoaderThatEndsBadlyIsAnErrorForEveryWaiter(t *testing.T) {
	for name, end := range map[string]func(){
		"panic":  func() { panic("boom") },
		"Goexit": func() { runtime.Goexit() },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newSource(), newCache(t)
				query := s.query()
				var bad atomic.Bool
				bad.Store(true)
				query.Load = func(ctx context.Context, id int) (string, error) {
					v, err := s.load(ctx, id)
					if bad.Load() {
						end()
					}
					return v, err
				}
				q := cache.Define(c.Cache, query)
				var wg sync.WaitGroup
				for range 10 {
					wg.Go(func() {
						v, err := q.Get(t.Context(), 1)
						if !errors.As(err, new(*cache.LoadError)) {
							t.Errorf("a waiter got %q and error %v, want a LoadError", v, err)
						}
					})
				}
				wg.Wait()
				wantLoads(t, s, 1)
				bad.Store(false)
				time.Sleep(time.Second) // at most so long is the key out of order
				mustGet(t, q, 1, "one")
			})
		})
	}
}

func TestFailingLoadsBackOff(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = time.Millisecond
		q := cache.Define(c.Cache, s.query())
		s.fail(errors.New("down"))
		for i := range 1000 { // a caller every 10 ms for 10 s
			if n := s.loads.Load(); i == 100 && n > 5 {
				t.Errorf("the failing source was asked %d times in the first second, want 100, 200, 400 ms between", n)
			}
			if _, err := q.Get(t.Context(), 1); err == nil {
				t.Fatal("an answer from a source that is down")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := s.loads.Load(); n < 5 || n > 10 { // 100, 200, 400, 800, 1600, 3200, 5000 ms
			t.Errorf("the failing source was asked %d times in 10 s, want 5 to 10", n)
		}
		s.fail(nil)
		time.Sleep(6 * time.Second)
		mustGet(t, q, 1, "one")
		synctest.Wait() // it is stored, and with that noted, after the caller was answered
		// Success ends the series: the next failure is held against it only briefly.
		s.fail(errors.New("down again"))
		if err := c.Invalidate(t.Context(), rowTag(1)); err != nil {
			t.Fatal(err)
		}
		_, _ = q.Get(t.Context(), 1)
		s.fail(nil)
		time.Sleep(150 * time.Millisecond)
		mustGet(t, q, 1, "one")
	})
}

func TestCallersDuringTheHoldGetTheLoadersOwnError(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		down := errors.New("down")
		s.fail(down)
		q := cache.Define(c.Cache, s.query())
		for range 2 {
			if _, err := q.Get(t.Context(), 1); !errors.Is(err, down) {
				t.Errorf("got %v, want the loader's own error", err)
			}
		}
		wantLoads(t, s, 1)
	})
}

func TestNotFoundHasItsOwnLifetime(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.query()
		query.NotFound = 5 * time.Second
		q := cache.Define(c.Cache, query)
		for range 3 {
			if _, err := q.Get(t.Context(), 9); !errors.Is(err, cache.ErrNotFound) {
				t.Fatalf("got %v, want ErrNotFound", err)
			}
		}
		wantLoads(t, s, 1)
		s.set(9, "nine")
		time.Sleep(5 * time.Second)
		mustGet(t, q, 9, "nine")
	})
}

func TestNotFoundEndsWhenTheTagIsBumped(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		_, _ = q.Get(t.Context(), 9)
		s.set(9, "nine")
		if err := c.Invalidate(t.Context(), rowTag(9)); err != nil {
			t.Fatal(err)
		}
		mustGet(t, q, 9, "nine")
	})
}

func TestLoadsThatOutlastTheirDeadlineKeepTheirPlace(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCache(t)
		release := make(chan struct{})
		var running atomic.Int64
		q := cache.Define(c.Cache, cache.Query[int, string]{
			Name: "rows:stubborn", Key: func(id int) string { return cache.Key(id) },
			Tags: func(int) []cache.Tag { return []cache.Tag{"rows"} },
			Load: func(context.Context, int) (string, error) { // ignores its context
				running.Add(1)
				<-release
				return "late", nil
			},
			FreshFor: time.Minute, LoadTimeout: time.Second, MaxLoads: 1, MaxQueue: 1,
		})
		began := time.Now()
		if _, err := q.Get(t.Context(), 1); !errors.Is(err, cache.ErrLoadTimeout) {
			t.Errorf("got %v, want ErrLoadTimeout", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("the caller was released after %v, want the load's deadline of 1s", took)
		}
		_, err := q.Get(t.Context(), 2)
		if !errors.As(err, new(*cache.OverloadError)) {
			t.Errorf("got %v, want an OverloadError: the only place is taken", err)
		}
		if n := running.Load(); n != 1 {
			t.Errorf("%d loaders run, want 1", n)
		}
		close(release)
		synctest.Wait()
	})
}

func TestLoadsAreCapped(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		for id := range 20 {
			s.set(id, "row")
		}
		query := s.query()
		query.MaxLoads, query.MaxQueue = 3, 5
		q := cache.Define(c.Cache, query)
		var answered, refused atomic.Int64
		var wg sync.WaitGroup
		for id := range 20 {
			wg.Go(func() {
				_, err := q.Get(t.Context(), id)
				var overload *cache.OverloadError
				ok := errors.As(err, &overload)
				switch {
				case err == nil:
					answered.Add(1)
				case ok && overload.RetryAfter > 0 && overload.Query == "rows:one":
					refused.Add(1)
				default:
					t.Errorf("row %d: %v", id, err)
				}
			})
		}
		wg.Wait()
		if answered.Load() != 8 || refused.Load() != 12 {
			t.Errorf("%d answered and %d refused, want 8 (3 running, 5 waiting) and 12", answered.Load(), refused.Load())
		}
		if most := s.most.Load(); most != 3 {
			t.Errorf("%d loads ran at the same time, want 3", most)
		}
		if n := c.counts.Total().Overloads; n != 12 {
			t.Errorf("cache_overloads_total is %v, want 12", n)
		}
	})
}

func TestClosedCacheRefusesAndLeavesNothingRunning(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = time.Hour
		q := cache.Define(c.Cache, s.query())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := q.Get(t.Context(), 1); !errors.Is(err, cache.ErrClosed) && !errors.Is(err, context.Canceled) {
				t.Errorf("a waiter got %v when the cache closed", err)
			}
		})
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if _, err := q.Get(t.Context(), 1); !errors.Is(err, cache.ErrClosed) {
			t.Errorf("Get after Close: %v, want ErrClosed", err)
		}
		if err := c.Invalidate(t.Context(), "row:1"); !errors.Is(err, cache.ErrClosed) {
			t.Errorf("Invalidate after Close: %v, want ErrClosed", err)
		}
	})
}

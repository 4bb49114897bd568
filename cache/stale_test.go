package cache_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

func TestStaleAnswerIsServedWhileOneProcessRefreshes(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 3)
		query := s.query()
		query.FreshFor, query.StaleWhileRevalidate = time.Minute, time.Minute
		var queries []*cache.Cached[int, string]
		for _, p := range fleet {
			queries = append(queries, cache.Define(p.Cache, query))
		}
		mustGet(t, queries[0], 1, "one")
		s.set(1, "uno") // and it is not announced: only time will tell
		time.Sleep(time.Minute)
		began := time.Now()
		var wg sync.WaitGroup
		for _, q := range queries {
			for range 10 {
				wg.Go(func() {
					if a := mustLookup(t, q, 1, cache.Stale); a.Value != "one" || a.TTL >= 0 {
						t.Errorf("in the stale window: %+v", a)
					}
				})
			}
		}
		wg.Wait()
		if took := time.Since(began); took > 0 {
			t.Errorf("callers waited %v for what was there", took)
		}
		synctest.Wait()
		for i, p := range fleet {
			if n := p.store.Calls(storetest.OpClaim) - map[int]int{0: 1}[i]; n > 1 {
				t.Errorf("process %d claimed the refresh %d times for 10 callers", i, n)
			}
		}
		time.Sleep(s.delay)
		synctest.Wait()
		for _, q := range queries {
			if a := mustLookup(t, q, 1, cache.Hit); a.Value != "uno" {
				t.Errorf("after the refresh: %+v", a)
			}
		}
		wantLoads(t, s, 2)
	})
}

// Old is not wrong: time makes an answer stale, a write makes it wrong.
func TestInvalidatedAnswerIsNeverServedAsStale(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.query()
		query.StaleWhileRevalidate, query.StaleIfError = time.Hour, time.Hour
		q := cache.Define(c.Cache, query)
		mustGet(t, q, 1, "one")
		time.Sleep(61 * time.Second)
		s.set(1, "uno")
		if err := c.Invalidate(t.Context(), rowTag(1)); err != nil {
			t.Fatal(err)
		}
		s.fail(errors.New("down"))
		if v, err := q.Get(t.Context(), 1); err == nil {
			t.Errorf("got %q from a failing source after the write, want its error", v)
		}
	})
}

// A refresh that began before a write and ends after it must not bring the old row back.
func TestRefreshAcrossAWriteIsNotKept(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.query()
		query.StaleWhileRevalidate = time.Hour
		q := cache.Define(c.Cache, query)
		mustGet(t, q, 1, "one")
		time.Sleep(time.Minute)
		s.gate = make(chan struct{})
		mustLookup(t, q, 1, cache.Stale)
		time.Sleep(s.delay)
		synctest.Wait() // the refresh has read "one"
		s.set(1, "uno")
		if err := c.Invalidate(t.Context(), rowTag(1)); err != nil {
			t.Fatal(err)
		}
		close(s.gate)
		synctest.Wait()
		s.gate = nil
		mustGet(t, q, 1, "uno")
	})
}

func TestExpiredAnswerBridgesAFailingSource(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.query()
		query.StaleIfError = time.Hour
		q := cache.Define(c.Cache, query)
		mustGet(t, q, 1, "one")
		time.Sleep(2 * time.Minute)
		s.fail(errors.New("down"))
		for range 3 {
			if a := mustLookup(t, q, 1, cache.Stale); a.Value != "one" || a.Detail != cache.DetailError {
				t.Errorf("while the source is down: %+v", a)
			}
		}
		s.fail(nil)
		s.set(1, "uno")
		time.Sleep(time.Second)
		mustGet(t, q, 1, "uno") // a source that works is asked first
		time.Sleep(2 * time.Hour)
		s.fail(errors.New("down"))
		if v, err := q.Get(t.Context(), 1); err == nil {
			t.Errorf("got %q after the window, want the error", v)
		}
	})
}

func TestLifetimesAreSpread(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = 0
		q := cache.Define(c.Cache, s.query())
		seen := map[time.Duration]bool{}
		for id := range 50 {
			s.set(id, "row")
			ttl := mustLookup(t, q, id, cache.Miss).TTL
			if ttl < 54*time.Second || ttl > time.Minute {
				t.Errorf("row %d is fresh for %v, want 54s to 60s", id, ttl)
			}
			seen[ttl.Round(time.Millisecond)] = true
		}
		if len(seen) < 25 {
			t.Errorf("50 entries share %d lifetimes: they would expire together", len(seen))
		}
	})
}

// The observer is told what the caller got, not what became of the load.
func TestBridgedFailureIsCountedAsServedStale(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.query()
		query.StaleIfError = time.Hour
		q := cache.Define(c.Cache, query)
		mustGet(t, q, 1, "one")
		time.Sleep(2 * time.Minute)
		s.fail(errors.New("down"))
		mustGet(t, q, 1, "one")
		if results, err := q.GetMany(t.Context(), []int{1}); err != nil || results[0].Err != nil {
			t.Fatal(results, err)
		}
		if n := c.counts.Of("rows:one"); n.Hits != 2 || n.Misses != 1 {
			t.Errorf("counted %d hits and %d misses, want 2 and the first miss", n.Hits, n.Misses)
		}
	})
}

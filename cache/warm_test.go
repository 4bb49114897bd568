package cache_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

func (s *source) warmQuery(ids ...int) cache.Query[int, string] {
	q := s.query()
	q.StaleWhileRevalidate = time.Minute
	q.Warm = func(context.Context) ([]int, error) { return ids, nil }
	q.WarmEvery = 90 * time.Second
	return q
}

func TestWarmLoadsBeforeAnybodyAsks(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.warmQuery(1, 2, 99))
		if err := c.Warm(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustLookup(t, q, 1, cache.Hit)
		mustLookup(t, q, 2, cache.Hit)
		wantLoads(t, s, 3)
	})
}

func TestWarmAnswersNeverGoCold(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 3)
		var q *cache.Cached[int, string]
		for _, p := range fleet {
			q = cache.Define(p.Cache, s.warmQuery(1, 2))
		}
		if err := fleet[0].Warm(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 6 * 60 { // an hour
			time.Sleep(10 * time.Second)
			if a, err := q.Lookup(t.Context(), 1); err != nil || a.Status == cache.Miss || a.Status == cache.Collapsed {
				t.Fatalf("a warm answer had gone cold: %+v, %v", a, err)
			}
			time.Sleep(s.delay) // a refresh of what was stale is over
		}
		// One warmer warms two answers about every 90 s; row 1 is also refreshed when stale.
		if n := s.loads.Load(); n > 2*45+65 {
			t.Errorf("%d loads in an hour: more than one process warms", n)
		}
	})
}

// At its turn the warmer loads what is still fresh, too: by the next turn it might be gone.
func TestWarmerDoesNotWaitForAnswersToExpire(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.warmQuery(1)
		query.FreshFor, query.StaleWhileRevalidate, query.WarmEvery = time.Hour, 0, 10*time.Minute
		q := cache.Define(c.Cache, query)
		mustGet(t, q, 1, "one")
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		wantLoads(t, s, 2)
		mustLookup(t, q, 1, cache.Hit)
	})
}

func TestWarmReportsEverythingThatFailed(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		cache.Define(c.Cache, s.warmQuery(1, 2))
		s.fail(errors.New("down"))
		err := c.Warm(t.Context())
		if err == nil || strings.Count(err.Error(), "down") != 2 {
			t.Errorf("error is %v, want both failures", err)
		}
	})
}

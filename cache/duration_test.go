package cache_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

const forever = time.Duration(math.MaxInt64)

// "For as long as possible" is math.MaxInt64 for many programs, and no sum of two lifetimes may
// come out as a time in the past.
func TestLongestDurationsWork(t *testing.T) {
	for name, lengthen := range map[string]func(*cache.Query[int, string]){
		"StaleIfError": func(q *cache.Query[int, string]) { q.StaleIfError = forever },
		"FreshFor":     func(q *cache.Query[int, string]) { q.FreshFor = forever },
		"FreshFor and StaleWhileRevalidate": func(q *cache.Query[int, string]) {
			q.FreshFor, q.StaleWhileRevalidate = forever, forever
		},
		"FreshFor and StaleWhileRevalidate, of 200 years each": func(q *cache.Query[int, string]) {
			q.FreshFor, q.StaleWhileRevalidate = forever/3*2, forever/3*2
		},
		"all, with Near and a warmer": func(q *cache.Query[int, string]) {
			q.FreshFor, q.StaleWhileRevalidate, q.StaleIfError, q.NotFound = forever, forever, forever, forever
			q.Near, q.NearSize, q.LoadTimeout, q.WarmEvery = forever, math.MaxInt, forever, forever
			q.MaxLoads, q.MaxQueue = math.MaxInt, math.MaxInt
			q.Warm = warmNothing
		},
		"FreshFor of a millisecond, the shortest": func(q *cache.Query[int, string]) { q.FreshFor = time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newSource(), newCache(t)
				s.delay = 0
				query := s.query()
				lengthen(&query)
				q := cache.Define(c.Cache, query)
				mustLookup(t, q, 1, cache.Miss)
				_, _ = q.Get(t.Context(), 99)
				synctest.Wait()
				mustLookup(t, q, 1, cache.Hit)
				if a, err := q.Lookup(t.Context(), 99); !errors.Is(err, cache.ErrNotFound) || a.Status != cache.Hit {
					t.Errorf("what does not exist came as %v, error %v", a.Status, err)
				}
				if a := mustLookup(t, q, 1, cache.Hit); a.TTL <= 0 || a.Age < 0 {
					t.Errorf("a fresh answer has age %v and TTL %v", a.Age, a.TTL)
				}
				s.set(1, "uno")
				if err := c.Invalidate(t.Context(), rowTag(1)); err != nil {
					t.Fatal(err)
				}
				mustGet(t, q, 1, "uno")
			})
		})
	}
}

func TestStaleIfErrorForEver(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.query()
		query.StaleIfError = forever
		q := cache.Define(c.Cache, query)
		mustGet(t, q, 1, "one")
		time.Sleep(time.Hour)
		s.fail(errDown)
		if a := mustLookup(t, q, 1, cache.Stale); a.Detail != cache.DetailError || a.Value != "one" {
			t.Errorf("answer is %+v", a)
		}
	})
}

// The longest bound is one all the same: a store that never proved anything is beyond it.
func TestNearForEverNeedsAProof(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		c.store.Hang(storetest.OpWatch)
		query := s.query()
		query.Near = forever
		q := cache.Define(c.Cache, query)
		for range 3 {
			mustGet(t, q, 1, "one")
			synctest.Wait()
		}
		if n := c.counts.Total().NearHits; n != 0 {
			t.Errorf("%d near hits without any proof that changes are reported", n)
		}
	})
}

func TestDurationsThatCannotWorkAreRefused(t *testing.T) {
	c := newCache(t)
	query := newSource().query()
	query.FreshFor, query.Warm, query.WarmEvery = 999*time.Microsecond, warmNothing, 1
	message := panicOf(func() { cache.Define(c.Cache, query) })
	for _, want := range []string{"FreshFor is 999µs: must be at least 1ms", "WarmEvery is 1ns: must be at least 1ms"} {
		if !strings.Contains(message, want) {
			t.Errorf("panic says %q, want it to say %q", message, want)
		}
	}
	_, err := cache.New(cache.Config{Store: c.store, StoreTimeout: forever, LoadTimeout: forever, FenceLease: forever})
	for _, want := range []string{"StoreTimeout is 2562047h47m16.854775807s: must be at most 1h", "FenceLease is 2562047h47m16.854775807s: must be at most 24h"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want it to say %q", err, want)
		}
	}
}

func warmNothing(context.Context) ([]int, error) { return nil, nil }

package cache_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
)

// inProcess returns a query of a cache whose store is in this process, and a count of the answers
// that were decoded.
func inProcess(t *testing.T, s *source, change func(*cache.Query[int, string])) (*cache.Cache, *cache.Cached[int, string], *atomic.Int64) {
	store := memstore.New(memstore.Config{})
	t.Cleanup(func() { store.Close() })
	c, err := cache.New(cache.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	decoded := new(atomic.Int64)
	query := s.query()
	query.Codec = countingCodec{decoded}
	if change != nil {
		change(&query)
	}
	q := cache.Define(c, query)
	synctest.Wait() // until the store reports
	return c, q, decoded
}

type countingCodec struct{ decoded *atomic.Int64 }

func (countingCodec) Encode(s string) ([]byte, error) { return []byte(s), nil }
func (c countingCodec) Decode(b []byte) (string, error) {
	c.decoded.Add(1)
	return string(b), nil
}

// What a store in process holds is kept as values: a hit decodes and allocates nothing, and is
// a hit of the store by name, because it is as exact.
func TestHitsInProcessDecodeNothing(t *testing.T) {
	virtual(t, func(t *testing.T) {
		_, q, decoded := inProcess(t, newSource(), nil)
		mustGet(t, q, 1, "one")
		synctest.Wait() // it is stored after it was answered
		for range 100 {
			if a := mustLookup(t, q, 1, cache.Hit); a.Detail != "" || a.Value != "one" || a.ETag == (cache.ETag{}) {
				t.Fatalf("a hit is %+v", a)
			}
		}
		if n := decoded.Load(); n != 0 {
			t.Errorf("100 hits decoded %d answers", n)
		}
		ctx := t.Context()
		if n := testing.AllocsPerRun(100, func() { _, _ = q.Get(ctx, 1) }); n != 0 {
			t.Errorf("a hit allocates %v times", n)
		}
		if _, err := q.Get(cache.WithStrict(ctx), 1); err != nil || decoded.Load() != 1 {
			t.Errorf("a strict read decoded %d answers, error %v: it is to ask the store", decoded.Load(), err)
		}
	})
}

// A value is as exact as the store: at no moment after a fence, before the bump or after it, is
// one served that was loaded before.
func TestValuesInProcessAreExact(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSource()
		c, q, _ := inProcess(t, s, nil)
		for i, change := range []func(context.Context) error{
			func(ctx context.Context) error { return c.Invalidate(ctx, rowTag(1)) },
			func(ctx context.Context) error { return c.Invalidate(ctx, rowTag(1).Family()) },
			func(ctx context.Context) error { return c.Invalidate(ctx, cache.Everything) },
			func(ctx context.Context) error {
				fence, err := c.Fence(ctx, driver.Mark{1}, []cache.Tag{rowTag(1)})
				if err != nil {
					return err
				}
				if a, err := q.Lookup(ctx, 1); err != nil || a.Status != cache.Bypass {
					t.Errorf("under a fence the answer is %+v, error %v: it is to be loaded", a, err)
				}
				return fence.Bump(ctx)
			},
		} {
			for range 3 {
				mustLookupAny(t, q, 1)
			}
			want := strings.Repeat("x", i+1)
			s.set(1, want)
			if err := change(t.Context()); err != nil {
				t.Fatal(err)
			}
			if a, err := q.Lookup(t.Context(), 1); err != nil || a.Value != want {
				t.Errorf("after change %d the answer is %q (%v), error %v, want %q", i, a.Value, a.Status, err, want)
			}
		}
	})
}

func mustLookupAny(t *testing.T, q *cache.Cached[int, string], id int) {
	t.Helper()
	if _, err := q.Lookup(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// What is purged is loaded again, also where values are kept.
func TestPurgeInProcessTakesValues(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSource()
		c, q, _ := inProcess(t, s, nil)
		for range 3 {
			mustGet(t, q, 1, "one")
		}
		synctest.Wait() // until it is stored
		s.set(1, "uno") // which nothing has told of
		if _, err := c.Purge(t.Context(), "*"); err != nil {
			t.Fatal(err)
		}
		mustGet(t, q, 1, "uno")
	})
}

// Large values count for more, so that a few thousand of them do not fill the process.
func TestLargeValuesInProcessCountForMore(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSource()
		s.delay = 0
		_, q, decoded := inProcess(t, s, func(q *cache.Query[int, string]) {
			q.NearSize = 100
			q.FreshFor = time.Hour
		})
		large := strings.Repeat("x", 40<<10) // counts for 11
		kept := int64(0)
		for range 4 {
			before := decoded.Load()
			for id := range 50 {
				s.set(id, large)
				mustGet(t, q, id, large)
				synctest.Wait() // for the upkeep of the table
			}
			kept = 50 - (decoded.Load() - before)
		}
		if kept > 9 {
			t.Errorf("%d answers of 40 KiB are kept as values, want at most 9", kept)
		}
	})
}

// A store in process proves nothing again and again. A processor that is busy would make the proof
// late, and the cache would ask the source for every answer just then.
func TestStoreInProcessIsNotChecked(t *testing.T) {
	virtual(t, func(t *testing.T) {
		store := &checkedStore{Store: memstore.New(memstore.Config{})}
		t.Cleanup(func() { store.Close() })
		c, err := cache.New(cache.Config{Store: store})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.WaitServing(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(10 * time.Minute)
		if n := store.checks.Load(); n != 1 {
			t.Errorf("the store was checked %d times, want once, at the beginning", n)
		}
	})
}

type checkedStore struct {
	*memstore.Store
	checks atomic.Int64
}

func (s *checkedStore) CheckWrites(ctx context.Context) error {
	s.checks.Add(1)
	return s.Store.CheckWrites(ctx)
}

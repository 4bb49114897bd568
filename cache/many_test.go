package cache_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// batches makes a source load in batches, and records them.
type batches struct {
	*source
	mu    sync.Mutex
	asked [][]int
}

func (b *batches) query() cache.Query[int, string] {
	q := b.source.query()
	q.LoadMany = func(ctx context.Context, ids []int) ([]cache.Loaded[string], error) {
		b.mu.Lock()
		b.asked = append(b.asked, slices.Clone(ids))
		b.mu.Unlock()
		time.Sleep(b.delay)
		b.source.mu.Lock()
		defer b.source.mu.Unlock()
		if b.err != nil {
			return nil, b.err
		}
		results := make([]cache.Loaded[string], len(ids))
		for i, id := range ids {
			if row, ok := b.rows[id]; ok {
				results[i].Value = row
			} else {
				results[i].Err = cache.ErrNotFound
			}
		}
		return results, nil
	}
	return q
}

func TestGetManyTakesOneRoundTripAndOneLoad(t *testing.T) {
	virtual(t, func(t *testing.T) {
		b, c := &batches{source: newSource()}, newCache(t)
		q := cache.Define(c.Cache, b.query())
		mustGet(t, q, 2, "two") // loaded alone
		synctest.Wait()         // and stored
		reads, claims, settles := c.store.Calls(storetest.OpRead), c.store.Calls(storetest.OpClaim), c.store.Calls(storetest.OpSettle)
		results, err := q.GetMany(t.Context(), []int{1, 2, 99, 3, 1})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want := []struct {
			value  string
			status cache.Status
			err    error
		}{
			{"one", cache.Miss, nil},
			{"two", cache.Hit, nil},
			{"", cache.Miss, cache.ErrNotFound},
			{"three", cache.Miss, nil},
			{"one", cache.Collapsed, nil}, // asked for twice, loaded once
		}
		for i, w := range want {
			if r := results[i]; r.Value != w.value || r.Status != w.status || !errors.Is(r.Err, w.err) {
				t.Errorf("result %d is %+v, want %+v", i, r, w)
			}
		}
		if len(b.asked) != 1 || !slices.Equal(b.asked[0], []int{1, 99, 3}) {
			t.Errorf("batches loaded: %v, want one of what was missing", b.asked)
		}
		for op, calls := range map[string]int{
			"read":   c.store.Calls(storetest.OpRead) - reads,
			"claim":  c.store.Calls(storetest.OpClaim) - claims,
			"settle": c.store.Calls(storetest.OpSettle) - settles,
		} {
			if calls != 1 {
				t.Errorf("%d calls of %s, want 1", calls, op)
			}
		}
		for i, r := range mustMany(t, q, 1, 2, 3) {
			if r.Status != cache.Hit {
				t.Errorf("second time, result %d is %v", i, r.Status)
			}
		}
	})
}

func mustMany(t *testing.T, q *cache.Cached[int, string], ids ...int) []cache.Result[string] {
	t.Helper()
	results, err := q.GetMany(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func TestGetManyWithoutABatchLoaderLoadsAtTheSameTime(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		began := time.Now()
		results := mustMany(t, q, 1, 2, 3)
		if took := time.Since(began); took != s.delay {
			t.Errorf("took %v, want one load's %v", took, s.delay)
		}
		for i, want := range []string{"one", "two", "three"} {
			if results[i].Value != want {
				t.Errorf("result %d is %+v, want %q", i, results[i], want)
			}
		}
	})
}

func TestGetManyBatchesAndGetsShareTheirLoads(t *testing.T) {
	virtual(t, func(t *testing.T) {
		b, c := &batches{source: newSource()}, newCache(t)
		q := cache.Define(c.Cache, b.query())
		var wg sync.WaitGroup
		wg.Go(func() { mustGet(t, q, 1, "one") })
		synctest.Wait()
		wg.Go(func() { mustMany(t, q, 1, 2, 3) })
		synctest.Wait()
		wg.Go(func() { mustMany(t, q, 1, 2, 3) })
		wg.Go(func() { mustGet(t, q, 3, "three") })
		wg.Wait()
		wantLoads(t, b.source, 1)
		if len(b.asked) != 1 || !slices.Equal(b.asked[0], []int{2, 3}) {
			t.Errorf("batches loaded: %v, want one of 2 and 3", b.asked)
		}
	})
}

func TestGetManyUnderAFenceStoresOnlyTheRest(t *testing.T) {
	virtual(t, func(t *testing.T) {
		b, c := &batches{source: newSource()}, newCache(t)
		q := cache.Define(c.Cache, b.query())
		f := mustFence(t, c, rowTag(1))
		results := mustMany(t, q, 1, 2)
		if results[0].Status != cache.Bypass || results[1].Status != cache.Miss {
			t.Errorf("statuses are %v and %v, want bypass and miss", results[0].Status, results[1].Status)
		}
		synctest.Wait()
		if len(b.asked) != 1 {
			t.Errorf("batches loaded: %v, want one", b.asked)
		}
		if err := f.Bump(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustLookup(t, q, 1, cache.Miss)
		mustLookup(t, q, 2, cache.Hit)
	})
}

func TestGetManySpoilsNothingByOneFailure(t *testing.T) {
	virtual(t, func(t *testing.T) {
		b, c := &batches{source: newSource()}, newCache(t)
		query := b.query()
		query.StaleIfError = time.Hour
		q := cache.Define(c.Cache, query)
		mustMany(t, q, 1, 2)
		synctest.Wait()
		time.Sleep(2 * time.Minute)
		b.fail(errors.New("down"))
		results := mustMany(t, q, 1, 2, 3)
		for i := range 2 {
			if r := results[i]; r.Err != nil || r.Status != cache.Stale || r.Detail != cache.DetailError {
				t.Errorf("result %d is %+v, want the expired answer", i, r)
			}
		}
		if !errors.As(results[2].Err, new(*cache.LoadError)) {
			t.Errorf("result 2 has error %v, want a LoadError", results[2].Err)
		}
	})
}

func TestGetManyWithoutAStore(t *testing.T) {
	virtual(t, func(t *testing.T) {
		b, c := &batches{source: newSource()}, newCache(t)
		q := cache.Define(c.Cache, b.query())
		c.store.Fail(errDown)
		for range 10 {
			for i, r := range mustMany(t, q, 1, 2, 3) {
				if r.Err != nil || r.Status != cache.Bypass {
					t.Errorf("result %d is %+v", i, r)
				}
			}
		}
		if len(b.asked) != 10 {
			t.Errorf("%d batches for 10 calls", len(b.asked))
		}
	})
}

func TestGetManyLeavesWithItsCaller(t *testing.T) {
	virtual(t, func(t *testing.T) {
		b, c := &batches{source: newSource()}, newCache(t)
		q := cache.Define(c.Cache, b.query())
		ctx, cancel := context.WithTimeout(t.Context(), b.delay/2)
		defer cancel()
		if _, err := q.GetMany(ctx, []int{1, 2}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
		time.Sleep(b.delay)
		mustLookup(t, q, 1, cache.Hit)
	})
}

// What another process is loading is waited for, not loaded again.
func TestGetManyWaitsForOtherProcesses(t *testing.T) {
	virtual(t, func(t *testing.T) {
		b, fleet := &batches{source: newSource()}, newFleet(t, 2)
		q0, q1 := cache.Define(fleet[0].Cache, b.query()), cache.Define(fleet[1].Cache, b.query())
		var wg sync.WaitGroup
		wg.Go(func() { mustMany(t, q0, 1, 2) })
		synctest.Wait()
		wg.Go(func() {
			if r := mustMany(t, q1, 1, 2, 3); r[0].Value != "one" || r[2].Value != "three" {
				t.Errorf("results are %+v", r)
			}
		})
		wg.Wait()
		total := b.loads.Load()
		for _, batch := range b.asked {
			total += int64(len(batch))
		}
		if total != 3 {
			t.Errorf("%d rows were loaded (alone %d, batches %v), want 3", total, b.loads.Load(), b.asked)
		}
	})
}

package cache_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// Forget ends an answer on every process, near answers included, and a load that began before it
// does not bring it back.
func TestForget(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		def := s.query()
		def.Tags = func(id int) []cache.Tag { return []cache.Tag{rowTag(id)} }
		def.Near = 2 * time.Second
		a, b := cache.Define(fleet[0].Cache, def), cache.Define(fleet[1].Cache, def)
		for range 2 {
			mustGet(t, a, 1, "one")
			mustGet(t, b, 1, "one")
			synctest.Wait()
		}
		s.set(1, "changed by hand") // without an invalidation
		if err := a.Forget(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // near answers of other processes are behind by their bound at most
		mustGet(t, a, 1, "changed by hand")
		mustGet(t, b, 1, "changed by hand")

		var loading sync.WaitGroup
		gate := make(chan struct{})
		s.gate = gate
		invalidate(t, fleet[1], rowTag(1))
		loading.Go(func() { _, _ = b.Get(t.Context(), 1) })
		time.Sleep(time.Second) // it has read
		s.mu.Lock()
		s.rows[1], s.gate = "again", nil
		s.mu.Unlock()
		if err := a.Forget(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		close(gate)
		loading.Wait()
		synctest.Wait()
		mustGet(t, a, 1, "again")
		mustGet(t, b, 1, "again")
	})
}

func TestForgetGoesByTheTags(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newShop(), newCache(t)
		def := s.query()
		def.Tags = func(int) []cache.Tag { return nil }
		q := cache.Define(c.Cache, def)
		if err := q.Forget(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "Query.Tags") {
			t.Errorf("nothing is known of the answer: error %v", err)
		}
		got(t, q, 1, "seven")
		s.change(func() { s.titles[7] = "by hand" })
		if err := q.Forget(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		got(t, q, 1, "by hand")
		c.store.Fail(errors.New("away"))
		if err := q.Forget(t.Context(), 1); !errors.Is(err, cache.ErrUnavailable) {
			t.Errorf("without the store: error %v", err)
		}
	})
}

// Refresh loads once for all who want it at the same time.
func TestRefresh(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		a, b := cache.Define(fleet[0].Cache, s.query()), cache.Define(fleet[1].Cache, s.query())
		mustGet(t, a, 1, "one")
		synctest.Wait()
		s.set(1, "new")
		var callers sync.WaitGroup
		for _, q := range []*cache.Cached[int, string]{a, b, a, b} {
			callers.Go(func() {
				if got, err := q.Refresh(t.Context(), 1); err != nil || got.Value != "new" {
					t.Errorf("refreshed %q, error %v", got.Value, err)
				}
			})
		}
		callers.Wait()
		synctest.Wait()
		mustGet(t, a, 1, "new") // a load that a later Forget has ended may have been stored last
		synctest.Wait()
		mustLookup(t, a, 1, cache.Hit)
		if n := s.loads.Load(); n < 2 || n > 6 { // each Forget ends what the one before it let load
			t.Errorf("%d loads", n)
		}
	})
}

func TestPeek(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		def := s.query()
		def.StaleWhileRevalidate = time.Minute
		q := cache.Define(c.Cache, def)
		peek := func(id int, want cache.Status, wantErr error) {
			t.Helper()
			a, ok, err := q.Peek(t.Context(), id)
			if ok != (want != 0) || a.Status != want || !errors.Is(err, wantErr) {
				t.Errorf("peeked %+v, %v, %v; want %v and error %v", a, ok, err, want, wantErr)
			}
		}
		peek(1, 0, nil)
		wantLoads(t, s, 0)
		mustGet(t, q, 1, "one")
		_, _ = q.Get(t.Context(), 99)
		synctest.Wait()
		peek(1, cache.Hit, nil)
		peek(99, cache.Hit, cache.ErrNotFound)
		time.Sleep(61 * time.Second)
		peek(1, cache.Stale, nil)
		invalidate(t, c, rowTag(1))
		peek(1, 0, nil)
		wantLoads(t, s, 2)
		c.store.Fail(errors.New("away"))
		peek(1, 0, cache.ErrUnavailable)
	})
}

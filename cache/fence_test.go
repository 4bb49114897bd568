package cache_test

import (
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

var writer = driver.Mark{1}

func mustFence(t *testing.T, c process, tags ...cache.Tag) *cache.Fence {
	t.Helper()
	f, err := c.Fence(t.Context(), writer, tags)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// From before a write is visible until after it is acknowledged, nothing stored is served:
// so no reader can see the new row and a later one the old.
func TestFencedTagSendsReadersToTheSource(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		q := cache.Define(fleet[1].Cache, s.query())
		mustGet(t, q, 1, "one")
		mustLookup(t, q, 1, cache.Hit)
		f := mustFence(t, fleet[0], rowTag(1))
		if a := mustLookup(t, q, 1, cache.Bypass); a.Value != "one" || a.Detail != cache.DetailFenced {
			t.Errorf("before the commit: %+v", a)
		}
		s.set(1, "uno") // the commit
		if a := mustLookup(t, q, 1, cache.Bypass); a.Value != "uno" {
			t.Errorf("after the commit: %+v", a)
		}
		if err := f.Bump(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Nothing that was loaded under the fence was stored.
		if a := mustLookup(t, q, 1, cache.Miss); a.Value != "uno" {
			t.Errorf("after the bump: %+v", a)
		}
		mustLookup(t, q, 1, cache.Hit)
		mustLookup(t, q, 2, cache.Miss) // other rows were never concerned
	})
}

// A load that began before the fence and ends after the bump must not be served.
func TestLoadAcrossAFenceIsNotKept(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		s.gate = make(chan struct{})
		var slow sync.WaitGroup
		slow.Go(func() { mustGet(t, q, 1, "one") })
		time.Sleep(s.delay)
		synctest.Wait()
		f := mustFence(t, c, rowTag(1))
		s.set(1, "uno")
		close(s.gate)
		slow.Wait()
		synctest.Wait()
		s.gate = nil
		if a := mustLookup(t, q, 1, cache.Bypass); a.Value != "uno" {
			t.Errorf("under the fence: %+v", a)
		}
		if err := f.Bump(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustGet(t, q, 1, "uno")
	})
}

// A caller that waited for another process's load may find a writer in flight then.
func TestFenceIsSeenAfterTheWaitForAnotherProcess(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		loading, waiting := cache.Define(fleet[0].Cache, s.query()), cache.Define(fleet[1].Cache, s.query())
		var wg sync.WaitGroup
		wg.Go(func() { mustGet(t, loading, 1, "one") })
		synctest.Wait()
		wg.Go(func() {
			if a := mustLookup(t, waiting, 1, cache.Bypass); a.Detail != cache.DetailFenced {
				t.Errorf("it came as %v %s, want fenced", a.Status, a.Detail)
			}
		})
		synctest.Wait()
		mustFence(t, fleet[0], rowTag(1))
		wg.Wait()
	})
}

// Under a fence a caller shares only a load that began after it came: one runs, one waits.
func TestCallersUnderAFenceShareOnlyLaterLoads(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		mustFence(t, c, rowTag(1))
		s.gate = make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { mustGet(t, q, 1, "one") })
		time.Sleep(s.delay)
		synctest.Wait() // its load has read the old row
		s.set(1, "uno")
		for range 50 { // they came after the write: the load that runs is too old for them
			wg.Go(func() { mustGet(t, q, 1, "uno") })
		}
		synctest.Wait()
		wantLoads(t, s, 1)
		close(s.gate)
		wg.Wait()
		wantLoads(t, s, 2)
	})
}

func TestFenceOfACrashedWriterRunsOut(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		f := mustFence(t, c, rowTag(1))
		if left := f.Remaining(); left <= 0 || left > 5*time.Second {
			t.Errorf("a new fence stands for %v, want up to 5s", left)
		}
		time.Sleep(5 * time.Second)
		if left := f.Remaining(); left > 0 {
			t.Errorf("after its lease the fence claims to stand for %v more", left)
		}
		mustLookup(t, q, 1, cache.Miss)
		mustLookup(t, q, 1, cache.Hit)
	})
}

func TestFencesOfTwoWritersStandIndependently(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		first := mustFence(t, c, rowTag(1))
		second, err := c.Fence(t.Context(), driver.Mark{2}, []cache.Tag{rowTag(1)})
		if err != nil {
			t.Fatal(err)
		}
		if err := first.Bump(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustLookup(t, q, 1, cache.Bypass)
		if err := second.Bump(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustLookup(t, q, 1, cache.Miss)
		mustLookup(t, q, 1, cache.Hit)
	})
}

// A version that was lost comes back as another: an entry from before is dead.
func TestLostVersionNeverRevivesAnEntry(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		c.store.LoseTags(rowTag(1))
		s.set(1, "uno")
		mustGet(t, q, 1, "uno")
	})
}

func TestTagThatTheStoreRefusesDoesNotEndTheRecovery(t *testing.T) {
	virtual(t, func(t *testing.T) {
		log := newLines()
		store := storetest.NewFaulty(memstore.New(memstore.Config{}))
		s, c := newSource(), newProcess(t, store, cache.Config{Logger: slog.New(log)})
		store.RefuseTag(rowTag(2), errDown)
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 2, "two")
		s.set(2, "new")
		if err := c.Invalidate(t.Context(), rowTag(2)); err == nil {
			t.Error("the refusal is no error")
		}
		mustGet(t, q, 2, "new")
		time.Sleep(2 * time.Second)
		if h := c.Health(); h.State != "ok" {
			t.Errorf("the store is %s: %v", h.State, h.Err)
		}
		mustLookup(t, q, 2, cache.Miss) // the family of the tag has another version
		mustLookup(t, q, 2, cache.Hit)
		if n := log.of("their families were invalidated instead"); n != 1 {
			t.Errorf("said %d times, want once", n)
		}
	})
}

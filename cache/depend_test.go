package cache_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// shop is shelves of products with titles. What a shelf shows is known when it has been loaded.
type shop struct {
	mu      sync.Mutex
	shelves map[int][]int
	titles  map[int]string
	loads   atomic.Int64
	after   func(load int64) // if not nil, called by a load that has read, before it returns
	fail    error            // of a load that has read; guarded by mu
	keep    *time.Duration
	more    []cache.Tag
}

func newShop() *shop {
	return &shop{shelves: map[int][]int{1: {7}, 2: {8}}, titles: map[int]string{7: "seven", 8: "eight"}}
}

func (s *shop) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func product(id int) cache.Tag { return cache.T("product", id) }
func shelf(id int) cache.Tag   { return cache.T("shelf", id) }

// dependOnProduct knows only a context, as a helper deep inside does.
func dependOnProduct(ctx context.Context, id int) { cache.DependOn(ctx, product(id)) }

func (s *shop) load(ctx context.Context, id int) (string, error) {
	n := s.loads.Add(1)
	s.mu.Lock()
	var titles []string
	for _, p := range s.shelves[id] {
		dependOnProduct(ctx, p)
		titles = append(titles, s.titles[p])
	}
	cache.DependOn(ctx, s.more...)
	if s.keep != nil {
		cache.KeepFor(ctx, *s.keep)
	}
	_, ok := s.shelves[id]
	err, after := s.fail, s.after
	s.mu.Unlock()
	if after != nil {
		after(n)
	}
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "", cache.ErrNotFound
	}
	return strings.Join(titles, " "), nil
}

func (s *shop) query() cache.Query[int, string] {
	return cache.Query[int, string]{
		Name: "shop:shelf", Tags: func(id int) []cache.Tag { return []cache.Tag{shelf(id)} }, Load: s.load,
		FreshFor: time.Minute, StaleWhileRevalidate: time.Minute,
	}
}

// got is mustGet, and what it loaded has reached the store; lookedUp is the same for mustLookup.
func got(t *testing.T, q *cache.Cached[int, string], id int, want string) {
	t.Helper()
	mustGet(t, q, id, want)
	synctest.Wait()
}

func lookedUp(t *testing.T, q *cache.Cached[int, string], id int, want cache.Status) cache.Answer[string] {
	t.Helper()
	a := mustLookup(t, q, id, want)
	synctest.Wait()
	return a
}

func wantShopLoads(t *testing.T, s *shop, want int64) {
	t.Helper()
	if got := s.loads.Load(); got != want {
		t.Fatalf("the source was asked %d times, want %d", got, want)
	}
}

func invalidate(t *testing.T, c process, tags ...cache.Tag) {
	t.Helper()
	if err := c.Invalidate(t.Context(), tags...); err != nil {
		t.Fatal(err)
	}
}

// An answer ends with a write of what its load named, on the process that loaded it and on one that
// has only read it; and not with a write of what it does not show.
func TestNamedTagsEndAnAnswer(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newShop(), newFleet(t, 2)
		a, b := cache.Define(fleet[0].Cache, s.query()), cache.Define(fleet[1].Cache, s.query())
		lookedUp(t, a, 1, cache.Miss)
		wantShopLoads(t, s, 2) // the tags of the first were not known
		lookedUp(t, a, 1, cache.Hit)
		lookedUp(t, b, 1, cache.Hit)
		invalidate(t, fleet[0], product(8))
		lookedUp(t, a, 1, cache.Hit)
		lookedUp(t, b, 1, cache.Hit)
		for n, by := range []process{fleet[0], fleet[1]} {
			title := fmt.Sprint("title ", n)
			s.change(func() { s.titles[7] = title })
			invalidate(t, by, product(7))
			got(t, a, 1, title)
			got(t, b, 1, title)
			wantShopLoads(t, s, int64(3+n)) // now they are
		}
		s.change(func() { s.titles[7] = "bulk" })
		invalidate(t, fleet[1], product(1).Family())
		got(t, a, 1, "bulk")
		got(t, b, 1, "bulk")
	})
}

// A process that does not know what the load named asks the store twice, and then once.
func TestNamedTagsAreRemembered(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newShop(), newFleet(t, 2)
		a, b := cache.Define(fleet[0].Cache, s.query()), cache.Define(fleet[1].Cache, s.query())
		lookedUp(t, a, 1, cache.Miss)
		for n, want := range []int{2, 1, 1} {
			before := fleet[1].store.Calls(storetest.OpRead)
			lookedUp(t, b, 1, cache.Hit)
			if got := fleet[1].store.Calls(storetest.OpRead) - before; got != want {
				t.Errorf("hit %d took %d round trips, want %d", n, got, want)
			}
		}
		in, err := b.Inspect(t.Context(), 1)
		if err != nil || !slices.Equal(in.Named, []cache.Tag{product(7)}) || !in.Valid || in.Next != cache.Hit {
			t.Errorf("inspected %+v (error %v)", in, err)
		}
	})
}

// While a load runs, something that it shows is written, and the write is acknowledged. A caller
// that asks after that sees the write, though no process knew that the load depends on it.
func TestCallerWhoCameDuringALoadSeesWhatItNames(t *testing.T) {
	for name, failing := range map[string]bool{"answer": false, "failure": true} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newShop(), newCache(t)
				q := cache.Define(c.Cache, s.query())
				read, written := make(chan struct{}), make(chan struct{})
				s.after = func(load int64) {
					if load == 1 {
						close(read)
						<-written
					}
				}
				if failing {
					s.fail = errors.New("product 7 is broken")
				}
				var callers sync.WaitGroup
				callers.Go(func() { _, _ = q.Get(t.Context(), 1) })
				<-read
				s.change(func() { s.titles[7], s.fail = "written", nil })
				invalidate(t, c, product(7))
				callers.Go(func() { mustGet(t, q, 1, "written") })
				synctest.Wait() // it has joined
				close(written)
				callers.Wait()
				got(t, q, 1, "written")
			})
		})
	}
}

// No caller joins the repetition of a load: one that comes while it runs, and whose process has forgotten which
// tags were named, has not seen a version of what it shows.
func TestNobodyJoinsARepetition(t *testing.T) {
	for name, many := range map[string]bool{"Get": false, "GetMany": true} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newShop(), newCache(t)
				read, written := make(chan struct{}), make(chan struct{})
				s.after = func(load int64) {
					if load == 2 {
						close(read)
						<-written
					}
				}
				def := s.query()
				if many {
					def.LoadMany = func(ctx context.Context, ids []int) ([]cache.Loaded[string], error) {
						v, err := s.load(ctx, 1)
						return []cache.Loaded[string]{{Value: v, Err: err}, {Err: cache.ErrNotFound}}, nil
					}
				}
				q := cache.Define(c.Cache, def)
				var callers sync.WaitGroup
				callers.Go(func() {
					if many {
						_, _ = q.GetMany(t.Context(), []int{1, 99})
						return
					}
					_, _ = q.Get(t.Context(), 1)
				})
				<-read
				s.change(func() { s.titles[7] = "written" })
				invalidate(t, c, product(7))
				cache.ForgetNamed(q)
				callers.Go(func() { mustGet(t, q, 1, "written") })
				synctest.Wait()
				close(written)
				callers.Wait()
			})
		})
	}
}

// The same in a batch, whose answers are loaded together.
func TestBatchSeesWhatItsLoadNames(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newShop(), newCache(t)
		def := s.query()
		runs := 0
		read, written := make(chan struct{}), make(chan struct{})
		def.LoadMany = func(ctx context.Context, ids []int) ([]cache.Loaded[string], error) {
			runs++
			loaded := make([]cache.Loaded[string], len(ids))
			s.change(func() {
				for i, id := range ids {
					loaded[i] = cache.Loaded[string]{Value: s.titles[s.shelves[id][0]], Tags: []cache.Tag{product(s.shelves[id][0])}}
				}
			})
			if runs == 1 {
				close(read)
				<-written
			}
			return loaded, nil
		}
		q := cache.Define(c.Cache, def)
		get := func(want string) {
			results, err := q.GetMany(t.Context(), []int{1, 2})
			if err != nil || results[0].Err != nil || results[1].Err != nil || results[0].Value != want || results[1].Value != "eight" {
				t.Errorf("got %+v, %v; want %s", results, err, want)
			}
		}
		var callers sync.WaitGroup
		callers.Go(func() { get("written") })
		<-read
		s.change(func() { s.titles[7] = "written" })
		invalidate(t, c, product(7))
		callers.Go(func() { mustGet(t, q, 1, "written") })
		synctest.Wait()
		close(written)
		callers.Wait()
		if runs != 2 {
			t.Errorf("loaded together %d times, want twice", runs)
		}
		get("written")
		s.change(func() { s.titles[7] = "again" })
		invalidate(t, c, product(7), product(8))
		get("again")
		if runs != 3 || s.loads.Load() != 0 {
			t.Errorf("%d runs and %d loads of one, want 3 and none", runs, s.loads.Load())
		}
	})
}

// A row moves onto the shelf while it is loaded, and again while it is loaded again: the answer is
// given and not stored, and what is stored next is under all versions.
func TestTagsThatChangeWhileLoading(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newShop(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		s.after = func(load int64) {
			if load < 3 {
				s.change(func() { s.shelves[1], s.titles[int(10+load)] = []int{int(10 + load)}, fmt.Sprint("moved ", load) })
			}
		}
		a := lookedUp(t, q, 1, cache.Bypass)
		if a.Value != "moved 1" || a.Detail != cache.DetailNewTags {
			t.Fatalf("got %+v", a)
		}
		wantShopLoads(t, s, 2)
		if a := lookedUp(t, q, 1, cache.Miss); a.Value != "moved 2" {
			t.Fatalf("got %+v", a)
		}
		lookedUp(t, q, 1, cache.Hit)
		s.change(func() { s.titles[12] = "written" })
		invalidate(t, c, product(12))
		got(t, q, 1, "written")
	})
}

// What the last load named and this one does not is forgotten: its writes end nothing any more.
func TestTagsThatAreNamedNoMore(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newShop(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		s.change(func() { s.shelves[1] = []int{7, 8} })
		got(t, q, 1, "seven eight")
		s.change(func() { s.shelves[1] = []int{8} })
		invalidate(t, c, shelf(1))
		got(t, q, 1, "eight")
		wantShopLoads(t, s, 3)
		invalidate(t, c, product(7))
		lookedUp(t, q, 1, cache.Hit)
		s.change(func() { s.shelves[1] = nil })
		invalidate(t, c, shelf(1))
		got(t, q, 1, "")
		invalidate(t, c, product(8))
		lookedUp(t, q, 1, cache.Hit)
		wantShopLoads(t, s, 4)
	})
}

// A refresh, a reload of the warmer and a store in process that keeps values know the tags as well.
func TestNamedTagsOfAnAnswerThatIsRefreshed(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newShop(), newFleet(t, 2)
		a, b := cache.Define(fleet[0].Cache, s.query()), cache.Define(fleet[1].Cache, s.query())
		got(t, a, 1, "seven")
		time.Sleep(time.Minute + time.Second)
		s.change(func() { s.shelves[1] = []int{8} }) // no invalidation: time alone has to do
		lookedUp(t, b, 1, cache.Stale)
		synctest.Wait()
		got(t, b, 1, "eight")
		lookedUp(t, a, 1, cache.Hit)
		s.change(func() { s.titles[8] = "written" })
		invalidate(t, fleet[0], product(8))
		got(t, b, 1, "written")
		got(t, a, 1, "written")
	})
}

func TestNamedTagsOfNearAnswers(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newShop()
		mem := memstore.New(memstore.Config{})
		defer mem.Close()
		c, err := cache.New(cache.Config{Store: mem})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		q := cache.Define(c, s.query())
		for n := range 5 {
			title := fmt.Sprint("title ", n)
			s.change(func() { s.titles[7] = title })
			if err := c.Invalidate(t.Context(), product(7)); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				got(t, q, 1, title)
			}
			wantShopLoads(t, s, int64(2+n))
		}
	})
}

// KeepFor replaces FreshFor, the shortest of several, and also what is kept of "not found".
func TestKeepFor(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newShop(), newCache(t)
		def := s.query()
		def.StaleWhileRevalidate = 0
		q := cache.Define(c.Cache, def)
		for _, keep := range []time.Duration{time.Second, time.Hour} {
			s.keep = &keep
			for _, id := range []int{1, 99} {
				invalidate(t, c, shelf(id))
				_, _ = q.Get(t.Context(), id)
				time.Sleep(keep * 8 / 10)
				if a, _ := q.Lookup(t.Context(), id); a.Status != cache.Hit {
					t.Errorf("%d, kept for %v: a %v before that", id, keep, a.Status)
				}
				time.Sleep(keep * 3 / 10)
				if a, _ := q.Lookup(t.Context(), id); a.Status != cache.Miss {
					t.Errorf("%d, kept for %v: a %v after that", id, keep, a.Status)
				}
			}
		}
		for _, keep := range []time.Duration{0, -1, time.Microsecond} {
			s.keep = &keep
			invalidate(t, c, shelf(1))
			for range 2 {
				if a := lookedUp(t, q, 1, cache.Bypass); a.Detail != cache.DetailNotKept {
					t.Errorf("kept for %v: %+v", keep, a)
				}
			}
		}
	})
	virtual(t, func(t *testing.T) {
		s, c := newShop(), newCache(t)
		def := s.query()
		def.StaleWhileRevalidate = 0
		def.Load = func(ctx context.Context, id int) (string, error) {
			for _, d := range []time.Duration{time.Hour, time.Second, 2 * time.Second} {
				cache.KeepFor(ctx, d)
			}
			return s.load(ctx, id)
		}
		def.LoadMany = func(ctx context.Context, ids []int) ([]cache.Loaded[string], error) {
			return []cache.Loaded[string]{{Value: "a", KeepFor: 3 * time.Second}, {Value: "b", KeepFor: -1}, {Value: "c"}}, nil
		}
		q := cache.Define(c.Cache, def)
		got(t, q, 1, "seven")
		lookedUp(t, q, 1, cache.Hit)
		time.Sleep(time.Second)
		lookedUp(t, q, 1, cache.Miss)
		batch := func() []cache.Result[string] {
			results, err := q.GetMany(t.Context(), []int{11, 12, 13})
			if err != nil {
				t.Fatal(err)
			}
			return results
		}
		if r := batch(); r[0].Status != cache.Miss || r[1].Detail != cache.DetailNotKept || r[2].Status != cache.Miss {
			t.Errorf("got %+v", r)
		}
		time.Sleep(3 * time.Second)
		if a, _ := q.Lookup(t.Context(), 13); a.Status != cache.Hit {
			t.Errorf("an answer of which nothing was said is a %v", a.Status)
		}
		if in, err := q.Inspect(t.Context(), 11); err != nil || in.Next == cache.Hit {
			t.Errorf("%+v, %v", in, err)
		}
	})
}

// Mistakes in what is named are errors of the load, and what cannot be stored is given.
func TestMistakesInNamedTags(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newShop(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		s.more = []cache.Tag{"no tag\n"}
		if _, err := q.Get(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "DependOn") {
			t.Errorf("a malformed tag: error %v", err)
		}
		s.more = nil
		for i := range 1001 {
			s.more = append(s.more, cache.T("many", i))
		}
		time.Sleep(time.Minute) // the failure is forgotten
		for range 3 {
			if a := lookedUp(t, q, 1, cache.Bypass); a.Detail != cache.DetailTooLarge || a.Value != "seven" {
				t.Errorf("1,002 tags: %+v", a)
			}
		}
		wantShopLoads(t, s, 2+2+1+1) // once it is known, it is not repeated
		s.more = s.more[:998]
		lookedUp(t, q, 1, cache.Bypass)
		lookedUp(t, q, 1, cache.Miss)
		lookedUp(t, q, 1, cache.Hit)
	})
	cache.DependOn(t.Context(), "outside of a load")
	cache.KeepFor(t.Context(), time.Second)
}

// A goroutine that a load has left behind says too much too late, and that is logged.
func TestDependOnAfterTheLoad(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var log strings.Builder
		store := storetest.NewFaulty(memstore.New(memstore.Config{}))
		c := newProcess(t, store, cache.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		def := newShop().query()
		def.Load = func(ctx context.Context, id int) (string, error) {
			go func() {
				time.Sleep(time.Second)
				cache.DependOn(ctx, product(7))
				cache.KeepFor(ctx, 0)
			}()
			return "early", nil
		}
		q := cache.Define(c.Cache, def)
		got(t, q, 1, "early")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "after it had returned"); n != 1 {
			t.Errorf("logged %d times: %s", n, log.String())
		}
	})
}

// Check does not blame a query whose tags come from its loads alone.
func TestCheckOfNamedTags(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newShop(), newCache(t)
		def := s.query()
		def.Tags = func(int) []cache.Tag { return nil }
		q := cache.Define(c.Cache, def)
		got(t, q, 1, "seven")
		got(t, q, 1, "seven")
		found, err := c.Check(t.Context(), cache.InvalidatedByHand("product"))
		if err != nil || len(found) != 0 {
			t.Errorf("found %v (error %v)", found, err)
		}
		if found, _ := c.Check(t.Context(), cache.InvalidatedByHand("shelf")); !strings.Contains(fmt.Sprint(found), "product") {
			t.Errorf("found %v, and not that nothing records products", found)
		}
	})
}

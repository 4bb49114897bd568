package cache_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// proofs is the least that a proof of the store in these tests is late.
const proofs = 50 * time.Millisecond

// nearQuery is query, kept near for a second without proof.
func (s *source) nearQuery() cache.Query[int, string] {
	q := s.query()
	q.Near = time.Second
	return q
}

// defineNear defines q, and waits until the process hears of changes.
func defineNear(c process, q cache.Query[int, string]) *cache.Cached[int, string] {
	cached := cache.Define(c.Cache, q)
	synctest.Wait()
	return cached
}

// keepNear asks until the answer is near.
func keepNear(t *testing.T, q *cache.Cached[int, string], id int, want string) {
	t.Helper()
	for range 3 {
		mustGet(t, q, id, want)
	}
	mustBeNear(t, q, id, want)
}

func mustBeNear(t *testing.T, q *cache.Cached[int, string], id int, want string) cache.Answer[string] {
	t.Helper()
	a := mustLookup(t, q, id, cache.Hit)
	if a.Detail != cache.DetailNear || a.Value != want {
		t.Fatalf("row %d came as %q, %v %s, want %q from near", id, a.Value, a.Status, a.Detail, want)
	}
	return a
}

func mustNotBeNear(t *testing.T, q *cache.Cached[int, string], id int, want string) {
	t.Helper()
	if a, err := q.Lookup(t.Context(), id); err != nil || a.Detail == cache.DetailNear || a.Value != want {
		t.Fatalf("row %d came as %q, %v %s (error %v), want %q, and not from near", id, a.Value, a.Status, a.Detail, err, want)
	}
}

func mustInvalidate(t *testing.T, c process, tags ...cache.Tag) {
	t.Helper()
	if err := c.Invalidate(t.Context(), tags...); err != nil {
		t.Fatal(err)
	}
}

// calls counts what was asked of the store on behalf of readers.
func (p process) calls() (n int) {
	for _, op := range []storetest.Op{storetest.OpRead, storetest.OpClaim, storetest.OpRenew, storetest.OpSettle, storetest.OpAnnounced} {
		n += p.store.Calls(op)
	}
	return n
}

func TestNearHitAsksNobody(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := defineNear(c, s.nearQuery())
		miss := mustLookup(t, q, 1, cache.Miss)
		synctest.Wait()
		calls := c.calls()
		time.Sleep(10 * time.Second)
		for range 100 {
			a := mustBeNear(t, q, 1, "one")
			if a.Age != s.delay+10*time.Second || a.Age+a.TTL != miss.Age+miss.TTL || a.ETag != miss.ETag {
				t.Fatalf("near the answer is %+v, and was %+v", a, miss)
			}
		}
		wantLoads(t, s, 1)
		if n := c.calls() - calls; n != 0 {
			t.Errorf("100 near hits called the store %d times", n)
		}
	})
}

type page struct{ difficulty, page, limit int }

type course struct {
	ID       int
	Title    string
	Enrolled int
	Modules  []string
}

// listing is a query as a service has them, with the tags made beforehand, and no clock but
// the machine's.
func listing(fresh time.Duration) cache.Query[page, course] {
	tags := []cache.Tag{"catalog", "course:1"}
	return cache.Query[page, course]{
		Name:     "courses:list",
		Key:      func(p page) string { return cache.Key(p.difficulty, p.page, p.limit) },
		Tags:     func(page) []cache.Tag { return tags },
		Load:     func(context.Context, page) (course, error) { return course{ID: 1, Title: "Go"}, nil },
		FreshFor: fresh,
		Near:     time.Minute,
	}
}

func TestNearHitAllocatesNothing(t *testing.T) {
	store := memstore.New(memstore.Config{})
	defer store.Close()
	c, err := cache.New(cache.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := cache.Define(c, listing(time.Hour))
	ctx, p := t.Context(), page{1, 1, 20}
	isNear := func() bool {
		a, err := q.Lookup(ctx, p)
		return err == nil && a.Detail == cache.DetailNear && a.Value.Title == "Go"
	}
	for deadline := time.Now().Add(20 * time.Second); !isNear(); {
		if time.Now().After(deadline) {
			t.Fatal("the answer is not kept near")
		}
	}
	near := true
	if n := testing.AllocsPerRun(1000, func() { near = near && isNear() }); n != 0 || !near {
		t.Errorf("Lookup allocates %v times, near: %t", n, near)
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = q.Get(ctx, p) }); n != 0 {
		t.Errorf("Get allocates %v times", n)
	}
}

func (s *betweenReads) Read(ctx context.Context, tags []cache.Tag, keys []string) (driver.Snapshot, error) {
	snap, err := s.Faulty.Read(ctx, tags, keys)
	if s.then != nil {
		s.then()
	}
	return snap, err
}

func TestNearAnswersEndWithTheirFreshness(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = 0
		query := s.nearQuery()
		query.FreshFor, query.StaleWhileRevalidate = 10*time.Second, time.Minute
		q := defineNear(c, query)
		ttl := mustLookup(t, q, 1, cache.Miss).TTL
		s.set(1, "uno") // and no change is reported
		time.Sleep(ttl - time.Nanosecond)
		if a := mustBeNear(t, q, 1, "one"); a.TTL != 1 {
			t.Errorf("at its end the answer is fresh for %v", a.TTL)
		}
		time.Sleep(time.Nanosecond)
		mustLookup(t, q, 1, cache.Stale) // and starts a refresh, which near hits would have put off
		synctest.Wait()
		mustNotBeNear(t, q, 1, "uno")
		mustBeNear(t, q, 1, "uno")
	})
}

func TestNotFoundIsKeptNear(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := defineNear(c, s.nearQuery())
		for i := range 3 {
			a, err := q.Lookup(t.Context(), 99)
			if !errors.Is(err, cache.ErrNotFound) || (a.Detail == cache.DetailNear) != (i > 0) || a.Value != "" {
				t.Errorf("call %d for what does not exist: %+v, error %v", i, a, err)
			}
		}
		wantLoads(t, s, 1)
		s.set(99, "new")
		mustInvalidate(t, c, rowTag(99))
		mustNotBeNear(t, q, 99, "new")
	})
}

func TestFailuresAreNotKeptNear(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := defineNear(c, s.nearQuery())
		s.fail(errors.New("disk is full"))
		if v, err := q.Get(t.Context(), 1); err == nil {
			t.Fatalf("got %q from a source that fails", v)
		}
		s.fail(nil)
		time.Sleep(time.Second) // until it may be tried again
		mustNotBeNear(t, q, 1, "one")
	})
}

// Near answers are found by the parameter. It names the owner, so that one's answer is
// never another's, and who has no name gets none.
func TestPrivateAnswersStayPrivateNear(t *testing.T) {
	virtual(t, func(t *testing.T) {
		type ask struct {
			user string
			page int
		}
		c := newCache(t)
		q := cache.Define(c.Cache, cache.Query[ask, string]{
			Name:     "users:progress",
			Owner:    func(a ask) string { return a.user },
			Key:      func(a ask) string { return cache.Key(a.page) },
			Tags:     func(a ask) []cache.Tag { return []cache.Tag{cache.Tag("user:" + a.user)} },
			Load:     func(_ context.Context, a ask) (string, error) { return "progress of " + a.user, nil },
			FreshFor: time.Minute,
			Near:     time.Second,
		})
		synctest.Wait()
		for range 3 {
			for _, user := range []string{"ada", "bob"} {
				if v, err := q.Get(t.Context(), ask{user, 1}); err != nil || v != "progress of "+user {
					t.Errorf("%s was answered %q (error %v)", user, v, err)
				}
			}
			if v, err := q.Get(t.Context(), ask{"", 1}); err == nil {
				t.Errorf("no caller was answered %q", v)
			}
		}
		if a, _ := q.Lookup(t.Context(), ask{"bob", 1}); a.Detail != cache.DetailNear {
			t.Errorf("after three calls the answer comes as %v %s", a.Status, a.Detail)
		}
	})
}

// Purge removes what is stored, to make room or because it cannot be read. It says nothing
// of the source having changed, and what is near can be read and has a bound of its own;
// a caller that means that an answer is wrong invalidates a tag, which reaches every process.
func TestPurgeLeavesNearAnswers(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := defineNear(c, s.nearQuery())
		keepNear(t, q, 1, "one")
		synctest.Wait()
		if n, err := c.Purge(t.Context(), "rows:*"); n != 1 || err != nil {
			t.Fatalf("purge removed %d entries, error %v", n, err)
		}
		mustBeNear(t, q, 1, "one")
		s.set(1, "uno")
		mustInvalidate(t, c, rowTag(1))
		mustNotBeNear(t, q, 1, "uno")
	})
}

func TestStrictReadsDoNotLookNear(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		q := defineNear(fleet[1], s.nearQuery())
		keepNear(t, q, 1, "one")
		fleet[1].store.Delay(500*time.Millisecond, storetest.OpWatch)
		s.set(1, "uno")
		mustInvalidate(t, fleet[0], rowTag(1))
		mustBeNear(t, q, 1, "one")
		if v, err := q.Get(cache.WithStrict(t.Context()), 1); err != nil || v != "uno" {
			t.Errorf("a strict read returned %q (error %v)", v, err)
		}
	})
}

func TestClosedCacheServesNothingNear(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := defineNear(c, s.nearQuery())
		keepNear(t, q, 1, "one")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if v, err := q.Get(t.Context(), 1); !errors.Is(err, cache.ErrClosed) {
			t.Errorf("a closed cache answered %q (error %v)", v, err)
		}
	})
}

func TestNearHitsAreCountedByTier(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := defineNear(c, s.nearQuery())
		mustGet(t, q, 1, "one")
		for range 7 {
			mustBeNear(t, q, 1, "one")
		}
		c.store.Hang(storetest.OpWatch)
		time.Sleep(2 * time.Second)
		for range 3 {
			mustGet(t, q, 1, "one")
		}
		if n := c.counts.Of("rows:one"); n.NearHits != 7 || n.Hits != 3 || n.Misses != 1 {
			t.Errorf("%d hits are counted near, %d shared and %d misses, want 7, 3 and 1", n.NearHits, n.Hits, n.Misses)
		}
	})
}

package cache_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// lines counts what is logged, by message.
type lines struct {
	slog.Handler
	mu    sync.Mutex
	count map[string]int
}

func newLines() *lines { return &lines{Handler: slog.DiscardHandler, count: map[string]int{}} }

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count[r.Message]++
	return nil
}

func (l *lines) of(message string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for m, count := range l.count {
		if strings.Contains(m, message) {
			n += count
		}
	}
	return n
}

// newLargeFleet starts n processes on one store with room for large answers.
func newLargeFleet(t *testing.T, n int, cfg cache.Config) ([]process, *memstore.Store) {
	t.Helper()
	mem := memstore.New(memstore.Config{})
	shared := storetest.NewFaulty(mem)
	t.Cleanup(func() { shared.Close() })
	fleet := make([]process, n)
	for i := range fleet {
		fleet[i] = newProcess(t, shared.Peer(), cfg)
	}
	return fleet, mem
}

func TestAnswerBeyondTheLimitIsGivenAndNotStored(t *testing.T) {
	virtual(t, func(t *testing.T) {
		log := newLines()
		fleet, mem := newLargeFleet(t, 1, cache.Config{MaxEntryBytes: 1000, Logger: slog.New(log)})
		s, c := newSource(), fleet[0]
		s.set(1, strings.Repeat("x", 1000-len(`""`)))
		s.set(2, strings.Repeat("x", 1000-len(`""`)+1))
		q := cache.Define(c.Cache, s.query())
		for range 3 {
			mustLookup(t, q, 2, cache.Miss)
			synctest.Wait()
		}
		if n := mem.Stats().Entries; n != 0 {
			t.Errorf("%d entries are stored", n)
		}
		mustLookup(t, q, 1, cache.Miss)
		synctest.Wait()
		mustLookup(t, q, 1, cache.Hit)
		if got := c.counts.Total(); got.TooLarge != 3 || got.NotStored != 3 {
			t.Errorf("counted %d too large and %d not stored, want 3 and 3", got.TooLarge, got.NotStored)
		}
		if n := log.of("too large to be stored"); n != 1 {
			t.Errorf("said %d times, want once", n)
		}
	})
}

func TestAnswerWithTooManyTagsIsGivenAndNotStored(t *testing.T) {
	virtual(t, func(t *testing.T) {
		log := newLines()
		fleet, _ := newLargeFleet(t, 1, cache.Config{Logger: slog.New(log)})
		s, c := newSource(), fleet[0]
		query := s.query()
		query.Tags = func(id int) []cache.Tag {
			tags := make([]cache.Tag, 20_000)
			for i := range tags {
				tags[i] = cache.T("row", i)
			}
			return tags[:min(len(tags), 500*id)]
		}
		q := cache.Define(c.Cache, query)
		mustLookup(t, q, 2, cache.Miss) // 1,000
		mustLookup(t, q, 2, cache.Hit)
		for range 3 {
			if a := mustLookup(t, q, 3, cache.Bypass); a.Value != "three" || a.Detail != cache.DetailTooLarge {
				t.Errorf("the answer is %+v", a)
			}
		}
		results := mustMany(t, q, 2, 3)
		if results[0].Status != cache.Hit || results[1].Status != cache.Bypass || results[1].Value != "three" {
			t.Errorf("results are %+v", results)
		}
		in, err := q.Inspect(t.Context(), 3)
		if err != nil || in.Next != cache.Bypass || in.Detail != cache.DetailTooLarge {
			t.Errorf("Inspect says %+v (error %v)", in, err)
		}
		if got := c.counts.Total(); got.TooLarge != 4 || got.NotStored != 4 || got.StoreFailure != 0 {
			t.Errorf("counted %d too large and %d not stored, want 4 and 4; %d calls of the store failed", got.TooLarge, got.NotStored, got.StoreFailure)
		}
		if n := log.of("too large to be stored"); n != 1 {
			t.Errorf("said %d times, want once", n)
		}
	})
}

func TestLargeAnswerIsStoredInParts(t *testing.T) {
	virtual(t, func(t *testing.T) {
		fleet, mem := newLargeFleet(t, 2, cache.Config{})
		s, a, b := newSource(), fleet[0], fleet[1]
		large := strings.Repeat("0123456789", 3<<20/10)
		s.set(1, large)
		s.set(2, large+"2")
		qa, qb := cache.Define(a.Cache, s.query()), cache.Define(b.Cache, s.query())
		load := func() {
			t.Helper()
			mustGet(t, qa, 1, large)
			mustGet(t, qa, 2, large+"2")
			synctest.Wait()
		}
		load()
		if got := mustLookup(t, qb, 1, cache.Hit); got.Value != large {
			t.Errorf("%d bytes came back, want %d", len(got.Value), len(large))
		}
		wantLoads(t, s, 2)
		if in, err := qb.Inspect(t.Context(), 1); err != nil || in.Bytes < len(large) {
			t.Errorf("Inspect says %d bytes (error %v)", in.Bytes, err)
		}

		// What is torn is a miss, and is stored again.
		tear := map[string]func(){
			"a part is missing": func() {
				if err := a.store.LoseEntries(t.Context(), "part:3:rows:one:1"); err != nil {
					t.Error(err)
				}
			},
			"a part is of another fill": func() {
				snapshot, err := a.store.Read(t.Context(), nil, []string{"part:3:rows:one:2"})
				if err != nil || snapshot.Entries[0] == nil {
					t.Fatalf("no part: %v", err)
				}
				err = a.store.Settle(t.Context(), []driver.Fill{{Key: "part:3:rows:one:1", Entry: snapshot.Entries[0], Life: time.Hour}})
				if err != nil {
					t.Error(err)
				}
			},
		}
		torn := 0
		for what, do := range tear {
			do()
			torn++
			loads := s.loads.Load()
			if got := mustLookup(t, qb, 1, cache.Miss); got.Value != large {
				t.Errorf("%s: %d bytes came back, want %d", what, len(got.Value), len(large))
			}
			synctest.Wait()
			mustLookup(t, qa, 1, cache.Hit)
			wantLoads(t, s, loads+1)
			if n := b.counts.Total().Undecodable; n < torn {
				t.Errorf("%s: counted %d times", what, n)
			}
		}

		// An entry that is invalid is not transferred.
		mustInvalidate(t, a, rowTag(1))
		reads := b.store.Calls(storetest.OpRead)
		mustLookup(t, qb, 1, cache.Miss)
		if n := b.store.Calls(storetest.OpRead) - reads; n != 1 {
			t.Errorf("%d reads for an invalid answer, want 1", n)
		}
		synctest.Wait()

		if n, err := a.Purge(t.Context(), "rows:one:*"); n != 2 || err != nil {
			t.Errorf("purged %d answers (error %v), want 2", n, err)
		}
		if n := mem.Stats().Entries; n != 0 {
			t.Errorf("%d parts are left", n)
		}
	})
}

// strict is a store that fails what is larger than a call may be.
type strict struct{ driver.Store }

const mostItems = 500

func (s strict) Read(ctx context.Context, tags []driver.Tag, keys []string) (driver.Snapshot, error) {
	if len(tags)+len(keys) > mostItems {
		return driver.Snapshot{}, errDown
	}
	return s.Store.Read(ctx, tags, keys)
}

func (s strict) Fence(ctx context.Context, tags []driver.Tag, mark driver.Mark, lease time.Duration) error {
	if len(tags) > mostItems {
		return errDown
	}
	return s.Store.Fence(ctx, tags, mark, lease)
}

func (s strict) Bump(ctx context.Context, tags []driver.Tag, mark driver.Mark) error {
	if len(tags) > mostItems {
		return errDown
	}
	return s.Store.Bump(ctx, tags, mark)
}

func (s strict) Claim(ctx context.Context, claims []driver.Claim) ([]driver.Claimed, error) {
	if len(claims) > mostItems {
		return nil, errDown
	}
	return s.Store.Claim(ctx, claims)
}

func (s strict) Settle(ctx context.Context, fills []driver.Fill) error {
	if len(fills) > mostItems {
		return errDown
	}
	return s.Store.Settle(ctx, fills)
}

func TestBatchesReachTheStoreInChunks(t *testing.T) {
	virtual(t, func(t *testing.T) {
		const many = 100_000
		shared := storetest.NewFaulty(strict{memstore.New(memstore.Config{})})
		t.Cleanup(func() { shared.Close() })
		b, c := &batches{source: newSource()}, newProcess(t, shared.Peer(), cache.Config{})
		q := cache.Define(c.Cache, b.query())
		ids := make([]int, many)
		tags := make([]cache.Tag, many)
		for i := range ids {
			ids[i], tags[i] = i, rowTag(i)
			b.rows[i] = "row"
		}
		hits := func() (n int) {
			t.Helper()
			for i, r := range mustMany(t, q, ids...) {
				if r.Err != nil || r.Value != "row" {
					t.Fatalf("result %d is %+v", i, r)
				}
				if r.Status == cache.Hit {
					n++
				}
			}
			synctest.Wait()
			return n
		}
		hits()
		if n := hits(); n != many {
			t.Errorf("%d of %d answers were hits", n, many)
		}
		for _, asked := range b.asked {
			if len(asked) > 1000 {
				t.Errorf("LoadMany was asked for %d", len(asked))
			}
		}
		fence, err := c.Fence(t.Context(), driver.Mark{1}, tags[:10_000])
		if err != nil {
			t.Error(err)
		}
		if err := fence.Bump(t.Context()); err != nil {
			t.Error(err)
		}
		mustInvalidate(t, c, tags[10_000:20_000]...)
		if n := hits(); n != many-20_000 {
			t.Errorf("%d hits after 20,000 tags were invalidated, want %d", n, many-20_000)
		}
		if h := c.Health(); h.State != "ok" || c.counts.Total().StoreFailure > 0 {
			t.Errorf("the store is %s (%v) after %d failed calls", h.State, h.Err, c.counts.Total().StoreFailure)
		}
	})
}

// A batch of an ordinary loader waits for slots; it does not refuse itself.
func TestGetManyDoesNotOverloadItself(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.query()
		query.MaxLoads, query.MaxQueue = 4, 10
		q := cache.Define(c.Cache, query)
		ids := make([]int, 100)
		for i := range ids {
			ids[i] = i
			s.set(i, "row")
		}
		for i, r := range mustMany(t, q, ids...) {
			if r.Err != nil {
				t.Fatalf("result %d: %v", i, r.Err)
			}
		}
	})
}

// Calls that run out of time while the store answers small ones cost it no trust.
func TestSlowCallsOfAStoreThatAnswersCostNoTrust(t *testing.T) {
	virtual(t, func(t *testing.T) {
		log := newLines()
		fleet, _ := newLargeFleet(t, 1, cache.Config{Logger: slog.New(log)})
		s, c := newSource(), fleet[0]
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		synctest.Wait()
		c.store.Delay(time.Second, storetest.OpSettle, storetest.OpClaim)
		for range 50 {
			mustLookup(t, q, 2, cache.Bypass)
			mustLookup(t, q, 1, cache.Hit)
			if h := c.Health(); h.State != "ok" {
				t.Fatalf("the store is %s: %v", h.State, h.Err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := c.counts.Total().StoreFailure; n != 50 {
			t.Errorf("counted %d failed calls, want 50", n)
		}
		if n := log.of("ran out of time"); n != 1 {
			t.Errorf("said %d times, want once", n)
		}
		c.store.Hang()
		for range 10 {
			mustGet(t, q, 1, "one")
		}
		time.Sleep(time.Second)
		if h := c.Health(); h.State != "down" {
			t.Errorf("a store that hangs is %s", h.State)
		}
	})
}

func TestLongKeysAreHashed(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCache(t)
		q := cache.Define(c.Cache, cache.Query[string, string]{
			Name: "keys:long", FreshFor: time.Minute,
			Tags: func(string) []cache.Tag { return cache.Tags("row") },
			Load: func(_ context.Context, p string) (string, error) { return p[len(p)-1:], nil },
		})
		long := strings.Repeat("k", 1<<20)
		seen := map[string]bool{}
		for _, p := range []string{long + "1", long + "2", "1"} {
			in, err := q.Inspect(t.Context(), p)
			if err != nil || len(in.Key) > 1024 || !strings.HasPrefix(in.Key, "keys:long:") || seen[in.Key] {
				t.Errorf("the key has %d bytes (error %v): %.100s", len(in.Key), err, in.Key)
			}
			seen[in.Key] = true
			if v, err := q.Get(t.Context(), p); err != nil || v != p[len(p)-1:] {
				t.Errorf("got %.10q (error %v)", v, err)
			}
		}
	})
}

package cache_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// virtual runs a test on virtual time: a second of loading takes no time, and "everybody
// is waiting" is a fact, not a guess.
func virtual(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// source is what is cached: numbered rows, each of which may be written, and counts how
// often it was asked.
type source struct {
	delay time.Duration

	mu    sync.Mutex
	rows  map[int]string
	err   error
	gate  chan struct{} // if not nil, loads that have read wait here before they return
	loads atomic.Int64
	busy  atomic.Int64
	most  atomic.Int64 // loads at the same time
}

func newSource() *source {
	return &source{rows: map[int]string{1: "one", 2: "two", 3: "three"}, delay: 100 * time.Millisecond}
}

func (s *source) set(id int, row string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[id] = row
}

func (s *source) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// load takes delay, and reads the row at its end.
func (s *source) load(ctx context.Context, id int) (string, error) {
	s.loads.Add(1)
	busy := s.busy.Add(1)
	defer s.busy.Add(-1)
	for most := s.most.Load(); busy > most && !s.most.CompareAndSwap(most, busy); most = s.most.Load() {
	}
	select {
	case <-time.After(s.delay):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	s.mu.Lock()
	row, ok := s.rows[id]
	err, gate := s.err, s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "", fmt.Errorf("row %d: %w", id, cache.ErrNotFound)
	}
	return row, nil
}

func rowTag(id int) cache.Tag { return cache.Tag(fmt.Sprintf("row:%d", id)) }

// query caches the rows of a source for a minute.
func (s *source) query() cache.Query[int, string] {
	return cache.Query[int, string]{
		Name:     "rows:one",
		Key:      func(id int) string { return cache.Key(id) },
		Tags:     func(id int) []cache.Tag { return []cache.Tag{rowTag(id), "rows:*"} },
		Load:     s.load,
		FreshFor: time.Minute,
	}
}

// process is a cache as one process of a fleet has it.
type process struct {
	*cache.Cache
	store  *storetest.Faulty
	counts *cachetest.Counts
}

// newFleet starts n processes on one store in memory.
func newFleet(t *testing.T, n int) []process {
	t.Helper()
	shared := storetest.NewFaulty(memstore.New(memstore.Config{MaxBytes: 1 << 20, MaxTags: 200_000}))
	t.Cleanup(func() { shared.Close() })
	fleet := make([]process, n)
	for i := range fleet {
		fleet[i] = newProcess(t, shared.Peer(), cache.Config{})
	}
	return fleet
}

func newProcess(t *testing.T, store *storetest.Faulty, cfg cache.Config) process {
	t.Helper()
	p := process{store: store, counts: &cachetest.Counts{}}
	cfg.Store, cfg.Observer = store, p.counts
	if cfg.AuditShare == 0 {
		cfg.AuditShare = -1 // tests count loads
	}
	c, err := cache.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.Cache = c
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		store.Close()
	})
	return p
}

func newCache(t *testing.T) process {
	t.Helper()
	return newFleet(t, 1)[0]
}

func mustGet(t *testing.T, q *cache.Cached[int, string], id int, want string) {
	t.Helper()
	got, err := q.Get(t.Context(), id)
	if err != nil || got != want {
		t.Fatalf("row %d is %q (error %v), want %q", id, got, err, want)
	}
}

func mustLookup(t *testing.T, q *cache.Cached[int, string], id int, want cache.Status) cache.Answer[string] {
	t.Helper()
	a, err := q.Lookup(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != want {
		t.Fatalf("row %d came as %v %s, want %v", id, a.Status, a.Detail, want)
	}
	return a
}

func wantLoads(t *testing.T, s *source, want int64) {
	t.Helper()
	if got := s.loads.Load(); got != want {
		t.Fatalf("the source was asked %d times, want %d", got, want)
	}
}

package cache_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
)

// distantStore is a store whose replies are a while on their way: what a read saw is older than
// its reply.
type distantStore struct {
	driver.Store
	away time.Duration

	mu    sync.Mutex
	reads []read
	err   error
}

type read struct {
	at   time.Time
	keys []string
	tags []cache.Tag
}

func (s *distantStore) Read(ctx context.Context, tags []cache.Tag, keys []string) (driver.Snapshot, error) {
	s.mu.Lock()
	s.reads = append(s.reads, read{time.Now(), keys, tags})
	err := s.err
	s.mu.Unlock()
	snap, failed := s.Store.Read(ctx, tags, keys)
	select {
	case <-time.After(s.away):
	case <-ctx.Done():
		err = ctx.Err()
	}
	return snap, errors.Join(err, failed)
}

// since returns the reads since mark, and moves it.
func (s *distantStore) since(mark *int) []read {
	s.mu.Lock()
	defer s.mu.Unlock()
	reads := s.reads[*mark:]
	*mark = len(s.reads)
	return reads
}

// How many reads go alone, how many keys share one, and how long they wait: as in reads.go.
const (
	alone  = 8
	most   = 128
	atMost = time.Millisecond
)

func newDistant(t *testing.T, away time.Duration) (*distantStore, *cache.Cache, *source, *cache.Cached[int, string]) {
	t.Helper()
	s := &distantStore{Store: memstore.New(memstore.Config{})}
	c, err := cache.New(cache.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	src := newSource()
	for id := range 2 * most {
		src.set(id, row(id))
	}
	q := src.query()
	q.MaxLoads = 1000
	cached := cache.Define(c, q)
	for id := range 2 * most {
		mustGet(t, cached, id, row(id))
	}
	synctest.Wait() // the last is stored after its caller was answered
	s.away = away
	return s, c, src, cached
}

func row(id int) string { return strings.Repeat("x", id+1) }

// occupy takes all the places for reads that go alone.
func occupy(t *testing.T, q *cache.Cached[int, string], callers *sync.WaitGroup) {
	for i := range alone {
		id := 2*most - 1 - i
		callers.Go(func() { check(t, q, id, row(id)) })
	}
	synctest.Wait()
}

func check(t *testing.T, q *cache.Cached[int, string], id int, want string) {
	if got, err := q.Get(context.Background(), id); err != nil || got != want {
		t.Errorf("row %d is %d bytes (error %v), want %d", id, len(got), err, len(want))
	}
}

func TestCallersShareTheNextRead(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, _, src, q := newDistant(t, 500*time.Microsecond)
		loads, mark := src.loads.Load(), 0
		s.since(&mark)
		var callers sync.WaitGroup
		occupy(t, q, &callers)
		for range 10 {
			for id := range 5 {
				callers.Go(func() { check(t, q, id, row(id)) })
			}
		}
		callers.Wait()
		reads := s.since(&mark)
		if len(reads) != alone+1 {
			t.Fatalf("%d reads for 58 callers, want 8 and one for the rest", len(reads))
		}
		if last := reads[alone]; len(last.keys) != 5 || len(last.tags) != 8 {
			t.Errorf("the shared read is of %v and %v, want 5 keys, their tags, the families and the one of all", last.keys, last.tags)
		}
		if src.loads.Load() != loads {
			t.Error("something was loaded")
		}
	})
}

// A caller that asks after a write was acknowledged sees it, whatever caller it shares a read with.
func TestSharedReadBeginsAfterAllWhoShareIt(t *testing.T) {
	virtual(t, func(t *testing.T) {
		const away = 500 * time.Microsecond
		s, c, src, q := newDistant(t, away)
		mark := 0
		s.since(&mark)
		write := func(value string) {
			src.set(1, value)
			if err := c.Invalidate(t.Context(), rowTag(1)); err != nil {
				t.Fatal(err)
			}
		}
		var callers sync.WaitGroup
		occupy(t, q, &callers)
		callers.Go(func() { // waits; the write comes before its read
			if got, err := q.Get(context.Background(), 1); err != nil || got == row(1) {
				t.Errorf("row 1 is %q, error %v", got, err)
			}
		})
		synctest.Wait()
		write("a")
		time.Sleep(away) // the places are free: the shared read is under way
		synctest.Wait()
		if reads := s.since(&mark); len(reads) != alone+1 {
			t.Fatalf("%d reads were sent, want 9", len(reads))
		}
		occupy(t, q, &callers)
		write("b")
		callers.Go(func() { check(t, q, 1, "b") }) // may not have what was sent before
		callers.Wait()
	})
}

// A store that is slow is waited for once, not twice.
func TestSharedReadDoesNotWaitLong(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, _, _, q := newDistant(t, 30*time.Millisecond)
		mark := 0
		s.since(&mark)
		var callers sync.WaitGroup
		occupy(t, q, &callers)
		began := time.Now()
		callers.Go(func() { check(t, q, 1, row(1)) })
		callers.Wait()
		if took := time.Since(began); took != 30*time.Millisecond+atMost {
			t.Errorf("it took %v", took)
		}
		// Its place is given back.
		s.away = 500 * time.Microsecond
		s.since(&mark)
		occupy(t, q, &callers)
		occupy(t, q, &callers)
		callers.Wait()
		if reads := s.since(&mark); len(reads) != alone+1 {
			t.Errorf("%d reads for 16 callers, want 8 and a shared one", len(reads))
		}
	})
}

func TestSharedReadIsBounded(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, _, _, q := newDistant(t, 500*time.Microsecond)
		mark := 0
		s.since(&mark)
		var callers sync.WaitGroup
		occupy(t, q, &callers)
		for id := range most + 10 {
			callers.Go(func() { check(t, q, id, row(id)) })
		}
		callers.Wait()
		reads := s.since(&mark)
		if len(reads) != alone+10+1 {
			t.Errorf("%d reads, want 8, 10 for whom there was no room, and one", len(reads))
		}
		for _, r := range reads {
			if len(r.keys) > most {
				t.Errorf("a read is of %d keys", len(r.keys))
			}
		}
	})
}

func TestSharedReadThatFailsIsLoadedForAll(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, _, src, q := newDistant(t, 500*time.Microsecond)
		var callers sync.WaitGroup
		occupy(t, q, &callers)
		s.err = errors.New("broken")
		loads := src.loads.Load()
		for id := range 3 {
			callers.Go(func() { check(t, q, id, row(id)) })
		}
		callers.Wait()
		if n := src.loads.Load() - loads; n != 3 {
			t.Errorf("%d loads for three rows", n)
		}
	})
}

// One key of a shared read that is being written, or was never stored, is no other reader's matter.
func TestSharersGetTheirOwn(t *testing.T) {
	virtual(t, func(t *testing.T) {
		_, c, src, q := newDistant(t, 500*time.Microsecond)
		f, err := c.Fence(t.Context(), driver.Mark{1}, []cache.Tag{rowTag(2)})
		if err != nil {
			t.Fatal(err)
		}
		src.set(2, "written")
		var callers sync.WaitGroup
		occupy(t, q, &callers)
		for id, want := range map[int]cache.Status{1: cache.Hit, 2: cache.Bypass, 3: cache.Hit, 9999: cache.Miss} {
			callers.Go(func() {
				a, err := q.Lookup(context.Background(), id)
				if a.Status != want || (err == nil) == (id == 9999) {
					t.Errorf("row %d: %v, error %v, want %v", id, a.Status, err, want)
				}
			})
		}
		callers.Wait()
		if err := f.Bump(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// Where all keys have the same tags nothing but their places in the read tells them apart.
func TestSharersOfTheSameTagsGetTheirOwn(t *testing.T) {
	virtual(t, func(t *testing.T) {
		_, c, src, _ := newDistant(t, 500*time.Microsecond)
		pages := src.query()
		pages.Name, pages.Tags = "rows:pages", func(int) []cache.Tag { return []cache.Tag{"rows:*"} }
		q := cache.Define(c, pages)
		var callers sync.WaitGroup
		for range 2 { // loads, and then reads
			occupy(t, q, &callers)
			for id := range 4 {
				callers.Go(func() { check(t, q, id, row(id)) })
			}
			callers.Wait()
		}
	})
}

func TestCloseEndsSharedReads(t *testing.T) {
	virtual(t, func(t *testing.T) {
		_, c, _, q := newDistant(t, 20*time.Millisecond)
		var callers sync.WaitGroup
		occupy(t, q, &callers)
		for id := range 3 {
			callers.Go(func() {
				if _, err := q.Get(context.Background(), id); !errors.Is(err, cache.ErrClosed) {
					t.Errorf("after Close: %v", err)
				}
			})
		}
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		callers.Wait()
	})
}

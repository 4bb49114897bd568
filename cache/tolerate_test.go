package cache_test

import (
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

func (s *source) tolerant(c process) *cache.Cached[int, string] {
	s.delay = time.Millisecond
	query := s.query()
	query.Tolerate = time.Second
	return cache.Define(c.Cache, query)
}

// write goes through the whole protocol: fence, change, bump.
func write(t *testing.T, c process, s *source, id int, row string) {
	t.Helper()
	f := mustFence(t, c, rowTag(id))
	time.Sleep(time.Millisecond)
	s.set(id, row)
	if err := f.Bump(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestInCalmAWriteShowsAtOnceThoughMoreIsTolerated(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := s.tolerant(c)
		mustGet(t, q, 1, "one")
		for i := range 20 {
			row := strconv.Itoa(i)
			var wg sync.WaitGroup
			stop := make(chan struct{})
			wg.Go(func() { // somebody always reads, also under the fence
				for {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Microsecond):
						_, _ = q.Get(t.Context(), 1)
					}
				}
			})
			write(t, c, s, 1, row)
			mustGet(t, q, 1, row)
			close(stop)
			wg.Wait()
			time.Sleep(1100 * time.Millisecond)
		}
	})
}

func TestWhileWritesRainLoadsAreRareAndAnswersNearlyNew(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := s.tolerant(c)
		began := time.Now()
		mustGet(t, q, 1, "one")
		s.set(1, "0")
		var wg sync.WaitGroup
		wg.Go(func() {
			for time.Since(began) < 20*time.Second { // 200 writes a second
				write(t, c, s, 1, strconv.FormatInt(int64(time.Since(began)), 10))
				time.Sleep(4 * time.Millisecond)
			}
		})
		time.Sleep(2 * time.Second)
		loads := s.loads.Load()
		for time.Since(began) < 19*time.Second {
			a, err := q.Ask(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			written, _ := strconv.ParseInt(a.Value, 10, 64)
			if behind := time.Since(began) - time.Duration(written); behind > time.Second+20*time.Millisecond {
				t.Fatalf("an answer is %v behind (%v %s), at most 1s is tolerated", behind, a.Status, a.Detail)
			}
			time.Sleep(time.Millisecond)
		}
		if n := s.loads.Load() - loads; n > 20 {
			t.Errorf("%d loads in 17s of rain, want one a second", n)
		}
		// Whoever must know asks for it.
		s.set(1, "now")
		if v, err := q.Get(cache.Fresh(t.Context()), 1); err != nil || v == "" {
			t.Errorf("a strict read: %q, %v", v, err)
		}
		wg.Wait()
		synctest.Wait()
	})
}

func TestStrictReadSeesWhatIsTolerated(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := s.tolerant(c)
		mustGet(t, q, 1, "one")
		for i := range 10 {
			write(t, c, s, 1, strconv.Itoa(i))
			_, _ = q.Get(t.Context(), 1)
		}
		if v, _ := q.Get(t.Context(), 1); v == "9" {
			t.Fatal("nothing is tolerated here, so the test shows nothing")
		}
		if v, err := q.Get(cache.Fresh(t.Context()), 1); err != nil || v != "9" {
			t.Errorf("a strict read got %q, %v, want the last write", v, err)
		}
		time.Sleep(time.Second)
		mustGet(t, q, 1, "9")
	})
}

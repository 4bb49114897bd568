package redisstore_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// cacheOn returns a cache that serves stored answers from s.
func cacheOn(t *testing.T, s *redisstore.Store, timeout time.Duration) (*cache.Cache, *cachetest.Counts) {
	t.Helper()
	counts := &cachetest.Counts{}
	c, err := cache.New(cache.Config{
		Store: s, StoreTimeout: timeout, Observer: counts, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	testservers.Must(t, err)
	t.Cleanup(func() { testservers.Must(t, c.Close()) })
	serving(t, c)
	return c, counts
}

func serving(t *testing.T, c *cache.Cache) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	testservers.Must(t, c.WaitServing(ctx))
}

// An answer of 8 MB takes a network that moves 6.4 MB a second longer than a call may take, as it
// does 1 Gbit/s and the default timeout. It is stored and read all the same, and meanwhile every
// other answer is a hit, and the store is not suspected.
func TestLargeAnswersDelayNoOthers(t *testing.T) {
	t.Parallel()
	const timeout, rate, size, small = time.Second, 6_400_000, 8_000_000, 50
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	proxy := testservers.StartProxy(t, r.Addr())
	random := make([]byte, size*3/4)
	_, _ = rand.Read(random)
	large := base64.StdEncoding.EncodeToString(random)
	var loads atomic.Int64

	type process struct {
		*cache.Cache
		large, small *cache.Cached[int, string]
	}
	var processes [2]process
	for i, s := range fleet(t, "redis://"+proxy.Addr(), len(processes)) {
		c, _ := cacheOn(t, s, timeout)
		query := func(name string, load func(context.Context, int) (string, error)) *cache.Cached[int, string] {
			return cache.Define(c, cache.Query[int, string]{
				Name: name, FreshFor: time.Hour, Load: load,
				Tags:  func(id int) []cache.Tag { return cache.Tags("row", id) },
				Codec: plain{},
			})
		}
		processes[i] = process{c,
			query("size:large", func(context.Context, int) (string, error) { loads.Add(1); return large, nil }),
			query("size:small", func(_ context.Context, id int) (string, error) { return fmt.Sprint(id), nil }),
		}
	}
	for id := range small {
		_, err := processes[0].small.Get(t.Context(), id)
		testservers.Must(t, err)
	}
	lookup := func(q *cache.Cached[int, string], id int) cache.Status {
		a, err := q.Lookup(t.Context(), id)
		if err != nil {
			t.Error(err)
		}
		return a.Status
	}
	for i := range processes { // all of them are stored
		testservers.Eventually(t, 30*time.Second, func() (bool, string) {
			for id := range small {
				if status := lookup(processes[i].small, id); status != cache.Hit {
					return false, fmt.Sprintf("answer %d is a %v", id, status)
				}
			}
			return true, ""
		})
	}

	proxy.Limit(rate)
	// others asks for the small answers until done.
	others := func(what string, done <-chan struct{}) {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			for i, p := range processes {
				if status := lookup(p.small, n%small); status != cache.Hit {
					t.Errorf("while %s, a small answer of process %d is a %v", what, i, status)
					return
				}
				if h := p.Health(); h.State != "ok" {
					t.Errorf("while %s, process %d is %s: %v", what, i, h.State, h.Err)
					return
				}
			}
		}
	}
	for i, p := range processes {
		done := make(chan struct{})
		go func() {
			defer close(done)
			lookup(p.large, 1)
		}()
		others(fmt.Sprintf("process %d gets the large answer", i), done)
		<-done
		testservers.Eventually(t, 30*time.Second, func() (bool, string) { // it is stored behind its caller
			status := lookup(p.large, 1)
			return status == cache.Hit, fmt.Sprintf("the large answer is a %v", status)
		})
	}
	if n := loads.Load(); n != 1 {
		t.Errorf("%d loads of the large answer, want 1", n)
	}
}

// plain stores a text as it is. The race detector makes JSON of megabytes stop every goroutine
// for longer than the store has to prove that it takes writes.
type plain struct{}

func (plain) Encode(s string) ([]byte, error) { return []byte(s), nil }
func (plain) Decode(b []byte) (string, error) { return string(b), nil }

// No number of keys or of tags is too large for a call of the cache.
func TestBatchesOfAnySize(t *testing.T) {
	t.Parallel()
	const timeout, many, tags = 2 * time.Second, 30_000, 20_000
	for name, url := range map[string]string{
		"single":  testservers.SharedRedis(t).URL(),
		"cluster": cluster(t),
	} {
		t.Run(name, func(t *testing.T) {
			c, counts := cacheOn(t, open(t, redisstore.Config{URL: url}), timeout)
			var loaded atomic.Int64
			q := cache.Define(c, cache.Query[int, int]{
				Name: "size:many", FreshFor: time.Hour,
				Tags: func(id int) []cache.Tag { return cache.Tags("row", id) },
				Load: func(_ context.Context, id int) (int, error) { loaded.Add(1); return id, nil },
				LoadMany: func(_ context.Context, ids []int) ([]cache.Loaded[int], error) {
					loaded.Add(int64(len(ids)))
					results := make([]cache.Loaded[int], len(ids))
					for i, id := range ids {
						results[i].Value = id
					}
					return results, nil
				},
			})
			ids := make([]int, many)
			for i := range ids {
				ids[i] = i
			}
			hits := func() (n int) {
				results, err := q.GetMany(t.Context(), ids)
				testservers.Must(t, err)
				for i, r := range results {
					if r.Err != nil || r.Value != i {
						t.Fatalf("result %d is %+v", i, r)
					}
					if r.Status == cache.Hit {
						n++
					}
				}
				return n
			}
			hits()
			if n := hits(); n < many || loaded.Load() != many {
				t.Errorf("%d of %d answers were hits the second time, and %d were loaded", n, many, loaded.Load())
			}
			every := make([]cache.Tag, tags)
			for i := range every {
				every[i] = cache.T("row", i)
			}
			testservers.Must(t, c.Invalidate(t.Context(), every...))
			if h := c.Health(); h.State != "ok" {
				t.Errorf("after the invalidation of %d tags the store is %s: %v", tags, h.State, h.Err)
			}
			if n := hits(); n != many-tags {
				t.Errorf("%d hits after the invalidation, want %d", n, many-tags)
			}
			if n := counts.Total().StoreFailure; n > 0 {
				t.Errorf("%d calls of the store failed", n)
			}
		})
	}
}

package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// TestFleetLoadsOnce: 400 callers in 8 processes miss the same key at once, with a load
// that brings a value, finds nothing, or fails. There is one load, and the last caller has
// its result soon after the load. A failed load is not repeated before its Hold has passed; a
// caller that a busy machine delays for longer may make another load.
func TestFleetLoadsOnce(t *testing.T) {
	t.Parallel()
	const (
		processes = 8
		callers   = 50
		rounds    = 5
		load      = 130 * time.Millisecond
	)
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	const held = 80 * time.Millisecond // at least: how long the first failure is
	var loads, early atomic.Int64
	var done atomic.Pointer[time.Time] // when the last load ended
	errSource := errors.New("the source is down")
	results := map[string]error{"value": nil, "absent": cache.ErrNotFound, "failure": errSource}

	kindOf := func(key string) string {
		kind, _, _ := strings.Cut(key, " ")
		return kind
	}

	p := prefix()
	fleet := make([]*cache.Cached[string, string], processes)
	for i := range fleet {
		c, err := cache.New(cache.Config{
			Store:        open(t, redisstore.Config{URL: r.URL(), Prefix: p}),
			StoreTimeout: time.Second, // a busy machine is not what this is about
		})
		testservers.Must(t, err)
		t.Cleanup(func() { testservers.Must(t, c.Close()) })
		fleet[i] = cache.Define(c, cache.Query[string, string]{
			Name:     "courses:list",
			Key:      func(key string) string { return cache.Key(key) },
			Tags:     func(string) []driver.Tag { return []driver.Tag{"catalog", tag} },
			FreshFor: time.Minute,
			Load: func(ctx context.Context, key string) (string, error) {
				if last := done.Load(); loads.Add(1) > 1 && (last == nil || results[kindOf(key)] != errSource || time.Since(*last) < held) {
					early.Add(1)
				}
				select {
				case <-time.After(load):
				case <-ctx.Done():
				}
				now := time.Now()
				done.Store(&now)
				return key, results[kindOf(key)]
			},
		})
	}
	for kind, want := range results {
		var late []time.Duration // from the end of the load to the last caller's answer
		for round := range rounds {
			key := fmt.Sprint(kind, " ", round)
			loads.Store(0)
			early.Store(0)
			done.Store(nil)
			var wg sync.WaitGroup
			for _, answers := range fleet {
				for range callers {
					wg.Go(func() {
						got, err := answers.Get(t.Context(), key)
						switch {
						case want == nil && (err != nil || got != key):
							t.Errorf("%s: got %q, %v", key, got, err)
						case errors.Is(want, cache.ErrNotFound) && !errors.Is(err, cache.ErrNotFound):
							t.Errorf("%s: got %q, %v", key, got, err)
						case want != nil && err == nil:
							t.Errorf("%s: got %q", key, got)
						}
					})
				}
			}
			wg.Wait()
			late = append(late, time.Since(*done.Load()))
			if n := loads.Load(); n == 0 || early.Load() > 0 {
				t.Errorf("%s: %d callers in %d processes made %d loads", key, processes*callers, processes, n)
			}
		}
		slices.Sort(late)
		if late[rounds/2] > load { // far more than it takes, and far less than a lease
			t.Errorf("%s: the last caller had it %v after the load: it was not announced", kind, late[rounds/2])
		}
		t.Logf("%s: the last of %d callers had it %v after the load (median of %d)", kind, processes*callers, late[rounds/2], rounds)
	}
}

// A process that is closed while it loads hands the load over: the process that waits for it
// loads, and hears nothing of the cancellation.
func TestClosedProcessHandsItsLoadOver(t *testing.T) {
	t.Parallel()
	url := testservers.SharedRedis(t).URL()
	waiting := newLoader(t, url, prefix(), func(context.Context) (string, error) { return "value", nil })
	for round := range 20 {
		loading := make(chan struct{})
		closing := newLoader(t, url, waiting.prefix, func(ctx context.Context) (string, error) {
			close(loading)
			<-ctx.Done()
			return "", ctx.Err()
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := closing.Get(t.Context(), round); !errors.Is(err, cache.ErrClosed) {
				t.Errorf("a caller of the closed cache got %v, want ErrClosed", err)
			}
		})
		<-loading
		wg.Go(func() {
			if got, err := waiting.Get(t.Context(), round); err != nil || got != "value" {
				t.Errorf("the waiting process got %q, %v", got, err)
			}
		})
		testservers.Must(t, closing.cache.Close())
		wg.Wait()
	}
}

// A write that ends the cause of a failure ends the memory of it, at once and on every process.
func TestWriteEndsARememberedFailure(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{"single": testservers.SharedRedis(t).URL(), "cluster": cluster(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var enrolled atomic.Bool
			load := func(context.Context) (string, error) {
				if !enrolled.Load() {
					return "", errors.New("not enrolled")
				}
				return "value", nil
			}
			one := newLoader(t, url, prefix(), load)
			other := newLoader(t, url, one.prefix, load)
			testservers.Must(t, one.cache.WaitServing(t.Context()))
			testservers.Must(t, other.cache.WaitServing(t.Context()))
			for range 5 { // each failure in a row would be held longer
				enrolled.Store(false)
				testservers.Must(t, one.cache.Invalidate(t.Context(), tag))
				for _, l := range []loader{one, other} {
					if _, err := l.Get(t.Context(), 1); err == nil {
						t.Fatal("a failing source has an answer")
					}
				}
				enrolled.Store(true)
				testservers.Must(t, one.cache.Invalidate(t.Context(), tag))
				for _, l := range []loader{other, one} {
					if got, err := l.Get(t.Context(), 1); err != nil || got != "value" {
						t.Errorf("after the write that ended the cause: %q, %v", got, err)
					}
				}
			}
		})
	}
}

// loader is a cache with one query, whose answer is what load returns.
type loader struct {
	*cache.Cached[int, string]
	cache  *cache.Cache
	prefix string
}

func newLoader(t *testing.T, url, prefix string, load func(context.Context) (string, error)) loader {
	t.Helper()
	c, err := cache.New(cache.Config{
		Store:        openUnproven(t, redisstore.Config{URL: url, Prefix: prefix, Timeout: ample}),
		StoreTimeout: ample, // a busy machine is not what this is about
	})
	testservers.Must(t, err)
	t.Cleanup(func() { testservers.Must(t, c.Close()) })
	return loader{cache.Define(c, cache.Query[int, string]{
		Name:     "courses:one",
		Tags:     func(int) []cache.Tag { return []cache.Tag{tag} },
		Load:     func(ctx context.Context, _ int) (string, error) { return load(ctx) },
		FreshFor: time.Hour,
	}), c, prefix}
}

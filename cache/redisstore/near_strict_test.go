package redisstore_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// An answer that is kept near and proven for each caller is never behind a write that was acknowledged
// before the caller came, by whichever process: also where the server replies with several threads,
// in a Cluster, and while connections are lost.
func TestNearStrictAnswersAreNeverBehind(t *testing.T) {
	t.Parallel()
	threads := testservers.RedisConfig{Config: []string{"io-threads 4", "io-threads-do-reads yes"}}
	for name, start := range map[string]func(*testing.T) (url string, kill func()){
		"one server": func(t *testing.T) (string, func()) {
			r := testservers.StartRedis(t, testservers.RedisConfig{})
			return r.URL(), func() { killConnections(t, r, true) }
		},
		"several threads": func(t *testing.T) (string, func()) {
			r := testservers.StartRedis(t, threads)
			return r.URL(), func() { killConnections(t, r, true) }
		},
		"cluster": func(t *testing.T) (string, func()) {
			c := testservers.StartCluster(t, testservers.ClusterConfig{Masters: 3})
			return clusterURL(c), func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, kill := start(t)
			neverBehind(t, url, kill)
		})
	}
}

// neverBehind has processes write and read at once, and holds each answer against what was acknowledged.
func neverBehind(t *testing.T, url string, kill func()) {
	t.Helper()
	const answers, least, writes = 4, 3000, 300
	var rows, acknowledged [answers]atomic.Int64
	define := func(prefix string) (*cache.Cache, *cache.Cached[int, int64]) {
		c, err := cache.New(cache.Config{
			Store:        openUnproven(t, redisstore.Config{URL: url, Prefix: prefix, Timeout: 200 * time.Millisecond}),
			StoreTimeout: 200 * time.Millisecond, // the machine may be busy
		})
		testservers.Must(t, err)
		t.Cleanup(func() { testservers.Must(t, c.Close()) })
		return c, cache.Define(c, cache.Query[int, int64]{
			Name:       "rows:one",
			Tags:       func(id int) []driver.Tag { return []driver.Tag{cache.T("row", id)} },
			Load:       func(_ context.Context, id int) (int64, error) { return rows[id].Load(), nil },
			FreshFor:   time.Hour,
			NearStrict: true,
		})
	}
	p := prefix()
	writer, _ := define(p)
	_, first := define(p)
	_, second := define(p)

	ctx, end := context.WithTimeout(t.Context(), time.Minute)
	defer end()
	var running sync.WaitGroup
	var proven, written atomic.Int64
	for _, q := range []*cache.Cached[int, int64]{first, second} {
		for i := range 3 * answers {
			running.Go(func() {
				for id := i % answers; ctx.Err() == nil; {
					must := acknowledged[id].Load()
					a, err := q.Lookup(ctx, id)
					switch {
					case err != nil && ctx.Err() == nil:
						t.Error(err)
						return
					case err == nil && a.Value < must:
						t.Errorf("%v %s: %d, and %d was acknowledged before", a.Status, a.Detail, a.Value, must)
						return
					case a.Detail == cache.DetailNearProven:
						if proven.Add(1) >= least && written.Load() >= writes {
							end()
						}
					}
				}
			})
		}
	}
	running.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			id := n % answers
			now := rows[id].Add(1)
			if writer.Invalidate(context.WithoutCancel(ctx), cache.T("row", id)) == nil {
				acknowledged[id].Store(now)
				written.Add(1)
			}
			if n%200 == 100 {
				kill()
			}
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Millisecond): // readers need some to keep anything
			}
		}
	})
	running.Wait()
	if n := proven.Load(); n < least || written.Load() < writes {
		t.Errorf("%d answers were near and proven, and %d writes acknowledged, want %d and %d", n, written.Load(), least, writes)
	}
}

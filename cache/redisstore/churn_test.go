package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// Thousands of names that never come twice, with lifetimes of seconds instead of hours:
// answers, failures, loaders and writers that crash, callers that cancel. Every key expires, and
// then the server is as empty as before, and the process holds no more than before.
func TestNewNamesLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	const (
		workers = 4
		names   = 500 // of each worker
		life    = time.Second
	)
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	p := prefix()
	s := open(t, redisstore.Config{URL: r.URL(), Prefix: p, TagLife: 2 * life})
	watch(t, s).awaitProof()
	c, err := cache.New(cache.Config{Store: s, StoreTimeout: ample})
	testservers.Must(t, err)
	t.Cleanup(func() { testservers.Must(t, c.Close()) })
	errSource := errors.New("the source is down")
	q := cache.Define(c, cache.Query[string, string]{
		Name: "rows:one",
		Key:  func(id string) string { return cache.Key(id) },
		Tags: func(id string) []driver.Tag { return []driver.Tag{driver.Tag("row:" + id)} },
		Load: func(_ context.Context, id string) (string, error) {
			switch id[len(id)-1] {
			case '3':
				return "", cache.ErrNotFound
			case '7':
				return "", errSource
			}
			return "value", nil
		},
		FreshFor: life,
	})
	size := func() int64 {
		t.Helper()
		n, err := r.Do(t.Context(), "DBSIZE").AsInt64()
		testservers.Must(t, err)
		return n
	}
	before := size()

	churn := func(worker, i int) error {
		id := fmt.Sprint(worker, "-", i)
		ctx, cancel := context.WithCancel(t.Context())
		if i%10 == 5 {
			cancel() // a caller that cancels
		}
		_, err := q.Get(ctx, id)
		left := ctx.Err() != nil
		cancel()
		if err != nil && !left && !errors.Is(err, cache.ErrNotFound) && !errors.Is(err, errSource) {
			return err
		}
		tag := []driver.Tag{driver.Tag("written:" + id)}
		mark := driver.Mark{1, byte(worker), byte(i), byte(i >> 8)}
		if err := s.Fence(t.Context(), tag, mark, life); err != nil {
			return err
		}
		if i%10 != 0 { // else the writer crashes
			if err := s.Bump(t.Context(), tag, mark); err != nil {
				return err
			}
		}
		key := "abandoned:" + id
		_, end := s.Announced(key)
		defer end()
		if _, err := s.Claim(t.Context(), []driver.Claim{{Key: key, Token: newToken(), TTL: life}}); err != nil {
			return err
		}
		if i%2 == 0 {
			return nil // the loader crashes
		}
		return s.Settle(t.Context(), []driver.Fill{{Key: key, Token: newToken(), Entry: []byte("v"), Life: life, Tags: tag}})
	}
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for i := range names {
				if err := churn(worker, i); err != nil {
					t.Errorf("name %d of worker %d: %v", i, worker, err)
					return
				}
			}
		})
	}
	wg.Wait()

	most := size()
	if most < names/5 {
		t.Errorf("there are %d keys at once: the test shows nothing", most)
	}
	info, err := r.Do(t.Context(), "INFO", "keyspace").ToString()
	testservers.Must(t, err)
	keys, expires := keyspace(t, info)
	if keys != expires {
		t.Errorf("of %d keys %d have an end: %s", keys, expires, info)
	}
	began := time.Now()
	testservers.Eventually(t, 60*time.Second, func() (bool, string) {
		n := size()
		return n <= before, fmt.Sprint(n, " keys are left")
	})
	t.Logf("%d names left up to %d keys, of which %d were left after %v", workers*names, most, before, time.Since(began))

	channels, err := r.Do(t.Context(), "PUBSUB", "CHANNELS").AsStrSlice()
	testservers.Must(t, err)
	if len(channels) != 1 || channels[0] != p+"filled" {
		t.Errorf("the process listens to %q, want one channel for all keys", channels)
	}
	if n := redisstore.Waiting(s); n != 0 {
		t.Errorf("%d keys are waited for after all callers have returned", n)
	}
}

// keyspace reads "db0:keys=1,expires=1,…".
func keyspace(t *testing.T, info string) (keys, expires int) {
	t.Helper()
	for field := range strings.SplitSeq(strings.TrimSpace(info), ",") {
		if _, n, ok := strings.Cut(field, "keys="); ok {
			keys, _ = strconv.Atoi(n)
		}
		if n, ok := strings.CutPrefix(field, "expires="); ok {
			expires, _ = strconv.Atoi(n)
		}
	}
	return keys, expires
}

package redisstore_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// A server may answer reads and refuse writes, or refuse one command alone. What it holds is not
// served then: by the process whose write was refused, nor by one that only reads.
func TestServerThatRefusesWritesIsNotTrusted(t *testing.T) {
	t.Parallel()
	// The bound is a second. A busy machine may add to it; a process that is not told serves the
	// old answer for an hour.
	const bound = 5 * time.Second
	for name, server := range map[string]struct {
		fall, heal []string
		writes     bool // are taken all the same
	}{
		"no replica":   {fall: []string{"CONFIG SET min-replicas-to-write 1"}, heal: []string{"CONFIG SET min-replicas-to-write 0"}},
		"no right":     {fall: []string{"ACL SETUSER app -@write"}, heal: []string{"ACL SETUSER app +@write"}},
		"no GET":       {fall: []string{"ACL SETUSER app -get"}, heal: []string{"ACL SETUSER app +get"}},
		"no MGET":      {fall: []string{"ACL SETUSER app -mget"}, heal: []string{"ACL SETUSER app +mget"}, writes: true},
		"paused":       {fall: []string{"CLIENT PAUSE 60000 WRITE"}, heal: []string{"CLIENT UNPAUSE"}},
		"out of space": {fall: []string{"CONFIG SET maxmemory-policy noeviction", "CONFIG SET maxmemory 1"}, heal: []string{"CONFIG SET maxmemory 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testservers.StartRedis(t, testservers.RedisConfig{Config: []string{"user app on >secret ~* &* +@all"}})
			do := func(commands []string) {
				t.Helper()
				for _, c := range commands {
					testservers.Must(t, r.Do(t.Context(), strings.Fields(c)...).Error())
				}
			}
			var row atomic.Int64
			var log logBuffer
			p := prefix()
			writer := start(t, userURL(r, "app", "secret"), p, &row, nil)
			reader := start(t, userURL(r, "app", "secret"), p, &row, &log)
			// The outbox stands for what the writer could not bump.
			reader.cache.OnRecovery(func(ctx context.Context) error {
				return reader.cache.Bump(ctx, driver.NoMark, []cache.Tag{tag})
			})
			for range 2 {
				testservers.Eventually(t, 30*time.Second, func() (bool, string) {
					a, err := reader.query.Lookup(t.Context(), 1)
					return err == nil && a.Status == cache.Hit, fmt.Sprintf("no hit: %v, health %+v", err, reader.cache.Health())
				})
				do(server.fall)
				row.Add(1)
				if err := writer.cache.Invalidate(t.Context(), tag); err == nil && !server.writes {
					t.Error("the server took a write")
				}
				testservers.Eventually(t, bound, func() (bool, string) {
					got, _ := reader.lookup()
					return got == row.Load() && reader.cache.Health().State != "ok", "the old answer is served, or health is ok"
				})
				do(server.heal)
				testservers.Eventually(t, 30*time.Second, func() (bool, string) {
					if got, _ := reader.lookup(); got != row.Load() {
						t.Fatalf("once the server is well, the answer is %d instead of %d", got, row.Load())
					}
					return reader.cache.Health().State == "ok", fmt.Sprintf("health is %+v", reader.cache.Health())
				})
			}
			if n := strings.Count(log.String(), "WARN"); n == 0 || n > 8 {
				t.Errorf("the log has %d warnings:\n%s", n, log.String())
			}
		})
	}
}

// A server that is full and evicts takes writes.
func TestFullServerThatEvictsIsTrusted(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{Config: []string{"maxmemory 4mb", "maxmemory-policy allkeys-lru"}})
	s := open(t, redisstore.Config{URL: r.URL(), Timeout: ample, CompressAbove: -1})
	c, err := cache.New(cache.Config{Store: s, StoreTimeout: ample})
	testservers.Must(t, err)
	defer c.Close()
	value := strings.Repeat("x", 10_000)
	for i := range 1000 {
		put(t, s, fmt.Sprint("k", i), value, tag)
		if i%100 == 0 {
			testservers.Must(t, s.CheckWrites(t.Context()))
		}
	}
	if evicted, err := r.Do(t.Context(), "INFO", "stats").ToString(); err != nil || strings.Contains(evicted, "evicted_keys:0\r") {
		t.Fatalf("nothing was evicted: %v", err)
	}
	if h := c.Health(); h.State != "ok" {
		t.Errorf("health is %+v", h)
	}
}

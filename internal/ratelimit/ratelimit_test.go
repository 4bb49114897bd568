package ratelimit

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testservers.Main(m)) }

func limiter(t *testing.T, cfg Config) *Limiter {
	t.Helper()
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func options(t *testing.T, r *testservers.Redis) *rueidis.ClientOption {
	t.Helper()
	opt, err := redisstore.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	return &opt
}

func TestLocal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limiter(t, Config{})
		p := Policy{"p", 3, 30 * time.Second}
		allow := func(client string) Decision { return l.Allow(t.Context(), p, client) }
		for i := range 3 {
			if d := allow("a"); !d.Allowed || d.Remaining != 2-i || d.Reset != time.Duration(i+1)*10*time.Second {
				t.Errorf("request %d: %+v", i, d)
			}
		}
		if d := allow("a"); d.Allowed || d.Remaining != 0 || d.Next() != 10*time.Second {
			t.Errorf("one too many: %+v, next in %v", d, d.Next())
		}
		if d := allow("b"); !d.Allowed || d.Next() != 0 {
			t.Errorf("another client: %+v", d)
		}
		if d := l.Allow(t.Context(), Policy{"q", 1, time.Second}, "a"); !d.Allowed {
			t.Errorf("by another policy: %+v", d)
		}
		time.Sleep(4 * time.Second)
		if d := allow("a"); d.Allowed || d.Next() != 6*time.Second {
			t.Errorf("too early: %+v, next in %v", d, d.Next())
		}
		time.Sleep(6 * time.Second)
		if d := allow("a"); !d.Allowed {
			t.Errorf("in time: %+v", d)
		}
		if d := allow("a"); d.Allowed {
			t.Errorf("twice: %+v", d)
		}
		time.Sleep(time.Hour)
		if d := allow("a"); !d.Allowed || d.Remaining != 2 {
			t.Errorf("an hour later: %+v", d)
		}
	})
}

func TestNoLimit(t *testing.T) {
	t.Parallel()
	l := limiter(t, Config{})
	for range 10 {
		if d := l.Allow(t.Context(), Policy{}, "a"); !d.Allowed {
			t.Errorf("%+v", d)
		}
	}
}

// A flood of addresses grows nothing beyond the bound.
func TestLocalIsBounded(t *testing.T) {
	t.Parallel()
	l := limiter(t, Config{})
	for i := range maxClients + 20_000 {
		l.Allow(t.Context(), Policy{"p", 1, time.Hour}, fmt.Sprint(i))
	}
	l.local.clients.CleanUp()
	if n := l.local.clients.EstimatedSize(); n > maxClients {
		t.Errorf("%d clients are kept, want at most %d", n, maxClients)
	}
}

// Processes count together: however the requests of a client are spread, the quota is passed once.
func TestShared(t *testing.T) {
	t.Parallel()
	server := testservers.SharedRedis(t)
	cfg := Config{Redis: options(t, server), Prefix: "test:" + t.Name() + ":"}
	processes := []*Limiter{limiter(t, cfg), limiter(t, cfg)}
	for _, l := range processes {
		l.timeout = 30 * time.Second // of a busy machine
		testservers.Eventually(t, 10*time.Second, func() (bool, string) {
			_, ok := l.allowShared(t.Context(), Policy{"q", 1000, time.Second}, "q:a")
			return ok, "Redis is not asked"
		})
	}
	p := Policy{"p", 20, time.Hour}
	var allowed, refused atomic.Int32
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			d, ok := processes[i%2].allowShared(t.Context(), p, "p:a")
			switch {
			case !ok:
				t.Error("Redis was not asked")
			case d.Allowed:
				allowed.Add(1)
			default:
				refused.Add(1)
				if next := d.Next(); next <= 0 || next > 3*time.Minute || d.Remaining != 0 {
					t.Errorf("refused: %+v, next in %v", d, next)
				}
			}
		})
	}
	wg.Wait()
	if allowed.Load() != 20 || refused.Load() != 40 {
		t.Errorf("%d were allowed and %d refused, want 20 and 40", allowed.Load(), refused.Load())
	}
	if d := processes[0].Allow(t.Context(), p, "b"); !d.Allowed || d.Remaining != 19 || d.Reset > 3*time.Minute+time.Second {
		t.Errorf("another client: %+v", d)
	}
	keys, err := server.Do(t.Context(), "KEYS", cfg.Prefix+"*:p:*").AsStrSlice()
	if err != nil || len(keys) != 2 {
		t.Errorf("keys are %v, %v", keys, err)
	}
	for _, key := range keys {
		if ttl, err := server.Do(t.Context(), "TTL", key).AsInt64(); err != nil || ttl <= 0 || ttl > 3600 {
			t.Errorf("%s lives %d s, %v", key, ttl, err)
		}
	}
}

// lines counts what a log says.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// A Redis that does not answer refuses no request and lets no flood pass: it is said once, each
// request is counted, few wait, and when Redis is back it counts again.
func TestRedisIsAway(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]struct {
		down, up func(*testservers.Redis, context.Context) error
	}{
		"killed": {func(r *testservers.Redis, _ context.Context) error { return r.Kill() }, (*testservers.Redis).Restart},
		"frozen": {func(r *testservers.Redis, _ context.Context) error { return r.Freeze() }, func(r *testservers.Redis, _ context.Context) error { return r.Thaw() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testservers.StartRedis(t, testservers.RedisConfig{})
			log := &lines{}
			l := limiter(t, Config{Redis: options(t, server), Prefix: "x:", Logger: slog.New(slog.NewTextHandler(log, nil)), Metrics: prometheus.NewRegistry()})
			p := Policy{"p", 5, time.Hour}
			testservers.Eventually(t, 10*time.Second, func() (bool, string) {
				_, ok := l.allowShared(t.Context(), Policy{"q", 1000, time.Second}, "q:a")
				return ok, "Redis is not asked"
			})
			said := log.count("in each process for itself")
			testservers.Must(t, stop.down(server, t.Context()))
			allowed := 0
			before := testutil.ToFloat64(l.unshared)
			for range 50 {
				if l.Allow(t.Context(), p, "a").Allowed {
					allowed++
				}
			}
			if counted := testutil.ToFloat64(l.unshared) - before; allowed != 5 || counted != 50 {
				t.Errorf("%d of 50 were allowed, want 5; %v were counted, want 50", allowed, counted)
			}
			if n := log.count("in each process for itself") - said; n != 1 {
				t.Errorf("it was said %d times, want once", n)
			}
			testservers.Must(t, stop.up(server, t.Context()))
			testservers.Eventually(t, 20*time.Second, func() (bool, string) {
				_, ok := l.allowShared(t.Context(), Policy{"q", 1000, time.Second}, "q:a")
				return ok, "Redis is not asked again"
			})
			if log.count("together again") == 0 {
				t.Error("nothing was said when Redis was back")
			}
		})
	}
}

// A service starts although Redis is away, and finds it later.
func TestRedisComesLate(t *testing.T) {
	t.Parallel()
	server := testservers.StartRedis(t, testservers.RedisConfig{})
	testservers.Must(t, server.Kill())
	log := &lines{}
	l := limiter(t, Config{Redis: options(t, server), Prefix: "x:", Logger: slog.New(slog.NewTextHandler(log, nil))})
	p := Policy{"p", 1, time.Hour}
	if !l.Allow(t.Context(), p, "a").Allowed || l.Allow(t.Context(), p, "a").Allowed {
		t.Error("requests are not counted")
	}
	testservers.Must(t, server.Restart(t.Context()))
	testservers.Eventually(t, 20*time.Second, func() (bool, string) {
		_, ok := l.allowShared(t.Context(), p, "p:a")
		return ok, "Redis is not asked"
	})
	if n := log.count("in each process for itself"); n != 1 {
		t.Errorf("it was said %d times, want once", n)
	}
}

// A client that has left is no reason to do without Redis.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	l := limiter(t, Config{Redis: options(t, testservers.SharedRedis(t)), Prefix: "test:" + t.Name() + ":"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	testservers.Eventually(t, 10*time.Second, func() (bool, string) {
		_, ok := l.allowShared(ctx, Policy{"p", 1000, time.Second}, "p:a")
		return ok, "Redis is not asked"
	})
}

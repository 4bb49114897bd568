package redisstore_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
	"github.com/chainlearn/chainlearn/internal/testservers"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// budget is what a call may take here: tests run beside others, on few cores.
const budget = 5 * time.Second

// open returns a Store whose identity is known. The test closes it at its end.
func open(t testing.TB, cfg redisstore.Config) *redisstore.Store {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = "test:" + rand.Text() + ":"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = budget
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s, err := redisstore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	identify(t, s)
	return s
}

func identify(t testing.TB, s cache.Store) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), budget)
	defer cancel()
	id, err := s.Identity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// suite runs the rules of every Store against Redis at cfg.
func suite(t *testing.T, cfg redisstore.Config) {
	prefixes := map[cache.Store]string{}
	storetest.Suite{
		Open: func(t *testing.T) cache.Store {
			cfg := cfg
			cfg.Prefix = "test:" + rand.Text() + ":"
			s := open(t, cfg)
			_ = prefixes
			return s
		},
	}.Run(t)
}

func TestSingle(t *testing.T) {
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	suite(t, redisstore.Config{URL: r.URL()})
}

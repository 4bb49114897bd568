package redisstore_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(&withCluster{testservers.Main(m)},
		// rueidis lets a refresh of the topology that it has put off, or the end of a
		// connection to a node that left, sleep to its end after Close: some seconds.
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"),
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2"),
	)
}

// withCluster ends the shared cluster after the tests.
type withCluster struct{ tests interface{ Run() int } }

func (m *withCluster) Run() int {
	code := m.tests.Run()
	sharedCluster.Lock()
	defer sharedCluster.Unlock()
	if sharedCluster.servers != nil {
		if err := sharedCluster.servers.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "close the shared cluster:", err)
			return max(code, 1)
		}
	}
	return code
}

var sharedCluster struct {
	sync.Mutex
	servers *testservers.Cluster // nil until a test needs it; guarded by the Mutex
}

// cluster returns the URL of the one cluster of this test process, for tests that only
// store something under a prefix of their own. A test that breaks a cluster starts its own, which
// takes two seconds on a busy machine.
func cluster(t testing.TB) string {
	t.Helper()
	testservers.SharedRedis(t) // skips where there is no Redis
	sharedCluster.Lock()
	defer sharedCluster.Unlock()
	if sharedCluster.servers == nil {
		var err error
		sharedCluster.servers, err = testservers.OpenCluster(context.Background(), testservers.ClusterConfig{})
		testservers.Must(t, err)
	}
	return clusterURL(sharedCluster.servers)
}

// ample is what a call may take where its duration is not what the test is about: tests
// run beside others, on few cores.
const ample = 10 * time.Second

func prefix() string { return "test:" + rand.Text() + ":" }

// open returns a Store whose identity is known. The test closes it at its end.
func open(t testing.TB, cfg redisstore.Config) *redisstore.Store {
	t.Helper()
	s := openUnproven(t, cfg)
	identify(t, s)
	return s
}

// openUnproven does the same for a server that need not run.
func openUnproven(t testing.TB, cfg redisstore.Config) *redisstore.Store {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = prefix()
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = ample
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
	return s
}

func identify(t testing.TB, s driver.Store) string {
	t.Helper()
	id, err := s.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// read reads, asking for the identity where the Store wants that, and waits out what a
// test has done to the server.
func read(t testing.TB, s driver.Store, tags []driver.Tag, keys []string) driver.Snapshot {
	t.Helper()
	var snap driver.Snapshot
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		var err error
		snap, err = s.Read(t.Context(), tags, keys)
		if errors.Is(err, driver.ErrUnproven) {
			if _, err := s.Identity(t.Context()); err != nil {
				return false, err.Error()
			}
			snap, err = s.Read(t.Context(), tags, keys)
		}
		if err != nil {
			return false, err.Error()
		}
		return true, ""
	})
	return snap
}

func state(t testing.TB, s driver.Store, tag driver.Tag) driver.TagState {
	t.Helper()
	return read(t, s, []driver.Tag{tag}, nil).States[0]
}

func entry(t testing.TB, s driver.Store, key string) []byte {
	t.Helper()
	return read(t, s, nil, []string{key}).Entries[0]
}

func put(t testing.TB, s driver.Store, key, value string, tags ...driver.Tag) {
	t.Helper()
	err := s.Settle(t.Context(), []driver.Fill{{Key: key, Entry: []byte(value), Life: time.Hour, Tags: tags}})
	if err != nil {
		t.Fatal(err)
	}
}

func bump(t testing.TB, s driver.Store, tags ...driver.Tag) {
	t.Helper()
	if err := s.Bump(t.Context(), tags, driver.NoMark); err != nil {
		t.Fatal(err)
	}
}

// suite runs the rules of every Store, each with two Stores on the same data.
func suite(t *testing.T, cfg redisstore.Config) {
	var prefixes sync.Map // Store → its prefix
	storetest.Suite{
		Open: func(t *testing.T) driver.Store {
			cfg := cfg
			cfg.Prefix = prefix()
			s := open(t, cfg)
			prefixes.Store(driver.Store(s), cfg.Prefix)
			return s
		},
		Peer: func(t *testing.T, store driver.Store) driver.Store {
			cfg := cfg
			p, _ := prefixes.Load(store)
			cfg.Prefix = p.(string)
			return open(t, cfg)
		},
	}.Run(t)
}

func TestStoreOnOneServer(t *testing.T) {
	t.Parallel()
	suite(t, redisstore.Config{URL: testservers.SharedRedis(t).URL()})
}

func TestStoreOnOneServerWithTLSAndPassword(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{TLS: true, Password: "p@ss/word"})
	suite(t, redisstore.Config{URL: r.URL() + "?ca=" + r.CAFile()})
}

func TestStoreOnCluster(t *testing.T) {
	t.Parallel()
	suite(t, redisstore.Config{URL: cluster(t)})
}

func clusterURL(c *testservers.Cluster) string {
	return "redis+cluster://" + strings.Join(c.Addrs(), ",")
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	s := open(t, redisstore.Config{URL: testservers.SharedRedis(t).URL()})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls(s) {
		if err := call(t.Context()); err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("%s after Close returned %v", name, err)
		}
	}
}

// calls are all methods that ask the server.
func calls(s driver.Store) map[string]func(context.Context) error {
	tags := []driver.Tag{"course:1"}
	return map[string]func(context.Context) error{
		"Read":  func(ctx context.Context) error { _, err := s.Read(ctx, tags, []string{"k"}); return err },
		"Fence": func(ctx context.Context) error { return s.Fence(ctx, tags, driver.Mark{1}, time.Second) },
		"Bump":  func(ctx context.Context) error { return s.Bump(ctx, tags, driver.NoMark) },
		"Claim": func(ctx context.Context) error {
			_, err := s.Claim(ctx, []driver.Claim{{Key: "k", TTL: time.Second}})
			return err
		},
		"Renew":    func(ctx context.Context) error { return s.Renew(ctx, "k", driver.Token{}, time.Second) },
		"Settle":   func(ctx context.Context) error { return s.Settle(ctx, []driver.Fill{{Key: "k"}}) },
		"Identity": func(ctx context.Context) error { _, err := s.Identity(ctx); return err },
		"Purge":    func(ctx context.Context) error { _, err := s.Purge(ctx, "*"); return err },
	}
}

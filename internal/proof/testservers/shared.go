package testservers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
)

// A Runner runs the tests of a package and then closes the shared servers.
type Runner struct{ tests interface{ Run() int } }

// Main wraps the tests of a package that uses shared servers:
//
//	func TestMain(m *testing.M) { os.Exit(testservers.Main(m).Run()) }
//
// A Runner also fits goleak.VerifyTestMain, which then looks for leaks after
// the servers are closed.
func Main(m interface{ Run() int }) Runner { return Runner{m} }

// Run runs the tests and returns their exit code.
func (r Runner) Run() int {
	code := r.tests.Run()
	if err := closeShared(); err != nil {
		fmt.Fprintln(os.Stderr, "close the shared servers:", err)
		return max(code, 1)
	}
	return code
}

// A sharedServer is a server started by the first test that asks for it. One that did
// not start is not tried again, or each test would wait again.
type sharedServer[S interface{ Close() error }] struct {
	mu     sync.Mutex
	asked  bool
	server S     // guarded by mu
	err    error // guarded by mu
}

func (o *sharedServer[S]) get(tb testing.TB, open func(context.Context) (S, error)) S {
	tb.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.asked {
		o.asked = true
		o.server, o.err = open(context.Background())
	}
	check(tb, o.err)
	return o.server
}

func (o *sharedServer[S]) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.asked || o.err != nil {
		return nil
	}
	o.err = errors.New("the shared server is closed")
	return o.server.Close()
}

var (
	sharedRedis    sharedServer[*Redis]
	sharedPostgres sharedServer[*Postgres]
	sharedMariaDB  sharedServer[*MariaDB]
)

// SharedRedis returns the one Redis server of this test process, for tests that
// only store something, under names of their own. A test that breaks or flushes a
// server starts one of its own. TestMain must use [Main].
func SharedRedis(tb testing.TB) *Redis {
	tb.Helper()
	return sharedRedis.get(tb, func(ctx context.Context) (*Redis, error) {
		return OpenRedis(ctx, RedisConfig{})
	})
}

// SharedPostgres returns the one PostgreSQL server of this test process; each
// test asks it for a Database. A test that breaks a server starts one of its own.
// TestMain must use [Main].
func SharedPostgres(tb testing.TB) *Postgres {
	tb.Helper()
	return sharedPostgres.get(tb, func(ctx context.Context) (*Postgres, error) {
		p, err := OpenPostgres(ctx, PostgresConfig{})
		if err == nil {
			p.shared = true
		}
		return p, err
	})
}

// SharedMariaDB returns the one MariaDB server of this test process; each test asks it for a Database. A
// test that breaks a server starts one of its own. TestMain must use [Main].
func SharedMariaDB(tb testing.TB) *MariaDB {
	tb.Helper()
	return sharedMariaDB.get(tb, func(ctx context.Context) (*MariaDB, error) {
		m, err := OpenMariaDB(ctx, MariaDBConfig{})
		if err == nil {
			m.shared = true
		}
		return m, err
	})
}

func closeShared() error {
	return errors.Join(sharedRedis.close(), sharedPostgres.close(), sharedMariaDB.close())
}

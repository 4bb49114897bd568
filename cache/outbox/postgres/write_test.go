package postgres

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/storetest"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// steps is a shared tier that tells when a writer fences, which is just before it commits,
// and when it bumps.
type steps struct {
	driver.Store
	name  string // if not empty, that of a store which processes share
	mu    sync.Mutex
	fence func() // guarded by mu
	bump  func() // guarded by mu
}

func newSteps(tb testing.TB) *steps {
	s := memstore.New(memstore.Config{})
	tb.Cleanup(func() { testservers.Must(tb, s.Close()) })
	return &steps{Store: s}
}

func (s *steps) Name(ctx context.Context) (string, error) {
	if s.name != "" {
		return s.name, nil
	}
	return s.Store.Name(ctx)
}

func (s *steps) on(fence, bump func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fence, s.bump = fence, bump
}

func (s *steps) Fence(ctx context.Context, tags []cache.Tag, mark driver.Mark, lease time.Duration) error {
	err := s.Store.Fence(ctx, tags, mark, lease)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fence != nil {
		s.fence()
	}
	return err
}

func (s *steps) Bump(ctx context.Context, tags []cache.Tag, mark driver.Mark) error {
	s.mu.Lock()
	if s.bump != nil {
		s.bump()
	}
	s.mu.Unlock()
	return s.Store.Bump(ctx, tags, mark)
}

func TestWriteIsSeenByEveryProcessAtOnce(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	store := memstore.New(memstore.Config{})
	defer store.Close()
	writer := newProcess(t, pool(t, url), store, outbox.RelayConfig{}, Config{})
	reader := newProcess(t, pool(t, url), store, outbox.RelayConfig{}, Config{})
	writer.relay.Start()
	for value := 1; value <= 100; value++ {
		if value%10 == 0 {
			reader.warm(t, "1", value-1)
		}
		testservers.Must(t, writer.db.Write(t.Context(), set("1", value)))
		if got := reader.get(t, "1"); got != value {
			t.Fatalf("after the write of %d another process read %d", value, got)
		}
	}
	// The rows are forgotten, together and soon.
	testservers.Eventually(t, 10*time.Second, func() (bool, string) {
		n := ask[int](t, writer.pool, `SELECT count(*) FROM cache_outbox`)
		return n == 0, "rows are left in the outbox"
	})
}

func TestTransactionsHaveMarkAndLimits(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pool(t, database(t, items...)), nil, outbox.RelayConfig{}, Config{})
	testservers.Must(t, p.db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		for setting, want := range map[string]string{
			"statement_timeout":                   "3s",
			"idle_in_transaction_session_timeout": "2s",
			"transaction_isolation":               "read committed",
		} {
			if got := ask[string](t, tx, `SELECT current_setting($1)`, setting); got != want {
				t.Errorf("%s is %s, want %s", setting, got, want)
			}
		}
		if ask[int](t, tx, `SELECT current_setting('server_version_num')::int`) >= 170000 {
			if got := ask[string](t, tx, `SHOW transaction_timeout`); got != "4s" {
				t.Errorf("transaction_timeout is %s, want 4s", got)
			}
		}
		if got := ask[int](t, tx, `SELECT length(current_setting('cache.mark'))`); got != 32 {
			t.Errorf("the mark has %d digits", got)
		}
		testservers.Must(t, Record(ctx, tx, "a:1", "a:2"))
		testservers.Must(t, Record(ctx, tx))
		if n := ask[int](t, tx, `SELECT count(*) FROM cache_touched(cache_mark())`); n != 2 {
			t.Errorf("recorded %d tags, want 2", n)
		}
		return nil
	}))
	// Nothing of it outlives the transaction.
	conn, err := p.pool.Acquire(t.Context())
	testservers.Must(t, err)
	defer conn.Release()
	if got := ask[string](t, conn, `SELECT current_setting('cache.mark', true) || current_setting('statement_timeout')`); got != "0" {
		t.Errorf("the connection kept %q", got)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	p := newProcessWithLease(t, pool(t, database(t, items...)), nil, outbox.RelayConfig{}, Config{Options: outbox.Options{CommitTime: time.Millisecond}}, time.Second)
	_, err := NewDB(p.log, p.db.cache, Config{
		Attempts: -1,
		Limits:   Limits{Statement: 800 * time.Millisecond, Idle: 300 * time.Millisecond, Transaction: 2 * time.Second},
	})
	for _, want := range []string{"Limits.Transaction is 2s", "Limits.Statement and Limits.Idle are 1.1s together", "Attempts is negative",
		"CommitTime is 1s"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// A process that is suspended between its look at the clock and COMMIT comes too late: the
// server has undone the transaction before the fence lapsed.
func TestLateCommitIsRefusedByTheServer(t *testing.T) {
	t.Parallel()
	store := newSteps(t)
	const lease = 2 * time.Second
	p := newProcessWithLease(t, pool(t, database(t, items...)), store, outbox.RelayConfig{},
		Config{Options: outbox.Options{CommitTime: time.Millisecond}}, lease)
	store.on(func() {
		// Still within the lease, which is what the process knows; but longer than the limit.
		testservers.Eventually(t, lease, func() (bool, string) {
			return ask[int](t, p.pool, `SELECT count(*) FROM pg_stat_activity
				WHERE datname = current_database() AND state = 'idle in transaction'`) == 0, "the transaction is still open"
		})
	}, nil)
	err := p.db.Write(t.Context(), set("1", 1))
	if err == nil || errors.Is(err, outbox.ErrUnknownOutcome) {
		t.Errorf("got %v, want to know that nothing was committed", err)
	}
	store.on(nil, nil)
	p.warm(t, "1", 0) // no fence was left either
}

func TestWriteUndoesWhatFails(t *testing.T) {
	t.Parallel()
	url := database(t, append(items,
		`CREATE TABLE notes (item int REFERENCES items DEFERRABLE INITIALLY DEFERRED)`)...)
	p := newProcess(t, pool(t, url), nil, outbox.RelayConfig{}, Config{})
	own := errors.New("mine")
	for name, c := range map[string]struct {
		fn    func(ctx context.Context, tx pgx.Tx) error
		check func(err error) bool
	}{
		"an error of the function": {
			func(ctx context.Context, tx pgx.Tx) error { _ = set("1", 7)(ctx, tx); return own },
			func(err error) bool { return err == own }, // as it is
		},
		"a commit inside": {
			func(ctx context.Context, tx pgx.Tx) error { _ = set("1", 7)(ctx, tx); return tx.Commit(ctx) },
			func(err error) bool { return errors.Is(err, errCommitInside) },
		},
		"a rollback inside": {
			func(ctx context.Context, tx pgx.Tx) error { _ = set("1", 7)(ctx, tx); return tx.Rollback(ctx) },
			func(err error) bool { return errors.Is(err, pgx.ErrTxClosed) },
		},
		"a failed statement that is ignored": {
			func(ctx context.Context, tx pgx.Tx) error {
				_, _ = tx.Exec(ctx, `SELECT 1/0`)
				return nil
			},
			func(err error) bool {
				var e *pgconn.PgError
				ok := errors.As(err, &e)
				return ok && e.Code == "25P02"
			},
		},
		"a deferred constraint that is violated": {
			func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, `INSERT INTO notes VALUES (99)`)
				return errors.Join(err, set("1", 7)(ctx, tx))
			},
			func(err error) bool {
				var e *pgconn.PgError
				ok := errors.As(err, &e)
				return ok && e.Code == "23503" && !errors.Is(err, outbox.ErrUnknownOutcome)
			},
		},
	} {
		if err := p.db.Write(t.Context(), c.fn); !c.check(err) {
			t.Errorf("%s: got %v", name, err)
		}
		p.warm(t, "1", 0) // unchanged, and cached again: no write is in flight
		if n := ask[int](t, p.pool, `SELECT count(*) FROM cache_outbox`); n != 0 {
			t.Errorf("%s: left %d rows", name, n)
		}
	}
}

func TestWriteIsRepeatedWhenTheDatabaseAsks(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pool(t, database(t, items...)), nil, outbox.RelayConfig{}, Config{Attempts: 4})
	for _, c := range []struct {
		code       string
		failures   int
		wantCalls  int
		wantFailed bool
	}{
		{"40001", 3, 4, false}, {"40P01", 1, 2, false}, {"40001", 100, 4, true}, {"P0001", 100, 1, true},
	} {
		calls := 0
		err := p.db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			if calls++; calls <= c.failures {
				_, err := tx.Exec(ctx, `DO $$ BEGIN RAISE 'injected' USING ERRCODE = '`+c.code+`'; END $$`)
				return err
			}
			return set("1", calls)(ctx, tx)
		})
		if calls != c.wantCalls || (err != nil) != c.wantFailed {
			t.Errorf("%s %d times: %d calls, %v", c.code, c.failures, calls, err)
		}
	}
}

func TestRequireFence(t *testing.T) {
	t.Parallel()
	store := storetest.NewFaulty(memstore.New(memstore.Config{}))
	t.Cleanup(func() { testservers.Must(t, store.Close()) })
	url := database(t, items...)
	strict := newProcess(t, pool(t, url), store, outbox.RelayConfig{}, Config{Options: outbox.Options{RequireFence: true}})
	store.Fail(errors.New("injected"), storetest.OpFence)
	if err := strict.db.Write(t.Context(), set("1", 1)); !errors.Is(err, outbox.ErrNoFence) {
		t.Errorf("got %v, want ErrNoFence", err)
	}
	if got := ask[int](t, strict.pool, `SELECT value FROM items WHERE id = 1`); got != 0 {
		t.Errorf("committed %d all the same", got)
	}
}

// deferred are items, and orders that change them no earlier than at COMMIT.
var deferred = append(slices.Clone(items),
	`CREATE TABLE orders (item int)`,
	`CREATE FUNCTION apply() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE items SET value = value + 1 WHERE id = NEW.item; RETURN NULL; END'`,
	`CREATE CONSTRAINT TRIGGER apply AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION apply()`)

// What runs no earlier than at COMMIT is fenced all the same.
func TestDeferredTriggersAreFenced(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pool(t, database(t, deferred...)), nil, outbox.RelayConfig{}, Config{}) // its relay does not run
	for value := 1; value <= 3; value++ {
		p.warm(t, "1", value-1)
		testservers.Must(t, p.db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO orders VALUES (1)`)
			return err
		}))
		if got := p.get(t, "1"); got != value {
			t.Errorf("after the write of %d: %d", value, got)
		}
	}
}

func TestLimitsByServerVersion(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{
		"17.2 (Debian 17.2-1.pgdg120+1)": true, "18beta1": true, "20": true, "16.6": false, "14.0": false, "": false, "unknown": false,
	} {
		q := LimitsFor(5*time.Second).opening(pgx.Serializable, pgx.QueryExecModeCacheStatement, driver.NoMark, version).beginSQL
		if got := strings.Contains(q, "; set local transaction_timeout = 4000"); got != want {
			t.Errorf("%q: sets transaction_timeout: %t, want %t", version, got, want)
		}
		if !strings.HasPrefix(q, "begin isolation level serializable; set local statement_timeout = 3000;") || strings.Contains(q, "cache.mark") {
			t.Errorf("%q: %s", version, q)
		}
	}
}

// Without a cache a write is an external writer's: the relays of programs that have one are woken.
func TestWriteWithoutACache(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	p := newProcess(t, pool(t, url), nil, outbox.RelayConfig{Poll: time.Minute}, Config{})
	listening(t, p.log)
	p.relay.Start()
	p.warm(t, "1", 0)
	db, err := NewDB(p.log, nil, Config{})
	testservers.Must(t, err)
	testservers.Must(t, db.Write(t.Context(), set("1", 1)))
	testservers.Eventually(t, 20*time.Second, func() (bool, string) { return p.get(t, "1") == 1, "the old value is served" })
}

// The connection is cut while COMMIT is under way, before or after it takes effect. The writer
// cannot know which; no caller is served anything stale for long.
func TestConnectionIsCutDuringCommit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hold testservers.Direction
		want int
	}{
		"before it takes effect": {testservers.Requests, 0},
		"after it took effect":   {testservers.Replies, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testservers.SharedPostgres(t)
			proxy := testservers.StartProxy(t, server.Addr())
			url := database(t, items...)
			store := newSteps(t)
			reader := newProcess(t, pool(t, url), store, outbox.RelayConfig{}, Config{})
			reader.relay.Start()
			sent := make(chan struct{})
			writer := newProcess(t, watchedPool(t, strings.Replace(url, server.Addr(), proxy.Addr(), 1), "\x0bcommit\x00", sent), store, outbox.RelayConfig{}, Config{})
			reader.warm(t, "1", 0)

			store.on(func() { proxy.Hold(c.hold) }, nil)
			var wg sync.WaitGroup
			var err error
			wg.Go(func() { err = writer.db.Write(t.Context(), set("1", 1)) })
			<-sent
			if c.want == 1 {
				testservers.Eventually(t, 20*time.Second, func() (bool, string) {
					return ask[int](t, reader.pool, `SELECT value FROM items WHERE id = 1`) == 1, "not committed"
				})
			}
			proxy.Cut()
			cut := time.Now()
			wg.Wait()
			if !errors.Is(err, outbox.ErrUnknownOutcome) {
				t.Errorf("got %v, want ErrUnknownOutcome", err)
			}
			store.on(nil, nil)
			if got := reader.get(t, "1"); got != c.want {
				t.Errorf("read %d although the fence stands, want %d", got, c.want)
			}
			testservers.Eventually(t, 20*time.Second, func() (bool, string) {
				return ask[int](t, reader.pool, `SELECT count(*) FROM cache_outbox`) == 0, "rows are left to deliver"
			})
			t.Logf("repaired %v after the cut", time.Since(cut).Round(time.Millisecond))
			reader.warm(t, "1", c.want) // the fence has been removed, or lapses
		})
	}
}

// watchedPool is a pool that closes sent when it has sent a message that contains what.
func watchedPool(t *testing.T, url, what string, sent chan struct{}) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	testservers.Must(t, err)
	var once sync.Once
	config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		return &watchedConn{conn, func(b []byte) {
			if bytes.Contains(b, []byte(what)) {
				once.Do(func() { close(sent) })
			}
		}}, err
	}
	p, err := pgxpool.NewWithConfig(t.Context(), config)
	testservers.Must(t, err)
	t.Cleanup(p.Close)
	return p
}

type watchedConn struct {
	net.Conn
	wrote func([]byte)
}

func (c *watchedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.wrote(b[:n])
	return n, err
}

// A COMMIT that waits for a standby outlasts every limit of the transaction, and the lease. Its
// row shows when the wait is over: until then readers must ask the database.
func TestFenceStandsWhileCommitWaitsForAStandby(t *testing.T) {
	server := testservers.StartPostgres(t, testservers.PostgresConfig{Settings: map[string]string{"synchronous_commit": "local"}})
	url := server.Database(t)
	prepare(t, url, append(slices.Clone(items), `ALTER SYSTEM SET synchronous_standby_names = 'missing'`)...)
	// A reload would not do: a COMMIT waits only when the checkpointer has seen the setting, and
	// no query tells when it has.
	testservers.Must(t, server.Restart(t.Context()))
	const lease = 1500 * time.Millisecond
	p := newProcessWithLease(t, pool(t, url), nil, outbox.RelayConfig{}, Config{Options: outbox.Options{CommitTime: lease / 3}}, lease)
	p.warm(t, "1", 0)
	conn := connect(t, url)

	wrote := make(chan error, 1)
	go func() {
		wrote <- p.db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SET LOCAL synchronous_commit = on`); err != nil {
				return err
			}
			return set("1", 1)(ctx, tx)
		})
	}()
	waiting := func() bool {
		return ask[bool](t, conn, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')`)
	}
	testservers.Eventually(t, 10*time.Second, func() (bool, string) { return waiting(), "no COMMIT waits for the standby" })
	for end := time.Now().Add(3 * lease); time.Now().Before(end); {
		a, err := p.value.Lookup(t.Context(), "1")
		testservers.Must(t, err)
		if a.Status != cache.Bypass || a.Value != 0 {
			t.Fatalf("while COMMIT waits, the answer is %d and a %v", a.Value, a.Status)
		}
	}
	if !waiting() {
		t.Error("COMMIT did not wait until the end of the test")
	}
	run(t, conn, `ALTER SYSTEM RESET synchronous_standby_names`, `SELECT pg_reload_conf()`)
	testservers.Must(t, <-wrote)
	if got := p.get(t, "1"); got != 1 {
		t.Errorf("after the write was acknowledged, the answer is %d", got)
	}
}

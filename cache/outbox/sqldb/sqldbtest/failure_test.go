package sqldbtest

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/sqldb"
	"github.com/chainlearn/chainlearn/cache/storetest"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// What is not committed leaves nothing: no row, no fence, no transaction.
func TestWhatFailsLeavesNothing(t *testing.T) {
	own := errors.New("mine")
	ways := map[string]struct {
		write func(ctx context.Context, db *sql.DB) error
		code  string // of the error, if it is the server's
	}{
		"rollback": {func(ctx context.Context, db *sql.DB) error {
			return inTx(ctx, db, func(tx *sql.Tx) error {
				_, _ = tx.ExecContext(ctx, `UPDATE items SET value = 9 WHERE id = 1`)
				return own
			})
		}, ""},
		"deferred constraint in a Tx": {func(ctx context.Context, db *sql.DB) error {
			return inTx(ctx, db, func(tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, `UPDATE items SET value = 9 WHERE id = 1`)
				if err == nil {
					_, err = tx.ExecContext(ctx, `INSERT INTO notes VALUES (99)`)
				}
				return err
			})
		}, "23503"},
		"deferred constraint": {func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, `INSERT INTO notes VALUES (99)`)
			return err
		}, "23503"},
		"deferred constraint after rows": {func(ctx context.Context, db *sql.DB) error {
			var item int
			return db.QueryRowContext(ctx, `INSERT INTO notes VALUES (99) RETURNING item`).Scan(&item)
		}, "23503"},
		"failed statement that is ignored": {func(ctx context.Context, db *sql.DB) error {
			return inTx(ctx, db, func(tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, `UPDATE items SET value = 9 WHERE id = 1`)
				_, _ = tx.ExecContext(ctx, `SELECT 1/0`)
				return err
			})
		}, "25P02"},
		"statement": {func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, `UPDATE items SET value = 9/(id-2) `)
			return err
		}, "22012"},
		"statement with rows": {func(ctx context.Context, db *sql.DB) error {
			rows, err := db.QueryContext(ctx, `UPDATE items SET value = 9/(id-2) RETURNING id`)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
			}
			return rows.Err()
		}, "22012"},
		"COMMIT by a statement": {func(ctx context.Context, db *sql.DB) error {
			return inTx(ctx, db, func(tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, `ROLLBACK`)
				return err
			})
		}, ""},
		"context ended before the commit": {func(ctx context.Context, db *sql.DB) error {
			ctx, cancel := context.WithCancel(ctx)
			return inTx(ctx, db, func(tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, `UPDATE items SET value = 9 WHERE id = 1`)
				cancel()
				return err
			})
		}, ""},
		"context ended before the rows were closed": {func(ctx context.Context, db *sql.DB) error {
			ctx, cancel := context.WithCancel(ctx)
			rows, err := db.QueryContext(ctx, `UPDATE items SET value = 9 WHERE id = 1 RETURNING repeat('x', 2000000)`)
			if err != nil {
				cancel()
				return err
			}
			defer rows.Close()
			rows.Next()
			cancel()
			return errors.Join(rows.Close(), rows.Err(), ctx.Err())
		}, ""},
		"BEGIN and ROLLBACK": {func(ctx context.Context, db *sql.DB) error {
			conn, err := db.Conn(ctx)
			if err != nil {
				return err
			}
			defer conn.Close()
			for _, s := range []string{"BEGIN", `UPDATE items SET value = 9 WHERE id = 1`, "ROLLBACK"} {
				if _, err := conn.ExecContext(ctx, s); err != nil {
					return err
				}
			}
			return own
		}, ""},
		"transaction that a statement has begun, and its connection given back": {func(ctx context.Context, db *sql.DB) error {
			conn, err := db.Conn(ctx)
			if err != nil {
				return err
			}
			for _, s := range []string{"BEGIN", `UPDATE items SET value = 9 WHERE id = 1`} {
				if _, err := conn.ExecContext(ctx, s); err != nil {
					return err
				}
			}
			return errors.Join(own, conn.Close())
		}, ""},
	}
	eachDriver(t, func(t *testing.T, driver string) {
		p := start(t, options{driver: driver, url: database(t, slices.Concat(items, []string{`CREATE TABLE notes (item int REFERENCES items DEFERRABLE INITIALLY DEFERRED)`})...)})
		p.db.SetMaxOpenConns(1)
		for name, c := range ways {
			err := c.write(t.Context(), p.db.DB)
			var e interface{ SQLState() string }
			switch {
			case err == nil:
				t.Errorf("%s: no error", name)
			case errors.Is(err, outbox.ErrUnknownOutcome):
				t.Errorf("%s: the outcome is known: %v", name, err)
			case c.code != "" && (!errors.As(err, &e) || e.SQLState() != c.code):
				t.Errorf("%s: got %v, want an error with %s", name, err, c.code)
			}
			testservers.Eventually(t, 10*time.Second, func() (bool, string) { // database/sql may close it in the background
				n := ask[int](t, p.plain, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'`)
				return n == 0, name + ": a transaction is left open"
			})
			p.warm(t, 1, 0) // unchanged, and cached again: no writer is in flight
			if n := ask[int](t, p.plain, `SELECT count(*) FROM cache_outbox`); n != 0 {
				t.Errorf("%s: left %d rows", name, n)
			}
			run(t, p.db, `SELECT 1`) // the one connection, or its successor, can be used
		}
	})
}

func TestStoreThatRefusesFences(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		store := storetest.NewFaulty(memstore.New(memstore.Config{}))
		t.Cleanup(func() { testservers.Must(t, store.Close()) })
		p := start(t, options{driver: driver, url: database(t, items...), store: store, cfg: sqldb.Config{Options: outbox.Options{RequireFence: true}}})
		store.Fail(errors.New("injected"), storetest.OpFence)
		for name, write := range map[string]func() error{
			"Tx":   func() error { return ways["Tx"](t.Context(), p.db.DB, 1) },
			"Exec": func() error { return ways["Exec"](t.Context(), p.db.DB, 1) },
			"rows": func() error { return ways["RETURNING"](t.Context(), p.db.DB, 1) },
		} {
			if err := write(); !errors.Is(err, outbox.ErrNoFence) {
				t.Errorf("%s: got %v, want ErrNoFence", name, err)
			}
			if got := ask[int](t, p.plain, `SELECT value FROM items WHERE id = 1`); got != 0 {
				t.Errorf("%s: committed %d all the same", name, got)
			}
		}
	})
}

// A statement whose invalidations cannot be delivered has succeeded, and is said: this process serves
// nothing stored until it can.
func TestUndeliveredStatementIsSaid(t *testing.T) {
	t.Parallel()
	store := storetest.NewFaulty(memstore.New(memstore.Config{}))
	t.Cleanup(func() { testservers.Must(t, store.Close()) })
	p := start(t, options{url: database(t, slices.Concat(items, routines)...), store: store})
	p.warm(t, 1, 0)
	store.Fail(errors.New("injected"), storetest.OpBump)
	testservers.Must(t, ways["procedure that commits"](t.Context(), p.db.DB, 1))
	if got := p.get(t, 1); got != 1 {
		t.Errorf("the answer is %d", got)
	}
	if n := p.counts.undelivered.Load(); n != 1 {
		t.Errorf("%d statements are counted as undelivered", n)
	}
	store.Heal()
	p.warm(t, 1, 1)
}

// The context of BeginTx ends while COMMIT is under way: it is waited for.
func TestContextEndsDuringCommit(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		proxy := testservers.StartProxy(t, testservers.SharedPostgres(t).Addr())
		store := newSteps(t)
		p := start(t, options{driver: driver, url: database(t, items...), via: proxy.Addr(), store: store})
		for value := 1; value <= 3; value++ {
			p.warm(t, 1, value-1)
			ctx, cancel := context.WithCancel(t.Context())
			store.onFence(func() { proxy.Hold(testservers.Replies) })
			committed := make(chan error, 1)
			go func() { committed <- ways["Tx"](ctx, p.db.DB, value) }()
			testservers.Eventually(t, 20*time.Second, func() (bool, string) {
				return ask[int](t, p.plain, `SELECT value FROM items WHERE id = 1`) == value, "not committed"
			})
			cancel()
			store.onFence(nil)
			testservers.Must(t, proxy.Heal())
			if err := <-committed; err != nil {
				t.Fatalf("the commit of %d took effect, and returned %v", value, err)
			}
			if got := p.get(t, 1); got != value {
				t.Errorf("after the write of %d the answer is %d", value, got)
			}
		}
	})
}

// The server ends the session before or at COMMIT. Before, nothing has happened; at COMMIT that is not
// known, and the fence stands until a relay has looked.
func TestSessionIsKilled(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		store := newSteps(t)
		url := database(t, items...)
		p := start(t, options{driver: driver, url: url, store: store})
		p.warm(t, 1, 0)
		const kill = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND state LIKE 'idle in transaction%'`

		err := inTx(t.Context(), p.db.DB, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), `UPDATE items SET value = 9 WHERE id = 1`)
			if n := ask[int](t, p.plain, kill); n != 1 {
				t.Errorf("killed %d sessions", n)
			}
			return err
		})
		if err == nil || errors.Is(err, outbox.ErrUnknownOutcome) {
			t.Errorf("killed before the end: got %v, want to know that nothing was committed", err)
		}
		p.warm(t, 1, 0)

		for name, write := range map[string]func() error{
			"Tx":   func() error { return ways["Tx"](t.Context(), p.db.DB, 1) },
			"Exec": func() error { return ways["Exec"](t.Context(), p.db.DB, 1) },
			"rows": func() error { return ways["RETURNING"](t.Context(), p.db.DB, 1) },
		} {
			store.onFence(func() { ask[int](t, p.plain, kill) })
			err = write()
			store.onFence(nil)
			if !errors.Is(err, outbox.ErrUnknownOutcome) {
				t.Errorf("%s: killed at COMMIT: got %v, want ErrUnknownOutcome", name, err)
			}
			if got := ask[int](t, p.plain, `SELECT value FROM items WHERE id = 1`); got != 0 {
				t.Errorf("%s: database/sql ran it again: the value is %d", name, got)
			}
			p.warm(t, 1, 0) // the fence lapses
		}
		testservers.Must(t, ways["Exec"](t.Context(), p.db.DB, 2)) // on another connection
		if got := p.get(t, 1); got != 2 {
			t.Errorf("the answer is %d", got)
		}
	})
}

// The connection is cut while COMMIT is under way, after it has taken effect.
func TestConnectionIsCutAfterCommit(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		proxy := testservers.StartProxy(t, testservers.SharedPostgres(t).Addr())
		store := newSteps(t)
		url := database(t, items...)
		p := start(t, options{driver: driver, url: url, via: proxy.Addr(), store: store})
		reader := start(t, options{driver: driver, url: url, store: store})
		reader.warm(t, 1, 0)
		store.onFence(func() { proxy.Hold(testservers.Replies) })
		written := make(chan error, 1)
		go func() {
			_, err := p.db.ExecContext(t.Context(), `UPDATE items SET value = value + 1 WHERE id = 1`)
			written <- err
		}()
		testservers.Eventually(t, 20*time.Second, func() (bool, string) {
			return ask[int](t, p.plain, `SELECT value FROM items WHERE id = 1`) == 1, "not committed"
		})
		store.onFence(nil)
		proxy.Reset()
		testservers.Must(t, proxy.Heal())
		if err := <-written; !errors.Is(err, outbox.ErrUnknownOutcome) {
			t.Errorf("got %v, want ErrUnknownOutcome", err)
		}
		if got := reader.get(t, 1); got != 1 {
			t.Errorf("read %d although the fence stands", got)
		}
		if got := ask[int](t, p.plain, `SELECT value FROM items WHERE id = 1`); got != 1 {
			t.Errorf("database/sql ran it again: the value is %d", got)
		}
		testservers.Eventually(t, 20*time.Second, func() (bool, string) {
			return ask[int](t, p.plain, `SELECT count(*) FROM cache_outbox`) == 0, "rows are left to deliver"
		})
		reader.warm(t, 1, 1)
	})
}

// A process that is suspended between its look at the clock and COMMIT comes too late: the server has
// undone the transaction before the fence lapsed.
func TestLateCommitIsRefusedByTheServer(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		store := newSteps(t)
		const lease = 2 * time.Second
		p := start(t, options{driver: driver, url: database(t, items...), store: store, lease: lease,
			cfg: sqldb.Config{Options: outbox.Options{CommitTime: time.Millisecond}}})
		store.onFence(func() {
			testservers.Eventually(t, 20*time.Second, func() (bool, string) {
				return ask[int](t, p.plain, `SELECT count(*) FROM pg_stat_activity
					WHERE datname = current_database() AND state = 'idle in transaction'`) == 0, "the transaction is still open"
			})
		})
		err := ways["Tx"](t.Context(), p.db.DB, 1)
		if err == nil || !strings.Contains(err.Error(), "FenceLease") {
			t.Errorf("got %v, want an error that names the limit", err)
		}
		store.onFence(nil)
		p.warm(t, 1, 0)
	})
}

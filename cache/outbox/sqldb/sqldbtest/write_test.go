package sqldbtest

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/sqldb"
	"github.com/chainlearn/chainlearn/cache/storetest"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// routines can be called to set item 1 to a value.
var routines = []string{
	`CREATE FUNCTION set_item(v int) RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE items SET value = v WHERE id = 1; RETURN v; END'`,
	`CREATE PROCEDURE put_item(v int) LANGUAGE plpgsql AS 'BEGIN UPDATE items SET value = 0 WHERE id = 1; COMMIT; UPDATE items SET value = v WHERE id = 1; COMMIT; END'`,
}

// ways to set item 1 to a value. Each is acknowledged when it returns.
var ways = map[string]func(ctx context.Context, db *sql.DB, value int) error{
	"Tx": func(ctx context.Context, db *sql.DB, value int) error {
		return inTx(ctx, db, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `UPDATE items SET value = $1 WHERE id = 1`, value)
			return err
		})
	},
	"serializable Tx": func(ctx context.Context, db *sql.DB, value int) error {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
		if err != nil {
			return err
		}
		defer tx.Rollback()
		var level string
		if err := tx.QueryRowContext(ctx, `SHOW transaction_isolation`).Scan(&level); err != nil || level != "serializable" {
			return fmt.Errorf("level %q: %w", level, err)
		}
		if _, err := tx.ExecContext(ctx, fmt.Sprintf(`UPDATE items SET value = %d WHERE id = 1`, value)); err != nil {
			return err
		}
		return tx.Commit()
	},
	"Tx with a savepoint": func(ctx context.Context, db *sql.DB, value int) error {
		return inTx(ctx, db, func(tx *sql.Tx) error {
			for _, s := range []string{
				fmt.Sprintf(`UPDATE items SET value = %d WHERE id = 1`, value),
				`SAVEPOINT s`, `UPDATE items SET value = -1 WHERE id = 1`, `ROLLBACK TO SAVEPOINT s`, `SAVEPOINT open`,
			} {
				if _, err := tx.ExecContext(ctx, s); err != nil {
					return err
				}
			}
			return nil
		})
	},
	"statement prepared in the Tx": func(ctx context.Context, db *sql.DB, value int) error {
		return inTx(ctx, db, func(tx *sql.Tx) error {
			stmt, err := tx.PrepareContext(ctx, `UPDATE items SET value = $1 WHERE id = 1`)
			if err != nil {
				return err
			}
			defer stmt.Close()
			_, err = stmt.ExecContext(ctx, value)
			return err
		})
	},
	"prepared statement in a Tx": func(ctx context.Context, db *sql.DB, value int) error {
		stmt, err := db.PrepareContext(ctx, `UPDATE items SET value = $1 WHERE id = 1`)
		if err != nil {
			return err
		}
		defer stmt.Close()
		return inTx(ctx, db, func(tx *sql.Tx) error {
			_, err = tx.StmtContext(ctx, stmt).ExecContext(ctx, value)
			return err
		})
	},
	"deferred trigger": func(ctx context.Context, db *sql.DB, value int) error {
		return inTx(ctx, db, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO orders VALUES ($1)`, value)
			return err
		})
	},
	"Exec": func(ctx context.Context, db *sql.DB, value int) error {
		result, err := db.ExecContext(ctx, `UPDATE items SET value = $1 WHERE id = 1`, value)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); n != 1 || err != nil {
			return fmt.Errorf("%d rows affected, %w", n, err)
		}
		return nil
	},
	"Exec without arguments": func(ctx context.Context, db *sql.DB, value int) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf(`-- a comment; with a quote '
			/* and /* another */ */ UPDATE items SET value = %d WHERE id = 1`, value))
		return err
	},
	"Exec of several": func(ctx context.Context, db *sql.DB, value int) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf(`UPDATE items SET value = 0 WHERE id = 1; UPDATE items SET value = %d WHERE id = 1`, value))
		return err
	},
	"Exec of a transaction": func(ctx context.Context, db *sql.DB, value int) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf(`BEGIN; UPDATE items SET value = %d WHERE id = 1; COMMIT`, value))
		return err
	},
	"CTE that writes": func(ctx context.Context, db *sql.DB, value int) error {
		var got int
		return db.QueryRowContext(ctx, `WITH w AS (UPDATE items SET value = $1 WHERE id = 1 RETURNING value) SELECT value FROM w`, value).Scan(&got)
	},
	"RETURNING": func(ctx context.Context, db *sql.DB, value int) error {
		var got int
		err := db.QueryRowContext(ctx, `UPDATE items SET value = $1 WHERE id = 1 RETURNING value`, value).Scan(&got)
		if err == nil && got != value {
			err = fmt.Errorf("returned %d", got)
		}
		return err
	},
	"RETURNING to the end": func(ctx context.Context, db *sql.DB, value int) error {
		rows, err := db.QueryContext(ctx, `UPDATE items SET value = CASE id WHEN 1 THEN $1 ELSE 0 END RETURNING id`, value)
		if err != nil {
			return err
		}
		n := 0
		for rows.Next() {
			n++
		}
		if n != 2 {
			return fmt.Errorf("%d rows", n)
		}
		return rows.Err()
	},
	"RETURNING left early": func(ctx context.Context, db *sql.DB, value int) error {
		rows, err := db.QueryContext(ctx, `UPDATE items SET value = CASE id WHEN 1 THEN $1 ELSE 0 END RETURNING id`, value)
		if err != nil {
			return err
		}
		rows.Next()
		return rows.Close()
	},
	"RETURNING of more than is read ahead": func(ctx context.Context, db *sql.DB, value int) error {
		rows, err := db.QueryContext(ctx, `UPDATE items SET value = CASE id WHEN 1 THEN $1 ELSE 0 END RETURNING id, repeat('x', 2000000)`, value)
		if err != nil {
			return err
		}
		defer rows.Close()
		n := 0
		for ; rows.Next(); n++ {
			var id int
			var x string
			if err := rows.Scan(&id, &x); err != nil || id != 1 && id != 2 || len(x) != 2000000 {
				return fmt.Errorf("row of %d with %d bytes, %w", id, len(x), err)
			}
		}
		if n != 2 {
			return fmt.Errorf("%d rows", n)
		}
		return rows.Err()
	},
	// Another connection changes the same row before the rows are closed, as a loop over claimed jobs does.
	"RETURNING in a loop": func(ctx context.Context, db *sql.DB, value int) error {
		rows, err := db.QueryContext(ctx, `UPDATE items SET value = $1 WHERE id = 1 RETURNING id, 'x'::bytea, now()`, -value)
		if err != nil {
			return err
		}
		defer rows.Close()
		types, err := rows.ColumnTypes()
		if err != nil || types[1].DatabaseTypeName() != "BYTEA" {
			return fmt.Errorf("types %v, %w", types, err)
		}
		for rows.Next() {
			var id int
			var x []byte
			var at time.Time
			if err := rows.Scan(&id, &x, &at); err != nil || string(x) != "x" || at.IsZero() {
				return fmt.Errorf("row %d %q %v, %w", id, x, at, err)
			}
			if _, err := db.ExecContext(ctx, `UPDATE items SET value = $2 WHERE id = $1`, id, value); err != nil {
				return err
			}
		}
		return rows.Err()
	},
	"prepared RETURNING": func(ctx context.Context, db *sql.DB, value int) error {
		stmt, err := db.PrepareContext(ctx, `UPDATE items SET value = $1 WHERE id = 1 RETURNING value`)
		if err != nil {
			return err
		}
		defer stmt.Close()
		var got int
		return stmt.QueryRowContext(ctx, value).Scan(&got)
	},
	"prepared Exec": func(ctx context.Context, db *sql.DB, value int) error {
		stmt, err := db.PrepareContext(ctx, `UPDATE items SET value = $1 WHERE id = 1`)
		if err != nil {
			return err
		}
		defer stmt.Close()
		_, err = stmt.ExecContext(ctx, value)
		return err
	},
	"function": func(ctx context.Context, db *sql.DB, value int) error {
		var got int
		return db.QueryRowContext(ctx, `SELECT set_item($1)`, value).Scan(&got)
	},
	"quoted function": func(ctx context.Context, db *sql.DB, value int) error {
		var got int
		return db.QueryRowContext(ctx, `SELECT "set_item" /* ( */ ($1)`, value).Scan(&got)
	},
	"procedure that commits": func(ctx context.Context, db *sql.DB, value int) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf(`CALL put_item(%d)`, value))
		return err
	},
	"DO": func(ctx context.Context, db *sql.DB, value int) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf(`DO $$ BEGIN UPDATE items SET value = %d WHERE id = 1; COMMIT; END $$`, value))
		return err
	},
	"BEGIN and COMMIT": func(ctx context.Context, db *sql.DB, value int) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, s := range []string{"BEGIN", fmt.Sprintf(`UPDATE items SET value = %d WHERE id = 1`, value), `SELECT set_item(value) FROM items WHERE id = 1`, "COMMIT"} {
			if _, err := conn.ExecContext(ctx, s); err != nil {
				return err
			}
		}
		return nil
	},
	"driver's connection in a Tx": func(ctx context.Context, db *sql.DB, value int) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		// Handed out before the transaction, and used in it.
		var exec func(statement string) error
		err = conn.Raw(func(c any) error {
			exec = func(statement string) error {
				if pgxConn, ok := c.(*stdlib.Conn); ok {
					_, err := pgxConn.Conn().Exec(ctx, statement)
					return err
				}
				_, err := c.(sqldriver.ExecerContext).ExecContext(ctx, statement, nil)
				return err
			}
			c = sqldb.DriverConn(c)
			return nil
		})
		if err != nil {
			return err
		}
		tx, err := conn.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := exec(fmt.Sprintf(`UPDATE items SET value = %d WHERE id = 1`, value)); err != nil {
			return err
		}
		return tx.Commit()
	},
}

func inTx(ctx context.Context, db *sql.DB, fn func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

var deferred = []string{
	`CREATE TABLE orders (value int)`,
	`CREATE FUNCTION apply() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE items SET value = NEW.value WHERE id = 1; RETURN NULL; END'`,
	`CREATE CONSTRAINT TRIGGER apply AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION apply()`,
}

// Every way to write is acknowledged when it returns, and leaves a connection that can be used.
func TestEveryWayToWriteIsAcknowledged(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, write := range ways {
			t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
				t.Parallel()
				store := memstore.New(memstore.Config{})
				defer store.Close()
				url := database(t, slices.Concat(items, routines, deferred)...)
				p := start(t, options{driver: driver, url: url, store: store, passive: true})
				p.db.SetMaxOpenConns(2)
				for value := 1; value <= 5; value++ {
					p.warm(t, 1, value-1)
					testservers.Must(t, write(t.Context(), p.db.DB, value))
					if got := p.get(t, 1); got != value {
						t.Fatalf("after the write of %d the answer is %d", value, got)
					}
				}
				if n := ask[int](t, p.db, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'`); n != 0 {
					t.Errorf("%d transactions are left open", n)
				}
			})
		}
	})
}

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

// Reads cost nothing, and a transaction that is read only is left alone.
func TestReadsAreLeftAlone(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		store := storetest.NewFaulty(memstore.New(memstore.Config{}))
		t.Cleanup(func() { testservers.Must(t, store.Close()) })
		p := start(t, options{driver: driver, url: database(t, items...), store: store})
		fences := store.Calls(storetest.OpFence)
		tx, err := p.db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
		testservers.Must(t, err)
		if got := ask[string](t, tx, `SELECT coalesce(current_setting('cache.mark', true), '')`); got != "" {
			t.Errorf("a read-only transaction has the mark %s", got)
		}
		testservers.Must(t, tx.Commit())
		// In a statement alone, current_setting shows whether it got a transaction of its own.
		const outside = `SELECT coalesce(max(current_setting('cache.mark', true)), '') FROM items WHERE id IN (1, 2) AND lower(id::text) LIKE '%' || '('`
		if got := ask[string](t, p.db, outside); got != "" {
			t.Errorf("a read got a transaction with the mark %s", got)
		}
		testservers.Must(t, inTx(t.Context(), p.db.DB, func(tx *sql.Tx) error {
			if got := ask[int](t, tx, `SELECT length(current_setting('cache.mark'))`); got != 32 {
				t.Errorf("the mark has %d digits", got)
			}
			return nil
		}))
		if n := store.Calls(storetest.OpFence); n != fences {
			t.Errorf("%d fences for what only reads", n-fences)
		}
		// Nothing of it outlives the transaction.
		if got := ask[string](t, p.db, `SELECT coalesce(current_setting('cache.mark', true), '') || current_setting('idle_in_transaction_session_timeout')`); got != "0" {
			t.Errorf("the connection kept %q", got)
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

// The search path of a session does not matter.
func TestOutboxIsFoundInAnySearchPath(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p := start(t, options{driver: driver, url: database(t, slices.Concat(items, []string{`CREATE SCHEMA tenant`})...)})
		p.warm(t, 1, 0)
		testservers.Must(t, inTx(t.Context(), p.db.DB, func(tx *sql.Tx) error {
			run(t, tx, `SET LOCAL search_path = tenant`, `UPDATE public.items SET value = 1 WHERE id = 1`)
			return nil
		}))
		if got := p.get(t, 1); got != 1 {
			t.Errorf("the answer is %d", got)
		}
	})
}

// lib/pq copies rows through a prepared statement.
func TestCopyIn(t *testing.T) {
	t.Parallel()
	p := start(t, options{driver: "postgres", url: database(t, items...)})
	p.warm(t, 3, -1)
	testservers.Must(t, inTx(t.Context(), p.db.DB, func(tx *sql.Tx) error {
		stmt, err := tx.PrepareContext(t.Context(), `COPY items (id, value) FROM STDIN`)
		if err != nil {
			return err
		}
		defer stmt.Close()
		for id := 3; id < 10; id++ {
			if _, err := stmt.ExecContext(t.Context(), id, id); err != nil {
				return err
			}
		}
		_, err = stmt.ExecContext(t.Context())
		return err
	}))
	if got := p.get(t, 3); got != 3 {
		t.Errorf("the answer is %d", got)
	}
}

// A transaction of the database's own can be migrated through the wrapped database, and what was
// written before there is an outbox was no mistake.
func TestMigrationThroughTheWrappedDatabase(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		url := testservers.SharedPostgres(t).Database(t)
		run(t, plain(t, url), `CREATE TABLE items (id int PRIMARY KEY, value int NOT NULL)`, `INSERT INTO items VALUES (1, 0)`)
		p := startUnserved(t, options{driver: driver, url: url})
		run(t, p.db, `UPDATE items SET value = 1`)
		if p.counts.undelivered.Load() == 0 {
			t.Error("a write to a database without an outbox is not counted")
		}
		testservers.Must(t, inTx(t.Context(), p.db.DB, func(tx *sql.Tx) error {
			run(t, tx, sqldb.Migration())
			return sqldb.Watch(t.Context(), tx, "test", "items", "item:{id}", `item:{id} ON DELETE`)
		}))
		p.waitServing(t)
		p.warm(t, 1, 1)
		testservers.Must(t, ways["Exec"](t.Context(), p.db.DB, 2))
		if got := p.get(t, 1); got != 2 {
			t.Errorf("the answer is %d", got)
		}
		findings, err := p.cache.Check(t.Context(), p.db)
		testservers.Must(t, err)
		for _, f := range findings {
			t.Errorf("found %+v", f)
		}
		testservers.Must(t, sqldb.Unwatch(t.Context(), p.db, "test", "items"))
		kinds, err := p.db.Kinds(t.Context())
		testservers.Must(t, err)
		if len(kinds) != 0 {
			t.Errorf("kinds %v are left", kinds)
		}
	})
}

// Through a proxy that pools transactions, every transaction meets another session.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	url := database(t, slices.Concat(items, routines)...)
	bouncer := testservers.SharedPostgres(t).StartPgBouncer(t, "default_pool_size = 1").URL(url)
	p := start(t, options{url: bouncer + "&default_query_exec_mode=exec", plainURL: url})
	for value, way := range []string{"Tx", "Exec", "RETURNING", "function", "procedure that commits"} {
		p.warm(t, 1, value)
		testservers.Must(t, ways[way](t.Context(), p.db.DB, value+1))
		if got := p.get(t, 1); got != value+1 {
			t.Errorf("%s: the answer is %d, want %d", way, got, value+1)
		}
	}
}

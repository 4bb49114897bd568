package sqldbtest

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/chainlearn/chainlearn/cache/memstore"
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

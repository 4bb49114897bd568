package postgres

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

const lastItem = `UPDATE items SET value = $1::int WHERE id = 2`

// Whatever follows the statement that was called the last is fenced and bumped all the same, also
// if it goes past the transaction.
func TestMoreAfterTheLast(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, p *process) { // whose relay does not run
		value := 0
		check := func(name string, fn func(ctx context.Context, tx pgx.Tx) error) {
			p.get(t, "1") // is stored
			if err := p.db.Write(t.Context(), fn); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got := p.get(t, "1"); got != value {
				t.Errorf("%s: got %d after writing %d", name, got, value)
			}
		}
		for name, more := range firsts {
			if name == "SendBatch that sets up the transaction" {
				continue // too late for that
			}
			for range 2 { // statements unknown, then known
				value += 10
				check(name, func(ctx context.Context, tx pgx.Tx) error {
					if _, err := tx.Exec(ctx, lastItem, Last, -value); err != nil {
						return err
					}
					return more(ctx, tx, value)
				})
			}
		}
		value++
		check("a savepoint from before", func(ctx context.Context, tx pgx.Tx) error {
			savepoint, err := tx.Begin(ctx)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, lastItem, Last, -value); err != nil {
				return err
			}
			if _, err := savepoint.Exec(ctx, setItem, 1, value); err != nil {
				return err
			}
			return savepoint.Commit(ctx)
		})
		value++
		check("a connection from before", func(ctx context.Context, tx pgx.Tx) error {
			conn := tx.Conn()
			if _, err := tx.Exec(ctx, lastItem, Last, -value); err != nil {
				return err
			}
			return onlyErr(conn.Exec(ctx, setItem, 1, value))
		})
	})
}

// What is deferred to the commit is fenced with the last statement, too.
func TestDeferredTriggersAreFencedWithTheLast(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pool(t, database(t, deferred...)), nil, outbox.RelayConfig{}, Config{})
	for value := 1; value <= 3; value++ {
		p.warm(t, "1", value-1)
		testservers.Must(t, p.db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			return onlyErr(tx.Exec(ctx, `INSERT INTO orders VALUES ($1)`, Last, 1))
		}))
		if got := p.get(t, "1"); got != value {
			t.Errorf("after the write of %d: %d", value, got)
		}
	}
}

// To any other transaction, and to other statements, the option says nothing.
func TestLastElsewhere(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, p *process) {
		uncached, err := NewDB(p.log, nil, Config{})
		testservers.Must(t, err)
		testservers.Must(t, uncached.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			return onlyErr(tx.Exec(ctx, setItem, Last, 1, 1))
		}))
		testservers.Must(t, pgx.BeginFunc(t.Context(), p.pool, func(tx pgx.Tx) error {
			return onlyErr(tx.Exec(t.Context(), setItem, Last, 1, 2))
		}))
		testservers.Must(t, p.db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			for _, err := range []error{
				onlyErr(tx.Exec(ctx, `UPDATE items SET value = 3 WHERE id = 1`, Last)),
				onlyErr(tx.Exec(ctx, `UPDATE items SET value = @value::int WHERE id = 1`, Last, pgx.NamedArgs{"value": 3})),
				onlyErr(tx.Exec(ctx, setItem, Last, pgx.QueryExecModeExec, 1, 3)),
				onlyErr(tx.Exec(ctx, `UPDATE items SET value = 3 WHERE id = 1; UPDATE items SET value = 4 WHERE id = 2`, Last)),
			} {
				if err != nil {
					return err
				}
			}
			if got := ask[int](t, tx, `SELECT value FROM items WHERE id = $1`, Last, 1); got != 3 {
				t.Errorf("got %d, want 3", got)
			}
			return nil
		}))
	})
}

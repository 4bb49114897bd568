package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// eachWay runs test for all ways to send statements. url is of a database with items; the pool
// has one connection, so that each transaction meets what the one before has left.
func eachWay(t *testing.T, test func(t *testing.T, p *process)) {
	for _, way := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol", "PgBouncer"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			url := database(t, items...)
			mode := way
			if way == "PgBouncer" {
				url, mode = testservers.SharedPostgres(t).StartPgBouncer(t, "default_pool_size = 1").URL(url), "exec"
			}
			test(t, newProcess(t, pool(t, with(url, "pool_max_conns=1", "default_query_exec_mode="+mode)), nil, outbox.RelayConfig{}, Config{}))
		})
	}
}

func with(url string, params ...string) string {
	separator := "?"
	if strings.Contains(url, "?") {
		separator = "&"
	}
	return url + separator + strings.Join(params, "&")
}

const setItem = `UPDATE items SET value = $2::int WHERE id = $1::int`

// firsts are what a transaction may begin with. Each sets item 1 to value.
var firsts = map[string]func(ctx context.Context, tx pgx.Tx, value int) error{
	"Exec": func(ctx context.Context, tx pgx.Tx, value int) error {
		tag, err := tx.Exec(ctx, setItem, 1, value)
		if err == nil && tag.String() != "UPDATE 1" {
			err = fmt.Errorf("got %q", tag)
		}
		return err
	},
	"Exec as last": func(ctx context.Context, tx pgx.Tx, value int) error {
		tag, err := tx.Exec(ctx, setItem, Last, 1, value)
		if err == nil && tag.String() != "UPDATE 1" {
			err = fmt.Errorf("got %q", tag)
		}
		return err
	},
	"Exec of several": func(ctx context.Context, tx pgx.Tx, value int) error {
		_, err := tx.Exec(ctx, fmt.Sprintf(`UPDATE items SET value = %d; UPDATE items SET value = 0 WHERE id = 2`, value))
		return err
	},
	"Exec with an option": func(ctx context.Context, tx pgx.Tx, value int) error {
		_, err := tx.Exec(ctx, setItem, pgx.QueryExecModeSimpleProtocol, 1, value)
		return err
	},
	"Exec with names": func(ctx context.Context, tx pgx.Tx, value int) error {
		_, err := tx.Exec(ctx, `UPDATE items SET value = @value::int WHERE id = 1`, pgx.NamedArgs{"value": value})
		return err
	},
	"Query": func(ctx context.Context, tx pgx.Tx, value int) error {
		rows, err := tx.Query(ctx, `UPDATE items SET value = CASE id WHEN 1 THEN $1::int ELSE 0 END RETURNING id`, value)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int32])
		if err == nil && (len(ids) != 2 || rows.CommandTag().RowsAffected() != 2) {
			err = fmt.Errorf("got %v, %q", ids, rows.CommandTag())
		}
		return err
	},
	"Query left early": func(ctx context.Context, tx pgx.Tx, value int) error {
		rows, err := tx.Query(ctx, `UPDATE items SET value = CASE id WHEN 1 THEN $1::int ELSE 0 END RETURNING id`, value)
		if err != nil {
			return err
		}
		rows.Next()
		rows.Close()
		rows.Close()
		return rows.Err()
	},
	"Query without a reader": func(ctx context.Context, tx pgx.Tx, value int) error {
		rows, err := tx.Query(ctx, `UPDATE items SET value = $1::int WHERE id = 1 RETURNING id`, value)
		if err != nil {
			return err
		}
		for rows.Next() { // to the end, which closes them
			if _, err := rows.Values(); err != nil {
				return err
			}
		}
		return rows.Err()
	},
	"QueryRow": func(ctx context.Context, tx pgx.Tx, value int) error {
		var id int
		return tx.QueryRow(ctx, `UPDATE items SET value = $1::int WHERE id = 1 RETURNING id`, value).Scan(&id)
	},
	"QueryRow without a row": func(ctx context.Context, tx pgx.Tx, value int) error {
		var id int
		err := tx.QueryRow(ctx, `UPDATE items SET value = 0 WHERE id = $1::int RETURNING id`, 99).Scan(&id)
		if !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("want ErrNoRows, got: %w", err)
		}
		_, err = tx.Exec(ctx, setItem, 1, value)
		return err
	},
	"SendBatch": func(ctx context.Context, tx pgx.Tx, value int) error {
		var b pgx.Batch
		var id, n int
		b.Queue(setItem, 1, value)
		b.Queue(`SELECT id FROM items WHERE value = $1::int`, value).QueryRow(func(row pgx.Row) error { return row.Scan(&id) })
		b.Queue(`UPDATE items SET value = 0 WHERE id = 2`).Exec(func(tag pgconn.CommandTag) error { n = int(tag.RowsAffected()); return nil })
		results := tx.SendBatch(ctx, &b)
		if results.Tx() != nil {
			return errors.New("the batch offers a transaction")
		}
		if err := results.Close(); err != nil || id != 1 || n != 1 {
			return fmt.Errorf("got %d, %d, %w", id, n, err)
		}
		return nil
	},
	"SendBatch that sets up the transaction": func(ctx context.Context, tx pgx.Tx, value int) error {
		var b pgx.Batch
		b.Queue(`SET TRANSACTION ISOLATION LEVEL SERIALIZABLE`)
		return errors.Join(tx.SendBatch(ctx, &b).Close(), onlyErr(tx.Exec(ctx, setItem, 1, value)))
	},
	"CopyFrom": func(ctx context.Context, tx pgx.Tx, value int) error {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"items"}, []string{"id", "value"}, pgx.CopyFromRows([][]any{{value + 100, value}}))
		return errors.Join(err, onlyErr(tx.Exec(ctx, `DELETE FROM items WHERE id > 2`)), onlyErr(tx.Exec(ctx, setItem, 1, value)))
	},
	"Prepare": func(ctx context.Context, tx pgx.Tx, value int) error {
		_, err := tx.Prepare(ctx, "", setItem)
		return errors.Join(err, onlyErr(tx.Exec(ctx, setItem, 1, value)))
	},
	"Begin": func(ctx context.Context, tx pgx.Tx, value int) error {
		for _, end := range []func(pgx.Tx) error{
			func(tx pgx.Tx) error { return tx.Commit(ctx) },
			func(tx pgx.Tx) error { return tx.Rollback(ctx) },
		} {
			savepoint, err := tx.Begin(ctx)
			if err != nil {
				return err
			}
			if err := errors.Join(onlyErr(savepoint.Exec(ctx, setItem, 1, value)), end(savepoint)); err != nil {
				return err
			}
			value++
		}
		return nil
	},
	"LargeObjects": func(ctx context.Context, tx pgx.Tx, value int) error {
		objects := tx.LargeObjects()
		id, err := objects.Create(ctx, 0)
		if err == nil {
			err = objects.Unlink(ctx, id)
		}
		return errors.Join(err, onlyErr(tx.Exec(ctx, setItem, 1, value)))
	},
	"Conn": func(ctx context.Context, tx pgx.Tx, value int) error {
		return onlyErr(tx.Conn().Exec(ctx, setItem, 1, value))
	},
}

func onlyErr(_ pgconn.CommandTag, err error) error { return err }

// Whatever a transaction begins with is part of it, under its mark and its limits.
func TestWhateverComesFirstIsInTheTransaction(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, p *process) {
		value := 0
		for name, first := range firsts {
			for range 2 { // statements unknown, then known
				value += 10
				before := p.get(t, "1")
				own := errors.New("mine")
				for _, want := range []error{own, nil} {
					err := p.db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
						if err := first(ctx, tx, value); err != nil {
							return err
						}
						if got := ask[string](t, tx, `SELECT concat_ws(' ', length(current_setting('cache.mark')), current_setting('statement_timeout'),
							current_setting('idle_in_transaction_session_timeout'))`); got != "32 3s 2s" {
							t.Errorf("%s: mark and limits are %q", name, got)
						}
						return want
					})
					if err != want {
						t.Errorf("%s: got %v, want %v", name, err, want)
					}
					if want != nil {
						if got := ask[int](t, p.pool, `SELECT value FROM items WHERE id = 1`); got != before {
							t.Errorf("%s: outside of the transaction: set %d", name, got)
						}
					} else if got := p.get(t, "1"); got != value {
						t.Errorf("%s: got %d after writing %d", name, got, value)
					}
				}
			}
		}
	})
}

// When the first statement fails, so does what follows, and nothing is committed.
func TestFirstStatementFails(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, p *process) {
		uncached, err := NewDB(p.log, nil, Config{})
		testservers.Must(t, err)
		for name, c := range map[string]struct {
			query string
			arg   any
			code  string // of PostgreSQL, or none
		}{
			"when it runs":       {`SELECT 1 / $1::int`, 0, "22012"},
			"when it is parsed":  {`SELEKT $1::int`, 0, "42601"},
			"when it is planned": {`SELECT $1::int FROM nowhere`, 0, "42P01"},
			"before it is sent":  {`SELECT $1::int`, make(chan int), ""},
		} {
			for way, first := range map[string]func(ctx context.Context, tx pgx.Tx) error{
				"Exec":      func(ctx context.Context, tx pgx.Tx) error { return onlyErr(tx.Exec(ctx, c.query, c.arg)) },
				"Exec last": func(ctx context.Context, tx pgx.Tx) error { return onlyErr(tx.Exec(ctx, c.query, Last, c.arg)) },
				"Query": func(ctx context.Context, tx pgx.Tx) error {
					rows, _ := tx.Query(ctx, c.query, c.arg)
					_, err := pgx.CollectRows(rows, pgx.RowTo[int32])
					return err
				},
				"QueryRow": func(ctx context.Context, tx pgx.Tx) error {
					var n int
					return tx.QueryRow(ctx, c.query, c.arg).Scan(&n)
				},
				"SendBatch": func(ctx context.Context, tx pgx.Tx) error {
					var b pgx.Batch
					b.Queue(c.query, c.arg)
					b.Queue(setItem, 1, 7)
					return tx.SendBatch(ctx, &b).Close()
				},
			} {
				var failure error
				check := func(what string, err error) {
					var e *pgconn.PgError
					isServer := errors.As(err, &e)
					isBatch := errors.As(err, new(pgx.ErrPreprocessingBatch))
					if err == nil || isServer != (c.code != "") || isServer && e.Code != c.code || isBatch && way != "SendBatch" ||
						errors.Is(err, outbox.ErrUnknownOutcome) {
						t.Errorf("%s %s: %s: got %v, want code %q", way, name, what, err, c.code)
					}
				}
				err := p.db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
					failure = first(ctx, tx)
					return failure
				})
				check("returned", err)
				if err != failure {
					t.Errorf("%s %s: got %v, want the error of the function", way, name, err)
				}
				for _, db := range []*DB{p.db, uncached} {
					err := db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
						check("ignored", first(ctx, tx))
						if c.code == "" {
							return nil
						}
						for _, second := range []error{
							onlyErr(tx.Exec(ctx, setItem, 1, 7)), onlyErr(tx.Exec(ctx, `UPDATE items SET value = 7`)),
							onlyErr(tx.Conn().Exec(ctx, setItem, 1, 7)),
						} {
							if second == nil {
								t.Errorf("%s %s: the transaction goes on", way, name)
							}
						}
						return nil
					})
					if err == nil && c.code != "" || errors.Is(err, outbox.ErrUnknownOutcome) {
						t.Errorf("%s %s: although the transaction had failed: %v", way, name, err)
					}
				}
				if got := ask[int](t, p.pool, `SELECT value FROM items WHERE id = 1`); got != 0 {
					t.Fatalf("%s %s: wrote %d", way, name, got)
				}
			}
		}
	})
}

// The simple protocol takes several statements with arguments, and tells of the last.
func TestFirstOfSeveralInTheSimpleProtocol(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pool(t, with(database(t, items...), "default_query_exec_mode=simple_protocol")), nil, outbox.RelayConfig{}, Config{})
	testservers.Must(t, p.db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE items SET value = $1::int WHERE id = 1; DELETE FROM items WHERE id = 2`, 1)
		if tag.String() != "DELETE 1" {
			t.Errorf("got %q", tag)
		}
		return err
	}))
}

// The limit of a statement is also that of the first.
func TestFirstStatementIsLimited(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, p *process) {
		db, err := NewDB(p.log, nil, Config{Limits: Limits{Statement: 100 * time.Millisecond, Idle: time.Second, Transaction: time.Second}})
		testservers.Must(t, err)
		err = db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			return onlyErr(tx.Exec(ctx, `SELECT pg_sleep($1::int)`, 60))
		})
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != "57014" {
			t.Errorf("got %v, want to be cancelled", err)
		}
	})
}

func TestIsolationWithAFirstStatement(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pool(t, database(t, items...)), nil, outbox.RelayConfig{}, Config{})
	for _, level := range []pgx.TxIsoLevel{pgx.ReadUncommitted, pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		db, err := NewDB(p.log, nil, Config{Isolation: level})
		testservers.Must(t, err)
		testservers.Must(t, db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			if got := ask[string](t, tx, `SELECT current_setting($1)`, "transaction_isolation"); got != string(level) {
				t.Errorf("got %s, want %s", got, level)
			}
			return nil
		}))
	}
}

// A transaction that keeps its snapshot takes it after its first lock.
func TestRepeatableReadLocksFirst(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pool(t, database(t, items...)), nil, outbox.RelayConfig{}, Config{})
	db, err := NewDB(p.log, nil, Config{Isolation: pgx.RepeatableRead})
	testservers.Must(t, err)
	const lock = `LOCK TABLE cache_outbox IN ACCESS SHARE MODE`
	value := 0
	for name, first := range map[string]func(ctx context.Context, tx pgx.Tx) error{
		"Exec": func(ctx context.Context, tx pgx.Tx) error { return onlyErr(tx.Exec(ctx, lock)) },
		"SendBatch": func(ctx context.Context, tx pgx.Tx) error {
			var b pgx.Batch
			b.Queue(lock)
			return tx.SendBatch(ctx, &b).Close()
		},
	} {
		value++
		testservers.Must(t, db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			if err := first(ctx, tx); err != nil {
				return err
			}
			run(t, p.pool, fmt.Sprintf(`UPDATE items SET value = %d`, value))
			if got := ask[int](t, tx, `SELECT value FROM items WHERE id = $1`, 1); got != value {
				t.Errorf("%s: read %d: the snapshot is older than the lock", name, got)
			}
			return nil
		}))
	}
}

// The first statement costs no round trip more than any other, and a transaction without any
// costs none.
func TestRoundTripsOfAWrite(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"cache_statement", "exec"} {
		config, err := pgxpool.ParseConfig(with(database(t, items...), "default_query_exec_mode="+mode))
		testservers.Must(t, err)
		var trips atomic.Int64
		config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, network, addr)
			return &watchedConn{conn, func(b []byte) {
				if !bytes.Contains(b, []byte("-- ping")) { // of a connection that was idle
					trips.Add(1)
				}
			}}, err
		}
		counted, err := pgxpool.NewWithConfig(t.Context(), config)
		testservers.Must(t, err)
		t.Cleanup(counted.Close)
		p := newProcess(t, counted, nil, outbox.RelayConfig{}, Config{})
		write := func(fn func(ctx context.Context, tx pgx.Tx) error) int64 {
			before := trips.Load()
			testservers.Must(t, p.db.Write(t.Context(), fn))
			return trips.Load() - before
		}
		for range 2 {
			write(set("1", 1)) // opens a connection, and prepares
		}
		if n := write(set("1", 2)); n != 3 { // the statement, the tags, the commit
			t.Errorf("%s: a write takes %d round trips, want 3", mode, n)
		}
		last := func(ctx context.Context, tx pgx.Tx) error { return onlyErr(tx.Exec(ctx, setItem, Last, 1, 3)) }
		write(last)                   // prepares
		if n := write(last); n != 2 { // the statement and the tags, the commit
			t.Errorf("%s: a write whose only statement is the last takes %d round trips, want 2", mode, n)
		}
		if n := write(func(context.Context, pgx.Tx) error { return nil }); n != 0 {
			t.Errorf("%s: a write of nothing takes %d round trips", mode, n)
		}
	}
}

// A transaction that is kept over its end cannot be used, although the connection may be
// another caller's by then.
func TestTransactionEndsThatNeverBegan(t *testing.T) {
	t.Parallel()
	p := newProcess(t, pool(t, with(database(t, items...), "pool_max_conns=1")), nil, outbox.RelayConfig{}, Config{})
	var kept []pgx.Tx
	testservers.Must(t, p.db.Write(t.Context(), func(_ context.Context, tx pgx.Tx) error {
		kept = append(kept, tx)
		return nil
	}))
	own := errors.New("mine")
	if err := p.db.Write(t.Context(), func(_ context.Context, tx pgx.Tx) error {
		kept = append(kept, tx)
		return own
	}); err != own {
		t.Errorf("got %v, want the error of the function", err)
	}
	if err := p.db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		kept = append(kept, tx)
		return tx.Rollback(ctx)
	}); !errors.Is(err, pgx.ErrTxClosed) {
		t.Errorf("rolled back inside: got %v, want ErrTxClosed", err)
	}
	for _, tx := range kept {
		for name, first := range firsts {
			if name == "Conn" {
				if tx.Conn().IsClosed() {
					t.Error("another caller's connection was closed")
				}
			} else if err := first(t.Context(), tx, 7); err == nil {
				t.Errorf("%s works after the end", name)
			}
		}
	}
	if got := p.get(t, "1"); got != 0 {
		t.Errorf("wrote %d", got)
	}
}

// The connection is lost before the first statement: nothing happened, and that is known.
func TestConnectionIsLostBeforeTheFirstStatement(t *testing.T) {
	t.Parallel()
	server := testservers.SharedPostgres(t)
	url := database(t, items...)
	store := memstore.New(memstore.Config{})
	t.Cleanup(func() { testservers.Must(t, store.Close()) })
	for name, first := range firsts {
		proxy := testservers.StartProxy(t, server.Addr())
		for _, c := range []*cache.Cache{nil, newProcess(t, pool(t, url), store, outbox.RelayConfig{}, Config{}).db.cache} {
			log := openLog(t, pool(t, strings.Replace(url, server.Addr(), proxy.Addr(), 1)), nil)
			db, err := NewDB(log, c, Config{})
			testservers.Must(t, err)
			for _, ignored := range []bool{false, true} {
				err = db.Write(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
					proxy.Reset()
					err := first(ctx, tx, 7)
					if err == nil {
						t.Errorf("%s: worked without a connection", name)
					}
					if ignored {
						return nil
					}
					return err
				})
				if err == nil || errors.Is(err, outbox.ErrUnknownOutcome) {
					t.Errorf("%s: got %v, want to know that nothing was written", name, err)
				}
			}
			testservers.Must(t, db.Write(t.Context(), set("2", 1))) // on another connection
		}
	}
	if got := ask[int](t, pool(t, url), `SELECT value FROM items WHERE id = 1`); got != 0 {
		t.Errorf("wrote %d", got)
	}
}

package sqldbtest

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	gosqldriver "github.com/go-sql-driver/mysql"
	gormmysql "gorm.io/driver/mysql"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/mysql"
	"github.com/chainlearn/chainlearn/cache/outbox/sqldb"
	"github.com/chainlearn/chainlearn/cache/storetest"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// mariaWrite writes in three ways.
func mariaWrite(ctx context.Context, db *sql.DB, id int, value int64) error {
	switch value % 3 {
	case 0:
		return mariaWays["Exec"](ctx, db, id, int(value))
	case 1:
		return mariaWays["ON DUPLICATE KEY"](ctx, db, id, int(value))
	}
	return mariaWays["Tx"](ctx, db, id, int(value))
}

// mariaRoutines can be called to set item 1 to a value.
var mariaRoutines = []string{
	`CREATE FUNCTION set_item(v INT) RETURNS INT MODIFIES SQL DATA BEGIN UPDATE items SET value = v WHERE id = 1; RETURN v; END`,
	`CREATE FUNCTION upper(v INT) RETURNS INT MODIFIES SQL DATA BEGIN UPDATE items SET value = v WHERE id = 1; RETURN v; END`,
	`CREATE PROCEDURE put_item(v INT) BEGIN START TRANSACTION; UPDATE items SET value = 0 WHERE id = 1; COMMIT; UPDATE items SET value = v WHERE id = 1; END`,
}

// mariaWays are ways to set an item to a value. Each is acknowledged when it returns.
var mariaWays = map[string]func(ctx context.Context, db *sql.DB, id, value int) error{
	"Exec": func(ctx context.Context, db *sql.DB, id, value int) error {
		result, err := db.ExecContext(ctx, `UPDATE items SET value = ? WHERE id = ?`, value, id)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); n != 1 || err != nil {
			return fmt.Errorf("%d rows affected, %w", n, err)
		}
		return nil
	},
	"Exec without arguments": func(ctx context.Context, db *sql.DB, id, value int) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf("# a comment; with a quote '\n UPDATE items SET value = %d WHERE id = %d", value, id))
		return err
	},
	"ON DUPLICATE KEY": func(ctx context.Context, db *sql.DB, id, value int) error {
		_, err := db.ExecContext(ctx, `INSERT INTO items VALUES (?, ?) ON DUPLICATE KEY UPDATE value = VALUES(value)`, id, value)
		return err
	},
	"REPLACE": func(ctx context.Context, db *sql.DB, id, value int) error {
		_, err := db.ExecContext(ctx, `REPLACE INTO items VALUES (?, ?)`, id, value)
		return err
	},
	"RETURNING": func(ctx context.Context, db *sql.DB, id, value int) error {
		var got int
		return db.QueryRowContext(ctx, `REPLACE INTO items VALUES (?, ?) RETURNING value`, id, value).Scan(&got)
	},
	"prepared": func(ctx context.Context, db *sql.DB, id, value int) error {
		stmt, err := db.PrepareContext(ctx, `UPDATE items SET value = ? WHERE id = ?`)
		if err != nil {
			return err
		}
		defer stmt.Close()
		_, err = stmt.ExecContext(ctx, value, id)
		return err
	},
	"Tx": func(ctx context.Context, db *sql.DB, id, value int) error {
		return inTx(ctx, db, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `UPDATE items SET value = ? WHERE id = ?`, value, id)
			return err
		})
	},
	"serializable Tx with a savepoint": func(ctx context.Context, db *sql.DB, id, value int) error {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
		if err != nil {
			return err
		}
		defer tx.Rollback()
		for _, s := range []string{`UPDATE items SET value = %d WHERE id = %d`, `SAVEPOINT s`, `DELETE FROM items`, `ROLLBACK TO s`} {
			if strings.Contains(s, "%d") {
				s = fmt.Sprintf(s, value, id)
			}
			if _, err := tx.ExecContext(ctx, s); err != nil {
				return err
			}
		}
		return tx.Commit()
	},
	"statements on a Conn": func(ctx context.Context, db *sql.DB, id, value int) error {
		return onConn(ctx, db, `START TRANSACTION`, fmt.Sprintf(`UPDATE items SET value = %d WHERE id = %d`, value, id), `COMMIT`)
	},
	"autocommit off on a Conn": func(ctx context.Context, db *sql.DB, id, value int) error {
		return onConn(ctx, db, `SET autocommit = 0`, fmt.Sprintf(`UPDATE items SET value = %d WHERE id = %d`, value, id), `COMMIT`)
	},
	"BEGIN that commits": func(ctx context.Context, db *sql.DB, id, value int) error {
		return onConn(ctx, db, `BEGIN`, fmt.Sprintf(`UPDATE items SET value = %d WHERE id = %d`, value, id), `BEGIN`)
	},
	"DDL that commits, and a statement after it": func(ctx context.Context, db *sql.DB, id, value int) error {
		return onConn(ctx, db, `BEGIN`, fmt.Sprintf(`UPDATE items SET value = %d WHERE id = %d`, value-1000, id), `CREATE TABLE IF NOT EXISTS other (a INT)`,
			fmt.Sprintf(`UPDATE items SET value = %d WHERE id = %d`, value, id))
	},
	"LOCK TABLES, which BEGIN would release": func(ctx context.Context, db *sql.DB, id, value int) error {
		return onConn(ctx, db, `LOCK TABLES items WRITE`, fmt.Sprintf(`UPDATE items SET value = %d WHERE id = %d`, value, id), `UPDATE items SET value = value`, `UNLOCK TABLES`)
	},
	"function": func(ctx context.Context, db *sql.DB, _, value int) error {
		var got int
		return db.QueryRowContext(ctx, `SELECT set_item(?)`, value).Scan(&got)
	},
	"function with the name of the server's own": func(ctx context.Context, db *sql.DB, _, value int) error {
		var name string
		if err := db.QueryRowContext(ctx, `SELECT DATABASE()`).Scan(&name); err != nil {
			return err
		}
		var got int
		return db.QueryRowContext(ctx, "SELECT "+name+".upper(?)", value).Scan(&got)
	},
	"DO": func(ctx context.Context, db *sql.DB, _, value int) error {
		_, err := db.ExecContext(ctx, `DO set_item(?)`, value)
		return err
	},
	"CALL": func(ctx context.Context, db *sql.DB, _, value int) error {
		_, err := db.ExecContext(ctx, `CALL put_item(?)`, value)
		return err
	},
	"comment that is run": func(ctx context.Context, db *sql.DB, id, value int) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf(`/*! UPDATE items SET value = %d WHERE id = %d */`, value, id))
		return err
	},
	"CREATE TABLE with a function": func(ctx context.Context, db *sql.DB, _, value int) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf(`CREATE TABLE t%d AS SELECT set_item(%d)`, value, value))
		return err
	},
}

func onConn(ctx context.Context, db *sql.DB, statements ...string) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, s := range statements {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// eachSending runs test with each way in which the driver sends arguments.
func eachSending(t *testing.T, test func(t *testing.T, params string)) {
	t.Parallel()
	for name, params := range map[string]string{"prepares": "", "interpolates": "&interpolateParams=true", "several": "&interpolateParams=true&multiStatements=true"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, params)
		})
	}
}

// marked counts what a transaction has left in the session that it was on.
const marked = `SELECT CONCAT(@cache_mark IS NOT NULL, @@SESSION.wait_timeout = @@GLOBAL.wait_timeout)`

func TestEveryWayToWriteToMariaDB(t *testing.T) {
	eachSending(t, func(t *testing.T, params string) {
		p := start(t, options{url: mariaDatabase(t, mariaRoutines...) + params, passive: true})
		value := 0
		for name, write := range mariaWays {
			p.warm(t, 1, value)
			value++
			if err := write(t.Context(), p.db.DB, 1, value); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got := p.get(t, 1); got != value {
				t.Fatalf("%s: after the write of %d the answer is %d", name, value, got)
			}
			p.db.SetMaxOpenConns(1)
			if got := ask[string](t, p.db, marked); got != "01" {
				t.Errorf("%s: the session is %s", name, got)
			}
			p.db.SetMaxOpenConns(0)
		}
		if n := p.counts.undelivered.Load(); n != 0 {
			t.Errorf("%d statements were not delivered", n)
		}
		// What can only be found by a look at the tables.
		p.warm(t, 1, value)
		run(t, p.db, `TRUNCATE items`)
		if got := p.get(t, 1); got != -1 {
			t.Errorf("after TRUNCATE the answer is %d", got)
		}
		if n := p.counts.undelivered.Load(); n != 0 {
			t.Errorf("%d statements were not delivered", n)
		}
		findings, err := p.cache.Check(t.Context(), p.db)
		testservers.Must(t, err)
		for _, f := range findings {
			if f.Subject != "relay" { // it is not started
				t.Errorf("found %+v", f)
			}
		}
		kinds, err := p.db.Kinds(t.Context())
		testservers.Must(t, err)
		if len(kinds) != 1 || kinds[0] != "item" {
			t.Errorf("kinds are %v", kinds)
		}
	})
}

func TestUndoneOnMariaDB(t *testing.T) {
	eachSending(t, func(t *testing.T, params string) {
		p := start(t, options{url: mariaDatabase(t) + params})
		p.db.SetMaxOpenConns(1)
		injected := errors.New("injected")
		for name, c := range map[string]struct {
			write func(ctx context.Context) error
			code  uint16 // of the server's error, or 0 for injected
		}{
			"rolled back": {write: func(ctx context.Context) error {
				return inTx(ctx, p.db.DB, func(tx *sql.Tx) error {
					run(t, tx, `UPDATE items SET value = 9 WHERE id = 1`)
					return injected
				})
			}},
			"statement": {code: 1062, write: func(ctx context.Context) error {
				_, err := p.db.ExecContext(ctx, `UPDATE items SET id = 2, value = 9 WHERE id = ?`, 1)
				return err
			}},
			"rows": {code: 1062, write: func(ctx context.Context) error {
				return p.db.QueryRowContext(ctx, `INSERT INTO items VALUES (3, 0), (?, 0) RETURNING id`, 1).Scan(new(int))
			}},
			"read only": {code: 1792, write: func(ctx context.Context) error {
				tx, err := p.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
				if err != nil {
					return err
				}
				defer tx.Rollback()
				_, err = tx.ExecContext(ctx, `UPDATE items SET value = 9`)
				return err
			}},
		} {
			p.warm(t, 1, 0)
			err := c.write(t.Context())
			var e *gosqldriver.MySQLError
			switch {
			case errors.Is(err, outbox.ErrUnknownOutcome), c.code == 0 && !errors.Is(err, injected), c.code != 0 && (!errors.As(err, &e) || e.Number != c.code):
				t.Errorf("%s: got %v", name, err)
			}
			if got := ask[string](t, p.db, marked); got != "01" {
				t.Errorf("%s: the session is %s", name, got)
			}
			p.warm(t, 1, 0)
			if n := ask[int](t, p.plain, `SELECT count(*) FROM cache_outbox`); n != 0 {
				t.Errorf("%s: left %d rows", name, n)
			}
		}
	})
}

// Reads and transactions that are read only are left alone.
func TestReadsOfMariaDBAreLeftAlone(t *testing.T) {
	eachSending(t, func(t *testing.T, params string) {
		store := storetest.NewFaulty(memstore.New(memstore.Config{}))
		t.Cleanup(func() { testservers.Must(t, store.Close()) })
		p := start(t, options{url: mariaDatabase(t) + params, store: store})
		fences := store.Calls(storetest.OpFence)
		tx, err := p.db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
		testservers.Must(t, err)
		if got := ask[string](t, tx, marked); got != "01" {
			t.Errorf("the session is %s", got)
		}
		testservers.Must(t, tx.Commit())
		// In a statement alone, the variable shows whether it got a transaction of its own.
		if got := ask[string](t, p.db, `SELECT CONCAT(@cache_mark IS NOT NULL, COUNT(*)) FROM items WHERE id IN (?, 2)`, 1); got != "02" {
			t.Errorf("a read got %s", got)
		}
		testservers.Must(t, inTx(t.Context(), p.db.DB, func(tx *sql.Tx) error {
			if got := ask[int](t, tx, `SELECT LENGTH(@cache_mark)`); got != 16 {
				t.Errorf("the mark has %d bytes", got)
			}
			if got := ask[string](t, tx, marked); got != "11" {
				t.Errorf("the server limits waits of the program: %s", got)
			}
			return nil
		}))
		if n := store.Calls(storetest.OpFence); n != fences {
			t.Errorf("%d fences for what only reads", n-fences)
		}
	})
}

// A statement that commits by itself is told by Commit and by Rollback, and relays deliver what it
// committed. A deadlock is no such thing.
func TestImplicitCommitOnMariaDB(t *testing.T) {
	t.Parallel()
	p := start(t, options{url: mariaDatabase(t)})
	for value, end := range []func(*sql.Tx) error{(*sql.Tx).Commit, (*sql.Tx).Rollback} {
		p.warm(t, 1, value)
		tx, err := p.db.BeginTx(t.Context(), nil)
		testservers.Must(t, err)
		run(t, tx, fmt.Sprintf(`UPDATE items SET value = %d WHERE id = 1`, value+1), `CREATE TABLE IF NOT EXISTS other (a INT)`)
		if err := end(tx); !errors.Is(err, mysql.ErrImplicitCommit) || !errors.Is(err, outbox.ErrUnknownOutcome) {
			t.Errorf("got %v, want ErrImplicitCommit", err)
		}
		p.warm(t, 1, value+1)
	}

	one, err := p.db.BeginTx(t.Context(), nil)
	testservers.Must(t, err)
	two, err := p.db.BeginTx(t.Context(), nil)
	testservers.Must(t, err)
	run(t, one, `UPDATE items SET value = 5 WHERE id = 1`)
	run(t, two, `UPDATE items SET value = 5 WHERE id = 2`)
	first := make(chan error, 1)
	go func() {
		_, err := one.ExecContext(t.Context(), `UPDATE items SET value = 5 WHERE id = 2`)
		first <- err
	}()
	_, failed := two.ExecContext(t.Context(), `UPDATE items SET value = 5 WHERE id = 1`)
	failed = errors.Join(failed, <-first)
	var e *gosqldriver.MySQLError
	if !errors.As(failed, &e) || e.Number != 1213 {
		t.Errorf("got %v, want a deadlock", failed)
	}
	if err := errors.Join(one.Rollback(), two.Rollback()); err != nil {
		t.Errorf("rolled back: %v", err)
	}
	p.warm(t, 1, 2)
}

// The server ends the session before or at COMMIT. Before, nothing has happened; at COMMIT that is not
// known, and the fence stands until a relay has looked.
func TestSessionOnMariaDBIsKilled(t *testing.T) {
	t.Parallel()
	store := newSteps(t)
	p := start(t, options{url: mariaDatabase(t), store: store})
	p.db.SetMaxOpenConns(1)
	for name, write := range map[string]func() error{
		"Tx":   func() error { return mariaWays["Tx"](t.Context(), p.db.DB, 1, 9) },
		"Exec": func() error { return mariaWays["Exec"](t.Context(), p.db.DB, 1, 9) },
		"rows": func() error { return mariaWays["RETURNING"](t.Context(), p.db.DB, 1, 9) },
	} {
		p.warm(t, 1, 0)
		var id int64
		testservers.Must(t, p.db.QueryRowContext(t.Context(), `SELECT CONNECTION_ID()`).Scan(&id))
		store.onFence(func() { run(t, p.plain, fmt.Sprintf(`KILL CONNECTION %d`, id)) })
		err := write()
		store.onFence(nil)
		if !errors.Is(err, outbox.ErrUnknownOutcome) || errors.Is(err, sqldriver.ErrBadConn) {
			t.Errorf("%s: killed at COMMIT: got %v, want ErrUnknownOutcome", name, err)
		}
		if got := ask[int](t, p.plain, `SELECT value FROM items WHERE id = 1`); got != 0 {
			t.Errorf("%s: database/sql ran it again: the value is %d", name, got)
		}
		p.warm(t, 1, 0) // the fence lapses
	}
}

// A process that is suspended between its look at the clock and COMMIT comes too late: the server has
// undone the transaction before the fence lapsed.
func TestLateCommitIsRefusedByMariaDB(t *testing.T) {
	t.Parallel()
	store := newSteps(t)
	p := start(t, options{url: mariaDatabase(t), store: store, lease: 2500 * time.Millisecond,
		cfg: sqldb.Config{Options: outbox.Options{CommitTime: time.Millisecond}}})
	p.db.SetMaxOpenConns(1)
	id := ask[int](t, p.db, `SELECT CONNECTION_ID()`)
	store.onFence(func() {
		testservers.Eventually(t, 20*time.Second, func() (bool, string) {
			return ask[int](t, p.plain, `SELECT COUNT(*) FROM information_schema.processlist WHERE id = ?`, id) == 0, "the transaction is still open"
		})
	})
	err := mariaWays["Tx"](t.Context(), p.db.DB, 1, 1)
	if err == nil || !strings.Contains(err.Error(), "FenceLease") {
		t.Errorf("got %v, want an error that names the limit", err)
	}
	store.onFence(nil)
	p.warm(t, 1, 0)
}

// The connection is cut while COMMIT is under way, after it has taken effect.
func TestConnectionToMariaDBIsCutAfterCommit(t *testing.T) {
	t.Parallel()
	proxy := testservers.StartProxy(t, testservers.SharedMariaDB(t).Addr())
	store := newSteps(t)
	dsn := mariaDatabase(t)
	p := start(t, options{url: dsn, via: proxy.Addr(), store: store})
	reader := start(t, options{url: dsn, store: store})
	reader.warm(t, 1, 0)
	store.onFence(func() { proxy.Hold(testservers.Replies) })
	written := make(chan error, 1)
	go func() { written <- mariaWays["Tx"](t.Context(), p.db.DB, 1, 1) }()
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
	reader.warm(t, 1, 1)
}

// What another program writes is seen through the relay.
func TestExternalWritesToMariaDBAreSeen(t *testing.T) {
	t.Parallel()
	p := start(t, options{url: mariaDatabase(t)})
	for value := 1; value <= 3; value++ {
		p.warm(t, 1, value-1)
		run(t, p.plain, `UPDATE items SET value = value + 1 WHERE id = 1`)
		testservers.Eventually(t, 20*time.Second, func() (bool, string) { return p.get(t, 1) == value, "the old value is served" })
	}
}

// A session in which nothing tells what is committed is refused, with a remedy.
func TestSessionsOfMariaDBThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, params := range []string{"&autocommit=0", "&completion_type=1"} {
		p := startUnserved(t, options{url: mariaDatabase(t) + params})
		for name, err := range map[string]error{
			"Exec": mariaWays["Exec"](t.Context(), p.db.DB, 1, 9), "Tx": mariaWays["Tx"](t.Context(), p.db.DB, 1, 9),
		} {
			if err == nil || !strings.Contains(err.Error(), "autocommit") {
				t.Errorf("%s: %s: got %v", params, name, err)
			}
		}
	}
}

// What was written before there is an outbox is said.
func TestMariaDBWithoutAnOutbox(t *testing.T) {
	t.Parallel()
	server := testservers.SharedMariaDB(t)
	dsn := server.DSN(server.Database(t))
	run(t, plain(t, dsn), items[:2]...)
	p := startUnserved(t, options{url: dsn})
	run(t, p.db, `UPDATE items SET value = 1 WHERE id = 1`)
	if p.counts.undelivered.Load() == 0 {
		t.Error("a write to a database without an outbox is not counted")
	}
	testservers.Must(t, mysql.Apply(t.Context(), p.db))
	testservers.Must(t, mysql.Watch(t.Context(), p.db, "test", "items", "item:{id}"))
	p.waitServing(t)
	p.warm(t, 1, 1)
	testservers.Must(t, mariaWays["Exec"](t.Context(), p.db.DB, 1, 2))
	if got := p.get(t, 1); got != 2 {
		t.Errorf("the answer is %d", got)
	}
}

// GORM on MariaDB is exact as it is.
func TestGORMOnMariaDB(t *testing.T) {
	t.Parallel()
	p := start(t, options{url: mariaDatabase(t) + "&parseTime=true", passive: true})
	g, err := gorm.Open(gormmysql.New(gormmysql.Config{Conn: p.db.DB}), &gorm.Config{Logger: logger.Discard})
	testservers.Must(t, err)
	value := 0
	for name, write := range gormWays(g) {
		for range 3 {
			p.warm(t, 1, value)
			value++
			if err := write(t.Context(), value); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := p.get(t, 1); got != value {
				t.Fatalf("%s: after the write of %d the answer is %d", name, value, got)
			}
		}
	}
}

package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/internal/outboxtest"
	"github.com/chainlearn/chainlearn/cache/outbox/mysql"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// alone returns a world on a server of its own, which a test may break.
func alone(t *testing.T, settings map[string]string) *world {
	t.Helper()
	return newWorldOn(t, testservers.StartMariaDB(t, testservers.MariaDBConfig{Settings: settings}))
}

// A row of a transaction that commits late, with a smaller number than rows that were delivered, is
// delivered.
func TestALateCommitIsDelivered(t *testing.T) {
	f := newFile(t)
	f.exec(`INSERT INTO lessons VALUES (1, 'a', NULL), (2, 'a', NULL); DELETE FROM cache_outbox`)
	late, err := f.pool.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Rollback()
	if _, err := late.ExecContext(t.Context(), `UPDATE lessons SET title = 'late' WHERE id = 1`); err != nil {
		t.Fatal(err)
	}
	f.exec(`UPDATE lessons SET title = 'early' WHERE id = 2`)
	if got := f.deliver(consumer, 0); len(got) != 1 || got[0] != "lesson:2" {
		t.Errorf("before its commit: %q", got)
	}
	f.want()
	if err := late.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := f.deliver(consumer, 0); len(got) != 1 || got[0] != "lesson:1" {
		t.Errorf("after its commit: %q", got)
	}
	f.want()
}

// Writers that touch the same tags, and relays, wait for each other no more than for the rows of
// the writers' own tables: no statement fails for the sake of the outbox.
func TestWritersAndRelaysDoNotLockEachOtherOut(t *testing.T) {
	for _, format := range []string{"", "ROW", "MIXED"} {
		t.Run("binlog "+format, func(t *testing.T) {
			w := newWorld
			if format != "" { // where a trigger that reads would lock what it reads
				w = func(testing.TB) *world {
					return alone(t, map[string]string{"log_bin": "log", "binlog_format": format, "server_id": "1"})
				}
			}
			writersAndRelays(t, w(t))
		})
	}
}

func writersAndRelays(t *testing.T, w *world) {
	w.Stranger(`CREATE TABLE notes (id INT PRIMARY KEY AUTO_INCREMENT, writer INT, KEY (writer))`)
	if err := mysql.Watch(t.Context(), w.open(1, ""), "test", "notes", "note:{id}", "notes", "writer:{writer}"); err != nil {
		t.Fatal(err)
	}
	ps := []*outboxtest.Process{w.Process(nil), w.Process(nil)}
	for _, p := range ps {
		p.Relay(outbox.RelayConfig{Batch: 7, Poll: 5 * time.Millisecond, Grace: time.Millisecond})
	}
	db := ps[0].DB(outbox.Options{})
	var wg sync.WaitGroup
	for writer := range 6 {
		wg.Go(func() {
			pool := w.open(1, strange)
			for i := range 30 {
				var err error
				insert := fmt.Sprintf(`INSERT INTO notes (writer) VALUES (%d), (%[1]d), (%[1]d)`, writer)
				switch {
				case writer == 0:
					err = db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error { _, err := tx.ExecContext(ctx, insert); return err })
				case i%3 == 2:
					_, err = pool.ExecContext(t.Context(), fmt.Sprintf(`START TRANSACTION; %s; ROLLBACK`, insert))
				default:
					_, err = pool.ExecContext(t.Context(), fmt.Sprintf(`START TRANSACTION; %s; %[1]s; COMMIT`, insert))
				}
				if err != nil {
					t.Errorf("writer %d: %v", writer, err)
					return
				}
			}
		})
	}
	wg.Wait()
	outboxtest.Eventually(t, func() error {
		if n := w.Rows(); n != 0 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})

	// One that keeps its transaction open, under the strictest isolation, keeps no other writer waiting.
	open := w.open(2, strange)
	hold, err := open.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelSerializable})
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Rollback()
	for range 3 {
		if _, err := hold.ExecContext(t.Context(), `INSERT INTO notes (writer) VALUES (100), (100)`); err != nil {
			t.Fatal(err)
		}
		w.Stranger(`SET innodb_lock_wait_timeout = 1; INSERT INTO notes (writer) VALUES (200), (200); UPDATE items SET value = value + 1`)
	}
	value := 3
	ps[0].Want(1, value)
	w.Stranger(`SET innodb_lock_wait_timeout = 1; UPDATE items SET value = 9`)
	for _, p := range ps { // and rows of before are delivered
		outboxtest.Eventually(t, func() error {
			if v, err := p.Items.Get(t.Context(), 1); err != nil || v != 9 {
				return fmt.Errorf("item 1 is %d, %w", v, err)
			}
			return nil
		})
	}
}

// TRUNCATE, and partitions that go or come, are seen, and invalidate the families of the table.
func TestTruncateIsSeen(t *testing.T) {
	w := newWorld(t)
	w.Stranger(`CREATE TABLE parts (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20));
		CREATE TABLE spare (id INT PRIMARY KEY); INSERT INTO spare VALUES (5)`)
	db := w.open(2, "")
	if err := mysql.Watch(t.Context(), db, "test", "parts", "part:{id}", "parts", "new:{id} ON INSERT"); err != nil {
		t.Fatal(err)
	}
	p := w.Process(nil)
	p.Relay(outbox.RelayConfig{})
	seen := func(statement, table string, id int) {
		t.Helper()
		settlesAny(p, id)
		w.Stranger(statement)
		outboxtest.Eventually(t, func() error {
			v, err := p.Items.Get(t.Context(), id)
			var exact int
			if scan := db.QueryRowContext(t.Context(), `SELECT value FROM items WHERE id = ?`, id).Scan(&exact); errors.Is(scan, sql.ErrNoRows) && errors.Is(err, cache.ErrNotFound) {
				return nil
			}
			return fmt.Errorf("%s: item %d is %d, %w", statement, id, v, err)
		})
	}
	seen(`TRUNCATE items`, "items", 1)
	parts := cache.Define(p.Cache, cache.Query[int, int]{
		Name: "parts:count", Key: func(id int) string { return cache.Key(id) },
		Tags: func(id int) []cache.Tag { return cache.Tags("part", id) },
		Load: func(ctx context.Context, id int) (n int, err error) {
			err = p.Read.QueryRowContext(ctx, `SELECT COUNT(*) FROM parts WHERE id = ?`, id).Scan(&n)
			return n, err
		},
		FreshFor: time.Hour,
	})
	want := func(n int) {
		t.Helper()
		outboxtest.Eventually(t, func() error {
			if got, err := parts.Get(t.Context(), 5); err != nil || got != n {
				return fmt.Errorf("%d parts, want %d, %w", got, n, err)
			}
			return nil
		})
	}
	want(0)
	for _, c := range []struct {
		statement string
		n         int
	}{{`ALTER TABLE parts EXCHANGE PARTITION p0 WITH TABLE spare`, 1}, {`ALTER TABLE parts TRUNCATE PARTITION p0`, 0}, {`INSERT INTO parts VALUES (5)`, 1}, {`ALTER TABLE parts DROP PARTITION p0`, 0}} {
		w.Stranger(c.statement)
		want(c.n)
	}
}

// settlesAny waits until an item is served from the cache.
func settlesAny(p *outboxtest.Process, id int) {
	p.World.Helper()
	outboxtest.Eventually(p.World, func() error {
		a, err := p.Items.Lookup(p.World.Context(), id)
		if err == nil && a.Status != cache.Hit {
			err = fmt.Errorf("item %d came as %v %s", id, a.Status, a.Detail)
		}
		return err
	})
}

// Without the privilege that it takes to see TRUNCATE, Check and the log say so, and all else works.
func TestWithoutThePrivilegeToSeeTruncate(t *testing.T) {
	server := testservers.SharedMariaDB(t)
	f := &file{T: t, server: server, name: server.Database(t)}
	admin := open(t, server, f.name, 1, strange)
	user := strings.ReplaceAll(f.name, "test_", "u")[:20]
	if _, err := admin.ExecContext(t.Context(), fmt.Sprintf(`CREATE USER %s@'127.0.0.1'; GRANT ALL ON %s.* TO %[1]s@'127.0.0.1'`, user, f.name)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := admin.ExecContext(context.WithoutCancel(t.Context()), `DROP USER `+user+`@'127.0.0.1'`); err != nil {
			t.Error(err)
		}
	}()
	cfg, err := driver.ParseDSN(server.DSN(f.name))
	if err != nil {
		t.Fatal(err)
	}
	cfg.User, cfg.MultiStatements = user, true
	connector, err := driver.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.pool = sql.OpenDB(connector)
	defer f.pool.Close()
	f.stranger = f.pool
	if err := mysql.Apply(t.Context(), f.pool); err != nil {
		t.Fatal(err)
	}
	f.exec(`CREATE TABLE lessons (id INT PRIMARY KEY)`)
	f.watch("test", "lessons", "lesson:{id}")
	f.records(`INSERT INTO lessons VALUES (1)`, "lesson:1")
	f.findings("cache_table_ids: fails, so TRUNCATE of a watched table is not seen")

	var said atomic.Int64
	f.log = mysql.NewLog(f.pool, slog.New(&counting{n: &said}))
	f.join(consumer, true)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
		if err := f.log.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		cancel()
	}
	if said.Load() != 1 {
		t.Errorf("it was said %d times", said.Load())
	}

	// A writer needs no rights on the outbox: triggers run with those of the account that made them.
	if _, err := admin.ExecContext(t.Context(), fmt.Sprintf(`REVOKE ALL ON %s.* FROM %s@'127.0.0.1'; GRANT INSERT ON %[1]s.lessons TO %[2]s@'127.0.0.1'`, f.name, user)); err != nil {
		t.Fatal(err)
	}
}

// counting is a log handler that counts warnings.
type counting struct {
	slog.Handler
	n *atomic.Int64
}

func (c *counting) Enabled(context.Context, slog.Level) bool  { return true }
func (c *counting) Handle(context.Context, slog.Record) error { c.n.Add(1); return nil }
func (c *counting) WithAttrs([]slog.Attr) slog.Handler        { return c }

// A statement that commits by itself is noticed, and what it had touched is delivered.
func TestImplicitCommits(t *testing.T) {
	for _, statement := range []string{`CREATE TABLE other (id INT)`, `ALTER TABLE items ADD COLUMN more INT`, `LOCK TABLES items WRITE`, `START TRANSACTION`, `COMMIT`, `tx.Commit`, `CREATE INDEX value ON items (value)`, `TRUNCATE items`} {
		for _, result := range []error{nil, outboxtest.ErrInjected} {
			if statement == `tx.Commit` && result != nil {
				continue // what fn has ended itself, and says so, it may have rolled back
			}
			t.Run(fmt.Sprint(statement, " ", result), func(t *testing.T) {
				w := newWorld(t)
				p := w.Process(nil)
				p.Relay(outbox.RelayConfig{})
				p.Warm(0, 1, 2)
				err := p.DB(outbox.Options{}).Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
					if err := outboxtest.Set(1, 1)(ctx, tx); err != nil {
						return err
					}
					if statement == `tx.Commit` {
						return tx.Commit()
					}
					_, err := tx.ExecContext(ctx, statement)
					if err == nil && statement == `LOCK TABLES items WRITE` {
						_, err = tx.ExecContext(ctx, `UNLOCK TABLES`)
					}
					return errors.Join(err, result)
				})
				if !errors.Is(err, mysql.ErrImplicitCommit) || !errors.Is(err, outbox.ErrUnknownOutcome) || !errors.Is(err, result) && result != nil {
					t.Errorf("error %v, want ErrImplicitCommit", err)
				}
				if statement == `TRUNCATE items` {
					outboxtest.Eventually(t, func() error {
						if _, err := p.Items.Get(t.Context(), 1); !errors.Is(err, cache.ErrNotFound) {
							return fmt.Errorf("want no item 1: %w", err)
						}
						return nil
					})
					return
				}
				p.Settles(1, 1)
				if err := p.DB(outbox.Options{}).Write(t.Context(), outboxtest.Set(2, 1)); err != nil { // the pool is in order
					t.Fatal(err)
				}
				p.Want(1, 2)
			})
		}
	}
}

// The server is killed, or does not answer, while it commits: the outcome is unknown, and whatever
// it is, readers see it.
func TestServerIsLostInCommit(t *testing.T) {
	for _, c := range []struct {
		name         string
		break_, mend func(s *testservers.MariaDB) error
	}{
		{"killed", (*testservers.MariaDB).Kill, func(s *testservers.MariaDB) error { return s.Restart(t.Context()) }},
		{"frozen", (*testservers.MariaDB).Freeze, (*testservers.MariaDB).Thaw},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := alone(t, nil)
			p := w.Process(func(cfg *cache.Config) { cfg.FenceLease = 3 * time.Second })
			p.Warm(0, 1)
			tx := &outboxtest.Spy{Tx: p.Begin(outboxtest.Set(1, 1)), OnCommit: func(ctx context.Context, commit func(context.Context) error) error {
				if err := c.break_(w.server); err != nil {
					t.Error(err)
				}
				ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond) // of the 30 seconds that Commit waits
				defer cancel()
				return commit(ctx)
			}}
			began := time.Now()
			err := outbox.Commit(t.Context(), p.Cache, tx, outbox.Options{})
			if !errors.Is(err, outbox.ErrUnknownOutcome) {
				t.Errorf("error %v, want ErrUnknownOutcome", err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if err := c.mend(w.server); err != nil {
				t.Fatal(err)
			}
			// The COMMIT of a server that was frozen arrives when it thaws.
			p.Relay(outbox.RelayConfig{})
			outboxtest.Eventually(t, func() error {
				a, err := p.Items.Lookup(t.Context(), 1)
				if err != nil {
					return err
				}
				value, err := p.Load(t.Context(), 1)
				if err != nil || a.Value != value || a.Status != cache.Hit {
					return fmt.Errorf("item 1 is %d (%v %s) and %d in the database, %w", a.Value, a.Status, a.Detail, value, err)
				}
				return nil
			})
			if err := p.DB(outbox.Options{}).Write(t.Context(), outboxtest.Set(7, 1)); err != nil {
				t.Fatal(err)
			}
			p.Want(1, 7)
		})
	}
}

// A transaction whose process was silent for longer than a part of the lease is gone before its fence is:
// its COMMIT cannot take effect after it.
func TestTheServerEndsASilentTransaction(t *testing.T) {
	w := newWorld(t)
	p := w.Process(func(cfg *cache.Config) { cfg.FenceLease = 3 * time.Second })
	tx := p.Begin(outboxtest.Set(1, 1))
	if _, err := tx.Touched(t.Context()); err != nil {
		t.Fatal(err)
	}
	admin := w.open(1, "")
	outboxtest.Eventually(t, func() error {
		var n int
		if err := admin.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id WHERE p.db = ?`, w.name).Scan(&n); err != nil || n > 0 {
			return fmt.Errorf("%d transactions, %w", n, err)
		}
		return nil
	})
	if err := tx.Commit(t.Context()); err == nil {
		t.Error("it committed")
	}
	if value, err := p.Load(t.Context(), 1); err != nil || value != 0 {
		t.Errorf("the item is %d, %v", value, err)
	}
	// The connections of the pool have their own limit again.
	if err := p.DB(outbox.Options{}).Write(t.Context(), outboxtest.Set(2, 1)); err != nil {
		t.Fatal(err)
	}
	var limit, global int
	var mark []byte
	p.Read.SetMaxOpenConns(1)
	if err := p.Read.QueryRowContext(t.Context(), `SELECT @@SESSION.wait_timeout, @@GLOBAL.wait_timeout, @cache_mark`).Scan(&limit, &global, &mark); err != nil || limit != global || mark != nil {
		t.Errorf("wait_timeout is %d, the server's is %d, the mark is %x, %v", limit, global, mark, err)
	}
}

// What a shell writes is read within a quarter of a second, on a machine that has the time.
func TestShellsWritesAreSeenSoon(t *testing.T) {
	w := newWorld(t)
	f := &file{T: t, server: w.server, name: w.name}
	p := w.Process(nil)
	p.Relay(outbox.RelayConfig{})
	p.Warm(0, 1, 2)
	for value := 1; value <= 3; value++ {
		if err := f.shell(fmt.Sprintf(`UPDATE items SET value = %d WHERE id = 1`, value)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		p.Settles(value, 1)
		t.Logf("seen %v after the shell had ended", time.Since(began).Round(time.Millisecond))
	}
	p.WantAs(2, 0, cache.Hit, "")
}

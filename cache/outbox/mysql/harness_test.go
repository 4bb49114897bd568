package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/mysql"
	"github.com/chainlearn/chainlearn/cache/storetest"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// repairTime is far more than a relay takes, and less than the leases of the tests that
// depend on it.
const repairTime = 20 * time.Second

// world is a database, a shared tier, and the processes that use both.
type world struct {
	t      testing.TB
	server *testservers.MariaDB
	name   string // of the database
	shared *storetest.Faulty
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, server: testservers.SharedMariaDB(t)}
	w.name = w.server.Database(t)
	w.fill()
	return w
}

// fill makes the tables and the shared tier.
func (w *world) fill() {
	t := w.t
	w.shared = storetest.NewFaulty(memstore.New(memstore.Config{MaxBytes: 16 << 20, MaxTags: 100_000}))
	t.Cleanup(func() { w.shared.Close() })
	db := w.open(1, "")
	if err := mysql.Apply(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	w.stranger(`CREATE TABLE items (id INT PRIMARY KEY, value INT NOT NULL); INSERT INTO items VALUES (1, 0), (2, 0), (3, 0)`)
	if err := mysql.Watch(t.Context(), db, "test", "items", "item:{id}"); err != nil {
		t.Fatal(err)
	}
}

// open opens connections to the database, as any program may.
func (w *world) open(size int, params string) *sql.DB {
	w.t.Helper()
	return open(w.t, w.server, w.name, size, params)
}

func open(t testing.TB, server *testservers.MariaDB, name string, size int, params string) *sql.DB {
	t.Helper()
	cfg, err := driver.ParseDSN(server.DSN(name))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = &driver.NopLogger{}
	dsn := cfg.FormatDSN()
	if params != "" {
		dsn += "&" + params
	}
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	t.Cleanup(func() { db.Close() })
	return db
}

// strange are the options of a connection that runs several statements at once.
const strange = "multiStatements=true&interpolateParams=true"

// stranger runs a statement as a program that knows nothing of caches.
func (w *world) stranger(statement string, args ...any) {
	w.t.Helper()
	db := w.open(1, strange)
	defer db.Close()
	if _, err := db.ExecContext(w.t.Context(), statement, args...); err != nil {
		w.t.Fatal(err)
	}
}

// rows of the outbox.
func (w *world) rows() (n int) {
	w.t.Helper()
	db := w.open(1, "")
	defer db.Close()
	if err := db.QueryRowContext(w.t.Context(), `SELECT count(*) FROM cache_outbox`).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// process is one of the processes, with all of its own.
type process struct {
	*cache.Cache
	w      *world
	store  *storetest.Faulty
	counts *counts
	pool   *sql.DB
	log    *mysql.Log
	items  *cache.Cached[int, int] // id → value, fresh for an hour
}

// process starts one, without a relay. change, if not nil, sees its cache's configuration.
func (w *world) process(change func(*cache.Config)) *process {
	w.t.Helper()
	p := &process{w: w, store: w.shared.Peer(), counts: &counts{}}
	p.pool = w.open(8, "")
	p.log = mysql.NewLog(p.pool, nil)
	cfg := cache.Config{Store: p.store, Observer: p.counts, StoreTimeout: time.Second}
	if change != nil {
		change(&cfg)
	}
	var err error
	if p.Cache, err = cache.New(cfg); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			w.t.Error(err)
		}
		p.store.Close()
	})
	// The store takes part in the outbox, whether or not a test has a relay deliver to it.
	joined, _, err := p.log.Join(w.t.Context(), p.name())
	if err != nil {
		w.t.Fatal(err)
	}
	if joined {
		w.stranger(`DELETE FROM cache_outbox WHERE tag = '*'`)
	}
	p.items = cache.Define(p.Cache, cache.Query[int, int]{
		Name:     "items:one",
		Key:      func(id int) string { return cache.Key(id) },
		Tags:     func(id int) []cache.Tag { return cache.Tags("item", id) },
		Load:     p.load,
		FreshFor: time.Hour,
	})
	return p
}

func itemTag(id int) cache.Tag { return cache.T("item", id) }

// name of the process's store.
func (p *process) name() string {
	p.w.t.Helper()
	name, err := p.StoreName(p.w.t.Context())
	if err != nil {
		p.w.t.Fatal(err)
	}
	return name
}

func (p *process) load(ctx context.Context, id int) (value int, err error) {
	err = p.pool.QueryRowContext(ctx, `SELECT value FROM items WHERE id = ?`, id).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		err = cache.ErrNotFound
	}
	return value, err
}

// relay starts one, for as long as the test lasts.
func (p *process) relay(cfg outbox.RelayConfig) *outbox.Relay {
	p.w.t.Helper()
	r, err := outbox.NewRelay(p.Cache, p.log, cfg)
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.w.t.Cleanup(func() {
		if err := r.Close(); err != nil {
			p.w.t.Error(err)
		}
	})
	r.Start()
	return r
}

// db writes through the protocol.
func (p *process) db(o outbox.Options) *mysql.DB { return mysql.NewDB(p.log, p.Cache, o) }

// set returns a transaction that gives items a value.
func set(value int, ids ...int) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, `UPDATE items SET value = ? WHERE id = ?`, value, id); err != nil {
				return err
			}
		}
		return nil
	}
}

// begin returns an open transaction that has run fn.
func (p *process) begin(fn func(context.Context, *sql.Tx) error) *mysql.Tx {
	p.w.t.Helper()
	tx, err := p.log.Begin(p.w.t.Context(), outbox.NewMark(p.name()), p.FenceLease(), nil)
	if err != nil {
		p.w.t.Fatal(err)
	}
	if err := fn(p.w.t.Context(), tx.SQL()); err != nil {
		p.w.t.Fatal(err)
	}
	return tx
}

// want asks for an item, which must have a value.
func (p *process) want(id, value int) cache.Answer[int] {
	p.w.t.Helper()
	a, err := p.items.Lookup(p.w.t.Context(), id)
	if err != nil {
		p.w.t.Fatal(err)
	}
	if a.Value != value {
		p.w.t.Fatalf("item %d is %d (%v %s), want %d", id, a.Value, a.Status, a.Detail, value)
	}
	return a
}

// wantAs asks for an item, which must have a value and come in a certain way.
func (p *process) wantAs(id, value int, status cache.Status, detail string) {
	p.w.t.Helper()
	if a := p.want(id, value); a.Status != status || a.Detail != detail {
		p.w.t.Fatalf("item %d came as %v %q, want %v %q", id, a.Status, a.Detail, status, detail)
	}
}

// warm makes a hit of items that have a value, as soon as a relay that has just been started has
// drained the outbox.
func (p *process) warm(value int, ids ...int) {
	p.w.t.Helper()
	for _, id := range ids {
		eventually(p.w.t, func() error {
			if a := p.want(id, value); a.Status != cache.Hit {
				return fmt.Errorf("item %d came as %v %s", id, a.Status, a.Detail)
			}
			return nil
		})
	}
}

// ends rolls a transaction back, as the database does when its connection is gone.
func ends(t *testing.T, tx outbox.Tx) {
	t.Helper()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// settles waits until items are served from the cache again, with a value, and the outbox
// is empty. Whatever comes before is for the caller to judge.
func (p *process) settles(value int, ids ...int) {
	p.w.t.Helper()
	eventually(p.w.t, func() error {
		for _, id := range ids {
			a, err := p.items.Lookup(p.w.t.Context(), id)
			if err != nil {
				return err
			}
			if a.Value != value || a.Status != cache.Hit {
				return fmt.Errorf("item %d is %d (%v %s), want a hit of %d", id, a.Value, a.Status, a.Detail, value)
			}
		}
		if n := p.w.rows(); n != 0 {
			return fmt.Errorf("%d rows in the outbox", n)
		}
		return nil
	})
}

// eventually waits until check returns nil.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(repairTime)
	for err := check(); err != nil; err = check() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("after %v: %v", repairTime, err)
		}
	}
}

// counts counts what a cache does, and what was delivered from the outbox.
type counts struct {
	cachetest.Counts
	mu        sync.Mutex
	delivered []outbox.Delivered // guarded by mu
}

func (c *counts) Observe(ctx context.Context, e cache.Event) {
	c.Counts.Observe(ctx, e)
	if d, ok := e.(outbox.Delivered); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.delivered = append(c.delivered, d)
	}
}

// rows returns how many were delivered.
func (c *counts) rows(by string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.delivered {
		if d.By == by {
			n += d.Rows
		}
	}
	return n
}

// deliveries returns how many delays were measured.
func (c *counts) deliveries(by string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.delivered {
		if d.By == by {
			n += len(d.Delays)
		}
	}
	return n
}

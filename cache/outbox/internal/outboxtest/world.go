// Package outboxtest tests what an adapter of an outbox promises: each test is run for each
// database, with a shared tier in process that fails when a test wants it to.
package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// RepairTime is far more than a relay takes, and less than the leases of the tests that
// depend on it.
const RepairTime = 20 * time.Second

// Adapter is what the tests have to know of an adapter and its database.
type Adapter struct {
	// Create makes a database with what the adapter needs in it, and opens programs' connections.
	Create func(t testing.TB) Database
	// ErrNoRelay is what a write returns that no relay would deliver.
	ErrNoRelay error
	LateFence  LateFence

	Upsert  string // after INSERT … VALUES: what becomes of a row that exists, without the assignment
	Record  string // a statement that records a tag, with %s in its place
	Ignore  string // of INSERT and UPDATE: a row that cannot be changed is left alone
	Lenient string // before a statement: what does not fit is stored as far as it does
	NoTags  string // a statement that puts what is no tag into the outbox, three rows
	Pages   string // a statement that creates pages, of a unique slug of any length and a number n
}

// LateFence is a lease, by how much of it a fence is late, and what a commit may take, so that
// one late fence leaves no time to commit and the database has not given up.
type LateFence struct{ Lease, Delay, CommitTime time.Duration }

// Database is one that Create has made.
type Database struct {
	// Open opens a connection, as any program may.
	Open func(t testing.TB) *sql.DB
	// Watch watches a table.
	Watch func(ctx context.Context, db *sql.DB, table string, templates ...string) error
	// Connect opens what a process writes and reads with.
	Connect func(t testing.TB) Connections
}

// Connections are those of one process.
type Connections struct {
	Read  *sql.DB
	Log   outbox.Log
	Begin func(ctx context.Context, mark driver.Mark, lease time.Duration) (Tx, error)
	DB    func(c *cache.Cache, o outbox.Options) DB
}

// Tx is a transaction of the adapter.
type Tx interface {
	outbox.Tx
	SQL() *sql.Tx
}

// DB writes through the protocol.
type DB interface {
	Write(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error
}

// World is a database, a shared tier, and the processes that use both.
type World struct {
	testing.TB
	Database
	shared *storetest.Faulty
}

// NewWorld makes one, with the items 1, 2 and 3, each of value 0 and tag item:id.
func NewWorld(t testing.TB, a Adapter) *World {
	t.Helper()
	w := &World{TB: t, Database: a.Create(t)}
	w.shared = storetest.NewFaulty(memstore.New(memstore.Config{MaxBytes: 16 << 20, MaxTags: 100_000}))
	t.Cleanup(func() { w.shared.Close() })
	w.Stranger(`CREATE TABLE items (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)`)
	w.Stranger(a.items(3, 0))
	if err := w.Watch(t.Context(), w.Open(t), "items", "item:{id}"); err != nil {
		t.Fatal(err)
	}
	return w
}

// items returns a statement that gives the first n items a value, whether or not they exist.
func (a Adapter) items(n, value int) string {
	return rowsOf(`INSERT INTO items VALUES `, fmt.Sprintf("(%%d, %d)", value), n) + fmt.Sprintf(" %s value = %d", a.Upsert, value)
}

// rowsOf returns a statement with n rows, by a format of the number of each.
func rowsOf(statement, row string, n int) string {
	var b strings.Builder
	b.WriteString(statement)
	for i := 1; i <= n; i++ {
		if i > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, row, i)
	}
	return b.String()
}

// Stranger runs a statement as a program that knows nothing of caches.
func (w *World) Stranger(statement string, args ...any) {
	w.Helper()
	db := w.Open(w)
	defer db.Close()
	if _, err := db.ExecContext(w.Context(), statement, args...); err != nil {
		w.Fatal(err)
	}
}

// Rows of the outbox.
func (w *World) Rows() (n int) {
	w.Helper()
	db := w.Open(w)
	defer db.Close()
	if err := db.QueryRowContext(w.Context(), `SELECT count(*) FROM cache_outbox`).Scan(&n); err != nil {
		w.Fatal(err)
	}
	return n
}

// Process is one of the processes, with all of its own.
type Process struct {
	*cache.Cache
	Connections
	World  *World
	Faults *storetest.Faulty // its way to the shared tier
	Counts *Counts
	Items  *cache.Cached[int, int] // id → value, fresh for an hour
}

// Process starts one, without a relay. change, if not nil, sees its cache's configuration.
func (w *World) Process(change func(*cache.Config)) *Process {
	w.Helper()
	p := &Process{Connections: w.Connect(w), World: w, Faults: w.shared.Peer(), Counts: &Counts{}}
	cfg := cache.Config{Store: p.Faults, Observer: p.Counts, StoreTimeout: time.Second}
	if change != nil {
		change(&cfg)
	}
	var err error
	if p.Cache, err = cache.New(cfg); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := p.Close(); err != nil {
			w.Error(err)
		}
		p.Faults.Close()
	})
	// The store takes part in the outbox, whether or not a test has a relay deliver to it.
	joined, _, err := p.Log.Join(w.Context(), p.Consumer())
	if err != nil {
		w.Fatal(err)
	}
	if joined {
		w.Stranger(`DELETE FROM cache_outbox WHERE tag = '*'`)
	}
	p.Items = cache.Define(p.Cache, cache.Query[int, int]{
		Name:     "items:one",
		Key:      func(id int) string { return cache.Key(id) },
		Tags:     func(id int) []cache.Tag { return cache.Tags("item", id) },
		Load:     p.Load,
		FreshFor: time.Hour,
	})
	return p
}

// ItemTag is the tag of an item.
func ItemTag(id int) cache.Tag { return cache.T("item", id) }

// Consumer is the name of the process's store.
func (p *Process) Consumer() string {
	p.World.Helper()
	name, err := p.StoreName(p.World.Context())
	if err != nil {
		p.World.Fatal(err)
	}
	return name
}

// Load reads an item from the database.
func (p *Process) Load(ctx context.Context, id int) (value int, err error) {
	err = p.Read.QueryRowContext(ctx, `SELECT value FROM items WHERE id = ?`, id).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		err = cache.ErrNotFound
	}
	return value, err
}

// Relay starts one, for as long as the test lasts.
func (p *Process) Relay(cfg outbox.RelayConfig) *outbox.Relay {
	p.World.Helper()
	r, err := outbox.NewRelay(p.Cache, p.Log, cfg)
	if err != nil {
		p.World.Fatal(err)
	}
	p.World.Cleanup(func() {
		if err := r.Close(); err != nil {
			p.World.Error(err)
		}
	})
	r.Start()
	return r
}

// DB writes through the protocol.
func (p *Process) DB(o outbox.Options) DB { return p.Connections.DB(p.Cache, o) }

// Set returns a transaction that gives items a value.
func Set(value int, ids ...int) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, `UPDATE items SET value = ? WHERE id = ?`, value, id); err != nil {
				return err
			}
		}
		return nil
	}
}

// Begin returns an open transaction that has run fn.
func (p *Process) Begin(fn func(context.Context, *sql.Tx) error) Tx {
	p.World.Helper()
	tx, err := p.Connections.Begin(p.World.Context(), outbox.NewMark(p.Consumer()), p.FenceLease())
	if err != nil {
		p.World.Fatal(err)
	}
	if err := fn(p.World.Context(), tx.SQL()); err != nil {
		p.World.Fatal(err)
	}
	return tx
}

// Want asks for an item, which must have a value.
func (p *Process) Want(id, value int) cache.Answer[int] {
	p.World.Helper()
	a, err := p.Items.Lookup(p.World.Context(), id)
	if err != nil {
		p.World.Fatal(err)
	}
	if a.Value != value {
		p.World.Fatalf("item %d is %d (%v %s), want %d", id, a.Value, a.Status, a.Detail, value)
	}
	return a
}

// WantAs asks for an item, which must have a value and come in a certain way.
func (p *Process) WantAs(id, value int, status cache.Status, detail string) {
	p.World.Helper()
	if a := p.Want(id, value); a.Status != status || a.Detail != detail {
		p.World.Fatalf("item %d came as %v %q, want %v %q", id, a.Status, a.Detail, status, detail)
	}
}

// Warm makes a hit of items that have a value, as soon as a relay that has just been started has
// drained the outbox.
func (p *Process) Warm(value int, ids ...int) {
	p.World.Helper()
	for _, id := range ids {
		Eventually(p.World, func() error {
			if a := p.Want(id, value); a.Status != cache.Hit {
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

// Settles waits until items are served from the cache again, with a value, and the outbox
// is empty. Whatever comes before is for the caller to judge.
func (p *Process) Settles(value int, ids ...int) {
	p.World.Helper()
	Eventually(p.World, func() error {
		for _, id := range ids {
			a, err := p.Items.Lookup(p.World.Context(), id)
			if err != nil {
				return err
			}
			if a.Value != value || a.Status != cache.Hit {
				return fmt.Errorf("item %d is %d (%v %s), want a hit of %d", id, a.Value, a.Status, a.Detail, value)
			}
		}
		if n := p.World.Rows(); n != 0 {
			return fmt.Errorf("%d rows in the outbox", n)
		}
		return nil
	})
}

// Eventually waits until check returns nil.
func Eventually(t testing.TB, check func() error) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(RepairTime)
	for err := check(); err != nil; err = check() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("after %v: %v", RepairTime, err)
		}
	}
}

// Counts counts what a cache does, and what was delivered from the outbox.
type Counts struct {
	cachetest.Counts
	mu        sync.Mutex
	delivered []outbox.Delivered // guarded by mu
}

func (c *Counts) Observe(ctx context.Context, e cache.Event) {
	c.Counts.Observe(ctx, e)
	if d, ok := e.(outbox.Delivered); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.delivered = append(c.delivered, d)
	}
}

// Rows returns how many were delivered.
func (c *Counts) Rows(by string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.delivered {
		if d.By == by {
			n += d.Rows
		}
	}
	return n
}

// Deliveries returns how many delays were measured.
func (c *Counts) Deliveries(by string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.delivered {
		if d.By == by {
			n += len(d.Delays)
		}
	}
	return n
}

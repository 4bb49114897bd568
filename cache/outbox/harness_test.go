package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	outboxsqlite "github.com/chainlearn/chainlearn/cache/outbox/sqlite"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// repairTime is far more than a relay takes, and less than the leases of the tests that
// depend on it.
const repairTime = 20 * time.Second

// world is a database file, a shared tier, and the processes that use both.
type world struct {
	t      *testing.T
	path   string
	shared *storetest.Faulty
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, path: filepath.Join(t.TempDir(), "world.db")}
	w.shared = storetest.NewFaulty(memstore.New(memstore.Config{MaxBytes: 16 << 20, MaxTags: 100_000}))
	t.Cleanup(func() { w.shared.Close() })
	db := w.open(1, "&_txlock=immediate&_journal_mode=WAL")
	for _, statement := range []string{outboxsqlite.Schema, `
CREATE TABLE items (id INTEGER PRIMARY KEY, value INTEGER NOT NULL);
CREATE TRIGGER items_insert AFTER INSERT ON items BEGIN INSERT INTO cache_touch VALUES ('item:' || new.id); END;
CREATE TRIGGER items_update AFTER UPDATE ON items BEGIN INSERT INTO cache_touch VALUES ('item:' || new.id); END;
CREATE TRIGGER items_delete AFTER DELETE ON items BEGIN INSERT INTO cache_touch VALUES ('item:' || old.id); END;
INSERT INTO items VALUES (1, 0), (2, 0), (3, 0);
DELETE FROM cache_outbox`} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// open opens connections to the database, as any program may.
func (w *world) open(size int, params string) *sql.DB {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+w.path+"?_busy_timeout=10000"+params)
	if err != nil {
		w.t.Fatal(err)
	}
	db.SetMaxOpenConns(size)
	w.t.Cleanup(func() { db.Close() })
	return db
}

// stranger runs a statement as a program that knows nothing of caches.
func (w *world) stranger(statement string, args ...any) {
	w.t.Helper()
	db := w.open(1, "")
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
	w           *world
	store       *storetest.Faulty
	metrics     *prometheus.Registry
	read, write *sql.DB
	log         *outboxsqlite.Log
	items       *cache.Cached[int, int] // id → value, fresh for an hour
}

// process starts one, without a relay. change, if not nil, sees its cache's configuration.
func (w *world) process(change func(*cache.Config)) *process {
	w.t.Helper()
	p := &process{w: w, store: w.shared.Peer(), metrics: prometheus.NewRegistry()}
	p.read, p.write = w.open(8, ""), w.open(1, "&_txlock=immediate")
	p.log = outboxsqlite.NewLog(p.read, p.write)
	cfg := cache.Config{Store: p.store, Registerer: p.metrics, StoreTimeout: time.Second}
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
	p.items = cache.Define(p.Cache, cache.Query[int, int]{
		Name:  "items:one",
		Key:   func(id int) string { return cache.Key(id) },
		Tags:  func(id int) []cache.Tag { return []cache.Tag{itemTag(id), itemTag(id).Family()} },
		Load:  p.load,
		Fresh: time.Hour,
	})
	return p
}

func itemTag(id int) cache.Tag { return cache.Tag(fmt.Sprintf("item:%d", id)) }

func (p *process) load(ctx context.Context, id int) (value int, err error) {
	err = p.read.QueryRowContext(ctx, `SELECT value FROM items WHERE id = ?`, id).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		err = cache.ErrNotFound
	}
	return value, err
}

// relay starts one, for as long as the test lasts.
func (p *process) relay(cfg outbox.RelayConfig) *outbox.Relay {
	p.w.t.Helper()
	cfg.Registerer = p.metrics
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
func (p *process) db(o outbox.Options) *outboxsqlite.DB { return outboxsqlite.NewDB(p.log, p.Cache, o) }

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
func (p *process) begin(fn func(context.Context, *sql.Tx) error) *outboxsqlite.Tx {
	p.w.t.Helper()
	tx, err := p.log.Begin(p.w.t.Context())
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
	a, err := p.items.Ask(p.w.t.Context(), id)
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

// warm makes a hit of items that have a value.
func (p *process) warm(value int, ids ...int) {
	p.w.t.Helper()
	for _, id := range ids {
		p.want(id, value)
		p.wantAs(id, value, cache.Hit, "")
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
			a, err := p.items.Ask(p.w.t.Context(), id)
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
func eventually(t *testing.T, check func() error) {
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

// count returns the value of a metric, summed over its labels, or of one label.
func (p *process) count(name string, label ...string) float64 {
	p.w.t.Helper()
	families, err := p.metrics.Gather()
	if err != nil {
		p.w.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(label) == 0 || len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label[0] {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

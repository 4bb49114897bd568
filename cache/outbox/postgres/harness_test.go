package postgres

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testservers.Main(m)) }

// database returns the URL of a database with an outbox and what the statements make.
func database(tb testing.TB, statements ...string) string {
	tb.Helper()
	url := testservers.SharedPostgres(tb).Database(tb)
	prepare(tb, url, statements...)
	return url
}

func prepare(tb testing.TB, url string, statements ...string) {
	tb.Helper()
	conn := connect(tb, url)
	defer conn.Close(context.Background())
	run(tb, conn, append([]string{Migration()}, statements...)...)
}

func connect(tb testing.TB, url string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), url)
	testservers.Must(tb, err)
	tb.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func pool(tb testing.TB, url string) *pgxpool.Pool {
	tb.Helper()
	p, err := pgxpool.New(tb.Context(), url)
	testservers.Must(tb, err)
	tb.Cleanup(p.Close)
	return p
}

func run(tb testing.TB, db Execer, statements ...string) {
	tb.Helper()
	for _, s := range statements {
		if _, err := db.Exec(tb.Context(), s); err != nil {
			tb.Fatalf("%s: %v", s, err)
		}
	}
}

func ask[T any](tb testing.TB, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, query string, args ...any) (v T) {
	tb.Helper()
	if err := db.QueryRow(tb.Context(), query, args...).Scan(&v); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	return v
}

// taken empties the outbox and returns its tags, sorted, repeated where there are several rows.
func taken(tb testing.TB, conn *pgx.Conn) []string {
	tb.Helper()
	rows, err := conn.Query(tb.Context(), `DELETE FROM cache_outbox RETURNING tag`)
	testservers.Must(tb, err)
	tags, err := pgx.CollectRows(rows, pgx.RowTo[string])
	testservers.Must(tb, err)
	slices.Sort(tags)
	return tags
}

// items is a table whose rows answers are computed from; there are two.
var items = []string{
	`CREATE TABLE items (id int PRIMARY KEY, value int NOT NULL DEFAULT 0)`,
	`INSERT INTO items VALUES (1), (2)`,
	`SELECT cache_watch('test', 'items', 'item:{id}')`,
}

func itemTag(id string) cache.Tag { return cache.T("item", id) }

// process is a program with a cache, a relay and a query, in front of a database with items.
type process struct {
	pool  *pgxpool.Pool
	log   *Log
	relay *outbox.Relay
	db    *DB
	value *cache.Cached[string, int]
}

// newProcess starts a process whose cache is its own unless store is given.
func newProcess(tb testing.TB, pool *pgxpool.Pool, store driver.Store, relay outbox.RelayConfig, cfg Config) *process {
	tb.Helper()
	return newProcessWithLease(tb, pool, store, relay, cfg, 0)
}

func newProcessWithLease(tb testing.TB, pool *pgxpool.Pool, store driver.Store, relay outbox.RelayConfig, cfg Config, lease time.Duration) *process {
	tb.Helper()
	if store == nil {
		mem := memstore.New(memstore.Config{})
		tb.Cleanup(func() { testservers.Must(tb, mem.Close()) })
		store = mem
	}
	c, err := cache.New(cache.Config{Store: store, StoreTimeout: time.Second, FenceLease: lease})
	testservers.Must(tb, err)
	tb.Cleanup(func() { testservers.Must(tb, c.Close()) })
	p := &process{pool: pool}
	p.log = NewLog(p.pool, nil)
	tb.Cleanup(func() { testservers.Must(tb, p.log.Close()) })
	p.relay, err = outbox.NewRelay(c, p.log, relay)
	testservers.Must(tb, err)
	tb.Cleanup(func() { testservers.Must(tb, p.relay.Close()) })
	// The first drain uses connections of the pool, which tests count and cut.
	serving, cancel := context.WithTimeout(tb.Context(), 20*time.Second)
	defer cancel()
	testservers.Must(tb, c.WaitServing(serving))
	cfg.Relay = p.relay
	p.db, err = NewDB(p.log, c, cfg)
	testservers.Must(tb, err)
	p.value = cache.Define(c, cache.Query[string, int]{
		Name: "items:value", FreshFor: time.Hour,
		Key:  func(id string) string { return id },
		Tags: func(id string) []cache.Tag { return []cache.Tag{itemTag(id)} },
		Load: func(ctx context.Context, id string) (value int, err error) {
			err = p.pool.QueryRow(ctx, `SELECT value FROM items WHERE id = $1::text::int`, id).Scan(&value)
			return value, err
		},
	})
	return p
}

func (p *process) get(tb testing.TB, id string) int {
	tb.Helper()
	v, err := p.value.Get(tb.Context(), id)
	testservers.Must(tb, err)
	return v
}

// warm makes sure that the answer is served from the cache.
func (p *process) warm(tb testing.TB, id string, value int) {
	tb.Helper()
	testservers.Eventually(tb, 10*time.Second, func() (bool, string) {
		a, err := p.value.Lookup(tb.Context(), id)
		testservers.Must(tb, err)
		return a.Status == cache.Hit && a.Value == value, "not yet a hit: " + a.Status.String()
	})
}

func set(id string, value int) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE items SET value = $2 WHERE id = $1::text::int`, id, value)
		return err
	}
}

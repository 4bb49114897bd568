package sqldbtest

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gosqldriver "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/mysql"
	"github.com/chainlearn/chainlearn/cache/outbox/sqldb"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// GORM keeps a goroutine for each cache of prepared statements, for good.
func TestMain(m *testing.M) {
	_ = gosqldriver.SetLogger(&gosqldriver.NopLogger{}) // tests cut connections
	goleak.VerifyTestMain(testservers.Main(m), goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"))
}

// eachDriver runs test with each driver, by the name that it is registered with.
func eachDriver(t *testing.T, test func(t *testing.T, driver string)) {
	t.Parallel()
	for _, name := range []string{"pgx", "postgres"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, name)
		})
	}
}

// items is a table whose rows answers are computed from; there are two.
var items = []string{
	`CREATE TABLE items (id int PRIMARY KEY, value int NOT NULL DEFAULT 0)`,
	`INSERT INTO items (id) VALUES (1), (2)`,
	`SELECT cache_watch('test', 'items', 'item:{id}')`,
}

// database returns the URL of a database with an outbox and what the statements make.
func database(tb testing.TB, statements ...string) string {
	tb.Helper()
	url := testservers.SharedPostgres(tb).Database(tb)
	run(tb, plain(tb, url), append([]string{sqldb.Migration()}, statements...)...)
	return url
}

// mariaDatabase returns the name of the data source of such a database in MariaDB.
func mariaDatabase(tb testing.TB, statements ...string) string {
	tb.Helper()
	server := testservers.SharedMariaDB(tb)
	dsn := server.DSN(server.Database(tb))
	db := plain(tb, dsn)
	testservers.Must(tb, mysql.Apply(tb.Context(), db))
	run(tb, db, append(items[:2:2], statements...)...)
	testservers.Must(tb, mysql.Watch(tb.Context(), db, "test", "items", "item:{id}"))
	return dsn
}

func isMaria(url string) bool { return !strings.HasPrefix(url, "postgres") }

// plain opens a database without the wrapper, as another program does.
func plain(tb testing.TB, url string) *sql.DB {
	tb.Helper()
	driver := "pgx"
	if isMaria(url) {
		driver = "mysql"
	}
	db, err := sql.Open(driver, url)
	testservers.Must(tb, err)
	tb.Cleanup(func() { testservers.Must(tb, db.Close()) })
	return db
}

func run(tb testing.TB, db sqldb.Conn, statements ...string) {
	tb.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(tb.Context(), s); err != nil {
			tb.Fatalf("%s: %v", s, err)
		}
	}
}

func ask[T any](tb testing.TB, db interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, query string, args ...any) (v T) {
	tb.Helper()
	if err := db.QueryRowContext(tb.Context(), query, args...).Scan(&v); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	return v
}

// process is a program with a cache and a wrapped database.
type process struct {
	plain  *sql.DB
	db     *sqldb.DB
	cache  *cache.Cache
	counts *counts
	value  *cache.Cached[int, int]
}

// counts counts what is undelivered, too.
type counts struct {
	cachetest.Counts
	undelivered atomic.Int64
}

func (c *counts) Observe(ctx context.Context, e cache.Event) {
	if _, ok := e.(outbox.Undelivered); ok {
		c.undelivered.Add(1)
	}
	c.Counts.Observe(ctx, e)
}

type options struct {
	driver   string
	url      string
	plainURL string       // of the same database without a proxy; default url
	via      string       // address of a proxy that the wrapped database is reached through
	store    driver.Store // shared with other processes, if given
	lease    time.Duration
	cfg      sqldb.Config
	passive  bool // the relay delivers only when it is asked to
}

func start(tb testing.TB, o options) *process {
	tb.Helper()
	p := startUnserved(tb, o)
	p.waitServing(tb)
	return p
}

func (p *process) waitServing(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 20*time.Second)
	defer cancel()
	testservers.Must(tb, p.cache.WaitServing(ctx))
}

// startUnserved starts a process that may serve nothing stored yet.
func startUnserved(tb testing.TB, o options) *process {
	tb.Helper()
	if o.store == nil {
		mem := memstore.New(memstore.Config{})
		tb.Cleanup(func() { testservers.Must(tb, mem.Close()) })
		o.store = mem
	}
	p := &process{plain: plain(tb, cmp.Or(o.plainURL, o.url)), counts: &counts{}}
	var err error
	p.cache, err = cache.New(cache.Config{Store: o.store, StoreTimeout: time.Second, FenceLease: o.lease, Observer: p.counts})
	testservers.Must(tb, err)
	tb.Cleanup(func() { testservers.Must(tb, p.cache.Close()) })
	url := o.url
	one := `SELECT value FROM items WHERE id = $1`
	addr := func() string { return testservers.SharedPostgres(tb).Addr() }
	if isMaria(url) {
		o.driver, o.cfg.Dialect, one = "mysql", mysql.Dialect, `SELECT value FROM items WHERE id = ?`
		addr = func() string { return testservers.SharedMariaDB(tb).Addr() }
	}
	if o.via != "" {
		url = strings.Replace(url, addr(), o.via, 1)
	}
	o.driver = cmp.Or(o.driver, "pgx")
	if o.passive {
		connector, err := sqldb.Connector(o.driver, url)
		testservers.Must(tb, err)
		var log outbox.Log = mysql.NewLog(p.plain, nil)
		if !isMaria(url) {
			l := sqldb.NewLog(connector)
			tb.Cleanup(func() { testservers.Must(tb, l.Close()) })
			log = l
		}
		o.cfg.Relay, err = outbox.NewRelay(p.cache, log, outbox.RelayConfig{})
		testservers.Must(tb, err)
		tb.Cleanup(func() { testservers.Must(tb, o.cfg.Relay.Close()) })
	}
	p.db, err = sqldb.Open(o.driver, url, p.cache, o.cfg)
	testservers.Must(tb, err)
	tb.Cleanup(func() { testservers.Must(tb, p.db.Close()) })
	p.value = cache.Define(p.cache, cache.Query[int, int]{
		Name: "items:value", FreshFor: time.Hour,
		Tags: func(id int) []cache.Tag { return cache.Tags("item", id) },
		Load: func(ctx context.Context, id int) (value int, err error) {
			err = p.plain.QueryRowContext(ctx, one, id).Scan(&value)
			if errors.Is(err, sql.ErrNoRows) {
				return -1, nil
			}
			return value, err
		},
	})
	return p
}

func (p *process) get(tb testing.TB, id int) int {
	tb.Helper()
	v, err := p.value.Get(tb.Context(), id)
	testservers.Must(tb, err)
	return v
}

// warm makes sure that the answer is served from the cache.
func (p *process) warm(tb testing.TB, id, value int) {
	tb.Helper()
	testservers.Eventually(tb, 10*time.Second, func() (bool, string) {
		a, err := p.value.Lookup(tb.Context(), id)
		testservers.Must(tb, err)
		return a.Status == cache.Hit && a.Value == value, "not yet a hit: " + a.Status.String()
	})
}

// steps is a store that tells when a writer fences, which is just before it commits.
type steps struct {
	driver.Store
	mu    sync.Mutex
	fence func() // guarded by mu
}

func newSteps(tb testing.TB) *steps {
	s := memstore.New(memstore.Config{})
	tb.Cleanup(func() { testservers.Must(tb, s.Close()) })
	return &steps{Store: s}
}

func (s *steps) onFence(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fence = f
}

func (s *steps) Fence(ctx context.Context, tags []cache.Tag, mark driver.Mark, lease time.Duration) error {
	err := s.Store.Fence(ctx, tags, mark, lease)
	s.mu.Lock()
	f := s.fence
	s.mu.Unlock()
	if f != nil {
		f()
	}
	return err
}

package mysql_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/chainlearn/chainlearn/cache"
	cachedriver "github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/internal/outboxtest"
	"github.com/chainlearn/chainlearn/cache/outbox/mysql"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// What every adapter promises, kept by this one.
func TestProtocol(t *testing.T) {
	a := adapter
	a.Create = func(t testing.TB) outboxtest.Database {
		server := testservers.SharedMariaDB(t)
		return newDatabase(t, server, server.Database(t))
	}
	outboxtest.Run(t, a)
}

// adapter lacks Create: some tests break their server, or talk to it.
var adapter = outboxtest.Adapter{
	ErrNoRelay: mysql.ErrNoRelay,
	// The server ends a session of this lease that is silent for 4 s.
	LateFence: outboxtest.LateFence{Lease: 10 * time.Second, Delay: 2500 * time.Millisecond, CommitTime: 8 * time.Second},
	Upsert:    `ON DUPLICATE KEY UPDATE`,
	Record:    `CALL cache_record('%s')`,
	Ignore:    `IGNORE`,
	Lenient:   `SET sql_mode = ''; `,
	NoTags:    `INSERT INTO cache_outbox (tag) VALUES (x'610a62'), (''), (x'ff')`,
	Pages:     `CREATE TABLE pages (slug LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, n INT, UNIQUE (slug(700)))`,
}

// world is one whose server a test may talk to.
type world struct {
	*outboxtest.World
	server *testservers.MariaDB
	name   string // of the database
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOn(t, testservers.SharedMariaDB(t))
}

func newWorldOn(t testing.TB, server *testservers.MariaDB) *world {
	t.Helper()
	w := &world{server: server, name: server.Database(t)}
	a := adapter
	a.Create = func(t testing.TB) outboxtest.Database { return newDatabase(t, server, w.name) }
	w.World = outboxtest.NewWorld(t, a)
	return w
}

// open opens connections to the database, as any program may.
func (w *world) open(size int, params string) *sql.DB {
	w.Helper()
	return open(w, w.server, w.name, size, params)
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

func newDatabase(t testing.TB, server *testservers.MariaDB, name string) outboxtest.Database {
	t.Helper()
	if err := mysql.Apply(t.Context(), open(t, server, name, 1, "")); err != nil {
		t.Fatal(err)
	}
	return outboxtest.Database{
		Open: func(t testing.TB) *sql.DB { return open(t, server, name, 1, strange) },
		Watch: func(ctx context.Context, db *sql.DB, table string, templates ...string) error {
			return mysql.Watch(ctx, db, "test", table, templates...)
		},
		Connect: func(t testing.TB) outboxtest.Connections {
			pool := open(t, server, name, 8, "")
			log := mysql.NewLog(pool, nil)
			return outboxtest.Connections{
				Read: pool,
				Log:  log,
				Begin: func(ctx context.Context, mark cachedriver.Mark, lease time.Duration) (outboxtest.Tx, error) {
					return log.Begin(ctx, mark, lease, nil)
				},
				DB: func(c *cache.Cache, o outbox.Options) outboxtest.DB { return mysql.NewDB(log, c, o) },
			}
		},
	}
}

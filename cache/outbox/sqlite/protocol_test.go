package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/internal/outboxtest"
	"github.com/chainlearn/chainlearn/cache/outbox/sqlite"
)

// What every adapter promises, kept by this one.
func TestProtocol(t *testing.T) {
	outboxtest.Run(t, adapter)
}

var adapter = outboxtest.Adapter{
	Create:     newDatabase,
	ErrNoRelay: sqlite.ErrNoRelay,
	LateFence:  outboxtest.LateFence{Lease: 2 * time.Second, Delay: 1500 * time.Millisecond, CommitTime: time.Second},
	Upsert:     `ON CONFLICT DO UPDATE SET`,
	Record:     `INSERT INTO cache_touch VALUES ('%s')`,
	Ignore:     `OR IGNORE`,
	NoTags:     `INSERT INTO cache_outbox (tag) VALUES ('a' || char(10) || 'b'), (''), (CAST(x'ff' AS TEXT))`,
	Pages:      `CREATE TABLE pages (slug TEXT PRIMARY KEY, n INTEGER)`,
}

func newWorld(t testing.TB) *outboxtest.World {
	t.Helper()
	return outboxtest.NewWorld(t, adapter)
}

// busyTimeout is how long SQLite waits for the lock of another program.
const busyTimeout = 10 * time.Second

var busy = fmt.Sprintf("?_busy_timeout=%d", busyTimeout.Milliseconds())

func newDatabase(t testing.TB) outboxtest.Database {
	t.Helper()
	path := filepath.Join(t.TempDir(), "world.db")
	open := func(t testing.TB, size int, params string) *sql.DB {
		t.Helper()
		db, err := sql.Open("sqlite", "file:"+path+busy+params)
		if err != nil {
			t.Fatal(err)
		}
		db.SetMaxOpenConns(size)
		t.Cleanup(func() { db.Close() })
		return db
	}
	if _, err := open(t, 1, "&_journal_mode=WAL").ExecContext(t.Context(), sqlite.Schema); err != nil {
		t.Fatal(err)
	}
	return outboxtest.Database{
		Open: func(t testing.TB) *sql.DB { return open(t, 1, "") },
		Watch: func(ctx context.Context, db *sql.DB, table string, templates ...string) error {
			return sqlite.Watch(ctx, db, "test", table, templates...)
		},
		Connect: func(t testing.TB) outboxtest.Connections {
			read := open(t, 8, "")
			log := sqlite.NewLog(read, open(t, 1, "&_txlock=immediate"))
			return outboxtest.Connections{
				Read: read,
				Log:  log,
				Begin: func(ctx context.Context, mark driver.Mark, _ time.Duration) (outboxtest.Tx, error) {
					return log.Begin(ctx, mark)
				},
				DB: func(c *cache.Cache, o outbox.Options) outboxtest.DB { return sqlite.NewDB(log, c, o) },
			}
		},
	}
}

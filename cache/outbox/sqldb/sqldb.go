// Package sqldb makes programs exact that write through database/sql, whatever sits on it: GORM,
// ent, bun, sqlx, sqlc. It wraps the driver, so that no code of the program changes. PostgreSQL 14
// and later is supported, with any driver: lib/pq, the stdlib of pgx; and MariaDB and MySQL, with
// the Dialect of package outbox/mysql, which says what differs there. What follows is of PostgreSQL.
//
// # Take a program to exact answers
//
// Apply Migration in a migration, and declare which tags a changed row of each table touches, once:
//
//	err := sqldb.Watch(ctx, db, "shop", "products", "product:{id}", "category:{category_id}")
//
// Where the program opened its database, open it here, and ask the cache for what is read often:
//
//	c, err := cache.New(cache.Config{Store: store})
//	db, err := sqldb.Open("pgx", dsn, c, sqldb.Config{}) // was: sql.Open("pgx", dsn)
//	g, err := gorm.Open(postgres.New(postgres.Config{Conn: db.DB}), &gorm.Config{})
//
//	product := cache.Define(c, cache.Query[int, Product]{
//		Name: "products:page", FreshFor: time.Hour,
//		Tags: func(id int) []cache.Tag { return cache.Tags("product", id) },
//		Load: func(ctx context.Context, id int) (p Product, err error) {
//			err = g.WithContext(ctx).First(&p, id).Error
//			return p, err
//		},
//	})
//	p, err := product.Get(ctx, 7)
//
// From then on, when g.Save, a transaction's Commit or a plain Exec has returned, no answer of any
// process is older. What other programs write shows within 250 ms.
//
// # What becomes of a statement
//
// A transaction of BeginTx is carried through outbox.Commit, whose promises are those of its
// Commit. One that is read only is left alone. An error that matches outbox.ErrUnknownOutcome
// leaves open whether it was committed; any other means that it was not. Once the context of
// BeginTx has ended nothing is committed any more; a COMMIT that was sent is waited for.
//
// A statement outside of a transaction is run in one of three ways. A lexer that skips comments,
// literals and quoted names decides by words; what it is not sure of is run in the third way,
// and never taken for a read.
//
//   - As it is: one SELECT, WITH, TABLE or VALUES that has none of the words INTO, INSERT, UPDATE,
//     DELETE and MERGE, and calls only functions that the server says are its own, or immutable and
//     written in C; and what concerns the session alone, such as SET or LISTEN.
//   - In a transaction of its own, which goes through outbox.Commit: INSERT, UPDATE, DELETE, MERGE,
//     TRUNCATE, EXECUTE, EXPLAIN, and a SELECT that may write, such as one that calls a function
//     of your own. If it returns rows, up to 1 MiB of them are read ahead, and it is committed before
//     QueryContext returns. What returns more is committed when the rows are closed, or have been
//     read to their end: Rows.Err, Rows.Close and Row.Scan return the error, and if its context
//     ends before that, it is undone.
//   - As it is, and the outbox is delivered before it returns: everything else, such as CALL, DO,
//     VACUUM, CREATE INDEX CONCURRENTLY, and several statements in one string. There is no fence, so
//     a reader may see the new value and a later one the old, until it has returned. If it cannot be
//     delivered because the store does not answer, the statement has succeeded all the same: this
//     process serves nothing stored until it is delivered, and outbox.Undelivered says so.
//
// A transaction that statements begin and end, as on a sql.Conn with BEGIN and COMMIT, is run in the
// third way, and delivered before COMMIT returns.
//
// What only the server could tell is not known here: a view, an operator, a cast or a row security
// policy that calls a function that writes, when it is read outside of a transaction; and SET
// TRANSACTION READ WRITE in a transaction that was begun as read only. What they change is an
// external writer's: it shows within 250 ms. So is what is sent through the driver's own connection
// (DriverConn).
//
// # What it costs
//
// A transaction that recorded nothing costs one round trip more than before, one that recorded
// something two, and the fence and the bump of the store. BEGIN carries the mark. A statement in a
// transaction of its own has BEGIN and COMMIT besides. A read costs nothing.
//
// # What differs for the program
//
// After the last statement the server gives COMMIT 4/10 of the cache's FenceLease to come, and 6/10
// to end; the program's own statements have the limits that they had. Deferred constraints are
// checked just before COMMIT, so that what they touch is fenced. The connections that sql.Conn.Raw
// hands out are this package's: DriverConn has the driver's own.
package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	cachedriver "github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// Config of a wrapped database. Its zero value is good for Open.
type Config struct {
	// Options of outbox.Commit. Open makes and starts a Relay if there is none; Wrap needs one.
	outbox.Options

	// Dialect is that of the database: nil for PostgreSQL, mysql.Dialect of outbox/mysql for MariaDB and
	// MySQL.
	Dialect func() Dialect

	// Logger receives what an operator should know. Default: discarded.
	Logger *slog.Logger
}

func (cfg Config) dialect() Dialect {
	if cfg.Dialect == nil {
		return &postgres{}
	}
	return cfg.Dialect()
}

// Wrap returns a connector whose connections write through outbox.Commit, for sql.OpenDB: the
// package says how. cfg.Relay must deliver from a Log of the same database to the store of c. The
// error says what is wrong. Most programs call Open.
func Wrap(inner driver.Connector, c *cache.Cache, cfg Config) (driver.Connector, error) {
	switch {
	case inner == nil || c == nil:
		return nil, errors.New("outbox/sqldb: Wrap needs a connector and a cache")
	case isWrapped(inner):
		return nil, errWrapped
	case cfg.Relay == nil:
		return nil, errors.New("outbox/sqldb: Config.Relay is nil: make one with outbox.NewRelay and NewLog, and Start it, or use Open")
	}
	lease := c.FenceLease()
	if commit := cmp.Or(cfg.CommitTime, outbox.DefaultCommitTime); commit < 0 || commit >= lease {
		return nil, fmt.Errorf("outbox/sqldb: CommitTime is %v: must be positive and less than the cache's FenceLease, which is %v", commit, lease)
	}
	return &connector{inner, &core{
		cache: c, options: cfg.Options, dialect: cfg.dialect(), lease: lease,
		logger: cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
	}}, nil
}

var errWrapped = errors.New("outbox/sqldb: the connector is wrapped already: what it sends would be carried through the protocol twice")

func isWrapped(c driver.Connector) bool { _, is := c.(*connector); return is }

// core is what all connections of a wrapped connector share.
type core struct {
	cache   *cache.Cache
	options outbox.Options
	dialect Dialect
	lease   time.Duration // of the cache's fences
	logger  *slog.Logger

	mu   sync.Mutex
	said map[string]time.Time // when what was last said; guarded by mu
}

// newMark returns the mark of a transaction, which tells other consumers of the outbox not to wait
// for this writer.
func (c *core) newMark(ctx context.Context) cachedriver.Mark {
	store, err := c.cache.StoreName(ctx)
	if err != nil {
		// The store cannot be reached, and what is written is for a relay to deliver: no
		// consumer takes this mark for one of its own writers'.
		return cachedriver.Mark(cachedriver.NewVersion())
	}
	return outbox.NewMark(store)
}

// deliverLimit bounds the wait for what a statement has left in the outbox.
const deliverLimit = 5 * time.Second

// deliver returns when everything that was committed before has been delivered. What was written
// cannot be taken back, so the caller's leaving is no reason to stop.
func (c *core) deliver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deliverLimit)
	defer cancel()
	if err := c.options.Relay.Drain(ctx); err != nil {
		c.cache.Suspect(fmt.Errorf("outbox/sqldb: a statement was not delivered before it returned: %w", err))
		c.undelivered(ctx, err)
	}
}

const sayEvery = 5 * time.Minute

// undelivered counts a statement that was not acknowledged as it should be, and says so now and then.
func (c *core) undelivered(ctx context.Context, err error) {
	c.cache.Observe(ctx, outbox.Undelivered{Err: err})
	message := "a statement outside of a transaction was not delivered before it returned: this process serves nothing stored until it is; see that the store and the database answer"
	if errors.Is(err, errNoOutbox) {
		message = "the database has no outbox, so nothing that is written invalidates an answer: apply its migration, and declare what is watched"
	}
	c.mu.Lock()
	due := time.Since(c.said[message]) > sayEvery
	if due {
		if c.said == nil {
			c.said = map[string]time.Time{}
		}
		c.said[message] = time.Now()
	}
	c.mu.Unlock()
	if due {
		c.logger.WarnContext(ctx, message, "err", err, "next_reminder", sayEvery) //nolint:sloglint // one of two constants
	}
}

// DB is a database whose writes are exact, with what delivers what others write. Its sql.DB is for
// whatever is built on one.
type DB struct {
	*sql.DB
	// Relay delivers what other programs write, and what was left behind.
	Relay *outbox.Relay

	pool   *sql.DB // of the relay and the source: not wrapped
	source cache.Source
	owns   bool // Relay
}

var _ cache.Source = (*DB)(nil)

// Open opens a database as sql.Open does, whose writes invalidate answers of c: the package says how.
// Close it before the cache. The error says what is wrong; the database is not asked.
func Open(driverName, dataSourceName string, c *cache.Cache, cfg Config) (*DB, error) {
	inner, err := Connector(driverName, dataSourceName)
	if err != nil {
		return nil, err
	}
	return OpenDB(inner, c, cfg)
}

// OpenDB opens a database as sql.OpenDB does; see Open.
func OpenDB(inner driver.Connector, c *cache.Cache, cfg Config) (_ *DB, err error) {
	if inner == nil || c == nil {
		return nil, errors.New("outbox/sqldb: OpenDB needs a connector and a cache")
	}
	if isWrapped(inner) {
		return nil, errWrapped
	}
	dialect := cfg.dialect()
	db := &DB{pool: unwrapped(inner), Relay: cfg.Relay}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	if db.Relay == nil {
		if db.Relay, err = outbox.NewRelay(c, dialect.Log(db.pool, cfg.Logger), outbox.RelayConfig{Logger: cfg.Logger, MaxTags: cfg.MaxTags}); err != nil {
			return nil, err
		}
		db.owns = true
		cfg.Relay = db.Relay
	}
	wrapped, err := Wrap(inner, c, cfg)
	if err != nil {
		return nil, err
	}
	db.DB, db.source = sql.OpenDB(wrapped), dialect.Source(db.pool, c, cfg.Options)
	if db.owns {
		db.Relay.Start()
	}
	return db, nil
}

// Check implements cache.Source: what keeps changes of watched tables from being recorded, as the function Check
// finds, and whether a relay delivers to the store of the cache.
func (db *DB) Check(ctx context.Context) ([]cache.Finding, error) { return db.source.Check(ctx) }

// Kinds implements cache.Source: the kinds of the tags that the watches of the database record.
func (db *DB) Kinds(ctx context.Context) ([]string, error) { return db.source.Kinds(ctx) }

// Close ends the relay that Open has made, and closes the database.
func (db *DB) Close() error {
	var errs []error
	if db.owns {
		errs = append(errs, db.Relay.Close())
	}
	if db.DB != nil {
		errs = append(errs, db.DB.Close())
	}
	return errors.Join(append(errs, db.pool.Close())...)
}

// Connector returns what sql.Open would open, for sql.OpenDB, OpenDB and Wrap.
func Connector(driverName, dataSourceName string) (driver.Connector, error) {
	db, err := sql.Open(driverName, dataSourceName) // there is no other way to a registered driver
	if err != nil {
		return nil, err
	}
	d := db.Driver()
	if err := db.Close(); err != nil {
		return nil, err
	}
	if withContext, ok := d.(driver.DriverContext); ok {
		return withContext.OpenConnector(dataSourceName)
	}
	return named{d, dataSourceName}, nil
}

// named is the connector of a driver that has none.
type named struct {
	driver driver.Driver
	name   string
}

func (n named) Connect(context.Context) (driver.Conn, error) { return n.driver.Open(n.name) }

func (n named) Driver() driver.Driver { return n.driver }

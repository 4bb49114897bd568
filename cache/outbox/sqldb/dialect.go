package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	cachedriver "github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// Dialect is what one database does differently from another. It serves all connections of one
// database. This package has that of PostgreSQL, and outbox/mysql has that of MariaDB and MySQL: it is not
// meant to be implemented elsewhere, and gets methods as it needs them.
type Dialect interface {
	// Ready says whether the database has an outbox, and learns where. It fails if a session is set up in
	// a way that makes exact writes impossible.
	Ready(ctx context.Context, s Sender) (bool, error)

	// KindOf says how a statement outside of a transaction is to be run. What is not certain is Other,
	// or Unclear.
	KindOf(ctx context.Context, s Sender, query string) Kind

	// Begin opens a transaction whose outbox rows bear the mark, of a cache with this lease of fences.
	// If it fails, the connection is closed.
	Begin(ctx context.Context, s Sender, level sql.IsolationLevel, mark cachedriver.Mark, lease time.Duration) error

	// Touched runs what is deferred to the commit, and returns what the transaction has recorded. From
	// then on the server ends the transaction unless COMMIT comes well within the lease: it is silent for
	// at most 4/10 of it. It fails if the transaction is not the one that Begin opened any more.
	Touched(ctx context.Context, s Sender, mark cachedriver.Mark, lease time.Duration) ([]outbox.Row, error)

	// Rollback undoes the transaction, and all of Begin. If it fails, the connection is closed. With
	// check it fails also if a statement has committed a part of the transaction; Touched was not
	// called then.
	Rollback(ctx context.Context, s Sender, check bool) error

	// Committed undoes what of Begin outlives COMMIT. If it fails, the connection is closed.
	Committed(ctx context.Context, s Sender) error

	// Undone says whether a failed COMMIT is sure to have had no effect, because the server itself
	// refused it; and of another statement, whether it may have undone its transaction.
	Undone(err error) bool

	// Log returns the outbox of the database that a pool connects to.
	Log(pool *sql.DB, logger *slog.Logger) outbox.Log

	// Source finds what is wrong with the outbox of the database that a pool connects to, and lists what
	// it records.
	Source(pool *sql.DB, c *cache.Cache, o outbox.Options) cache.Source
}

// Sender sends statements without arguments on a connection.
type Sender interface {
	// Send sends statements without rows, in one string if there are several, and returns the
	// result of the last.
	Send(ctx context.Context, statements ...string) (driver.Result, error)
	// Ask calls each with every row of a query.
	Ask(ctx context.Context, query string, each func(row []driver.Value) error) error
}

// Kind says how a statement outside of a transaction is run.
type Kind int

// The kinds of statements.
const (
	// Other is what is not known to be any of the below: run as it is, with the outbox delivered
	// before it returns.
	Other       Kind = iota
	Reads            // changes no table: run as it is
	Writes           // may change tables, and may run in a transaction: gets one of its own
	Session          // changes no table, but the session: run as it is
	BeginsTx         // begins a transaction that this package knows of by this statement alone; one that was open is committed, if the server allows it
	CommitsTx        // ends such a one, and what it changed shows, with what it changes itself
	RollsTxBack      // ends it, and nothing shows
	Unclear          // like Other, and it may leave a transaction open
)

var (
	errIsolation = errors.New("outbox/sqldb: the database has no such isolation level")
	errEnded     = errors.New("outbox/sqldb: the transaction was ended, or its setting cache.mark was changed, by a statement: end it with Commit or Rollback of the transaction, and do not RESET ALL in it")
	errNoOutbox  = errors.New("outbox/sqldb: the database has no outbox: apply its migration")
)

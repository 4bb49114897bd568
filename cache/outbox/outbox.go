// Package outbox makes a database announce what its transactions changed.
//
// Triggers record the touched tags in an outbox table, inside the transaction that touches
// them: no writer can forget, whoever it is. Commit carries a transaction through the
// protocol that leaves no moment in which a cached answer is wrong: fence the tags,
// commit, bump them, acknowledge. Relay delivers what was left behind: rows
// of writers that died on the way, that could not reach the shared tier, or that know
// nothing of it.
//
// The package knows no database. Packages outbox/sqlite and outbox/postgres adapt it.
package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
)

// Row is a touched tag in the outbox.
type Row struct {
	ID  int64
	Tag cache.Tag
	// Mark is that of the writer, if the writer fences and bumps its tags itself;
	// driver.NoMark for a stranger's row.
	Mark driver.Mark
	// Age since the row was recorded, by the database's clock. Only what Log.Deliver
	// hands out has one.
	Age time.Duration
}

// Tx is an open transaction, as an adapter offers it to Commit.
type Tx interface {
	// Mark is what the transaction's own rows bear.
	Mark() driver.Mark
	// Touched returns the rows that the transaction has recorded, after its last statement.
	Touched(ctx context.Context) ([]Row, error)
	// Commit commits. An error that matches ErrUnknownOutcome leaves open whether the
	// transaction took effect; any other means that it did not.
	Commit(ctx context.Context) error
	Rollback(ctx context.Context) error
}

// Log is an outbox table, as an adapter offers it to Relay. It is safe for concurrent use
// by any number of relays on any number of processes.
type Log interface {
	// Deliver claims up to most rows that no other relay is delivering: rows without a
	// mark at once, rows with one when they are older than grace. It hands them to bump,
	// deletes them if that succeeds, and returns how many it claimed. Rows are
	// judged by the database's clock. No cursor: a row of a slow transaction that
	// commits late is found like any other.
	Deliver(ctx context.Context, grace time.Duration, most int, bump func(context.Context, []Row) error) (int, error)
	// Forget deletes rows that their own writer has delivered.
	Forget(ctx context.Context, ids []int64) error
	// Backlog returns the number of rows, counted up to a bound of the adapter's, and
	// the age of the oldest; 0 and 0 when there are none.
	Backlog(ctx context.Context) (rows int, oldest time.Duration, err error)
	// Wait returns nil as soon as rows may have been left by others, and an error when
	// ctx ends or when it cannot tell; the relay then polls.
	Wait(ctx context.Context) error
}

// ErrUnknownOutcome is matched by an error that leaves open whether a transaction was
// committed: the connection was lost while the database decided.
var ErrUnknownOutcome = errors.New("outbox: outcome of the commit is unknown")

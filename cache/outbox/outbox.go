// Package outbox makes a database announce what its transactions changed.
//
// Triggers record the touched tags in an outbox table, inside the transaction that touches
// them: no writer can forget. Commit carries a transaction through the
// protocol that leaves no moment in which a cached answer is wrong: fence the tags,
// commit, bump them, acknowledge. Relay delivers what was left behind: rows
// of writers that died on the way, that could not reach the shared tier, or that know
// nothing of it.
//
// The package knows no database. Packages outbox/postgres, outbox/sqldb, outbox/sqlite and
// outbox/mysql adapt it.
package outbox

import (
	"context"
	"crypto/sha256"
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
//
// Every store that answers are kept in is a consumer of the outbox, by its Name: two services
// with two prefixes, two stores in two processes. A row stays until each of them has got it.
type Log interface {
	// Join keeps a consumer registered, for ConsumerLife from now, and returns joined if it
	// was not. Then rows of before may be gone, so the transaction that registers it also
	// records cache.Everything, for this consumer alone: whatever becomes of the caller, a relay
	// of the consumer delivers that. It forgets the consumers that have not been heard of for ConsumerLife,
	// with what was left for them, and returns their names.
	Join(ctx context.Context, consumer string) (joined bool, gone []string, err error)
	// Leave forgets a consumer at once, whose store has another name from now on. One that is
	// not registered is no error.
	Leave(ctx context.Context, consumer string) error
	// Deliver claims up to most rows that the consumer has not got: those of its own writers
	// when they are older than grace, others at once. It hands them to bump, notes
	// that the consumer has got them if that succeeds, and returns how many it claimed. It
	// fails with ErrNotJoined if the consumer is not registered. Rows are judged by the
	// database's clock. No cursor: a row of a slow transaction that commits late is found
	// like any other.
	Deliver(ctx context.Context, consumer string, grace time.Duration, most int, bump func(context.Context, []Row) error) (int, error)
	// Done notes that the consumer has got rows, which their own writer has delivered.
	Done(ctx context.Context, consumer string, ids []int64) error
	// Backlog returns the number of rows that the consumer has not got, counted up to a
	// bound of the adapter's, and the age of the oldest; 0 and 0 when there are none.
	Backlog(ctx context.Context, consumer string) (rows int, oldest time.Duration, err error)
	// Wait returns nil as soon as rows may have been left by others, and an error when
	// ctx ends or when it cannot tell; the relay then polls.
	Wait(ctx context.Context) error
}

// ConsumerLife is how long a consumer stays registered without a sign of life. When it comes
// back later, all that its store holds is invalidated.
const ConsumerLife = 5 * time.Minute

// ErrNotJoined is returned by Log.Deliver for a consumer that is not registered.
var ErrNotJoined = errors.New("outbox: the consumer is not registered")

// NewMark returns a fresh mark for a transaction whose writer delivers to the store of a
// consumer. Its first half says which: another consumer must not wait for this writer.
func NewMark(consumer string) driver.Mark {
	mark := driver.Mark(driver.NewVersion())
	half := MarkOf(consumer)
	copy(mark[:], half[:])
	return mark
}

// MarkOf returns what the marks of a consumer's writers begin with.
func MarkOf(consumer string) [8]byte {
	sum := sha256.Sum256([]byte(consumer))
	return [8]byte(sum[:8])
}

// ErrUnknownOutcome is matched by an error that leaves open whether a transaction was
// committed: the connection was lost while the database decided.
var ErrUnknownOutcome = errors.New("outbox: outcome of the commit is unknown")

package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"

	cachedriver "github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// dialect is what one database does differently from another. It serves all connections.
type dialect interface {
	// ready says whether the database has an outbox, and learns where.
	ready(ctx context.Context, s sender) (bool, error)

	// kindOf says how a statement outside of a transaction is to be run. What is not certain is other,
	// or unclear.
	kindOf(ctx context.Context, s sender, query string) kind

	// begin opens a transaction whose outbox rows bear the mark. Its error matches errIsolation if
	// nothing was sent.
	begin(ctx context.Context, s sender, level sql.IsolationLevel, mark cachedriver.Mark) error

	// touched runs what is deferred to the commit, and returns what the transaction has recorded. From
	// then on the server ends the transaction unless COMMIT comes within the limits. It fails if
	// the transaction is not the one that begin opened any more.
	touched(ctx context.Context, s sender, mark cachedriver.Mark, l limits) ([]outbox.Row, error)

	// undone says whether a failed COMMIT is sure to have had no effect, because the server itself
	// refused it.
	undone(err error) bool
}

// sender sends statements without arguments on a connection.
type sender interface {
	// send sends statements without rows, in one round trip if the driver can, and returns the
	// result of the last.
	send(ctx context.Context, statements ...string) (driver.Result, error)
	// ask calls each with every row of a query.
	ask(ctx context.Context, query string, each func(row []driver.Value) error) error
}

// limits of what follows a transaction's last statement, which the server enforces. A fence stands for
// a lease, and a commit must not take effect after it: an old answer could have been stored
// meanwhile. The process looks at the lease before it commits, but it may be suspended between
// the look and the commit for any time. So the server must have ended the transaction by then. No
// limit of the server ends a COMMIT that waits for a standby: outbox.Commit renews the fence.
//
// The statements of the program are not limited: no fence stands yet.
type limits struct {
	idle      time.Duration // until COMMIT comes
	statement time.Duration // that COMMIT takes, with idle within the lease
	both      time.Duration
}

func limitsFor(lease time.Duration) limits {
	return limits{idle: lease * 4 / 10, statement: lease * 6 / 10, both: lease * 8 / 10}
}

var (
	errIsolation = errors.New("outbox/sqldb: the database has no such isolation level")
	errEnded     = errors.New("outbox/sqldb: the transaction was ended, or its setting cache.mark was changed, by a statement: end it with Commit or Rollback of the transaction, and do not RESET ALL in it")
	errNoOutbox  = errors.New("outbox/sqldb: the database has no outbox: apply Migration()")
)

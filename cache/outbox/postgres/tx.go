package postgres

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// Limits of a transaction, which the server enforces. A fence stands for a lease, and a commit
// must not take effect after it: an old answer could have been stored meanwhile. The process
// looks at the lease before it commits, but it may be suspended between the look and the
// commit for any time. So the server must have ended the transaction by then: Idle
// bounds how late COMMIT may come after the last statement, and Statement how long it may
// take. Together they must not exceed the lease, which begins after the last statement. No
// limit of the server ends a COMMIT that waits for a standby: outbox.Commit renews the fence.
type Limits struct {
	Statement   time.Duration // statement_timeout
	Idle        time.Duration // idle_in_transaction_session_timeout
	Transaction time.Duration // transaction_timeout, in PostgreSQL 17 and later
}

// LimitsFor returns limits that leave room below a fence's lease, for the way to the shared
// tier and back.
func LimitsFor(lease time.Duration) Limits {
	return Limits{Statement: lease * 6 / 10, Idle: lease * 4 / 10, Transaction: lease * 8 / 10}
}

// check returns what is wrong with the limits of transactions under a lease.
func (l Limits) check(lease time.Duration) error {
	var errs []error
	for _, f := range []struct {
		name  string
		value time.Duration
	}{{"Statement", l.Statement}, {"Idle", l.Idle}, {"Transaction", l.Transaction}} {
		if f.value < time.Millisecond || f.value >= lease {
			errs = append(errs, fmt.Errorf("Limits.%s is %s: must be at least 1ms and below the fence's lease of %s", f.name, f.value, lease))
		}
	}
	if l.Statement+l.Idle > lease {
		errs = append(errs, fmt.Errorf("Limits.Statement and Limits.Idle are %s together: must not exceed the fence's lease of %s", l.Statement+l.Idle, lease))
	}
	return errors.Join(errs...)
}

// opening returns how a transaction with a mark (none if it is NoMark) begins. The limits are
// part of it, instead of being set once for each connection, so that they hold through a
// proxy that pools transactions.
func (l Limits) opening(isolation pgx.TxIsoLevel, mode pgx.QueryExecMode, mark driver.Mark, serverVersion string) opening {
	o := opening{options: pgx.TxOptions{IsoLevel: isolation}}
	if mark != driver.NoMark {
		o.mark = hex.EncodeToString(mark[:])
	}
	var alone, set strings.Builder
	fmt.Fprintf(&alone, "begin isolation level %s", isolation)
	set.WriteString("SELECT set_config('cache.mark', $1, true)")
	for _, limit := range []struct {
		setting string
		value   time.Duration
		since   int
	}{{"statement_timeout", l.Statement, 0}, {"idle_in_transaction_session_timeout", l.Idle, 0}, {"transaction_timeout", l.Transaction, 17}} {
		if major(serverVersion) >= limit.since {
			fmt.Fprintf(&alone, "; set local %s = %d", limit.setting, limit.value.Milliseconds())
			fmt.Fprintf(&set, ", set_config('%s', '%d', true)", limit.setting, limit.value.Milliseconds())
		}
	}
	if o.mark != "" {
		fmt.Fprintf(&alone, "; set local cache.mark = '%s'", o.mark)
	}
	o.beginSQL, o.settingsSQL = alone.String(), set.String()
	o.beginAlone = mode == pgx.QueryExecModeSimpleProtocol // in which any statement may be several
	return o
}

// major returns the first number of a version such as "17.2 (Debian 17.2-1)" or "18beta1".
func major(version string) int {
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(version)
	}
	n, _ := strconv.Atoi(version[:end]) // 0 if there is none
	return n
}

// Tx is a transaction whose outbox rows bear its mark. It implements outbox.Tx.
type Tx struct {
	conn *pgxpool.Conn // nil once it is given back
	tx   *lazyTx
	mark driver.Mark

	touched []outbox.Row // as of when tx had sent asOf times; 0: unknown
	asOf    int
}

var _ outbox.Tx = (*Tx)(nil)

// begin opens a transaction on a connection of the pool, whose way to send statements is mode.
func begin(ctx context.Context, pool *pgxpool.Pool, limits Limits, isolation pgx.TxIsoLevel, mode pgx.QueryExecMode, mark driver.Mark) (*Tx, error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	c := conn.Conn()
	return &Tx{conn: conn, mark: mark, tx: &lazyTx{
		conn: c, ctx: ctx,
		opening: limits.opening(isolation, mode, mark, c.PgConn().ParameterStatus("server_version")),
	}}, nil
}

// release gives the connection back: another transaction may have it from now on.
func (t *Tx) release() {
	t.conn.Release()
	t.conn = nil
}

// Mark of the transaction.
func (t *Tx) Mark() driver.Mark { return t.mark }

// queueTouched adds the reading of what was touched to a batch, whose end fills the rows.
// Constraints and triggers that are deferred to the commit run before: what they touch is
// to be fenced, too.
func (t *Tx) queueTouched(b *pgx.Batch) *[]outbox.Row {
	rows := new([]outbox.Row)
	b.Queue(`SET CONSTRAINTS ALL IMMEDIATE`)
	b.Queue(`SELECT id, left(tag, 201) FROM cache_touched($1::bytea)`, t.mark[:]).Query(func(found pgx.Rows) (err error) {
		*rows, err = pgx.CollectRows(found, func(r pgx.CollectableRow) (outbox.Row, error) {
			row := outbox.Row{Mark: t.mark}
			err := r.Scan(&row.ID, &row.Tag)
			return row, err
		})
		return err
	})
	return rows
}

// Touched returns what the transaction has recorded.
func (t *Tx) Touched(ctx context.Context) ([]outbox.Row, error) {
	if t.tx.unused() {
		return nil, nil
	}
	if t.asOf > 0 && t.asOf == t.tx.calls && !t.tx.bypassed {
		return t.touched, nil
	}
	var b pgx.Batch
	rows := t.queueTouched(&b)
	if err := t.tx.SendBatch(ctx, &b).Close(); err != nil {
		return nil, fmt.Errorf("read touched tags: %w", err)
	}
	return *rows, nil
}

// Commit commits. Its error matches outbox.ErrUnknownOutcome when the connection was lost
// before the server had said what became of it.
func (t *Tx) Commit(ctx context.Context) error {
	if t.conn == nil {
		return fmt.Errorf("commit: %w", pgx.ErrTxClosed)
	}
	defer t.release()
	// What is not sent has no effect. It has to be known beforehand: the errors that pgx
	// returns for a connection that is lost on the way may claim to be safe to retry.
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("commit: %w", errors.Join(err, t.tx.Rollback(context.WithoutCancel(ctx))))
	}
	if t.conn.Conn().IsClosed() {
		return fmt.Errorf("commit: %w", errLostBefore)
	}
	err := t.tx.Commit(ctx)
	switch {
	case err == nil:
		return nil
	case refused(err):
		return fmt.Errorf("commit: %w", err)
	}
	return fmt.Errorf("commit: %w: %w", outbox.ErrUnknownOutcome, err)
}

var errLostBefore = errors.New("the connection was lost before")

// Rollback undoes everything. It does nothing after Commit.
func (t *Tx) Rollback(ctx context.Context) error {
	if t.conn == nil {
		return nil
	}
	defer t.release()
	if err := t.tx.Rollback(ctx); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}

// refused says whether a failed COMMIT is sure to have had no effect, because the server itself
// refused it. A server (or a proxy) that goes away while it commits may say so in an
// error that leaves the outcome open.
func refused(err error) bool {
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		return true
	}
	const idle = "25P03" // the session was ended because COMMIT did not come in time
	var e *pgconn.PgError
	ok := errors.As(err, &e)
	return ok && (e.Code == idle || e.SeverityUnlocalized == "ERROR") &&
		!strings.HasPrefix(e.Code, "08") && // connection exception
		!strings.HasPrefix(e.Code, "57P") && // operator intervention: shutdown, crash
		e.Code != "40003" // statement completion unknown
}

// retryable says whether the database asks for the same transaction again.
func retryable(err error) bool {
	var e *pgconn.PgError
	ok := errors.As(err, &e)
	return ok && (e.Code == "40001" || e.Code == "40P01") // serialization failure, deadlock
}

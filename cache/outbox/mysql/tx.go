package mysql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// ErrImplicitCommit is matched by the error of a Write in which a statement has committed by itself what
// came before it, as CREATE, ALTER, TRUNCATE, LOCK TABLES and BEGIN do. It also matches
// outbox.ErrUnknownOutcome: what went before that statement is committed, and what came after it may be.
// Relays deliver what it touched.
var ErrImplicitCommit = errors.New("outbox: a statement has committed the transaction before its end: run DDL and LOCK TABLES outside of the transaction")

// What follows is for those who run a transaction of their own through outbox.Commit, on one
// connection: OpeningSQL; BEGIN; BegunSQL; the statements; Touched; COMMIT or ROLLBACK; ClosingSQL. If
// ClosingSQL fails, the connection must be closed: the rows of the next transaction would bear the
// mark of this one.

// OpeningSQL returns the statement that gives rows the mark of the coming transaction, and has the server end the
// session if it is silent for four tenths of a fence's lease, at least a second.
func OpeningSQL(mark driver.Mark, lease time.Duration) string {
	return markSQL(mark) + ", SESSION wait_timeout = " + waitTimeout(lease)
}

func markSQL(mark driver.Mark) string {
	literal := "NULL"
	if mark != driver.NoMark {
		literal = blob(mark[:])
	}
	return "SET @cache_wait_timeout = @@SESSION.wait_timeout, @cache_mark = " + literal
}

// waitTimeout is in whole seconds.
func waitTimeout(lease time.Duration) string {
	return strconv.Itoa(max(1, int(lease*4/10/time.Second)))
}

const (
	// BegunSQL is the first statement of a transaction: by it Touched sees whether the
	// transaction is still that one.
	BegunSQL = "SAVEPOINT cache_begun"
	// ClosingSQL undoes OpeningSQL, when the transaction has ended.
	ClosingSQL = "SET @cache_mark = NULL, SESSION wait_timeout = @cache_wait_timeout"
)

// Touched returns the rows that the transaction with a mark has recorded so far. Its error matches
// ErrImplicitCommit if the transaction has ended.
func Touched(ctx context.Context, db Conn, mark driver.Mark) (rows []outbox.Row, err error) {
	if _, err := db.ExecContext(ctx, "RELEASE "+BegunSQL); isCode(err, noSavepoint) || errors.Is(err, sql.ErrTxDone) {
		return nil, fmt.Errorf("%w: %w", ErrImplicitCommit, outbox.ErrUnknownOutcome)
	} else if err != nil {
		return nil, fmt.Errorf("read touched tags: %w", err)
	}
	err = query(ctx, db, `SELECT id, tag FROM cache_outbox WHERE mark = `+blob(mark[:]), func(scan func(...any) error) error {
		row := outbox.Row{Mark: mark}
		var tag []byte
		err := scan(&row.ID, &tag)
		row.Tag = cache.Tag(tag)
		rows = append(rows, row)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read touched tags: %w", err)
	}
	return rows, nil
}

// Tx is a transaction whose outbox rows bear its mark. It implements outbox.Tx.
type Tx struct {
	log  *Log
	conn *sql.Conn // nil once it is given back
	tx   *sql.Tx
	end  context.CancelFunc
	mark driver.Mark
}

var _ outbox.Tx = (*Tx)(nil)

// defaultLease is that of a cache by default, for a DB without one.
const defaultLease = 5 * time.Second

// Begin opens a transaction on a connection of the pool, with the mark that its rows are to bear
// (see outbox.NewMark), for a cache with this lease of fences (0: the default). ctx bounds the wait for it; once begun, the
// transaction lives until Commit or Rollback, whatever becomes of ctx. Options may be nil: the
// isolation level is then the server's default.
func (l *Log) Begin(ctx context.Context, mark driver.Mark, lease time.Duration, options *sql.TxOptions) (*Tx, error) {
	conn, err := l.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	// database/sql rolls a transaction back as soon as the context that began it ends.
	// Between the fence and the commit, that would race with the commit.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	t := &Tx{log: l, conn: conn, end: end, mark: mark}
	stop := context.AfterFunc(ctx, end)
	_, err = conn.ExecContext(ctx, OpeningSQL(mark, cmp.Or(lease, defaultLease)))
	if err == nil {
		t.tx, err = conn.BeginTx(life, options)
	}
	if err == nil {
		_, err = t.tx.ExecContext(ctx, BegunSQL)
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("begin: %w", errors.Join(err, t.Rollback(ctx)))
	}
	return t, nil
}

// SQL is the transaction to run statements in. Do not commit or roll it back.
func (t *Tx) SQL() *sql.Tx { return t.tx }

// Mark of the transaction.
func (t *Tx) Mark() driver.Mark { return t.mark }

// Touched returns what the transaction has recorded.
func (t *Tx) Touched(ctx context.Context) ([]outbox.Row, error) { return Touched(ctx, t.tx, t.mark) }

// Commit commits. Its error matches outbox.ErrUnknownOutcome if the server has not said what
// became of it.
func (t *Tx) Commit(ctx context.Context) error {
	if t.conn == nil {
		return fmt.Errorf("commit: %w", sql.ErrTxDone)
	}
	defer t.release(ctx)
	// What is not sent has no effect, and has to be known beforehand.
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	// Not sql.Tx.Commit: nothing would end its wait for a server that does not answer.
	_, err := t.tx.ExecContext(ctx, "COMMIT")
	switch {
	case err == nil:
		return nil
	case isCode(err, deadlock, lockWaitTimeout, groupRolledBack) || errors.Is(err, sql.ErrTxDone):
		return fmt.Errorf("commit: %w", err)
	}
	return fmt.Errorf("commit: %w: %w", outbox.ErrUnknownOutcome, err)
}

// Rollback undoes everything. It does nothing after Commit. If it fails, the connection is closed,
// which undoes as much.
func (t *Tx) Rollback(ctx context.Context) error {
	if t.conn != nil {
		t.release(ctx)
	}
	return nil
}

// closingLimit bounds the wait for a session to be put in order.
const closingLimit = time.Second

// release rolls back what has not been committed, and gives the connection back, or closes it if the
// server does not say within a second that the session is in order. A server that does not answer
// at all keeps the goroutine until the connection is lost, or readTimeout ends it, but not the caller.
func (t *Tx) release(ctx context.Context) {
	conn, tx, end := t.conn, t.tx, t.end
	t.conn = nil
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), closingLimit)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		defer cancel()
		defer end()
		var err error
		if tx != nil {
			// Through the transaction: a connection that turns out to be lost here would wait for its end.
			if _, err = tx.ExecContext(limited, ClosingSQL); err == nil {
				err = rollback(tx)
			} else {
				_ = rollback(tx)
			}
		} else {
			_, err = conn.ExecContext(limited, ClosingSQL)
		}
		if err != nil {
			discard(conn)
		}
		_ = conn.Close()
	}()
	select {
	case <-closed:
	case <-limited.Done():
	}
}

func rollback(tx *sql.Tx) error {
	if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
		return err
	}
	return nil
}

// commitAlone commits a transaction whose rows are left to relays.
func (t *Tx) commitAlone(ctx context.Context) error {
	if _, err := t.tx.ExecContext(ctx, "RELEASE "+BegunSQL); isCode(err, noSavepoint) {
		return fmt.Errorf("%w: %w", ErrImplicitCommit, outbox.ErrUnknownOutcome)
	} else if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), aloneLimit)
	defer cancel()
	return t.Commit(ctx)
}

// aloneLimit bounds the wait for an answer to COMMIT.
const aloneLimit = 30 * time.Second

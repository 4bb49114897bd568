package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// tx is a transaction of a connection, as outbox.Commit takes it through the protocol.
type tx struct {
	c      *conn
	ctx    context.Context // of the begin: once it has ended, nothing is committed any more
	mark   driver.Mark
	used   bool      // something was sent
	done   bool      // COMMIT or ROLLBACK was sent
	undone bool      // the last statement has failed in a way that may have undone the transaction
	read   time.Time // when what was touched was read, from when on the server's limits count
}

// idleFor returns how long the server waits for COMMIT.
func idleFor(lease time.Duration) time.Duration { return lease * 4 / 10 }

// rollbackLimit bounds the wait for an answer to ROLLBACK. A connection that does not answer is
// closed, and the server rolls back.
const rollbackLimit = 5 * time.Second

// Mark of the transaction.
func (t *tx) Mark() driver.Mark { return t.mark }

// Touched returns what the transaction has recorded.
func (t *tx) Touched(ctx context.Context) (rows []outbox.Row, err error) {
	if !t.used && !t.c.given {
		return nil, nil
	}
	defer t.caught("reading what was touched", &err)
	t.read = time.Now()
	if rows, err = t.c.core.dialect.Touched(ctx, t.c, t.mark, t.c.core.lease); err != nil {
		return nil, fmt.Errorf("read touched tags: %w", err)
	}
	return rows, nil
}

// Commit commits. Its error matches outbox.ErrUnknownOutcome unless the server itself has refused.
func (t *tx) Commit(ctx context.Context) (err error) {
	if t.done {
		return sql.ErrTxDone
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("commit: %w", errors.Join(err, t.Rollback(ctx)))
	}
	t.end()
	t.c.bad = true // until the outcome is known
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("commit: %w: %w", outbox.ErrUnknownOutcome, panicked("COMMIT", v))
		}
	}()
	_, err = t.c.Send(ctx, "COMMIT")
	switch {
	case err == nil:
		t.committed(ctx)
		return nil
	case t.c.core.dialect.Undone(err):
		return fmt.Errorf("commit: %w", t.late(err))
	}
	return fmt.Errorf("commit: %w: %w", outbox.ErrUnknownOutcome, t.late(lost{err}))
}

// committed puts the session in order. Whatever becomes of that, the transaction is committed: a driver
// that panics here says no more than one that fails.
func (t *tx) committed(ctx context.Context) {
	defer func() { _ = recover() }()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit)
	defer cancel()
	t.c.bad = t.c.core.dialect.Committed(ctx, t.c) != nil
}

// late names the limit of the server that an error of COMMIT may come from.
func (t *tx) late(err error) error {
	idle := idleFor(t.c.core.lease)
	if waited := time.Since(t.read); !t.read.IsZero() && waited >= idle {
		return fmt.Errorf("%w (COMMIT came %v after the last statement; the server ends transactions that wait for %v, which is 4/10 of the cache's FenceLease)",
			err, waited.Round(time.Millisecond), idle)
	}
	return err
}

// Rollback undoes everything. It does nothing after Commit.
func (t *tx) Rollback(ctx context.Context) (err error) {
	if t.done {
		return nil
	}
	t.end()
	bad := t.c.bad // as after a panic
	t.c.bad = true
	defer t.caught("ROLLBACK", &err)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit)
	defer cancel()
	if err := t.c.core.dialect.Rollback(ctx, t.c, t.used && !t.undone && t.read.IsZero()); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	t.c.bad = bad
	return nil
}

// end says that the connection is in no transaction any more.
func (t *tx) end() {
	t.done = true
	t.c.tx = nil
}

// undo rolls back after an error that tells more than one of ROLLBACK.
func (t *tx) undo(ctx context.Context) { _ = t.Rollback(ctx) } // else the connection is closed, which does it

// abandon gives up a connection whose driver has panicked in the transaction.
func (t *tx) abandon() {
	if !t.done {
		t.end()
		t.c.bad = true
	}
}

// commit takes the transaction through the protocol.
func (t *tx) commit() error {
	if t.done {
		return sql.ErrTxDone
	}
	return outbox.Commit(t.ctx, t.c.core.cache, t, t.c.core.options)
}

// caught makes a panic of the driver an error. The transaction is still open then, so the
// connection is closed.
func (t *tx) caught(during string, err *error) {
	if v := recover(); v != nil {
		t.c.bad = true
		*err = panicked(during, v)
	}
}

func panicked(during string, v any) error {
	return fmt.Errorf("outbox/sqldb: the driver panicked during %s: %v\n%s", during, v, debug.Stack())
}

// userTx is a transaction as database/sql ends it.
type userTx struct{ t *tx }

// Commit takes the transaction through the protocol. database/sql calls it and Rollback once between
// them, and each under the lock of the connection: when the context of BeginTx ends meanwhile, it
// waits.
func (u userTx) Commit() error { return u.t.commit() }

// Rollback undoes everything.
func (u userTx) Rollback() error {
	if u.t.done {
		return sql.ErrTxDone
	}
	return u.t.Rollback(context.WithoutCancel(u.t.ctx))
}

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// Tx is a transaction whose outbox rows bear its mark. It implements outbox.Tx.
type Tx struct {
	tx   *sql.Tx
	end  context.CancelFunc
	mark driver.Mark
	last int64 // row of the outbox before the first statement
}

var _ outbox.Tx = (*Tx)(nil)

// Begin opens a transaction on the write connection, with the mark that its rows are to bear
// (see outbox.NewMark). ctx bounds the wait for it; once begun, the transaction lives until
// Commit or Rollback, whatever becomes of ctx.
func (l *Log) Begin(ctx context.Context, mark driver.Mark) (*Tx, error) {
	// database/sql rolls a transaction back as soon as the context that began it ends.
	// Between the fence and the commit, that would race with the commit.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	tx, err := l.begin(ctx, life)
	if err != nil {
		end()
		return nil, fmt.Errorf("begin: %w", err)
	}
	t := &Tx{tx: tx, end: end, mark: mark}
	// There is one writer at a time: from here on, whatever enters the outbox is ours.
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM cache_outbox`).Scan(&t.last); err != nil {
		return nil, fmt.Errorf("begin: %w", errors.Join(err, t.Rollback(ctx)))
	}
	return t, nil
}

// begin begins a transaction that lives as long as life, unless ctx ends first. SQLite waits for the
// lock of another program for as long as the busy timeout says, whatever becomes of a context,
// so it waits without the caller. There is one connection that writes, so that there is
// one such wait at a time.
func (l *Log) begin(ctx, life context.Context) (*sql.Tx, error) {
	type result struct {
		tx  *sql.Tx
		err error
	}
	begun := make(chan result)
	go func() {
		tx, err := l.write.BeginTx(life, nil)
		select {
		case begun <- result{tx, err}:
		case <-life.Done():
			_ = rollback(tx)
		}
	}()
	select {
	case r := <-begun:
		return r.tx, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx) // the caller ends life
	}
}

// SQL is the transaction to run statements in. Do not commit or roll it back.
func (t *Tx) SQL() *sql.Tx { return t.tx }

// Mark of the transaction.
func (t *Tx) Mark() driver.Mark { return t.mark }

// Touched puts the mark on what the transaction has recorded, and returns it.
func (t *Tx) Touched(ctx context.Context) ([]outbox.Row, error) {
	rows, err := scanRows(t.tx.QueryContext(ctx,
		`UPDATE cache_outbox SET mark = ?1, recorded_at = `+now+` WHERE id > ?2 RETURNING id, `+tagAndMark+`, 0`,
		t.mark[:], t.last))
	if err != nil {
		return nil, fmt.Errorf("mark touched tags: %w", err)
	}
	return rows, nil
}

// Commit commits. Its error matches outbox.ErrUnknownOutcome if SQLite could not say.
func (t *Tx) Commit(context.Context) error {
	defer t.end()
	err := t.tx.Commit()
	if err == nil {
		return nil
	}
	if undone(err) {
		return fmt.Errorf("commit: %w", err)
	}
	return fmt.Errorf("commit: %w: %w", outbox.ErrUnknownOutcome, err)
}

// undone says whether a failed COMMIT is sure to have had no effect. An I/O error is not: what
// was written of the log may be found whole after a crash.
func undone(err error) bool {
	if errors.Is(err, sql.ErrTxDone) {
		return true
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff { // the primary code
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY:
		return true
	}
	return false
}

// Rollback undoes everything. It does nothing after Commit.
func (t *Tx) Rollback(context.Context) error {
	defer t.end()
	if err := rollback(t.tx); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}

func rollback(tx *sql.Tx) error {
	if tx == nil {
		return nil
	}
	if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
		return err
	}
	return nil
}

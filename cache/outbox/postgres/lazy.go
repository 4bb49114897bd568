package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// opening is how a transaction begins.
type opening struct {
	beginSQL    string        // BEGIN and the settings, sent without a statement
	options     pgx.TxOptions // BEGIN, sent in front of a statement
	settingsSQL string        // the settings, sent between the two; its only argument is mark
	mark        string
	beginAlone  bool // alone, whatever the first statement is
}

// lazyTx is a transaction that begins with its first statement, in the same round trip. Only a
// statement with arguments is sent like that: one without may be several, which the protocol
// does not allow there; or SET TRANSACTION or LOCK, which come too late once the settings
// were selected, because that has taken the snapshot. Before anything else, BEGIN is sent
// alone.
//
// To its user it differs from any other in one thing: if the first statement cannot be prepared
// or its arguments do not fit, nothing can follow, not even in the second case.
// Decision 31.
type lazyTx struct {
	conn     *pgx.Conn
	ctx      context.Context // of the begin, for methods that are given none
	opening  opening
	tx       pgx.Tx // nil until it has begun
	err      error  // why it cannot go on although it has not begun
	calls    int    // how often its user has sent something
	bypassed bool   // its user has something that can send statements without it
}

var _ pgx.Tx = (*lazyTx)(nil)

// unused says that no statement was sent, so that nothing needs to be committed.
func (l *lazyTx) unused() bool { return l.tx == nil && l.err == nil }

// ensureBegun returns the transaction, which is ensureBegun if need be.
func (l *lazyTx) ensureBegun(ctx context.Context) (pgx.Tx, error) {
	l.calls++
	if l.tx != nil || l.err != nil {
		return l.tx, l.err
	}
	tx, err := l.conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: l.opening.beginSQL})
	if err != nil {
		l.err = fmt.Errorf("begin: %w", err)
		return nil, l.err
	}
	l.tx = tx
	return tx, nil
}

// canBeginWith says whether a statement with these arguments is to begin the transaction.
func (l *lazyTx) canBeginWith(args []any) bool {
	return l.tx == nil && l.err == nil && l.batchable(args)
}

// batchable says whether a statement with these arguments can be sent with others.
func (l *lazyTx) batchable(args []any) bool {
	if l.opening.beginAlone || len(args) == 0 {
		return false
	}
	switch args[0].(type) {
	case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID, pgx.QueryRewriter:
		return false // a batch knows hardly any options
	}
	return true
}

// begin begins the transaction with the first statements. Their results are next to be read.
func (l *lazyTx) begin(ctx context.Context, statements ...*pgx.QueuedQuery) (*firstResults, error) {
	l.calls++
	var b pgx.Batch
	b.BeginTx(l.opening.options)
	b.Queue(l.opening.settingsSQL, l.opening.mark)
	b.QueuedQueries = append(b.QueuedQueries, statements...)
	results := l.conn.SendBatch(ctx, &b)
	for range 2 {
		if _, err := results.Exec(); err != nil {
			_ = results.Close() // the same error
			var e pgx.ErrPreprocessingBatch
			if errors.As(err, &e) && len(statements) == 1 {
				err = e.Unwrap() // as if there were no batch
			}
			// The pool keeps the connection if it is idle, as after a failure to prepare.
			l.err = fmt.Errorf("the transaction did not begin: %w", err)
			return nil, err
		}
	}
	l.tx = results.Tx()
	return &firstResults{results}, nil
}

func (l *lazyTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if l.canBeginWith(args) {
		results, err := l.begin(ctx, &pgx.QueuedQuery{SQL: sql, Arguments: args})
		if err != nil {
			return pgconn.CommandTag{}, err
		}
		tag, err := results.Exec()
		return tag, cmp.Or(err, results.Close())
	}
	tx, err := l.ensureBegun(ctx)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	return tx.Exec(ctx, sql, args...)
}

func (l *lazyTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if l.canBeginWith(args) {
		results, err := l.begin(ctx, &pgx.QueuedQuery{SQL: sql, Arguments: args})
		if err != nil {
			return failed(err).Query()
		}
		rows, err := results.Query()
		if err != nil {
			_ = results.Close()
		}
		return &firstRows{Rows: rows, results: results}, err
	}
	tx, err := l.ensureBegun(ctx)
	if err != nil {
		return failed(err).Query()
	}
	return tx.Query(ctx, sql, args...)
}

func (l *lazyTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if l.canBeginWith(args) {
		results, err := l.begin(ctx, &pgx.QueuedQuery{SQL: sql, Arguments: args})
		if err != nil {
			return failed(err).QueryRow()
		}
		return firstRow{results.QueryRow(), results}
	}
	tx, err := l.ensureBegun(ctx)
	if err != nil {
		return failed(err).QueryRow()
	}
	return tx.QueryRow(ctx, sql, args...)
}

func (l *lazyTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if b.Len() > 0 && l.canBeginWith(b.QueuedQueries[0].Arguments) {
		results, err := l.begin(ctx, b.QueuedQueries...)
		if err != nil {
			return pgx.FailedBatchResults(b, err)
		}
		return results
	}
	tx, err := l.ensureBegun(ctx)
	if err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	return tx.SendBatch(ctx, b)
}

func (l *lazyTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	tx, err := l.ensureBegun(ctx)
	if err != nil {
		return 0, err
	}
	return tx.CopyFrom(ctx, table, columns, rows)
}

func (l *lazyTx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	tx, err := l.ensureBegun(ctx)
	if err != nil {
		return nil, err
	}
	return tx.Prepare(ctx, name, sql)
}

// Begin sets a savepoint.
func (l *lazyTx) Begin(ctx context.Context) (pgx.Tx, error) {
	l.bypassed = true
	tx, err := l.ensureBegun(ctx)
	if err != nil {
		return nil, err
	}
	return tx.Begin(ctx)
}

func (l *lazyTx) LargeObjects() pgx.LargeObjects {
	l.bypassed = true
	tx, err := l.ensureBegun(l.ctx)
	if err != nil {
		tx = failed(err).Tx()
	}
	return tx.LargeObjects()
}

// Conn returns the connection within the transaction. If that cannot begin, the connection is
// closed: what its user sends must not take effect outside.
func (l *lazyTx) Conn() *pgx.Conn {
	l.bypassed = true
	// After the end it may be another caller's.
	if _, err := l.ensureBegun(l.ctx); err != nil && !errors.Is(err, pgx.ErrTxClosed) {
		_ = l.conn.Close(l.ctx)
	}
	return l.conn
}

// Commit has nothing to do when no statement was sent.
func (l *lazyTx) Commit(ctx context.Context) error {
	if l.tx != nil {
		return l.tx.Commit(ctx)
	}
	err := l.err
	l.err = pgx.ErrTxClosed
	if err != nil && !errors.Is(err, pgx.ErrTxClosed) {
		return fmt.Errorf("%w: %w", pgx.ErrTxCommitRollback, err)
	}
	return err
}

func (l *lazyTx) Rollback(ctx context.Context) error {
	if l.tx != nil {
		return l.tx.Rollback(ctx)
	}
	l.err = pgx.ErrTxClosed
	return nil
}

// failed returns results that report err from every method.
func failed(err error) pgx.BatchResults {
	var b pgx.Batch
	b.BeginTx(pgx.TxOptions{})
	return pgx.FailedBatchResults(&b, err)
}

// firstResults are those of the batch that began the transaction, without its beginning.
type firstResults struct{ pgx.BatchResults }

func (*firstResults) Tx() pgx.Tx { return nil } // as in any transaction

// firstRow is a row whose batch ends with it.
type firstRow struct {
	pgx.Row
	results *firstResults
}

func (r firstRow) Scan(dest ...any) error {
	err := r.Row.Scan(dest...)
	return cmp.Or(err, r.results.Close())
}

// firstRows are rows whose batch ends with them.
type firstRows struct {
	pgx.Rows
	results *firstResults
	err     error // of the batch's end
}

func (r *firstRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

func (r *firstRows) Scan(dest ...any) error {
	err := r.Rows.Scan(dest...)
	if err != nil {
		r.Close()
	}
	return err
}

func (r *firstRows) Values() ([]any, error) {
	values, err := r.Rows.Values()
	if err != nil {
		r.Close()
	}
	return values, err
}

func (r *firstRows) Close() {
	r.Rows.Close()
	r.err = r.results.Close()
}

func (r *firstRows) Err() error { return cmp.Or(r.Rows.Err(), r.err) }

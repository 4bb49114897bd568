package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Last is an option of Exec, before the arguments of a statement with arguments, that says: this
// is the last statement of a transaction of DB.Write. What the transaction has touched then comes
// back with it, which saves a round trip. Constraints and triggers that are deferred to the commit
// run with it, and their error is the statement's. If another statement follows nevertheless,
// nothing is saved; in any other transaction, nothing is different.
//
//	tx.Exec(ctx, `UPDATE courses SET title = $2 WHERE id = $1`, postgres.Last, id, title)
var Last pgx.QueryRewriter = last{}

// Decision 33.
type last struct{}

// RewriteQuery changes nothing: pgx leaves out the option.
func (last) RewriteQuery(_ context.Context, _ *pgx.Conn, sql string, args []any) (string, []any, error) {
	return sql, args, nil
}

// execLast runs a statement and reads what was touched.
func (t *Tx) execLast(ctx context.Context, sql string, args []any) (tag pgconn.CommandTag, err error) {
	if t.mark == driver.NoMark || !t.tx.batchable(args) {
		return t.tx.Exec(ctx, sql, args...)
	}
	var b pgx.Batch
	b.Queue(sql, args...).Exec(func(of pgconn.CommandTag) error { tag = of; return nil })
	rows := t.queueTouched(&b)
	err = t.tx.SendBatch(ctx, &b).Close()
	var e pgx.ErrPreprocessingBatch
	if errors.As(err, &e) {
		err = e.Unwrap() // as if there were no batch
	}
	if err == nil {
		t.touched, t.asOf = *rows, t.tx.calls
	}
	return tag, err
}

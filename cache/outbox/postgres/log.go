package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache/outbox"
)

// Log is the outbox table of a database. It implements outbox.Log, and is safe for
// concurrent use.
type Log struct {
	pool *pgxpool.Pool
	ear  *ear
}

var _ outbox.Log = (*Log)(nil)

// NewLog returns the outbox of the database behind pool, which the caller closes after the
// Log. Wait uses a connection of its own, made like those of the pool. A nil logger
// logs nothing.
func NewLog(pool *pgxpool.Pool, logger *slog.Logger) *Log {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Log{pool: pool, ear: newEar(pool, logger)}
}

// Close ends the connection that Wait uses. A Wait in progress ends with an error.
func (l *Log) Close() error { l.ear.close(); return nil }

const (
	// claimTime bounds how long rows stay claimed by a relay that has stopped in the
	// middle without its connection noticing.
	claimTime = 5 * time.Second

	leftBehind = `mark IS NULL OR recorded_at <= statement_timestamp() - make_interval(secs => $1::float8)`

	anyLeft = `SELECT EXISTS (SELECT FROM cache_outbox WHERE ` + leftBehind + `)`

	// An array, not IN: a join may run a subquery with a LIMIT more than once. The rows are
	// deleted before they are delivered, because that is a round trip less and keeps
	// others off them just as well; nothing is gone before the commit.
	claimRows = `DELETE FROM cache_outbox WHERE id = ANY (ARRAY(
	SELECT id FROM cache_outbox
	WHERE ` + leftBehind + `
	ORDER BY id LIMIT $2::int FOR UPDATE SKIP LOCKED))
RETURNING id, tag, mark, extract(epoch FROM clock_timestamp() - recorded_at)::float8`
)

// Deliver claims rows that were left behind, hands them to bump, and deletes them.
func (l *Log) Deliver(ctx context.Context, grace time.Duration, most int, bump func(context.Context, []outbox.Row) error) (int, error) {
	// Most looks find nothing, and then one trip is enough.
	var any bool
	if err := l.pool.QueryRow(ctx, anyLeft, grace.Seconds()).Scan(&any); err != nil {
		return 0, fmt.Errorf("read outbox: %w", err)
	}
	if !any {
		return 0, nil
	}
	tx, err := l.pool.BeginTx(ctx, pgx.TxOptions{BeginQuery: fmt.Sprintf(
		"begin; select set_config('idle_in_transaction_session_timeout', '%d', true)", claimTime.Milliseconds())})
	if err != nil {
		return 0, fmt.Errorf("claim outbox rows: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))

	found, err := tx.Query(ctx, claimRows, grace.Seconds(), most)
	if err != nil {
		return 0, fmt.Errorf("claim outbox rows: %w", err)
	}
	rows, err := pgx.CollectRows(found, func(r pgx.CollectableRow) (row outbox.Row, err error) {
		var mark []byte
		var age float64
		err = r.Scan(&row.ID, &row.Tag, &mark, &age)
		copy(row.Mark[:], mark)
		row.Age = max(0, seconds(age))
		return row, err
	})
	if err != nil {
		return 0, fmt.Errorf("claim outbox rows: %w", err)
	}
	if len(rows) == 0 {
		return 0, nil
	}
	if err := bump(ctx, rows); err != nil {
		return len(rows), err
	}
	if err := tx.Commit(ctx); err != nil {
		return len(rows), fmt.Errorf("delete delivered outbox rows: %w", err)
	}
	return len(rows), nil
}

// forgetAtOnce is the most rows that one statement deletes.
const forgetAtOnce = 1000

// Forget deletes rows that their own writer has delivered. Rows that a relay is delivering
// at this moment are left to it.
func (l *Log) Forget(ctx context.Context, ids []int64) error {
	for some := range slices.Chunk(ids, forgetAtOnce) {
		_, err := l.pool.Exec(ctx, `DELETE FROM cache_outbox WHERE id = ANY (ARRAY(
			SELECT id FROM cache_outbox WHERE id = ANY ($1::bigint[]) FOR UPDATE SKIP LOCKED))`, some)
		if err != nil {
			return fmt.Errorf("delete delivered outbox rows: %w", err)
		}
	}
	return nil
}

// countedRows bounds what Backlog costs.
const countedRows = 100_000

// Backlog returns the number of rows, counted up to 100,000, and the age of the oldest of
// these.
func (l *Log) Backlog(ctx context.Context) (int, time.Duration, error) {
	var rows int
	var age float64
	err := l.pool.QueryRow(ctx, `
		SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(recorded_at)), 0)::float8
		FROM (SELECT recorded_at FROM cache_outbox ORDER BY id LIMIT $1::int) AS oldest`, countedRows).Scan(&rows, &age)
	if err != nil {
		return 0, 0, fmt.Errorf("count outbox rows: %w", err)
	}
	return rows, max(0, seconds(age)), nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

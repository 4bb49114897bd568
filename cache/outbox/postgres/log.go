package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/pgschema"
)

// Log is the outbox table of a database. It implements outbox.Log, and is safe for
// concurrent use.
type Log struct {
	pool       *pgxpool.Pool
	listener   *listener
	keepsPlans bool // the server keeps those of what pool asks
}

var _ outbox.Log = (*Log)(nil)

// NewLog returns the outbox of the database behind pool, which the caller closes after the
// Log. Wait uses a connection of its own, made like those of the pool. A nil logger
// logs nothing.
func NewLog(pool *pgxpool.Pool, logger *slog.Logger) *Log {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	// Of the modes in which pgx asks, one alone has the server keep the plan.
	keepsPlans := pool.Config().ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement
	return &Log{pool: pool, listener: newListener(pool, logger), keepsPlans: keepsPlans}
}

// Close ends the connection that Wait uses. A Wait in progress ends with an error.
func (l *Log) Close() error { l.listener.close(); return nil }

// claimTime bounds how long rows stay claimed by a relay that has stopped in the
// middle without its connection noticing.
const claimTime = 5 * time.Second

// Join keeps a consumer registered, and forgets those that have not been heard of.
func (l *Log) Join(ctx context.Context, consumer string) (joined bool, gone []string, err error) {
	// Each statement in a transaction of its own: two that join at once must not hold their
	// own registration and wait for that of the other.
	if err := l.pool.QueryRow(ctx, pgschema.Register, consumer, cache.Everything).Scan(&joined); err != nil {
		return false, nil, fmt.Errorf("register a consumer of the outbox: %w", err)
	}
	found, err := l.pool.Query(ctx, pgschema.Forget, consumer, outbox.ConsumerLife.Seconds())
	if err == nil {
		gone, err = pgx.CollectRows(found, pgx.RowTo[string])
	}
	if err != nil {
		return joined, nil, fmt.Errorf("forget consumers of the outbox: %w", err)
	}
	return joined, gone, pgschema.DeleteLeft(func(statement string, rows int) (int64, error) { return l.replanned(ctx, statement, rows) })
}

// replanned carries out a statement with a plan that is made for it now (pgschema.Replan), and
// returns how many rows it was about.
func (l *Log) replanned(ctx context.Context, statement string, args ...any) (int64, error) {
	if l.keepsPlans {
		args = slices.Insert(args, 0, any(pgx.QueryExecModeCacheDescribe))
	}
	done, err := l.pool.Exec(ctx, statement, args...)
	return done.RowsAffected(), err
}

// Leave forgets a consumer. What was noted for it goes with the next Join of another.
func (l *Log) Leave(ctx context.Context, consumer string) error {
	if _, err := l.pool.Exec(ctx, pgschema.Leave, consumer); err != nil {
		return fmt.Errorf("forget a consumer of the outbox: %w", err)
	}
	return nil
}

// joined says whether a consumer is registered.
func (l *Log) joined(ctx context.Context, consumer string) (joined bool, err error) {
	err = l.pool.QueryRow(ctx, pgschema.Joined, consumer).Scan(&joined)
	if err != nil {
		return false, fmt.Errorf("read consumers of the outbox: %w", err)
	}
	return joined, nil
}

// Deliver hands rows that the consumer has not got to bump.
func (l *Log) Deliver(ctx context.Context, consumer string, grace time.Duration, most int, bump func(context.Context, []outbox.Row) error) (int, error) {
	mine := outbox.MarkOf(consumer)
	// Most looks find nothing, and then one trip is enough.
	var registered, shared, any bool
	if err := l.pool.QueryRow(ctx, pgschema.Look, consumer, mine[:], grace.Seconds()).Scan(&registered, &shared, &any); err != nil {
		return 0, fmt.Errorf("read outbox: %w", err)
	}
	switch {
	case !registered:
		return 0, outbox.ErrNotJoined
	case !any:
		return 0, nil
	case shared:
		rows, err := collect(l.pool.Query(ctx, pgschema.ReadRows, consumer, mine[:], grace.Seconds(), most))
		if err != nil || len(rows) == 0 {
			return 0, err
		}
		if err := bump(ctx, rows); err != nil {
			return len(rows), err
		}
		ids := make([]int64, len(rows))
		for i, row := range rows {
			ids[i] = row.ID
		}
		return len(rows), l.Done(ctx, consumer, ids)
	}

	tx, err := l.pool.BeginTx(ctx, pgx.TxOptions{BeginQuery: fmt.Sprintf(
		"begin; select set_config('idle_in_transaction_session_timeout', '%d', true); %s", claimTime.Milliseconds(), pgschema.Replan)})
	if err != nil {
		return 0, fmt.Errorf("claim outbox rows: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	rows, err := collect(tx.Query(ctx, pgschema.ClaimRows, consumer, mine[:], grace.Seconds(), most))
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	if err := bump(ctx, rows); err != nil {
		return len(rows), err
	}
	if err := tx.Commit(ctx); err != nil {
		return len(rows), fmt.Errorf("delete delivered outbox rows: %w", err)
	}
	return len(rows), nil
}

func collect(found pgx.Rows, err error) ([]outbox.Row, error) {
	if err != nil {
		return nil, fmt.Errorf("claim outbox rows: %w", err)
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
		return nil, fmt.Errorf("claim outbox rows: %w", err)
	}
	return rows, nil
}

// Done notes that the consumer has got rows, and deletes those that all consumers have got.
func (l *Log) Done(ctx context.Context, consumer string, ids []int64) error {
	for some := range slices.Chunk(ids, pgschema.DoneAtOnce) {
		// A consumer that is alone has nothing noted, so both orders are the same to it; one that
		// is not must have noted, and committed that, before it looks for what all have got.
		for _, statement := range []string{pgschema.NoteRows, pgschema.DeleteRows} {
			if _, err := l.replanned(ctx, statement, consumer, some); err != nil {
				return fmt.Errorf("delete delivered outbox rows: %w", err)
			}
		}
	}
	return nil
}

// Backlog returns the number of rows that the consumer has not got, counted up to 100,000, and
// the age of the oldest of these. A row of the future, from before the server's clock was set
// back, counts as old as it is far ahead.
func (l *Log) Backlog(ctx context.Context, consumer string) (int, time.Duration, error) {
	var rows int
	var age float64
	err := l.pool.QueryRow(ctx, pgschema.Backlog, consumer, pgschema.CountedRows).Scan(&rows, &age)
	if err != nil {
		return 0, 0, fmt.Errorf("count outbox rows: %w", err)
	}
	return rows, seconds(age), nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

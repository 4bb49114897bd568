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
)

// Log is the outbox table of a database. It implements outbox.Log, and is safe for
// concurrent use.
type Log struct {
	pool     *pgxpool.Pool
	listener *listener
}

var _ outbox.Log = (*Log)(nil)

// NewLog returns the outbox of the database behind pool, which the caller closes after the
// Log. Wait uses a connection of its own, made like those of the pool. A nil logger
// logs nothing.
func NewLog(pool *pgxpool.Pool, logger *slog.Logger) *Log {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Log{pool: pool, listener: newListener(pool, logger)}
}

// Close ends the connection that Wait uses. A Wait in progress ends with an error.
func (l *Log) Close() error { l.listener.close(); return nil }

// How rows and consumers meet, and why no consumer loses one.
//
// A row may go when every registered consumer has got it. Writers and triggers know nothing
// of consumers: a new row is one that no consumer has got. Which are registered and which have
// got what is judged by single statements, each in one snapshot:
//
//	A is alone                                  DELETE the rows, unless the snapshot shows
//	                                            another consumer; bump; COMMIT
//	A and B                                     read the rows that A has not got; bump;
//	                                            note that A has got them; DELETE those that
//	                                            the snapshot shows every consumer to have got
//
// A consumer that the snapshot of a DELETE does not show has joined later than all the rows
// that it deletes were committed. The statement that registers a consumer also records a row that
// invalidates everything in its store, so it needs none of these rows. A consumer that the snapshot does show has got the rows, or they stay.
//
// Two consumers may get a row at the same time, and neither DELETE shows what the other noted:
// each notes first, in a transaction of its own, and deletes then, so the later of the two
// sees both. A process that dies between the two leaves a row that all have got; Join removes it.
//
// Relays of one consumer may both deliver a row while there are other consumers: locks would
// make one consumer wait for the store of another. That costs a bump and loses nothing. So does
// a consumer that joins again: it is handed rows that its predecessor by that name has got.

const (
	// claimTime bounds how long rows stay claimed by a relay that has stopped in the
	// middle without its connection noticing.
	claimTime = 5 * time.Second

	// rowAge is the age of a row in seconds. Any program may have recorded it, at any time: one without an age is
	// as old as can be. An error would keep all other rows from being delivered.
	rowAge = `extract(epoch FROM clock_timestamp() - CASE WHEN isfinite(o.recorded_at) THEN o.recorded_at ELSE 'epoch' END)`

	// due are the rows that no writer will deliver to this consumer's store ($2 is what the
	// marks of its own writers begin with), or that their writer should have delivered by
	// now. A row of the future is one from before the server's clock was set back.
	due = `(o.mark IS NULL OR substr(o.mark, 1, 8) <> $2::bytea
	OR ` + rowAge + ` NOT BETWEEN 0 AND $3::float8)`

	notGot = `NOT EXISTS (SELECT FROM cache_delivered d WHERE d.row_id = o.id AND d.consumer = $1::text)`

	others = `EXISTS (SELECT FROM cache_consumers WHERE name <> $1::text)`

	look = `SELECT EXISTS (SELECT FROM cache_consumers WHERE name = $1::text), ` + others + `,
	EXISTS (SELECT FROM cache_outbox o WHERE ` + due + ` AND ` + notGot + `)`

	// One more than driver.MaxTag: what is no tag for its length needs no more of it to show that.
	row = `o.id, left(o.tag, 201), o.mark, ` + rowAge + `::float8`

	// An array, not IN: a join may run a subquery with a LIMIT more than once. The rows are
	// deleted before they are delivered, because that is a round trip less and keeps
	// other relays off them just as well; nothing is gone before the commit.
	claimRows = `DELETE FROM cache_outbox o WHERE o.id = ANY (ARRAY(
	SELECT o.id FROM cache_outbox o
	WHERE NOT ` + others + ` AND ` + due + ` AND ` + notGot + `
	ORDER BY o.id LIMIT $4::int FOR UPDATE OF o SKIP LOCKED))
RETURNING ` + row

	readRows = `SELECT ` + row + ` FROM cache_outbox o
	WHERE ` + due + ` AND ` + notGot + ` ORDER BY o.id LIMIT $4::int`

	// noteRows does nothing for a consumer that is alone.
	noteRows = `INSERT INTO cache_delivered (row_id, consumer)
	SELECT o.id, $1::text FROM cache_outbox o WHERE o.id = ANY ($2::bigint[]) AND ` + others + `
	ON CONFLICT DO NOTHING`

	// everyoneHas is true of a row of which each registered consumer but $1, which has got it
	// in any case, is noted to have got it. It counts: the planner takes an anti-join of two
	// tables it knows nothing of to be so dear that it compiles the statement (jit_above_cost),
	// which takes a hundred times as long as running it.
	everyoneHas = `(NOT ` + others + ` OR
		(SELECT count(*) FROM cache_delivered d WHERE d.row_id = o.id
			AND d.consumer = ANY (ARRAY(SELECT name FROM cache_consumers WHERE name <> $1::text)))
		= (SELECT count(*) FROM cache_consumers WHERE name <> $1::text))`

	// deleteRows leaves alone what a relay is delivering at this moment.
	deleteRows = `WITH gone AS (
	DELETE FROM cache_outbox WHERE id = ANY (ARRAY(
		SELECT o.id FROM cache_outbox o WHERE o.id = ANY ($2::bigint[]) AND ` + everyoneHas + `
		FOR UPDATE OF o SKIP LOCKED))
	RETURNING id)
DELETE FROM cache_delivered WHERE row_id = ANY ($2::bigint[]) AND row_id IN (SELECT id FROM gone)`
)

// register records that the consumer is alive. One that was not registered is left a row that the
// others have got already; one that joins at the same moment gets it too, without harm.
const register = `WITH me AS (
	INSERT INTO cache_consumers AS c (name) VALUES ($1::text)
	ON CONFLICT (name) DO UPDATE SET seen_at = clock_timestamp()
	RETURNING c.xmax = 0 AS joined
), everything AS (
	INSERT INTO cache_outbox (tag) SELECT $2::text FROM me WHERE joined RETURNING id
), others AS (
	INSERT INTO cache_delivered (row_id, consumer)
	SELECT e.id, c.name FROM everything e, cache_consumers c WHERE c.name <> $1::text
)
SELECT joined FROM me`

// Join keeps a consumer registered, and forgets those that have not been heard of.
func (l *Log) Join(ctx context.Context, consumer string) (joined bool, gone []string, err error) {
	// Each statement in a transaction of its own: two that join at once must not hold their
	// own registration and wait for that of the other.
	if err := l.pool.QueryRow(ctx, register, consumer, cache.Everything).Scan(&joined); err != nil {
		return false, nil, fmt.Errorf("register a consumer of the outbox: %w", err)
	}
	found, err := l.pool.Query(ctx, `DELETE FROM cache_consumers
		WHERE name <> $1::text AND seen_at < clock_timestamp() - make_interval(secs => $2::float8) RETURNING name`,
		consumer, outbox.ConsumerLife.Seconds())
	if err == nil {
		gone, err = pgx.CollectRows(found, pgx.RowTo[string])
	}
	if err != nil {
		return joined, nil, fmt.Errorf("forget consumers of the outbox: %w", err)
	}
	// What was noted for rows that are gone, and the rows that all have got by now.
	_, err = l.pool.Exec(ctx, `DELETE FROM cache_delivered d WHERE NOT EXISTS (SELECT FROM cache_outbox o WHERE o.id = d.row_id)`)
	if err == nil {
		_, err = l.pool.Exec(ctx, `DELETE FROM cache_outbox WHERE id = ANY (ARRAY(
			SELECT o.id FROM cache_outbox o JOIN cache_delivered mine ON mine.row_id = o.id AND mine.consumer = $1::text
			WHERE `+everyoneHas+` FOR UPDATE OF o SKIP LOCKED))`, consumer)
	}
	if err != nil {
		return joined, gone, fmt.Errorf("delete outbox rows that all consumers have got: %w", err)
	}
	return joined, gone, nil
}

// joined says whether a consumer is registered.
func (l *Log) joined(ctx context.Context, consumer string) (joined bool, err error) {
	err = l.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM cache_consumers WHERE name = $1::text)`, consumer).Scan(&joined)
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
	if err := l.pool.QueryRow(ctx, look, consumer, mine[:], grace.Seconds()).Scan(&registered, &shared, &any); err != nil {
		return 0, fmt.Errorf("read outbox: %w", err)
	}
	switch {
	case !registered:
		return 0, outbox.ErrNotJoined
	case !any:
		return 0, nil
	case shared:
		rows, err := collect(l.pool.Query(ctx, readRows, consumer, mine[:], grace.Seconds(), most))
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
		"begin; select set_config('idle_in_transaction_session_timeout', '%d', true)", claimTime.Milliseconds())})
	if err != nil {
		return 0, fmt.Errorf("claim outbox rows: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	rows, err := collect(tx.Query(ctx, claimRows, consumer, mine[:], grace.Seconds(), most))
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

// doneAtOnce is the most rows that one statement notes or deletes: with more the planner would have it
// compiled.
const doneAtOnce = 500

// Done notes that the consumer has got rows, and deletes those that all consumers have got.
func (l *Log) Done(ctx context.Context, consumer string, ids []int64) error {
	for some := range slices.Chunk(ids, doneAtOnce) {
		// A consumer that is alone has nothing noted, so both orders are the same to it; one that
		// is not must have noted, and committed that, before it looks for what all have got.
		for _, statement := range []string{noteRows, deleteRows} {
			if _, err := l.pool.Exec(ctx, statement, consumer, some); err != nil {
				return fmt.Errorf("delete delivered outbox rows: %w", err)
			}
		}
	}
	return nil
}

// countedRows bounds what Backlog costs.
const countedRows = 100_000

// Backlog returns the number of rows that the consumer has not got, counted up to 100,000, and
// the age of the oldest of these. A row of the future, from before the server's clock was set
// back, counts as old as it is far ahead.
func (l *Log) Backlog(ctx context.Context, consumer string) (int, time.Duration, error) {
	var rows int
	var age float64
	err := l.pool.QueryRow(ctx, `
		SELECT count(*), coalesce(max(abs(age)), 0)::float8
		FROM (SELECT `+rowAge+` AS age FROM cache_outbox o WHERE `+notGot+` ORDER BY o.id LIMIT $2::int) AS oldest`, consumer, countedRows).Scan(&rows, &age)
	if err != nil {
		return 0, 0, fmt.Errorf("count outbox rows: %w", err)
	}
	return rows, seconds(age), nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

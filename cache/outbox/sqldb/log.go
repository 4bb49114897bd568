package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/pgschema"
)

// Log is the outbox table of a database. It implements outbox.Log, and is safe for concurrent
// use.
type Log struct {
	db *sql.DB

	mu    sync.Mutex
	pause time.Duration // of the next Wait; guarded by mu
}

var _ outbox.Log = (*Log)(nil)

// logConns is how many connections a Log has at most. Background, recovery and statements that wait
// for a delivery use one each.
const logConns = 4

// NewLog returns the outbox of a PostgreSQL database, for outbox.NewRelay. It has a few connections of its own,
// which are not wrapped.
func NewLog(c driver.Connector) *Log {
	if wrapped, ok := c.(*connector); ok {
		c = wrapped.Connector
	}
	return newLog(unwrapped(c))
}

func newLog(pool *sql.DB) *Log { return &Log{db: pool, pause: firstPause} }

// unwrapped returns a pool of a few connections of its own.
func unwrapped(c driver.Connector) *sql.DB {
	pool := sql.OpenDB(unclosed{c})
	pool.SetMaxOpenConns(logConns)
	return pool
}

// unclosed is a connector that others use, too: the end of a Log does not close it.
type unclosed struct{ driver.Connector }

// Close closes the Log's connections.
func (l *Log) Close() error { return l.db.Close() }

// Join keeps a consumer registered, and forgets those that have not been heard of.
func (l *Log) Join(ctx context.Context, consumer string) (joined bool, gone []string, err error) {
	// Each statement in a transaction of its own: two that join at once must not hold their
	// own registration and wait for that of the other.
	if err := l.db.QueryRowContext(ctx, pgschema.Register, consumer, string(cache.Everything)).Scan(&joined); err != nil {
		return false, nil, fmt.Errorf("register a consumer of the outbox: %w", err)
	}
	err = each(ctx, l.db, pgschema.Forget, []any{consumer, outbox.ConsumerLife.Seconds()}, func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		gone = append(gone, name)
		return err
	})
	if err != nil {
		return joined, nil, fmt.Errorf("forget consumers of the outbox: %w", err)
	}
	return joined, gone, pgschema.DeleteLeft(func(statement string, rows int) (int64, error) { return l.replanned(ctx, statement, rows) })
}

// replanned carries out a statement with a plan that is made for it now (pgschema.Replan), and
// returns how many rows it was about.
func (l *Log) replanned(ctx context.Context, statement string, args ...any) (int64, error) {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, pgschema.Replan); err != nil {
		return 0, err
	}
	done, err := tx.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	n, err := done.RowsAffected()
	if err != nil {
		return 0, err
	}
	return n, tx.Commit()
}

// Leave forgets a consumer. What was noted for it goes with the next Join of another.
func (l *Log) Leave(ctx context.Context, consumer string) error {
	if _, err := l.db.ExecContext(ctx, pgschema.Leave, consumer); err != nil {
		return fmt.Errorf("forget a consumer of the outbox: %w", err)
	}
	return nil
}

// joined says whether a consumer is registered.
func (l *Log) joined(ctx context.Context, consumer string) (joined bool, err error) {
	if err := l.db.QueryRowContext(ctx, pgschema.Joined, consumer).Scan(&joined); err != nil {
		return false, fmt.Errorf("read consumers of the outbox: %w", err)
	}
	return joined, nil
}

// claimTime bounds how long rows stay claimed by a relay that has stopped in the
// middle without its connection noticing.
const claimTime = 5 * time.Second

// Deliver hands rows that the consumer has not got to bump.
func (l *Log) Deliver(ctx context.Context, consumer string, grace time.Duration, most int, bump func(context.Context, []outbox.Row) error) (int, error) {
	n, err := l.deliver(ctx, consumer, grace, most, bump)
	l.look(n > 0 || err != nil)
	return n, err
}

func (l *Log) deliver(ctx context.Context, consumer string, grace time.Duration, most int, bump func(context.Context, []outbox.Row) error) (int, error) {
	mine := outbox.MarkOf(consumer)
	// Most looks find nothing, and then one statement is enough.
	var registered, shared, found bool
	if err := l.db.QueryRowContext(ctx, pgschema.Look, consumer, mine[:], grace.Seconds()).Scan(&registered, &shared, &found); err != nil {
		return 0, fmt.Errorf("read outbox: %w", err)
	}
	args := []any{consumer, mine[:], grace.Seconds(), most}
	switch {
	case !registered:
		return 0, outbox.ErrNotJoined
	case !found:
		return 0, nil
	case shared:
		rows, err := collect(ctx, l.db, pgschema.ReadRows, args)
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

	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("claim outbox rows: %w", err)
	}
	defer tx.Rollback()
	for _, setting := range []string{fmt.Sprintf("SET LOCAL idle_in_transaction_session_timeout = %d", claimTime.Milliseconds()), pgschema.Replan} {
		if _, err := tx.ExecContext(ctx, setting); err != nil {
			return 0, fmt.Errorf("claim outbox rows: %w", err)
		}
	}
	rows, err := collect(ctx, tx, pgschema.ClaimRows, args)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	if err := bump(ctx, rows); err != nil {
		return len(rows), err
	}
	if err := tx.Commit(); err != nil {
		return len(rows), fmt.Errorf("delete delivered outbox rows: %w", err)
	}
	return len(rows), nil
}

func collect(ctx context.Context, db Conn, query string, args []any) (rows []outbox.Row, err error) {
	err = each(ctx, db, query, args, func(scan func(...any) error) error {
		var row outbox.Row
		var tag string
		var mark []byte
		var age float64
		err := scan(&row.ID, &tag, &mark, &age)
		row.Tag = cache.Tag(tag)
		copy(row.Mark[:], mark)
		row.Age = max(0, seconds(age))
		rows = append(rows, row)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("claim outbox rows: %w", err)
	}
	return rows, nil
}

// Done notes that the consumer has got rows, and deletes those that all consumers have got.
func (l *Log) Done(ctx context.Context, consumer string, ids []int64) error {
	for some := range slices.Chunk(ids, pgschema.DoneAtOnce) {
		texts := make([]string, len(some))
		for i, id := range some {
			texts[i] = strconv.FormatInt(id, 10)
		}
		// A consumer that is alone has nothing noted, so both orders are the same to it; one that
		// is not must have noted, and committed that, before it looks for what all have got.
		for _, statement := range []string{pgschema.NoteRows, pgschema.DeleteRows} {
			if _, err := l.replanned(ctx, statement, consumer, "{"+strings.Join(texts, ",")+"}"); err != nil {
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
	if err := l.db.QueryRowContext(ctx, pgschema.Backlog, consumer, pgschema.CountedRows).Scan(&rows, &age); err != nil {
		return 0, 0, fmt.Errorf("count outbox rows: %w", err)
	}
	return rows, seconds(age), nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// database/sql has no notifications, so a relay looks at the outbox again and again: soon while it
// finds something, and at most lastPause later, so that what another program writes shows within
// 250 ms. A look that finds nothing is one statement.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

// Wait returns nil when it is time to look again.
func (l *Log) Wait(ctx context.Context) error {
	l.mu.Lock()
	pause := l.pause
	l.pause = min(l.pause*3/2, lastPause)
	l.mu.Unlock()
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// look notes whether a look at the outbox found something.
func (l *Log) look(found bool) {
	if found {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.pause = firstPause
	}
}

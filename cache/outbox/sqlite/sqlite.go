// Package sqlite adapts the outbox to SQLite, through database/sql and modernc.org/sqlite.
//
// A migration creates the tables of Schema, and Watch makes each table that answers are
// computed from record which tags a change touches:
//
//	err := sqlite.Watch(ctx, tx, "shop", "products", "product:{id}", "category:{category_id}")
//
// From then on each transaction, of this program or of any other that writes to the file, leaves
// behind the tags of the rows that it inserted, updated, deleted or replaced. A read that
// depends on a product says cache.T("product", id), and both spell the same tag. WatchSQL returns
// the same as SQL, for a migration file; Check says where declarations and triggers differ.
//
// Each store that answers are kept in is a consumer of the outbox (see outbox.Log): two programs
// with two stores on one file each get every row.
//
// Two pools of connections to the same file in WAL mode are needed: one to read through and
// one to write through, of a single connection that begins its transactions with BEGIN
// IMMEDIATE (_txlock=immediate in the name of the data source). Set a busy
// timeout on both.
package sqlite

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// Schema is the SQL that creates the outbox: copy it into a migration. It may be applied over
// an earlier version of itself. It needs no particular version of SQLite, so that any program
// may run its triggers.
//
//go:embed schema.sql
var Schema string

// Log is the outbox table of a database. It implements outbox.Log.
type Log struct {
	read, write *sql.DB

	mu        sync.Mutex
	consumers map[string]bool // that joined or asked for rows through this Log; guarded by mu
}

// NewLog returns the outbox of the database behind two pools, which the caller closes.
func NewLog(read, write *sql.DB) *Log {
	return &Log{read: read, write: write, consumers: map[string]bool{}}
}

var _ outbox.Log = (*Log)(nil)

// now is the database's clock, in Unix milliseconds. unixepoch('subsec') would read better
// but is younger than the SQLite of many a shell.
const now = `CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)`

// age of a row in milliseconds. A clock that was set back leaves rows that were recorded in the
// future. How old they are cannot be told, and no clock may hide a row, so they are as
// old as can be: a relay takes them at once, and Drain does not take them for rows of after its
// beginning.
// An age is an integer whatever a program has recorded, or it would keep all other rows from
// being read.
const age = `CAST(iif(recorded_at > ` + now + `, 3600000, ` + now + ` - recorded_at) AS INTEGER)`

// tagAndMark of a row that may be of any size and type: no more than shows what is no tag, which
// is one byte more than driver.MaxTag. Text would end at a NUL.
const tagAndMark = `substr(CAST(tag AS BLOB), 1, 201), substr(CAST(mark AS BLOB), 1, 16)`

// missing is the condition that consumer ?1 has not got row o.
const missing = `NOT EXISTS (SELECT 1 FROM cache_delivered d WHERE d.row_id = o.id AND d.consumer = ?1)`

// Join registers a consumer, or says that it lives. One transaction does it, in which nothing
// else can come or go.
//
// A consumer that has been silent for longer than its life joins again even if no other has
// forgotten it meanwhile.
func (l *Log) Join(ctx context.Context, consumer string) (joined bool, gone []string, err error) {
	l.note(consumer)
	life := outbox.ConsumerLife.Milliseconds()
	err = l.inTx(ctx, func(tx *sql.Tx) error {
		// A clock that was set back must not keep a consumer for as long as the step was.
		if _, err := tx.ExecContext(ctx, `UPDATE cache_consumers SET seen_at = `+now+` WHERE seen_at > `+now); err != nil {
			return err
		}
		names, err := scanStrings(tx.QueryContext(ctx, `DELETE FROM cache_consumers WHERE seen_at < `+now+` - ?1 RETURNING name`, life))
		if err != nil {
			return err
		}
		gone = slices.DeleteFunc(names, func(name string) bool { return name == consumer })
		updated, err := tx.ExecContext(ctx, `UPDATE cache_consumers SET seen_at = `+now+` WHERE name = ?1`, consumer)
		if err != nil {
			return err
		}
		n, err := updated.RowsAffected()
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `
DELETE FROM cache_delivered WHERE consumer NOT IN (SELECT name FROM cache_consumers);
DELETE FROM cache_outbox WHERE id IN (SELECT row_id FROM cache_delivered) AND `+gotByAll(``))
		if err != nil {
			return err
		}
		if joined = n == 0; joined {
			return register(ctx, tx, consumer)
		}
		return nil
	})
	if err != nil {
		return false, nil, fmt.Errorf("join outbox: %w", err)
	}
	slices.Sort(gone)
	return joined, gone, nil
}

// Leave forgets a consumer. What was noted for it goes with the next Join of another.
func (l *Log) Leave(ctx context.Context, consumer string) error {
	err := l.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM cache_consumers WHERE name = ?1`, consumer)
		return err
	})
	if err != nil {
		return fmt.Errorf("forget a consumer of the outbox: %w", err)
	}
	return nil
}

// register adds a consumer, and leaves it a row that invalidates everything in its store. The
// others have got that row, unless they have yet to get one like it.
func register(ctx context.Context, tx *sql.Tx, consumer string) error {
	waiting, err := scanStrings(tx.QueryContext(ctx, `
SELECT c.name FROM cache_consumers c JOIN cache_outbox o ON o.tag = ?1
WHERE NOT EXISTS (SELECT 1 FROM cache_delivered d WHERE d.row_id = o.id AND d.consumer = c.name)`, cache.Everything))
	if err != nil {
		return err
	}
	list, err := json.Marshal(append(waiting, consumer))
	if err != nil {
		return err
	}
	for _, query := range []string{
		`INSERT INTO cache_consumers (name, seen_at) VALUES (?1, ` + now + `)`,
		`INSERT INTO cache_touch VALUES (?2)`,
		`INSERT INTO cache_delivered (row_id, consumer)
		 SELECT o.id, c.name FROM cache_outbox o, cache_consumers c
		 WHERE o.tag = ?2 AND c.name NOT IN (SELECT value FROM json_each(?3))`,
	} {
		if _, err := tx.ExecContext(ctx, query, consumer, cache.Everything, string(list)); err != nil {
			return err
		}
	}
	return nil
}

// note remembers a consumer, for Wait.
func (l *Log) note(consumer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.consumers[consumer] = true
}

// gotByAll is the condition that every registered consumer has got a row of cache_outbox, apart
// from those that a further condition on c leaves out.
func gotByAll(apart string) string {
	return `NOT EXISTS (SELECT 1 FROM cache_consumers c WHERE NOT EXISTS (
        SELECT 1 FROM cache_delivered d WHERE d.row_id = cache_outbox.id AND d.consumer = c.name)` + apart + `)`
}

// The row of a consumer that is registered comes first, so that one statement, and so one
// state of the database, answers both questions.
const selectLeft = `
SELECT 0 AS id, '' AS tag, NULL AS mark, 0 AS age FROM cache_consumers WHERE name = ?1
UNION ALL
SELECT * FROM (
    SELECT id, ` + tagAndMark + `, ` + age + `
    FROM cache_outbox o
    WHERE ` + missing + `
        AND (mark IS NULL OR substr(mark, 1, 8) <> ?2 OR recorded_at <= ` + now + ` - ?3 OR recorded_at > ` + now + `)
    ORDER BY id
    LIMIT ?4)`

// Deliver hands rows that the consumer has not got to bump, and notes that it has got them. It
// claims nothing: to hold a claim would be to hold the database's only write lock
// during bump. Two relays may therefore deliver the same row, which costs a bump and harms
// nothing.
func (l *Log) Deliver(ctx context.Context, consumer string, grace time.Duration, most int, bump func(context.Context, []outbox.Row) error) (int, error) {
	l.note(consumer)
	own := outbox.MarkOf(consumer)
	rows, err := scanRows(l.read.QueryContext(ctx, selectLeft, consumer, own[:], grace.Milliseconds(), most))
	if err != nil {
		return 0, fmt.Errorf("read outbox: %w", err)
	}
	if len(rows) == 0 || rows[0].ID != 0 {
		return 0, outbox.ErrNotJoined
	}
	if rows = rows[1:]; len(rows) == 0 {
		return 0, nil
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

// Done notes that the consumer has got rows, and deletes those that no other waits for. A tag
// that was touched again since has a row of another ID, which stays.
//
// Who else waits is judged by the statement that deletes. SQLite runs one write after the other,
// so a consumer joins before it, and then its rows stay, or after it. Then rows that it never saw
// are gone; but Join has left it a row that invalidates everything that its store
// holds. What it loads after that is loaded after those rows were committed.
func (l *Log) Done(ctx context.Context, consumer string, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return fmt.Errorf("delivered outbox rows: %w", err)
	}
	err = l.inTx(ctx, func(tx *sql.Tx) error {
		for _, query := range []string{
			`INSERT OR IGNORE INTO cache_delivered (row_id, consumer)
			 SELECT id, ?1 FROM cache_outbox
			 WHERE id IN (SELECT value FROM json_each(?2)) AND EXISTS (SELECT 1 FROM cache_consumers WHERE name <> ?1)`,
			`DELETE FROM cache_outbox WHERE id IN (SELECT value FROM json_each(?2)) AND ` + gotByAll(` AND c.name <> ?1`),
		} {
			if _, err := tx.ExecContext(ctx, query, consumer, string(list)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delivered outbox rows: %w", err)
	}
	return nil
}

// registered says whether a consumer is.
func (l *Log) registered(ctx context.Context, consumer string) (is bool, err error) {
	err = l.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM cache_consumers WHERE name = ?1)`, consumer).Scan(&is)
	if err != nil {
		return false, fmt.Errorf("consumers of the outbox: %w", err)
	}
	return is, nil
}

// inTx runs fn in a transaction of the write connection.
func (l *Log) inTx(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := l.begin(ctx, ctx)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, rollback(tx))
	}
	return tx.Commit()
}

// countedRows bounds what Backlog costs.
const countedRows = 100_000

// Backlog returns the number of rows that the consumer has not got, counted up to 100,000, and
// the age of the oldest. An empty name counts all rows.
func (l *Log) Backlog(ctx context.Context, consumer string) (int, time.Duration, error) {
	const query = `
SELECT (SELECT count(*) FROM (SELECT 1 FROM cache_outbox o WHERE ` + missing + ` LIMIT ?2)),
       coalesce((SELECT ` + age + ` FROM cache_outbox o WHERE ` + missing + ` ORDER BY id LIMIT 1), 0)`
	var rows int
	var age int64
	if err := l.read.QueryRowContext(ctx, query, consumer, countedRows).Scan(&rows, &age); err != nil {
		return 0, 0, fmt.Errorf("count outbox: %w", err)
	}
	return rows, time.Duration(age) * time.Millisecond, nil
}

const (
	watchEvery  = 50 * time.Millisecond
	dataVersion = `PRAGMA data_version`
	// Rows beyond ?2 that one of the consumers ?1, an array of [name, first half of its marks], has
	// to get from others than its own writers, and the last row.
	anyLeft = `
SELECT EXISTS (
        SELECT 1 FROM cache_outbox o, json_each(?1) c
        WHERE o.id > ?2
            AND (o.mark IS NULL OR hex(substr(o.mark, 1, 8)) <> json_extract(c.value, '$[1]'))
            AND NOT EXISTS (SELECT 1 FROM cache_delivered d WHERE d.row_id = o.id AND d.consumer = json_extract(c.value, '$[0]'))),
    (SELECT coalesce(max(id), 0) FROM cache_outbox)`
)

// Wait returns nil when the outbox holds rows that are due at once for a consumer that joined, or
// asked for rows, through this Log: those without a mark, and those of other consumers'
// writers. It borrows a connection of the read pool for as long as it waits.
func (l *Log) Wait(ctx context.Context) error {
	conn, err := l.read.Conn(ctx)
	if err != nil {
		return fmt.Errorf("watch outbox: %w", err)
	}
	defer conn.Close()
	var marks [][2]string
	l.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(l.consumers)) {
		marks = append(marks, [2]string{name, fmt.Sprintf("%X", outbox.MarkOf(name))})
	}
	l.mu.Unlock()
	if marks == nil {
		marks = [][2]string{{"", ""}}
	}
	consumers, err := json.Marshal(marks)
	if err != nil {
		return fmt.Errorf("watch outbox: %w", err)
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var seen, last int64
	for first := true; ; first = false {
		// The version first, the table second: a commit between the two changes the next
		// version. The version moves with each commit of another connection and
		// costs next to nothing, however large the table.
		var version int64
		if err := conn.QueryRowContext(ctx, dataVersion).Scan(&version); err != nil {
			return fmt.Errorf("watch outbox: %w", err)
		}
		if first || version != seen {
			seen = version
			var left bool
			// Writers follow one another, so no row comes with a lower number than one that was seen.
			if err := conn.QueryRowContext(ctx, anyLeft, string(consumers), last).Scan(&left, &last); err != nil {
				return fmt.Errorf("watch outbox: %w", err)
			}
			if left {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// scanRows reads (id, tag, mark, age) rows.
func scanRows(rows *sql.Rows, err error) ([]outbox.Row, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []outbox.Row
	for rows.Next() {
		var row outbox.Row
		var tag, mark []byte
		var age int64
		if err := rows.Scan(&row.ID, &tag, &mark, &age); err != nil {
			return nil, err
		}
		row.Tag, row.Age = cache.Tag(tag), time.Duration(age)*time.Millisecond
		copy(row.Mark[:], mark)
		list = append(list, row)
	}
	return list, rows.Err()
}

func scanStrings(rows *sql.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, rows.Err()
}

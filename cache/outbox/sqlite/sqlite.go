// Package sqlite adapts the outbox to SQLite, through database/sql and modernc.org/sqlite.
//
// A migration creates the tables of Schema, and a trigger on each table that answers are
// computed from:
//
//	CREATE TRIGGER lessons_insert AFTER INSERT ON lessons BEGIN
//	    INSERT INTO cache_touch VALUES ('course:' || new.course_id), ('catalog:all');
//	END;
//
// From then on each transaction, of this program or of any other that writes to the file,
// leaves behind which tags it touched. REPLACE deletes rows without running
// delete triggers; where strangers may replace rows by rows with other tags, record the
// old row's tags in a BEFORE INSERT trigger as well.
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
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// Schema is the SQL that creates the outbox: copy it into a migration. It needs no
// particular version of SQLite, so that any program may run its triggers.
//
//go:embed schema.sql
var Schema string

// Log is the outbox table of a database. It implements outbox.Log.
type Log struct {
	read, write *sql.DB
}

// NewLog returns the outbox of the database behind two pools, which the caller closes.
func NewLog(read, write *sql.DB) *Log { return &Log{read, write} }

var _ outbox.Log = (*Log)(nil)

// now is the database's clock, in Unix milliseconds. unixepoch('subsec') would read better
// but is younger than the SQLite of many a shell.
const now = `CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)`

const selectLeft = `
SELECT id, tag, mark, ` + now + ` - recorded_at
FROM cache_outbox
WHERE mark IS NULL OR recorded_at <= ` + now + ` - ?1
ORDER BY id
LIMIT ?2`

// Deliver hands rows that were left behind to bump and deletes them. It claims nothing: to
// hold a claim would be to hold the database's only write lock during bump. Two relays may
// therefore deliver the same row, which costs a bump and harms nobody.
func (l *Log) Deliver(ctx context.Context, grace time.Duration, most int, bump func(context.Context, []outbox.Row) error) (int, error) {
	rows, err := scanRows(l.read.QueryContext(ctx, selectLeft, grace.Milliseconds(), most))
	if err != nil {
		return 0, fmt.Errorf("read outbox: %w", err)
	}
	if len(rows) == 0 {
		return 0, nil
	}
	if err := bump(ctx, rows); err != nil {
		return len(rows), err
	}
	ids := make([]int64, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	return len(rows), l.Forget(ctx, ids)
}

// Forget deletes rows. A tag that was touched again since has a row of another ID, which
// stays.
func (l *Log) Forget(ctx context.Context, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return fmt.Errorf("forget outbox rows: %w", err)
	}
	_, err = l.write.ExecContext(ctx, `DELETE FROM cache_outbox WHERE id IN (SELECT value FROM json_each(?))`, string(list))
	if err != nil {
		return fmt.Errorf("forget outbox rows: %w", err)
	}
	return nil
}

// countedRows bounds what Backlog costs.
const countedRows = 100_000

// Backlog returns the number of rows, counted up to 100,000, and the age of the oldest.
func (l *Log) Backlog(ctx context.Context) (int, time.Duration, error) {
	const query = `
SELECT (SELECT count(*) FROM (SELECT 1 FROM cache_outbox LIMIT ?1)),
       coalesce((SELECT ` + now + ` - recorded_at FROM cache_outbox ORDER BY id LIMIT 1), 0)`
	var rows int
	var age int64
	if err := l.read.QueryRowContext(ctx, query, countedRows).Scan(&rows, &age); err != nil {
		return 0, 0, fmt.Errorf("count outbox: %w", err)
	}
	return rows, milliseconds(age), nil
}

const (
	watchEvery  = 50 * time.Millisecond
	dataVersion = `PRAGMA data_version`
	anyStrange  = `SELECT EXISTS (SELECT 1 FROM cache_outbox WHERE mark IS NULL)`
)

// Wait returns nil when the outbox holds rows without a mark: those of writers that do not
// deliver themselves. It borrows a connection of the read pool for as long as it waits.
func (l *Log) Wait(ctx context.Context) error {
	conn, err := l.read.Conn(ctx)
	if err != nil {
		return fmt.Errorf("watch outbox: %w", err)
	}
	defer conn.Close()
	ask := func(query string) (n int64, err error) {
		if err := conn.QueryRowContext(ctx, query).Scan(&n); err != nil {
			return 0, fmt.Errorf("watch outbox: %w", err)
		}
		return n, nil
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for seen, first := int64(0), true; ; first = false {
		// The version first, the table second: a commit between the two changes the next
		// version. The version moves with each commit of another connection and
		// costs next to nothing, however large the table.
		version, err := ask(dataVersion)
		if err != nil {
			return err
		}
		if first || version != seen {
			seen = version
			left, err := ask(anyStrange)
			if err != nil {
				return err
			}
			if left == 1 {
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
		var tag string
		var mark []byte
		var age int64
		if err := rows.Scan(&row.ID, &tag, &mark, &age); err != nil {
			return nil, err
		}
		row.Tag, row.Age = cache.Tag(tag), milliseconds(age)
		copy(row.Mark[:], mark)
		list = append(list, row)
	}
	return list, rows.Err()
}

// milliseconds as a Duration; none if a clock was set back meanwhile.
func milliseconds(n int64) time.Duration { return max(0, time.Duration(n)*time.Millisecond) }

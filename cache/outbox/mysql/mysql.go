// Package mysql adapts the outbox to MariaDB (10.11 and later) and MySQL (8.0.29 and later), through
// database/sql and github.com/go-sql-driver/mysql.
//
// Apply, or a migration with the text of Schema, creates the tables of the outbox, and Watch makes each table that
// answers are computed from record which tags a change touches:
//
//	err := mysql.Watch(ctx, db, "shop", "products", "product:{id}", "category:{category_id}")
//
// From then on each transaction, of this program or of any other, leaves behind the tags of the rows
// that it inserted, updated, deleted or replaced. A read that depends on a product says
// cache.T("product", id), and both spell the same tag. WatchSQL returns the same as SQL, for a
// migration file; Check says where declarations and triggers differ.
//
// A program writes through DB.Write, and none of its reads is older than a write that has
// returned. One that is written already, with GORM, sqlx or plain database/sql, stays as it is, and opens its database
// with package sqldb:
//
//	db, err := sqldb.Open("mysql", dsn, c, sqldb.Config{Dialect: mysql.Dialect}) // was: sql.Open("mysql", dsn)
//	g, err := gorm.Open(gormmysql.New(gormmysql.Config{Conn: db.DB}), &gorm.Config{})
//
// Dialect says what differs from PostgreSQL. Other programs write as they like: a relay looks every 50 milliseconds. Each store that
// answers are kept in is a consumer of the outbox (see outbox.Log).
//
// # What a trigger cannot see
//
// Watch says which changes run no trigger. Beyond them: rows that arrive by replication, restored
// backups, and a session that skips triggers by the rights of the replication's own thread. Watch where the rows are
// written, with the relay there. binlog_format must be ROW or MIXED: with STATEMENT the relay's
// isolation level, READ COMMITTED, is refused.
//
// # Limits
//
// A fence stands for a lease, and a commit must not take effect after it. The process looks at the
// lease before it sends COMMIT, but may be suspended between the two. So the server ends a session of
// Write that is silent for four tenths of the lease (wait_timeout, in whole seconds, both on MariaDB
// and on MySQL): a COMMIT that comes later finds no transaction. The same holds between two statements
// of Write. Nothing limits how long a COMMIT takes that has arrived: outbox.Commit renews the fence meanwhile. The waits of
// a statement for locks are limited by innodb_lock_wait_timeout, and statements by max_statement_time
// (MariaDB; MySQL's max_execution_time is for SELECT only): both are yours to set, since the lease begins after
// the last statement. A proxy between the two must keep one server session for a transaction, with its
// user variables.
//
// Set timeout, readTimeout and writeTimeout in the name of the data source: they bound how long
// a pool waits for a server that has vanished. readTimeout must be longer than the longest statement.
package mysql

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	driversql "database/sql/driver"

	"github.com/go-sql-driver/mysql"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// Schema is the SQL that creates the outbox in a database: copy it into a migration. It may be applied over
// an earlier version of itself.
//
//go:embed schema.sql
var Schema string

// Apply runs Schema. db is a *sql.DB or a *sql.Conn that is in no transaction.
func Apply(ctx context.Context, db Conn) error {
	err := inSession(ctx, db, func(db Conn) error {
		for _, statement := range statements(Schema) {
			if strings.HasPrefix(statement, "SET ") {
				continue // inSession has done it
			}
			if _, err := db.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("apply the schema of the outbox: %w", err)
	}
	return nil
}

// statements splits a script: a statement ends with a line that ends with a semicolon, or where a
// comment of goose says so.
func statements(script string) (list []string) {
	var lines []string
	block := false
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		switch trimmed := strings.TrimSpace(line); {
		case strings.HasPrefix(trimmed, "-- +goose StatementBegin"):
			block = true
		case strings.HasPrefix(trimmed, "-- +goose StatementEnd"):
			block = false
		case trimmed == "" || len(lines) == 0 && strings.HasPrefix(trimmed, "--"):
			continue
		default:
			lines = append(lines, line)
			if block || !strings.HasSuffix(trimmed, ";") {
				continue
			}
		}
		if !block && len(lines) > 0 {
			list = append(list, strings.TrimSuffix(strings.TrimSpace(strings.Join(lines, "\n")), ";"))
			lines = nil
		}
	}
	return list
}

// Log is the outbox table of a database. It implements outbox.Log.
//
// How rows and consumers meet, and why no consumer loses one:
//
// A row may go when every registered consumer has got it. Deliver reads the rows that a consumer has not
// got, of any age and in any order of commits: there is no cursor that a transaction which commits
// late could fall behind. It bumps, notes that the consumer has got them, commits that, and then
// deletes the rows that every consumer has got. Of two consumers that note at once the later one
// sees both. It holds no lock while it bumps, so two relays of a consumer may deliver a row twice, which harms
// nothing.
//
// A row may be touched by its own transaction until that has ended, and by no other, unless a session
// has stopped its clock (see cache_touch in Schema). Then the row says more than it did when
// it was read: touches tells the two apart, and what was touched since is delivered again.
//
// A statement that deletes sees a consumer that has registered before it, and keeps that one's rows. One that
// registers later has been left a row that invalidates everything in its store, by the same
// transaction, and needs none that were committed before.
//
// Writers and relays do not lock each other out. Writers append. What a relay writes, it writes under READ
// COMMITTED, where InnoDB locks no gaps, by primary keys, and passes by rows that are locked.
type Log struct {
	db     *sql.DB
	logger *slog.Logger
	kick   chan struct{} // a Write has left rows for a relay

	mu        sync.Mutex
	consumers map[string]bool // that joined or asked for rows through this Log; guarded by mu
	blind     bool            // it was logged that TRUNCATE is not seen; guarded by mu
	looked    time.Time       // when incarnations were last compared; guarded by mu
}

// NewLog returns the outbox of the database behind a pool, which the caller closes. Wait borrows one of
// its connections each time it looks. A nil logger logs nothing.
func NewLog(db *sql.DB, logger *slog.Logger) *Log {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Log{db: db, logger: logger, kick: make(chan struct{}, 1), consumers: map[string]bool{}}
}

var _ outbox.Log = (*Log)(nil)

// blob is a literal of bytes, which means the same in every mode and character set.
func blob[T ~string | ~[]byte](b T) string { return "X'" + hex.EncodeToString([]byte(b)) + "'" }

// age of a row in microseconds, up to ten years. A clock that was set back leaves rows of the future, and any
// program may have recorded no time at all. How old they are cannot be told, NULL, and no clock may hide a row: a
// relay takes them at once, and Drain does not take them for rows of after its beginning.
const (
	age     = `IF(o.recorded_at > UTC_TIMESTAMP(6), NULL, LEAST(TIMESTAMPDIFF(MICROSECOND, o.recorded_at, UTC_TIMESTAMP(6)), 315360000000000))`
	someAge = `COALESCE(` + age + `, 3600000000)`
)

// missing is the condition that a consumer has not got row o.
func missing(consumer string) string {
	return `NOT EXISTS (SELECT 1 FROM cache_delivered d WHERE d.row_id = o.id AND d.consumer = ` + blob(consumer) + ` AND d.touches >= o.touches)`
}

// others is the condition that there are other consumers.
func others(consumer string) string {
	return `EXISTS (SELECT 1 FROM cache_consumers c WHERE c.name <> ` + blob(consumer) + `)`
}

// gotByOthers is the condition that every other consumer has got row o.
func gotByOthers(consumer string) string {
	return `NOT EXISTS (SELECT 1 FROM cache_consumers c WHERE c.name <> ` + blob(consumer) + ` AND NOT EXISTS (
		SELECT 1 FROM cache_delivered d WHERE d.row_id = o.id AND d.consumer = c.name AND d.touches >= o.touches))`
}

// Leave forgets a consumer. What was noted for it goes with the next Join of another.
func (l *Log) Leave(ctx context.Context, consumer string) error {
	err := l.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM cache_consumers WHERE name = `+blob(consumer))
		return err
	})
	if err != nil {
		return fmt.Errorf("forget a consumer of the outbox: %w", err)
	}
	return nil
}

// Join keeps a consumer registered, and forgets those that have not been heard of.
func (l *Log) Join(ctx context.Context, consumer string) (joined bool, gone []string, err error) {
	l.note(consumer)
	me := blob(consumer)
	err = l.inTx(ctx, func(tx *sql.Tx) error {
		// One at a time, and a process that counts consumers meanwhile sees those of before or after.
		var names []string
		silent := false
		err := query(ctx, tx, `SELECT name, seen_at < UTC_TIMESTAMP(6) - INTERVAL `+strconv.FormatInt(outbox.ConsumerLife.Microseconds(), 10)+` MICROSECOND
			FROM cache_consumers ORDER BY name FOR UPDATE`, func(scan func(...any) error) error {
			var name string
			var old bool
			err := scan(&name, &old)
			switch {
			case old && name != consumer:
				gone = append(gone, name)
			case name == consumer:
				silent = old
				names = append(names, name)
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, name := range gone {
			if _, err := tx.ExecContext(ctx, `DELETE FROM cache_consumers WHERE name = `+blob(name)); err != nil {
				return err
			}
		}
		added, err := tx.ExecContext(ctx, `INSERT INTO cache_consumers (name, seen_at) VALUES (`+me+`, UTC_TIMESTAMP(6)) ON DUPLICATE KEY UPDATE seen_at = UTC_TIMESTAMP(6)`)
		if err != nil {
			return err
		}
		n, err := added.RowsAffected() // 1 of an inserted row, 2 or 0 of one that was there
		if err != nil {
			return err
		}
		// A clock that was set back must not keep a consumer for as long as the step was.
		if _, err := tx.ExecContext(ctx, `UPDATE cache_consumers SET seen_at = UTC_TIMESTAMP(6) WHERE seen_at > UTC_TIMESTAMP(6)`); err != nil {
			return err
		}
		if joined = len(names) == 0 && n == 1 || silent; !joined {
			return nil
		}
		left, err := tx.ExecContext(ctx, `INSERT INTO cache_outbox (tag) VALUES (`+blob(cache.Everything)+`)`)
		if err != nil {
			return err
		}
		id, err := left.LastInsertId()
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, fmt.Sprintf(`INSERT INTO cache_delivered (row_id, consumer, touches) SELECT %d, name, 1 FROM cache_consumers WHERE name <> %s`, id, me))
		return err
	})
	if err != nil {
		return false, nil, fmt.Errorf("join outbox: %w", err)
	}
	if err := l.sweep(ctx, consumer); err != nil {
		return joined, gone, fmt.Errorf("delete outbox rows that all consumers have got: %w", err)
	}
	slices.Sort(gone)
	return joined, gone, nil
}

// sweep deletes what was noted for rows and consumers that are gone, and the rows that all have got by
// now: a process may have ended between its note and its DELETE.
func (l *Log) sweep(ctx context.Context, consumer string) error {
	var notes []delivered
	err := query(ctx, l.db, fmt.Sprintf(`SELECT d.row_id, d.consumer FROM cache_delivered d
		WHERE NOT EXISTS (SELECT 1 FROM cache_outbox o WHERE o.id = d.row_id) OR NOT EXISTS (SELECT 1 FROM cache_consumers c WHERE c.name = d.consumer)
		ORDER BY d.row_id, d.consumer LIMIT %d`, atOnce), func(scan func(...any) error) error {
		var n delivered
		err := scan(&n.id, &n.consumer)
		notes = append(notes, n)
		return err
	})
	if err != nil {
		return err
	}
	if len(notes) > 0 {
		keys := make([]string, len(notes))
		for i, n := range notes {
			keys[i] = fmt.Sprintf("(%d,%s)", n.id, blob(n.consumer))
		}
		err = l.inTx(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `DELETE FROM cache_delivered WHERE (row_id, consumer) IN (`+strings.Join(keys, ",")+`)`)
			return err
		})
		if err != nil {
			return err
		}
	}
	var rows []delivered
	err = query(ctx, l.db, fmt.Sprintf(`SELECT o.id, o.touches FROM cache_outbox o JOIN cache_delivered mine ON mine.row_id = o.id AND mine.consumer = %s AND mine.touches >= o.touches
		WHERE %s ORDER BY o.id LIMIT %d`, blob(consumer), gotByOthers(consumer), atOnce), func(scan func(...any) error) error {
		var d delivered
		err := scan(&d.id, &d.touches)
		rows = append(rows, d)
		return err
	})
	if err != nil || len(rows) == 0 {
		return err
	}
	return l.delete(ctx, consumer, rows)
}

// note remembers a consumer, for Wait.
func (l *Log) note(consumer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.consumers[consumer] = true
}

// delivered is a row that a consumer has got, as it was after so many touches; 0 for any number.
type delivered struct {
	id, touches int64
	consumer    string
}

// Deliver hands rows that the consumer has not got to bump, and notes that it has got them. See Log.
func (l *Log) Deliver(ctx context.Context, consumer string, grace time.Duration, most int, bump func(context.Context, []outbox.Row) error) (int, error) {
	l.note(consumer)
	if grace == 0 { // a drain, which is to find all that was committed before
		if err := l.compareIncarnations(ctx, 0); err != nil {
			return 0, fmt.Errorf("read outbox: %w", err)
		}
	}
	own := outbox.MarkOf(consumer)
	// The row of a consumer that is registered comes first, so that one statement, and so one state of
	// the database, answers both questions.
	statement := `SELECT 0, '', NULL, 0, 0 FROM cache_consumers WHERE name = ` + blob(consumer) + `
UNION ALL
(SELECT o.id, o.tag, o.mark, o.touches, ` + someAge + ` FROM cache_outbox o
	WHERE ` + missing(consumer) + ` AND (o.mark IS NULL OR LEFT(o.mark, 8) <> ` + blob(own[:]) + ` OR COALESCE(` + age + ` >= ` + strconv.FormatInt(grace.Microseconds(), 10) + `, TRUE))
	ORDER BY o.id LIMIT ` + strconv.Itoa(most) + `)`
	var rows []outbox.Row
	var got []delivered
	registered := false
	err := query(ctx, l.db, statement, func(scan func(...any) error) error {
		var row outbox.Row
		var tag, mark []byte
		var touches, age int64
		if err := scan(&row.ID, &tag, &mark, &touches, &age); err != nil {
			return err
		}
		if row.ID == 0 {
			registered = true
			return nil
		}
		row.Tag, row.Age = cache.Tag(tag), time.Duration(age)*time.Microsecond
		copy(row.Mark[:], mark)
		rows, got = append(rows, row), append(got, delivered{id: row.ID, touches: touches})
		return nil
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("read outbox: %w", err)
	case !registered:
		return 0, outbox.ErrNotJoined
	case len(rows) == 0:
		return 0, nil
	}
	if err := bump(ctx, rows); err != nil {
		return len(rows), err
	}
	return len(rows), l.done(ctx, consumer, got)
}

// Done notes that the consumer has got rows, and deletes those that no other waits for.
func (l *Log) Done(ctx context.Context, consumer string, ids []int64) error {
	rows := make([]delivered, len(ids))
	for i, id := range ids {
		rows[i].id = id
	}
	return l.done(ctx, consumer, rows)
}

// atOnce is the most rows that one statement notes or deletes.
const atOnce = 500

func (l *Log) done(ctx context.Context, consumer string, rows []delivered) error {
	slices.SortFunc(rows, func(a, b delivered) int { return int(min(max(a.id-b.id, -1), 1)) })
	for some := range slices.Chunk(rows, atOnce) {
		// What is noted must be committed before the look for what all have got.
		err := l.inTx(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO cache_delivered (row_id, consumer, touches)
				SELECT o.id, `+blob(consumer)+`, `+touchesOf(some)+` FROM cache_outbox o WHERE o.id IN (`+idsOf(some)+`) AND `+others(consumer)+` ORDER BY o.id
				ON DUPLICATE KEY UPDATE touches = GREATEST(cache_delivered.touches, VALUES(touches))`)
			return err
		})
		if err == nil {
			err = l.delete(ctx, consumer, some)
		}
		if err != nil {
			return fmt.Errorf("delivered outbox rows: %w", err)
		}
	}
	return nil
}

// delete deletes rows of which the consumer has got as much as is said, and all others have got all. It
// leaves alone what others are about to delete, or its own transaction still touches.
func (l *Log) delete(ctx context.Context, consumer string, rows []delivered) error {
	return l.inTx(ctx, func(tx *sql.Tx) error {
		ids, err := scanStrings(tx.QueryContext(ctx, `SELECT o.id FROM cache_outbox o FORCE INDEX (PRIMARY)
			WHERE o.id IN (`+idsOf(rows)+`) AND o.touches <= `+touchesOf(rows)+` AND `+gotByOthers(consumer)+`
			ORDER BY o.id FOR UPDATE SKIP LOCKED`))
		if err != nil || len(ids) == 0 {
			return err
		}
		// One look-up in the index for each row. For a list of numbers the optimizer scans a small table, and a DELETE that
		// scans waits for the rows of every open transaction.
		list := ` FROM JSON_TABLE('[` + strings.Join(ids, ",") + `]', '$[*]' COLUMNS (id BIGINT PATH '$')) AS ids STRAIGHT_JOIN `
		if _, err := tx.ExecContext(ctx, `DELETE o`+list+`cache_outbox AS o FORCE INDEX (PRIMARY) ON o.id = ids.id`); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE d`+list+`cache_delivered AS d FORCE INDEX (PRIMARY) ON d.row_id = ids.id`)
		return err
	})
}

func idsOf(rows []delivered) string {
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = strconv.FormatInt(row.id, 10)
	}
	return strings.Join(ids, ",")
}

// touchesOf returns the SQL of how many touches of row o a consumer has got. Nearly all rows have one.
func touchesOf(rows []delivered) string {
	var whens strings.Builder
	for _, row := range rows {
		switch row.touches {
		case 1:
		case 0:
			fmt.Fprintf(&whens, " WHEN %d THEN o.touches", row.id)
		default:
			fmt.Fprintf(&whens, " WHEN %d THEN %d", row.id, row.touches)
		}
	}
	if whens.Len() == 0 {
		return "1"
	}
	return "CASE o.id" + whens.String() + " ELSE 1 END"
}

// registered says whether a consumer is.
func (l *Log) registered(ctx context.Context, consumer string) (is bool, err error) {
	if err := queryRow(ctx, l.db, `SELECT EXISTS (SELECT 1 FROM cache_consumers WHERE name = `+blob(consumer)+`)`, &is); err != nil {
		return false, fmt.Errorf("consumers of the outbox: %w", err)
	}
	return is, nil
}

// attempts is how often a transaction of a relay is tried that InnoDB gives up for the sake of another
// relay's: neither holds anything that a writer waits for.
const attempts = 5

// inTx runs fn in a transaction, which locks no gaps.
func (l *Log) inTx(ctx context.Context, fn func(*sql.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := l.try(ctx, fn)
		if err == nil || attempt == attempts || !isCode(err, deadlock) {
			return err
		}
	}
}

func (l *Log) try(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := l.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, rollback(tx))
	}
	return tx.Commit()
}

// Errors of the server.
const (
	noTable         = 1146
	lockWaitTimeout = 1205
	deadlock        = 1213
	noSavepoint     = 1305
	triggerExists   = 1359
	groupRolledBack = 3101
)

// codeOf returns the code of an error of the server, or 0.
func codeOf(err error) uint16 {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}

// discard closes a connection whose session is not as the pool left it.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driversql.ErrBadConn })
}

// countedRows bounds what Backlog costs.
const countedRows = 100_000

// Backlog returns the number of rows that the consumer has not got, counted up to 100,000, and
// the age of the oldest. An empty name counts all rows.
func (l *Log) Backlog(ctx context.Context, consumer string) (int, time.Duration, error) {
	var rows int
	var oldest int64
	err := queryRow(ctx, l.db, `SELECT COUNT(*), COALESCE(MAX(age), 0) FROM (SELECT `+someAge+` AS age FROM cache_outbox o WHERE `+missing(consumer)+`
		ORDER BY o.id LIMIT `+strconv.Itoa(countedRows)+`) AS counted`, &rows, &oldest)
	if err != nil {
		return 0, 0, fmt.Errorf("count outbox: %w", err)
	}
	return rows, time.Duration(oldest) * time.Microsecond, nil
}

const (
	watchEvery = 50 * time.Millisecond
	watchShare = 10 // a look takes at most one part in so many of the time
	watchMost  = time.Second
)

// Wait returns nil when the outbox holds rows that are due at once for a consumer that joined, or
// asked for rows, through this Log: those without a mark, and those of other consumers'
// writers. It looks every 50 milliseconds, and less often where a look takes long. A Write of a DB without a
// cache, through this Log, wakes it.
func (l *Log) Wait(ctx context.Context) error {
	var due []string
	l.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(l.consumers)) {
		own := outbox.MarkOf(name)
		due = append(due, `EXISTS (SELECT 1 FROM cache_outbox o WHERE (o.mark IS NULL OR LEFT(o.mark, 8) <> `+blob(own[:])+`) AND `+missing(name)+`)`)
	}
	l.mu.Unlock()
	if due == nil {
		due = []string{`EXISTS (SELECT 1 FROM cache_outbox)`}
	}
	statement := `SELECT ` + strings.Join(due, ` OR `)
	for {
		began := time.Now()
		if err := l.compareIncarnations(ctx, incarnationsEvery); err != nil {
			return fmt.Errorf("watch outbox: %w", err)
		}
		var left bool
		if err := queryRow(ctx, l.db, statement, &left); err != nil {
			return fmt.Errorf("watch outbox: %w", err)
		}
		if left {
			return nil
		}
		timer := time.NewTimer(min(max(watchEvery, watchShare*time.Since(began)), watchMost))
		select {
		case <-timer.C:
		case <-l.kick:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// wake makes Wait look now.
func (l *Log) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
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

package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/mysql"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testservers.Main(m)) }

// file is a database with a watched table of lessons, and its outbox.
type file struct {
	*testing.T
	server         *testservers.MariaDB
	name           string // of the database
	log            *mysql.Log
	pool, stranger *sql.DB
}

func newFile(t *testing.T) *file {
	t.Helper()
	server := testservers.SharedMariaDB(t)
	f := &file{T: t, server: server, name: server.Database(t)}
	f.pool, f.stranger = open(t, server, f.name, 4, ""), open(t, server, f.name, 1, strange)
	f.log = mysql.NewLog(f.pool, nil)
	if err := mysql.Apply(t.Context(), f.pool); err != nil {
		t.Fatal(err)
	}
	f.exec(`
CREATE TABLE courses (id INT PRIMARY KEY);
CREATE TABLE lessons (id INT PRIMARY KEY AUTO_INCREMENT, title VARCHAR(50) COLLATE utf8mb4_bin, course_id INT)`)
	f.watch("test", "lessons", "lesson:{id}", "course:{course_id} ON INSERT")
	f.join(consumer, true)
	return f
}

// consumer is the store of most tests.
const consumer = "store A"

func (f *file) watch(watch, table string, templates ...string) {
	f.Helper()
	if err := mysql.Watch(f.Context(), f.pool, watch, table, templates...); err != nil {
		f.Fatal(err)
	}
}

// exec runs a statement as a stranger.
func (f *file) exec(statement string) {
	f.Helper()
	if _, err := f.stranger.ExecContext(f.Context(), statement); err != nil {
		f.Fatalf("%s: %v", statement, err)
	}
}

// begin returns a transaction that has run a statement.
func (f *file) begin(statement string) *mysql.Tx {
	f.Helper()
	tx, err := f.log.Begin(f.Context(), outbox.NewMark(consumer), 0, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := tx.Rollback(context.Background()); err != nil {
			f.Error(err)
		}
	})
	if _, err := tx.SQL().ExecContext(f.Context(), statement); err != nil {
		f.Fatal(err)
	}
	return tx
}

// commit returns what the transaction touched.
func (f *file) commit(tx *mysql.Tx) []outbox.Row {
	f.Helper()
	rows, err := tx.Touched(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	if err := tx.Commit(f.Context()); err != nil {
		f.Fatal(err)
	}
	return rows
}

// want says which rows are in the outbox, each as "tag", or "tag marked".
func (f *file) want(want ...string) []int64 {
	f.Helper()
	rows, err := f.pool.QueryContext(f.Context(), `SELECT id, CONCAT(CAST(tag AS CHAR), IF(mark IS NULL, '', ' marked')) FROM cache_outbox ORDER BY tag, mark, id`)
	if err != nil {
		f.Fatal(err)
	}
	defer rows.Close()
	var ids []int64
	var got []string
	for rows.Next() {
		var id int64
		var row string
		if err := rows.Scan(&id, &row); err != nil {
			f.Fatal(err)
		}
		ids, got = append(ids, id), append(got, row)
	}
	if err := rows.Err(); err != nil {
		f.Fatal(err)
	}
	if !slices.Equal(got, want) {
		f.Fatalf("the outbox holds %q, want %q", got, want)
	}
	return ids
}

// Each statement of each transaction is recorded, in a row that no relay has read before, whatever its
// conflict clause.
func TestEachTouchIsANewRow(t *testing.T) {
	f := newFile(t)
	f.exec(`INSERT INTO lessons VALUES (1, 'a', NULL)`)
	last := f.want("lesson:1")[0]
	for _, statement := range []string{
		`UPDATE lessons SET title = 'b'`,
		`UPDATE lessons SET title = 'b'`,
		`UPDATE IGNORE lessons SET title = 'c'`,
		`UPDATE LOW_PRIORITY lessons SET title = 'd' ORDER BY id LIMIT 1`,
		`REPLACE INTO lessons VALUES (1, 'h', NULL)`,
		`INSERT INTO lessons VALUES (1, 'i', NULL) ON DUPLICATE KEY UPDATE title = 'i'`,
		`INSERT INTO lessons SELECT 1, 'k', NULL ON DUPLICATE KEY UPDATE title = 'k'`,
		`UPDATE lessons JOIN lessons AS other USING (id) SET lessons.title = 'l'`,
		`UPDATE lessons SET title = 'j'`, // no number comes twice
	} {
		f.exec(`DELETE FROM cache_outbox`)
		f.exec(statement)
		if id := f.want("lesson:1")[0]; id <= last {
			t.Errorf("%s: row %d follows row %d", statement, id, last)
		} else {
			last = id
		}
	}
}

func TestTransactionMarksItsOwnRows(t *testing.T) {
	f := newFile(t)
	f.exec(`INSERT INTO lessons VALUES (1, 'a', NULL), (2, 'a', NULL), (3, 'a', NULL); DELETE FROM cache_outbox WHERE tag <> 'lesson:1'`)
	tx := f.begin(`UPDATE lessons SET title = 'b' WHERE id IN (2, 3)`)
	rows := f.commit(tx)
	ids := f.want("lesson:1", "lesson:2 marked", "lesson:3 marked")
	if len(rows) != 2 || rows[0].ID != ids[1] || rows[1].ID != ids[2] || rows[0].Tag != "lesson:2" ||
		rows[0].Mark != tx.Mark() || tx.Mark() == driver.NoMark {
		t.Errorf("touched %+v with ids %v and mark %x", rows, ids, tx.Mark())
	}
	// An external writer that touches the tag again knows nothing of the mark, nor does the next
	// transaction on the same connection.
	f.exec(`UPDATE lessons SET title = 'c' WHERE id = 2`)
	f.pool.SetMaxOpenConns(1)
	if _, err := f.pool.ExecContext(t.Context(), `UPDATE lessons SET title = 'd' WHERE id = 3`); err != nil {
		t.Fatal(err)
	}
	f.want("lesson:1", "lesson:2", "lesson:2 marked", "lesson:3", "lesson:3 marked")
	// What was delivered is deleted, and what came later stays.
	if err := f.log.Done(t.Context(), consumer, []int64{rows[0].ID, rows[1].ID}); err != nil {
		t.Fatal(err)
	}
	f.want("lesson:1", "lesson:2", "lesson:3")
	if other := f.begin(`SELECT 1`); other.Mark() == tx.Mark() {
		t.Error("two transactions bear one mark")
	}
}

func TestRollbackLeavesNothing(t *testing.T) {
	f := newFile(t)
	f.exec(`INSERT INTO lessons VALUES (1, 'a', NULL)`)
	before := f.want("lesson:1")
	tx := f.begin(`REPLACE INTO lessons VALUES (1, 'b', NULL), (2, 'b', NULL)`)
	if rows, err := tx.Touched(t.Context()); err != nil || len(rows) != 2 {
		t.Fatalf("%+v, %v", rows, err)
	}
	if err := errors.Join(tx.Rollback(t.Context()), tx.Rollback(t.Context())); err != nil {
		t.Fatal(err)
	}
	if after := f.want("lesson:1"); !slices.Equal(after, before) {
		t.Errorf("row %v became %v", before, after)
	}
}

func TestCommitSaysWhenNothingHappened(t *testing.T) {
	f := newFile(t)
	tx := f.begin(`INSERT INTO lessons VALUES (1, 'a', NULL)`)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tx.Commit(ended); !errors.Is(err, context.Canceled) || errors.Is(err, outbox.ErrUnknownOutcome) {
		t.Errorf("a commit that was not sent: %v", err)
	}
	f.want()
	if err := tx.Commit(t.Context()); err == nil || errors.Is(err, outbox.ErrUnknownOutcome) {
		t.Errorf("a second commit: %v", err)
	}
	f.exec(`INSERT INTO lessons VALUES (1, 'a', NULL)`) // no lock is left
}

func TestBeginObeysItsContextUntilItHasBegun(t *testing.T) {
	f := newFile(t)
	f.pool.SetMaxOpenConns(1)
	ctx, cancel := context.WithCancel(t.Context())
	tx, err := f.log.Begin(ctx, outbox.NewMark(consumer), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	waiting, giveUp := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer giveUp()
	if _, err := f.log.Begin(waiting, outbox.NewMark(consumer), 0, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a connection: %v", err)
	}
	if _, err := tx.SQL().ExecContext(ctx, `INSERT INTO lessons VALUES (1, 'a', NULL)`); err != nil {
		t.Fatal(err)
	}
	cancel() // from here on, what becomes of the transaction is decided by its commit
	f.commit(tx)
	f.want("lesson:1 marked")
	if _, err := f.log.Begin(ctx, outbox.NewMark(consumer), 0, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has left: %v", err)
	}
	f.commit(f.begin(`UPDATE lessons SET title = 'b'`)) // the connection is free, and in order
}

func TestDeliver(t *testing.T) {
	f := newFile(t)
	f.exec(`INSERT INTO lessons VALUES (1, 'a', NULL), (2, 'a', NULL), (3, 'a', NULL); DELETE FROM cache_outbox WHERE tag = 'lesson:3'`)
	tx := f.begin(`UPDATE lessons SET title = 'b' WHERE id = 3`)
	f.commit(tx)
	var got []outbox.Row
	deliver := func(grace time.Duration, most int, result error) int {
		t.Helper()
		got = nil
		n, err := f.log.Deliver(t.Context(), consumer, grace, most, func(_ context.Context, rows []outbox.Row) error {
			got = rows
			return result
		})
		if !errors.Is(err, result) {
			t.Fatalf("error %v, want %v", err, result)
		}
		if n != len(got) {
			t.Fatalf("claimed %d rows and handed out %d", n, len(got))
		}
		return n
	}
	bumpFailed := errors.New("bump failed")
	if deliver(time.Hour, 10, bumpFailed) != 2 {
		t.Errorf("claimed %+v, want the two rows without a mark", got)
	}
	f.want("lesson:1", "lesson:2", "lesson:3 marked")
	if deliver(time.Hour, 1, nil) != 1 || got[0].Tag != "lesson:1" || got[0].Mark != driver.NoMark {
		t.Errorf("claimed %+v, want the oldest", got)
	}
	f.want("lesson:2", "lesson:3 marked")
	deliver(time.Hour, 10, nil)
	f.want("lesson:3 marked")
	f.exec(`UPDATE cache_outbox SET recorded_at = recorded_at - INTERVAL 3500 SECOND`)
	if deliver(time.Hour, 10, nil) != 0 {
		t.Errorf("claimed %+v within its grace", got)
	}
	f.exec(`UPDATE cache_outbox SET recorded_at = recorded_at - INTERVAL 200 SECOND`)
	if deliver(time.Hour, 10, nil) != 1 || got[0].Mark != tx.Mark() || got[0].Age < time.Hour || got[0].Age > 2*time.Hour {
		t.Errorf("claimed %+v, want the row with its mark and age", got)
	}
	f.want()
	if deliver(0, 10, nil) != 0 {
		t.Errorf("claimed %+v of nothing", got)
	}
}

// What is touched again while it is being delivered is delivered again.
func TestDeliverLeavesWhatIsTouchedMeanwhile(t *testing.T) {
	f := newFile(t)
	f.exec(`INSERT INTO lessons VALUES (1, 'a', NULL), (2, 'a', NULL)`)
	_, err := f.log.Deliver(t.Context(), consumer, 0, 10, func(context.Context, []outbox.Row) error {
		f.exec(`UPDATE lessons SET title = 'b' WHERE id = 2`) // and no caller is kept waiting
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.want("lesson:2")
}

func TestDeliverNothing(t *testing.T) {
	f := newFile(t)
	if n, err := f.log.Deliver(t.Context(), consumer, 0, 10, func(context.Context, []outbox.Row) error { return errors.New("called") }); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := f.log.Done(t.Context(), consumer, nil); err != nil {
		t.Error(err)
	}
}

func TestBacklog(t *testing.T) {
	f := newFile(t)
	check := func(rows int, least, most time.Duration) {
		t.Helper()
		n, age, err := f.log.Backlog(t.Context(), consumer)
		if err != nil || n != rows || age < least || age > most {
			t.Errorf("%d rows of up to %v, error %v; want %d of %v to %v", n, age, err, rows, least, most)
		}
	}
	check(0, 0, 0)
	f.exec(`INSERT INTO lessons VALUES (1, 'a', NULL), (2, 'a', NULL)`)
	check(2, 0, time.Minute)
	f.exec(`UPDATE cache_outbox SET recorded_at = recorded_at - INTERVAL 1 HOUR WHERE tag = 'lesson:1'`)
	check(2, time.Hour, time.Hour+time.Minute)
	f.exec(`UPDATE cache_outbox SET recorded_at = recorded_at + INTERVAL 2 HOUR`) // a clock was set back
	check(2, time.Minute, time.Hour)                                              // as old as can be
}

func TestWait(t *testing.T) {
	f := newFile(t)
	wait := func(d time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		return f.log.Wait(ctx)
	}
	const long, short = 30 * time.Second, 200 * time.Millisecond
	if err := wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with an empty outbox: %v", err)
	}
	f.exec(`INSERT INTO courses VALUES (1)`)
	if err := wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after a write that touched nothing: %v", err)
	}
	f.commit(f.begin(`INSERT INTO lessons VALUES (1, 'a', NULL)`))
	if err := wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after a write that delivers itself: %v", err)
	}

	woken := make(chan error, 1)
	go func() { woken <- wait(long) }()
	f.exec(`UPDATE lessons SET title = 'b'`)
	if err := <-woken; err != nil {
		t.Errorf("woken by a stranger: %v", err)
	}
	if err := wait(long); err != nil {
		t.Errorf("with a stranger's row from before: %v", err)
	}
	if err := f.pool.Close(); err != nil {
		t.Fatal(err)
	}
	if err := wait(long); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a database: %v", err)
	}
}

func TestWriteWithoutCache(t *testing.T) {
	f := newFile(t)
	db := mysql.NewDB(f.log, nil, outbox.Options{RequireFence: true})
	refused := errors.New("refused")
	for _, result := range []error{refused, nil} {
		err := db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO lessons VALUES (1, 'a', NULL)`)
			return errors.Join(err, result)
		})
		if !errors.Is(err, result) {
			t.Fatalf("error %v, want %v", err, result)
		}
	}
	f.want("lesson:1") // for the relay of a program that has a cache
}

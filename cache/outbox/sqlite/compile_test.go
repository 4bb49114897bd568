package sqlite_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/outbox/sqlite"
)

// SQLite compiles the triggers of a table with every statement that writes to it. What a watch adds
// must stay small: programs of thousands of instructions took milliseconds of each write.
func TestTriggersAreQuickToCompile(t *testing.T) {
	w := newWorld(t)
	w.Stranger(`CREATE TABLE stock (shop TEXT, id INTEGER, amount INTEGER, PRIMARY KEY (shop, id))`)
	db := w.Open(t)
	if err := sqlite.Watch(t.Context(), db, "test", "stock", "stock:{shop}:{id}"); err != nil {
		t.Fatal(err)
	}
	for statement, most := range map[string]int{
		`UPDATE items SET value = 1 WHERE id = 1`:                 400,
		`INSERT INTO items VALUES (4, 0)`:                         400,
		`DELETE FROM items WHERE id = 1`:                          400,
		`UPDATE stock SET amount = 1 WHERE shop = 'a' AND id = 1`: 800,
	} {
		n := instructions(t, db, statement)
		t.Logf("%d instructions: %s", n, statement)
		if n > most {
			t.Errorf("%d instructions, want at most %d: %s", n, most, statement)
		}
	}
}

// instructions counts those of the program that SQLite compiles for the statement.
func instructions(t *testing.T, db *sql.DB, statement string) int {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "EXPLAIN "+statement)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	n := 0
	for rows.Next() {
		n++
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// BenchmarkWatchedWrite compares an update of one row of a watched table with that of a table
// that nothing watches. The two take turns.
func BenchmarkWatchedWrite(b *testing.B) {
	for _, template := range []string{"row:{id}", "row:{name}:{id}"} {
		b.Run(template, func(b *testing.B) {
			w := newWorld(b)
			w.Stranger(`CREATE TABLE watched (id INTEGER PRIMARY KEY, name TEXT, n INTEGER); INSERT INTO watched VALUES (1, 'tea', 0);
CREATE TABLE plain (id INTEGER PRIMARY KEY, name TEXT, n INTEGER); INSERT INTO plain VALUES (1, 'tea', 0)`)
			db := w.Open(b)
			if _, err := db.ExecContext(b.Context(), `PRAGMA synchronous = OFF`); err != nil { // the disk is not what is compared
				b.Fatal(err)
			}
			if err := sqlite.Watch(b.Context(), db, "test", "watched", template); err != nil {
				b.Fatal(err)
			}
			var took [2]time.Duration
			b.ResetTimer()
			for range b.N {
				for i, table := range []string{"plain", "watched"} {
					start := time.Now()
					if _, err := db.ExecContext(b.Context(), fmt.Sprintf(`UPDATE %s SET n = n + 1 WHERE id = 1`, table)); err != nil {
						b.Fatal(err)
					}
					took[i] += time.Since(start)
				}
			}
			b.ReportMetric(float64(took[0].Nanoseconds())/float64(b.N), "plain-ns")
			b.ReportMetric(float64(took[1].Nanoseconds())/float64(b.N), "watched-ns")
			b.ReportMetric(float64(took[1])/float64(took[0]), "ratio")
		})
	}
}

package testservers_test

import (
	"database/sql"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func openMariaDB(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	testservers.Must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func TestMariaDBDatabasesAreApart(t *testing.T) {
	t.Parallel()
	m := testservers.SharedMariaDB(t)
	first, second := openMariaDB(t, m.DSN(m.Database(t))), openMariaDB(t, m.DSN(m.Database(t)))
	_, err := first.ExecContext(t.Context(), "CREATE TABLE things AS SELECT 1")
	testservers.Must(t, err)
	if _, err := second.ExecContext(t.Context(), "SELECT * FROM things"); err == nil {
		t.Error("a table of one test's database is seen in another's")
	}
}

func TestMariaDBFreezesAndKeepsCommitsWhenKilled(t *testing.T) {
	t.Parallel()
	m := testservers.StartMariaDB(t, testservers.MariaDBConfig{Settings: map[string]string{"max_connections": "23"}})
	db := openMariaDB(t, m.DSN(m.Database(t)))
	_, err := db.ExecContext(t.Context(), "CREATE TABLE things (id INT)")
	testservers.Must(t, err)

	testservers.Must(t, m.Freeze())
	answer := make(chan error, 1)
	go func() { _, err := db.Exec("INSERT INTO things VALUES (1)"); answer <- err }()
	select {
	case err := <-answer:
		t.Errorf("a frozen server answered (%v)", err)
	case <-time.After(300 * time.Millisecond):
	}
	testservers.Must(t, m.Thaw())
	testservers.Must(t, <-answer)

	testservers.Must(t, m.Kill())
	testservers.Must(t, m.Restart(t.Context()))
	var things, connections int
	testservers.Must(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*), @@max_connections FROM things").Scan(&things, &connections))
	if things != 1 || connections != 23 {
		t.Errorf("after a crash there are %d things, want 1, and %d connections, want the 23 asked for", things, connections)
	}
	testservers.Must(t, m.Freeze())
	testservers.Must(t, m.Restart(t.Context()))
	testservers.Must(t, db.PingContext(t.Context()))
}

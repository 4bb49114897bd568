package testservers_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	testservers.Must(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func runSQL(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql)
	testservers.Must(t, err)
}

func count(t *testing.T, conn *pgx.Conn) int {
	t.Helper()
	var n int
	testservers.Must(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM things").Scan(&n))
	return n
}

func TestPostgresDatabasesAreApart(t *testing.T) {
	t.Parallel()
	p := testservers.SharedPostgres(t)
	first, second := connect(t, p.Database(t)), connect(t, p.Database(t))
	runSQL(t, first, "CREATE TABLE things AS SELECT 1")
	if _, err := second.Exec(t.Context(), "SELECT * FROM things"); err == nil {
		t.Error("a table of one test's database is seen in another's")
	}
}

func TestSharedDatabaseIsDroppedWithItsTest(t *testing.T) {
	t.Parallel()
	p := testservers.SharedPostgres(t)
	var url string
	t.Run("user", func(t *testing.T) {
		url = p.Database(t)
		conn, err := pgx.Connect(t.Context(), url) // left open, as a test may
		testservers.Must(t, err)
		_ = conn
	})
	if conn, err := pgx.Connect(t.Context(), url); err == nil {
		conn.Close(t.Context())
		t.Error("the database outlives its test")
	}
}

func TestPostgresFreezesWithItsSessions(t *testing.T) {
	t.Parallel()
	p := testservers.StartPostgres(t, testservers.PostgresConfig{})
	conn := connect(t, p.URL())
	testservers.Must(t, p.Freeze())

	// On a session that is there already: the postmaster takes no part in it.
	answer := make(chan error, 1)
	go func() { _, err := conn.Exec(context.Background(), "SELECT 1"); answer <- err }()
	select {
	case err := <-answer:
		t.Errorf("a frozen server answered a session (%v)", err)
	case <-time.After(300 * time.Millisecond):
	}
	testservers.Must(t, p.Thaw())
	testservers.Must(t, <-answer)
}

func TestPostgresKeepsCommitsWhenKilled(t *testing.T) {
	t.Parallel()
	for _, durable := range []bool{false, true} {
		p := testservers.StartPostgres(t, testservers.PostgresConfig{Durable: durable})
		conn := connect(t, p.URL())
		runSQL(t, conn, "CREATE TABLE things AS SELECT generate_series(1, 100)")
		runSQL(t, conn, "BEGIN")
		runSQL(t, conn, "INSERT INTO things VALUES (101)")
		testservers.Must(t, p.Kill())
		if _, err := conn.Exec(t.Context(), "COMMIT"); err == nil {
			t.Error("a killed server committed")
		}
		testservers.Must(t, p.Restart(t.Context()))
		if n := count(t, connect(t, p.URL())); n != 100 {
			t.Errorf("durable=%v: after the crash there are %d rows, want the 100 committed ones", durable, n)
		}
	}
}

func TestPostgresRestartsFrozen(t *testing.T) {
	t.Parallel()
	p := testservers.StartPostgres(t, testservers.PostgresConfig{Settings: map[string]string{"max_connections": "23"}})
	connect(t, p.URL())
	testservers.Must(t, p.Freeze())
	testservers.Must(t, p.Restart(t.Context()))
	var n string
	testservers.Must(t, connect(t, p.URL()).QueryRow(t.Context(), "SHOW max_connections").Scan(&n))
	if n != "23" {
		t.Errorf("max_connections is %s, want the 23 asked for", n)
	}
}

func TestStandby(t *testing.T) {
	t.Parallel()
	p := testservers.StartPostgres(t, testservers.PostgresConfig{})
	s := p.StartStandby(t)
	primary, standby := connect(t, p.URL()), connect(t, s.URL())
	runSQL(t, primary, "CREATE TABLE things (n int)")
	testservers.Must(t, s.CatchUp(t.Context()))

	testservers.Must(t, s.PauseReplay(t.Context()))
	runSQL(t, primary, "INSERT INTO things VALUES (1)")
	if n := count(t, standby); n != 0 {
		t.Errorf("a paused standby shows %d rows of a later commit", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.CatchUp(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused standby caught up (%v)", err)
	}
	testservers.Must(t, s.ResumeReplay(t.Context()))
	testservers.Must(t, s.CatchUp(t.Context()))
	if n := count(t, standby); n != 1 {
		t.Errorf("the standby that caught up shows %d rows, want 1", n)
	}

	testservers.Must(t, p.Kill())
	testservers.Must(t, s.Promote(t.Context()))
	runSQL(t, standby, "INSERT INTO things VALUES (2)")
}

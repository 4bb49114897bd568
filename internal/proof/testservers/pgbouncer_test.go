package testservers_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// One session serves two clients, each for a transaction at a time: what one leaves behind
// in it meets the other.
func TestPgBouncerPoolsTransactions(t *testing.T) {
	t.Parallel()
	server := testservers.SharedPostgres(t)
	bouncer := server.StartPgBouncer(t, "default_pool_size = 1")
	url := bouncer.URL(server.Database(t))
	a, b := connect(t, url), connect(t, url)
	_, err := a.Exec(t.Context(), `PREPARE shared AS SELECT 1`)
	testservers.Must(t, err)
	_, err = b.Exec(t.Context(), `PREPARE shared AS SELECT 1`)
	var e *pgconn.PgError
	if ok := errors.As(err, &e); !ok || e.Code != "42P05" {
		t.Errorf("got %v, want the error that the other client has prepared it", err)
	}
	testservers.Must(t, bouncer.Close())
	if _, err := pgx.Connect(t.Context(), url); err == nil {
		t.Error("a closed one takes connections")
	}
	testservers.Must(t, bouncer.Close())
}

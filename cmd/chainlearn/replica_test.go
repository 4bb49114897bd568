package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// A service that was given a replica asks it, and is not misled when it stops following.
func TestServiceWithAReplica(t *testing.T) {
	t.Parallel()
	primary := testservers.StartPostgres(t, testservers.PostgresConfig{})
	name, err := primary.CreateDatabase(t.Context())
	testservers.Must(t, err)
	env := map[string]string{"DATABASE_URL": primary.DatabaseURL(name), "JWT_SECRET": strings.Repeat("s", httpapi.MinSecret)}
	if out, err := command(t, t.TempDir(), env, "migrate").CombinedOutput(); err != nil {
		t.Fatalf("migrate: %v\n%s", err, out)
	}
	external, err := pgx.Connect(t.Context(), primary.DatabaseURL(name))
	testservers.Must(t, err)
	defer external.Close(t.Context())
	_, err = external.Exec(t.Context(), `INSERT INTO courses (id, title) VALUES ($1, 'Title 0')`, courseID(1))
	testservers.Must(t, err)
	standby := primary.StartStandby(t)
	follower, err := pgx.Connect(t.Context(), standby.DatabaseURL(name))
	testservers.Must(t, err)
	defer follower.Close(t.Context())

	env["DATABASE_REPLICA_URL"] = standby.DatabaseURL(name)
	p := serve(t, t.TempDir(), env)
	shows := func(title string) {
		t.Helper()
		testservers.Eventually(t, 30*time.Second, func() (bool, string) {
			status, _, body, err := request(t.Context(), "GET", p.api+"/courses/"+courseID(1), "")
			return err == nil && status == http.StatusOK && strings.Contains(string(body), fmt.Sprintf("%q", title)), fmt.Sprintf("%d %s %v", status, body, err)
		})
	}
	shows("Title 0")
	var sessions int
	testservers.Must(t, follower.QueryRow(t.Context(),
		`SELECT count(*) FROM pg_stat_activity WHERE application_name = 'chainlearn' AND query LIKE '%FROM courses%'`).Scan(&sessions))
	if sessions == 0 {
		t.Error("the replica has not been asked")
	}
	testservers.Must(t, standby.PauseReplay(t.Context()))
	_, err = external.Exec(t.Context(), `UPDATE courses SET title = 'Title 1'`)
	testservers.Must(t, err)
	shows("Title 1")
	testservers.Must(t, standby.ResumeReplay(t.Context()))
}

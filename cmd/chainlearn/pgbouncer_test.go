package main

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// With a PgBouncer that pools transactions between them and the database, processes are one
// service all the same, and external writes show after a poll. Each process logs once
// what is different.
//
//	go test ./cmd/chainlearn -run TestServiceThroughPgBouncer -v
func TestServiceThroughPgBouncer(t *testing.T) {
	t.Parallel()
	// Fewer sessions than there are connections to share them.
	bouncer := testservers.SharedPostgres(t).StartPgBouncer(t, "default_pool_size = 5")
	f := newFleet(t, 4, bouncer.URL)
	if out, err := command(t, f.dir, f.env, "seed", "--courses", "3", "--users", "5", "--enrollments", "9", "--submissions", "5", "--credentials", "2").CombinedOutput(); err != nil {
		t.Fatalf("seed: %v\n%s", err, out)
	}
	external := f.psql() // past the PgBouncer
	course, learner := courseID(1), userID(0)
	external.run(`INSERT INTO courses (id, title) VALUES ('%s', 'Title 0')`, course)
	external.run(`INSERT INTO users (id, stellar_address) VALUES ('%[1]s', '%[1]s')`, learner)

	var took []time.Duration
	detail := "/courses/" + course
	for i := range 10 {
		title := expectation{path: detail, contains: fmt.Sprintf(`"title":"Title %d"`, i+1)}
		f.waitOldCached(title)
		began := time.Now()
		external.run(retitle, i+1, course)
		took = append(took, f.waitSeen(began, title)...)
	}
	t.Logf("external writes, found by polling: %s", percentiles(took))

	enrolled := expectation{path: detail, contains: `"enrolledCount":1,`}
	f.waitOldCached(enrolled)
	status, _, body, err := request(t.Context(), "POST", f.processes[0].api+detail+"/enroll", f.token(learner))
	if err != nil || status != http.StatusCreated {
		t.Fatalf("enrol: %d %s, %v", status, body, err)
	}
	for _, p := range f.processes { // at once, for the writer knows the protocol
		if ok, _, got := enrolled.check(t.Context(), p); !ok {
			t.Errorf("enrolled by way of one, and not seen by way of another: %s", got)
		}
	}
	f.delivered()
	const polled = "outbox is polled instead of listened to"
	for _, p := range f.processes {
		testservers.Eventually(t, 2*visibilityTimeout, func() (bool, string) {
			return strings.Contains(p.stderr.String(), polled), "it has not found out that notifications are unavailable"
		})
		p.stop(syscall.SIGTERM)
		for _, said := range []string{polled, "a proxy refuses startup parameters", "a proxy answers for the database"} {
			if n := strings.Count(p.stderr.String(), said); n != 1 {
				t.Errorf("it says %d times %q, want once:\n%s", n, said, p.stderr)
			}
		}
	}
}

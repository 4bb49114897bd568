package main

import (
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	externalWrites = flag.Int("external-writes", 25, "how often each kind of external write is measured")
	bulkRows       = flag.Int("bulk", 20_000, "how many rows an external writer changes in one statement")
)

// percentiles of durations, for a log.
func percentiles(took []time.Duration) string {
	slices.Sort(took)
	at := func(p int) time.Duration { return took[(len(took)-1)*p/100].Round(100 * time.Microsecond) }
	return fmt.Sprintf("n=%d p50=%v p90=%v p99=%v max=%v", len(took), at(50), at(90), at(99), at(100))
}

// What is written in a SQL shell shows in the answers of every process. The clock runs
// from before psql is told until a process has answered.
//
//	go test ./cmd/chainlearn -run TestExternalWritesShowOnEveryProcess -v -external-writes 400
func TestExternalWritesShowOnEveryProcess(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 4, nil)
	external := f.psql()
	course, learner, learners := courseID(1), userID(0), f.token(userID(0))
	external.run(`INSERT INTO courses (id, title) VALUES ('%s', 'Untitled'), ('%s', 'Another')`, course, courseID(2))
	external.run(`INSERT INTO users (id, stellar_address) VALUES ('%[1]s', '%[1]s')`, learner)
	external.run(`INSERT INTO credentials (user_id, course_id, score) VALUES ('%s', '%s', 1)`, learner, course)

	took := map[string][]time.Duration{}
	var names []string
	write := func(name string, looks []expectation, statement string, args ...any) {
		t.Helper()
		f.waitOldCached(looks...)
		began := time.Now()
		external.run(statement, args...)
		if took[name] == nil {
			names = append(names, name)
		}
		took[name] = append(took[name], f.waitSeen(began, looks...)...)
	}
	detail, progress := "/courses/"+course, "/users/me/progress"
	for i := range *externalWrites {
		title, user := fmt.Sprintf(`itle":"Title %d"`, i), userID(i+1)
		enrolled := []expectation{{path: detail, contains: `"enrolledCount":1,`}, {path: progress, token: learners, contains: `"enrolledCourses":1,`}}
		alone := []expectation{{path: detail, contains: `"enrolledCount":0,`}, {path: progress, token: learners, contains: `"enrolledCourses":0,`}}
		const enrol = `INSERT INTO enrollments (user_id, course_id) VALUES ('%s', '%s')`

		write("UPDATE of a title", []expectation{{path: detail, contains: title}, {path: "/courses", contains: title}, {path: "/credentials", token: learners, contains: title}},
			`UPDATE courses SET title = 'Title %d' WHERE id = '%s'`, i, course)
		write("INSERT of an enrolment", enrolled, enrol, learner, course)
		write("DELETE of an enrolment", alone, `DELETE FROM enrollments WHERE user_id = '%s'`, learner)
		write("UPDATE of a credential", []expectation{{path: "/credentials", token: learners, contains: fmt.Sprintf(`"revoked":%t`, i%2 == 0)}},
			`UPDATE credentials SET revoked = %t WHERE user_id = '%s'`, i%2 == 0, learner)
		write("INSERT of an enrolment", enrolled, enrol, learner, course)
		write("TRUNCATE", alone, `TRUNCATE enrollments`)

		external.run(`INSERT INTO users (id, stellar_address) VALUES ('%[1]s', '%[1]s')`, user)
		write("INSERT of an enrolment", []expectation{{path: detail, contains: `"enrolledCount":1,`}},
			`INSERT INTO enrollments (user_id, course_id) VALUES ('%s', '%s')`, user, course)
		gone := f.token(user)
		for _, p := range f.processes { // each knows the learner
			if ok, _, got := (expectation{path: "/users/me", token: gone, contains: user}).check(t.Context(), p); !ok {
				t.Fatalf("before the learner is deleted: %s", got)
			}
		}
		write("DELETE that cascades", []expectation{{path: detail, contains: `"enrolledCount":0,`}}, `DELETE FROM users WHERE id = '%s'`, user)
		f.waitSeen(time.Now(), expectation{path: "/users/me", token: gone, status: http.StatusUnauthorized})
	}
	var all []time.Duration
	for _, name := range names {
		t.Logf("%-24s %s", name, percentiles(took[name]))
		all = append(all, took[name]...)
	}
	t.Logf("%-24s %s", "all", percentiles(all))
}

// However many rows one statement changes, it leaves a handful of rows in the outbox, and shows
// everywhere as soon as it is committed.
//
//	go test ./cmd/chainlearn -run TestBulkWriteShowsOnEveryProcess -v -bulk 1000000 -timeout 30m
func TestBulkWriteShowsOnEveryProcess(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 4, nil)
	external := f.psql()
	rows, course := *bulkRows, courseID(1)
	if rows < 2000 || rows > 1_000_000 {
		t.Fatalf("-bulk is %d: must be between 2000, from which on families are recorded, and 1000000", rows)
	}
	external.run(`INSERT INTO courses (id, title) VALUES ('%s', 'Course')`, course)
	first, last := userID(0), userID(rows-1)

	// In a transaction, so that its rows in the outbox can be counted before a relay takes them.
	write := func(what string, looks []expectation, wantRows, statement string, args ...any) {
		t.Helper()
		for _, e := range looks {
			if e.status == 0 {
				f.waitOldCached(e)
			}
		}
		external.run(`BEGIN`)
		began := time.Now()
		external.run(statement, args...)
		ran := time.Since(began)
		tags := strings.ReplaceAll(external.run(`SELECT tag FROM cache_outbox ORDER BY tag`), "\n", " ")
		if tags != wantRows {
			t.Errorf("%s of %d rows left %.300q in the outbox, want %q", what, rows, tags, wantRows)
		}
		committed := time.Now()
		external.run(`COMMIT`)
		t.Logf("%s of %d rows ran for %v, left %d rows in the outbox, and showed after its commit: %s",
			what, rows, ran.Round(time.Millisecond), strings.Count(tags, " ")+1, percentiles(f.waitSeen(committed, looks...)))
	}
	external.run(`INSERT INTO users (id, stellar_address)
		SELECT id::uuid, id FROM (SELECT '00000000-0000-4000-8000-00000a' || lpad(i::text, 6, '0') AS id FROM generate_series(0, %d) i) ids`, rows-1)
	me := func(contains string) (looks []expectation) {
		for _, user := range []string{first, last} {
			looks = append(looks, expectation{path: "/users/me", token: f.token(user), contains: contains})
		}
		return looks
	}
	write("UPDATE", me(`"credits":7,`), "user:*", `UPDATE users SET credits = 7`)
	counts := func(n, ofOne int) (looks []expectation) {
		for _, user := range []string{first, last} {
			looks = append(looks, expectation{path: "/users/me/progress", token: f.token(user), contains: fmt.Sprintf(`"enrolledCourses":%d,`, ofOne)})
		}
		return append(looks, expectation{path: "/courses/" + course, contains: fmt.Sprintf(`"enrolledCount":%d,`, n)})
	}
	tags := "catalog:all catalog:beginner course:" + course + " progress:*"
	write("INSERT", counts(rows, 1), tags, `INSERT INTO enrollments (user_id, course_id) SELECT id, '%s' FROM users`, course)
	write("DELETE", counts(0, 0), tags, `DELETE FROM enrollments`)
}

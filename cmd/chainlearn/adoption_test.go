package main

import (
	"context"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// A service takes over the database of another program, with 200,000 enrolments in it, by being started on
// it. The other program may go on writing.
func TestDatabaseOfAnotherProgramIsTakenOver(t *testing.T) {
	t.Parallel()
	id := func(seed string) string { return uuid.UUID(md5.Sum([]byte(seed))).String() }
	env := map[string]string{
		"DATABASE_URL": testservers.SharedPostgres(t).Database(t),
		"REDIS_URL":    testservers.SharedRedis(t).URL(),
		"JWT_SECRET":   strings.Repeat("s", httpapi.MinSecret),
	}
	schema, err := os.ReadFile("../../internal/postgres/testdata/other_program.sql")
	testservers.Must(t, err)
	other, err := pgx.Connect(t.Context(), env["DATABASE_URL"])
	testservers.Must(t, err)
	t.Cleanup(func() { _ = other.Close(context.WithoutCancel(t.Context())) })
	run := func(statement string) {
		t.Helper()
		if _, err := other.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%.200s: %v", statement, err)
		}
	}
	run(string(schema)) // with the first 25,000
	run(`INSERT INTO enrollments (id, user_id, course_id) SELECT md5('e' || i)::uuid, md5('u' || i % 5000 + 1)::uuid, md5('c' || i / 5000 + 1)::uuid FROM generate_series(25000, 199999) i`)

	dir := t.TempDir()
	for round, name := range []string{"taken over", "started again"} {
		began := time.Now()
		p := serve(t, dir, env)
		t.Logf("%s in %v", name, time.Since(began).Round(time.Millisecond))
		get := func(path, token string) (data json.RawMessage, pagination struct{ Total int }) {
			t.Helper()
			status, _, body, err := request(t.Context(), "GET", p.api+path, token)
			if err != nil || status != http.StatusOK {
				t.Fatalf("GET %s: %d %s, %v", path, status, body, err)
			}
			var answer struct {
				Data       json.RawMessage
				Pagination struct{ Total int }
			}
			testservers.Must(t, json.Unmarshal(body, &answer))
			return answer.Data, answer.Pagination
		}
		token, err := command(t, dir, env, "token", "--user", id("u2")).Output()
		testservers.Must(t, err)
		learner := strings.TrimSpace(string(token))
		if _, pages := get("/courses", ""); pages.Total != 100 {
			t.Errorf("%s: %d courses, want 100", name, pages.Total)
		}
		detail, _ := get("/courses/"+id("c1"), "")
		for _, want := range []string{`"title":"Course 1","description":"","difficulty":"beginner","isActive":true,"enrolledCount":5000,`, `"modules":[{"id":"module-1","title":"Module 1","order":1}]`} {
			if !strings.Contains(string(detail), want) {
				t.Errorf("%s: the detail is %s, want %s in it", name, detail, want)
			}
		}
		progress := func(enrolled int) string {
			return fmt.Sprintf(`{"enrolledCourses":%d,"completedCourses":0,"totalQuizScore":1,"credentialsEarned":0,"rewardsClaimed":1}`, enrolled)
		}
		if got, _ := get("/users/me/progress", learner); string(got) != progress(40+2*round) {
			t.Errorf("%s: the progress is %s, want %s", name, got, progress(40+2*round))
		}
		if got, _ := get("/rewards/history", learner); !strings.Contains(string(got), `"courseTitle":"Course 1","score":1,`) {
			t.Errorf("%s: the rewards are %s", name, got)
		}
		if status, _, body, err := request(t.Context(), "POST", p.api+"/courses/"+id(fmt.Sprint("c", 50+round))+"/enroll", learner); err != nil || status != http.StatusCreated {
			t.Errorf("%s: enrol: %d %s, %v", name, status, body, err)
		}
		if got, _ := get("/users/me/progress", learner); string(got) != progress(41+2*round) {
			t.Errorf("%s: after an enrolment the progress is %s", name, got)
		}
		run(fmt.Sprintf(`INSERT INTO enrollments (id, user_id, course_id) VALUES ('%s', '%s', '%s')`, id(fmt.Sprint("other", round)), id("u2"), id(fmt.Sprint("c", 60+round))))
		testservers.Eventually(t, visibilityTimeout, func() (bool, string) {
			got, _ := get("/users/me/progress", learner)
			return string(got) == progress(42+2*round), fmt.Sprintf("after a write of the other program the progress is %s", got)
		})
		p.stop(syscall.SIGTERM)
	}
	var rows int
	testservers.Must(t, other.QueryRow(t.Context(), `SELECT count(*) FROM enrollments`).Scan(&rows))
	if rows != 200_004 {
		t.Errorf("there are %d enrolments, want 200,004", rows)
	}
}

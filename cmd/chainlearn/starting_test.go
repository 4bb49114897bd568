package main

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// While a migration waits, as long as that may take, probes and requests are answered.
func TestStartingIsAnswered(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 0, nil)
	f.database = testservers.SharedPostgres(t).Database(t) // an empty one
	f.env["DATABASE_URL"] = f.database
	lock := f.psql()
	lock.run(`SELECT pg_advisory_lock(%d)`, 0x636861696e6c6561) // that of migrations: another process is at it

	l, err := net.Listen("tcp", "127.0.0.1:0")
	testservers.Must(t, err)
	f.env["PORT"] = fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	testservers.Must(t, l.Close())
	started := make(chan *process)
	go func() { started <- f.start() }()
	api := "http://127.0.0.1:" + f.env["PORT"] + "/api/v1"
	for _, r := range []apiRequest{
		{"GET /health/live", "/health/live", "200", ""}, {"GET /health/ready", "/health/ready", "503", ""},
		{"GET /courses", "/courses", "503", ""}, {"POST /rewards/claim", "/rewards/claim", "503", ""},
	} {
		var a apiAnswer
		testservers.Eventually(t, 20*time.Second, func() (bool, string) {
			a = r.send(t.Context(), api)
			return a.err == nil, fmt.Sprint(a.err) // it does not listen yet
		})
		if fmt.Sprint(a.status) != r.body {
			t.Errorf("%s: %d %s", r.route, a.status, a.body)
		}
		if !strings.HasPrefix(r.route, "GET /health") && (a.header.Get("Retry-After") == "" || !strings.Contains(a.body, `"error":"UNAVAILABLE"`)) {
			t.Errorf("%s: %v %s", r.route, a.header, a.body)
		}
	}
	lock.run(`SELECT pg_advisory_unlock_all()`)
	p := <-started
	if a := (apiRequest{"GET /courses", "/courses", "", ""}).send(t.Context(), api); a.status != http.StatusOK {
		t.Errorf("started: %d %s", a.status, a.body)
	}
	p.stop(syscall.SIGTERM)
}

// Courses that do not exist leave in Redis what is gone in a minute, however many a client asks for.
func TestUnknownCoursesLeaveLittleInRedis(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, nil)
	for n := range 50 {
		if a := (apiRequest{"GET /courses/{id}", "/courses/" + courseID(n), "", ""}).send(t.Context(), f.processes[0].api); a.status != http.StatusNotFound {
			t.Fatalf("%d %s, %v", a.status, a.body, a.err)
		}
	}
	keys, err := f.redis.Do(t.Context(), "KEYS", "*00000c*").AsStrSlice()
	testservers.Must(t, err)
	if len(keys) < 50 {
		t.Errorf("%d keys name courses: do tags have other names?", len(keys))
	}
	for _, key := range keys {
		left, err := f.redis.Do(t.Context(), "PTTL", key).AsInt64()
		testservers.Must(t, err)
		if left < 0 && left != -2 || left > time.Minute.Milliseconds() {
			t.Errorf("%q stays for %d ms", key, left)
		}
	}
	f.processes[0].stop(syscall.SIGTERM)
}

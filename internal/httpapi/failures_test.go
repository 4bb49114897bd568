package httpapi_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/storetest"
)

// A cache that fails or hangs fails no request: answers come from the database, writes are
// carried out, and what they changed is seen at once, and still when the cache is back.
func TestFailingCache(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		inject func(s *testService)
	}{
		{"fails", func(s *testService) { s.store.Fail(errors.New("cache is broken")) }},
		{"hangs", func(s *testService) { s.store.Hang() }},
		{"loses its replies", func(s *testService) { s.store.LoseReplies(errors.New("reply lost")) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.warm(ada)
			tt.inject(s)
			for round := range 5 {
				for name, path := range answers {
					began := time.Now()
					res := s.get(path, ada)
					// Three calls of the cache at 50 ms each, and generously for a slow machine.
					if took := time.Since(began); took > 2*time.Second {
						t.Errorf("%s took %v in round %d", name, took, round)
					}
					if res.cacheStatus() == "hit" {
						t.Errorf("%s is a hit of a cache that is away", name)
					}
				}
			}
			s.mutate("POST", "/courses/"+golang+"/enroll", ada, "")
			shown := func() {
				t.Helper()
				if got := data[struct{ EnrolledCount int }](t, s.get("/courses/"+golang, ada)).EnrolledCount; got != 1 {
					t.Errorf("enrolled: %d, want 1", got)
				}
				if got := data[struct{ EnrolledCourses int }](t, s.get("/users/me/progress", ada)).EnrolledCourses; got != 1 {
					t.Errorf("progress: %d, want 1", got)
				}
			}
			shown()
			if res := s.do(request{path: "//health/ready"}); res.status != http.StatusOK || !strings.Contains(string(res.raw), `"status":"degraded"`) {
				t.Errorf("health is %d %s", res.status, res.raw)
			}

			s.store.Heal()
			eventually(t, 10*time.Second, func() string {
				if res := s.do(request{path: "//health"}); !strings.Contains(string(res.raw), `{"status":"ok"`) {
					return string(res.raw)
				}
				return ""
			})
			shown()
			s.warm(ada) // and it caches again
		})
	}
}

// What a request may wait for a cache that hangs is bounded once; afterwards it costs
// nothing to know.
func TestHangingCacheSoonCostsNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.store.Hang()
	eventually(t, 10*time.Second, func() string {
		s.get("/courses", "")
		if state := s.metric("cache_breaker_state"); state == "0" {
			return "the breaker is closed"
		}
		return ""
	})
	before := s.store.Calls(storetest.OpRead)
	for range 20 {
		s.get("/courses", "")
	}
	if after := s.store.Calls(storetest.OpRead); after != before {
		t.Errorf("%d of 20 requests asked a cache that hangs", after-before)
	}
}

// Trouble with the database logs no client out.
func TestDatabaseTrouble(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.get("/courses", "")
	s.externalWrite(`ALTER TABLE users RENAME TO gone`)
	for _, r := range []request{
		{path: "/users/me", user: ada},
		{path: "/courses", user: ada}, // the token is optional, but this one may be good
		{method: "POST", path: "/courses/" + golang + "/enroll", user: ada},
	} {
		res := s.do(r)
		if res.status != http.StatusServiceUnavailable || res.body.Error != "UNAVAILABLE" || res.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: %d %s", r.method, r.path, res.status, res.raw)
		}
		if strings.Contains(string(res.raw), "table") {
			t.Errorf("the answer tells of the inside: %s", res.raw)
		}
	}
	if res := s.do(request{path: "/courses"}); res.status != http.StatusOK {
		t.Errorf("without a token: %d %s", res.status, res.raw)
	}
	if !strings.Contains(s.log.String(), "no such table") {
		t.Error("the log does not say what is wrong")
	}
}

func TestMetricsTellTheTruth(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.get("/courses", "")
	s.get("/courses", "")
	s.get("/courses", "")
	s.get("/courses", "")
	s.do(request{path: "/courses/" + unknownID})
	for series, want := range map[string]string{
		`cache_hits_total{namespace="courses",query="list",tier="shared"}`:                       "3",
		`cache_misses_total{namespace="courses",query="list"}`:                                   "1",
		`cache_hit_rate{namespace="courses",query="list"}`:                                       "0.75",
		`cache_loads_total{namespace="courses",query="list",result="found"}`:                     "1",
		`cache_loads_total{namespace="courses",query="detail",result="not_found"}`:               "1",
		`cache_loads_total{namespace="courses",query="detail",result="found"}`:                   "0",
		`cache_misses_total{namespace="courses",query="detail"}`:                                 "1",
		`cache_hits_total{namespace="users",query="progress",tier="shared"}`:                     "0",
		`http_request_duration_seconds_count{method="GET",route="/api/v1/courses",status="200"}`: "4",
	} {
		if got := s.metric(series); got != want {
			t.Errorf("%s is %q, want %s", series, got, want)
		}
	}
	res := s.do(request{path: "//metrics"})
	if res.status != http.StatusNotFound {
		t.Errorf("the public listener shows metrics: %d", res.status)
	}
}

// What is warmed at the start is no miss: the hit rate is that of clients.
func TestWarmingIsNoMiss(t *testing.T) {
	t.Parallel()
	s := start(t)
	must(t, s.cache.Warm(t.Context()))
	if n := s.metric(`cache_loads_total{namespace="courses",query="list",result="found"}`); n == "0" || n == "" {
		t.Errorf("%q pages were loaded", n)
	}
	s.get("/courses", "")
	s.get("/courses?page=2", "")
	for series, want := range map[string]string{
		`cache_misses_total{namespace="courses",query="list"}`:              "0",
		`cache_misses_total{namespace="courses",query="count"}`:             "0",
		`cache_hits_total{namespace="courses",query="list",tier="shared"}`:  "2",
		`cache_hits_total{namespace="courses",query="count",tier="shared"}`: "1",
		`cache_hit_rate{namespace="courses",query="list"}`:                  "1",
	} {
		if got := s.metric(series); got != want {
			t.Errorf("%s is %s, want %s", series, got, want)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	s := start(t)
	for path, want := range map[string]string{
		"//health/live":         `{"status":"ok"}`,
		"//health/ready":        `{"status":"ok","checks":{"database":"ok","cache":"ok"}}`,
		"//health":              `{"status":"ok","checks":{"database":"ok","cache":"ok"}}`,
		"//api/health":          `{"status":"ok","checks":{"database":"ok","cache":"ok"}}`,
		"//api/v1/health/ready": `{"status":"ok","checks":{"database":"ok","cache":"ok"}}`,
	} {
		if res := s.do(request{path: path}); res.status != http.StatusOK || strings.TrimSpace(string(res.raw)) != want {
			t.Errorf("%s: %d %s", path, res.status, res.raw)
		}
	}
	s.server.Stopping()
	if res := s.do(request{path: "//health/ready"}); res.status != http.StatusServiceUnavailable || !strings.Contains(string(res.raw), "stopping") {
		t.Errorf("stopping: %d %s", res.status, res.raw)
	}
	if res := s.do(request{path: "//health/live"}); res.status != http.StatusOK {
		t.Errorf("alive while stopping: %d", res.status)
	}
}

// Nothing that a log is kept for is secret.
func TestLogs(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.get("/users/me/progress", ada)
	s.do(request{path: "/courses/" + golang + "?page=secret", header: http.Header{"X-Request-Id": {"mine"}}})
	log := s.log.String()
	for _, want := range []string{
		`"method":"GET","route":"/api/v1/users/me/progress","status":200`, `"cache":"miss"`,
		`"route":"/api/v1/courses/{id}"`, `"requestId":"mine"`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in the log", want)
		}
	}
	for _, secret := range []string{s.token(ada), "secret"} {
		if strings.Contains(log, secret) {
			t.Errorf("%s is in the log", secret)
		}
	}
	if t.Failed() {
		fmt.Println(log)
	}
}

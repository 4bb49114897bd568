package httpapi_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/httpapi"
)

// Every malformed request is told everything that is wrong with it, in one shape.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := start(t)
	const uuid = `must be a UUID such as 00000000-0000-4000-8000-000000000001, not "x"`
	big := `{"displayName":"` + strings.Repeat("x", 100<<10) + `"}`
	for _, tt := range []struct {
		request
		status  int
		word    string
		details map[string][]string
	}{
		{request{path: "/courses?page=0&limit=x&difficulty=hard"}, 400, "VALIDATION_ERROR", map[string][]string{"query": {
			"difficulty: must be one of beginner, intermediate, advanced", "page: must be between 1 and 10000", "limit: must be between 1 and 50",
		}}},
		{request{path: "/courses/x"}, 400, "VALIDATION_ERROR", map[string][]string{"params": {"id: " + uuid}}},
		{request{path: "/courses/" + hidden}, 404, "NOT_FOUND", nil},
		{request{path: "/courses/x/modules/" + strings.Repeat("m", 101)}, 400, "VALIDATION_ERROR", map[string][]string{"params": {"id: " + uuid, "moduleId: must have 1 to 100 characters"}}},
		{request{path: "/courses/" + golang + "/modules/m%00"}, 400, "VALIDATION_ERROR", map[string][]string{"params": {"moduleId: must not contain control characters"}}},
		{request{path: "/courses/" + golang + "/modules/m-3"}, 404, "NOT_FOUND", nil},
		{request{path: "/courses/" + unknownID + "/modules/m-1"}, 404, "NOT_FOUND", nil},

		// Authentication comes before validation.
		{request{method: "POST", path: "/courses/x/enroll"}, 401, "UNAUTHORIZED", nil},
		{request{method: "POST", path: "/quizzes/generate", body: "{"}, 401, "UNAUTHORIZED", nil},
		{request{method: "POST", path: "/courses/x/enroll", user: unknownID}, 401, "UNAUTHORIZED", nil},

		{request{method: "POST", path: "/courses/x/enroll", user: ada}, 400, "VALIDATION_ERROR", map[string][]string{"params": {"id: " + uuid}}},
		{request{method: "POST", path: "/courses/" + unknownID + "/enroll", user: ada}, 404, "NOT_FOUND", nil},
		{request{method: "POST", path: "/courses/" + hidden + "/enroll", user: ada}, 404, "NOT_FOUND", nil},

		{request{method: "PUT", path: "/users/me", user: ada}, 400, "VALIDATION_ERROR", map[string][]string{"body": {"must be a JSON object; it is empty"}}},
		{request{method: "PUT", path: "/users/me", user: ada, body: `[]`}, 400, "VALIDATION_ERROR", map[string][]string{"body": {"must be a JSON object"}}},
		{request{method: "PUT", path: "/users/me", user: ada, body: big}, 413, "PAYLOAD_TOO_LARGE", nil},
		{request{method: "PUT", path: "/users/me", user: ada, body: `{"displayName":5,"pace":"warp","language":"","background":"` + strings.Repeat("é", 1001) + `"}`}, 400, "VALIDATION_ERROR",
			map[string][]string{"body": {
				"displayName: must be a text", "background: must have at most 1000 characters, not 1001", "language: must not be empty", "pace: must be one of slow, medium, fast",
			}}},

		{request{method: "POST", path: "/quizzes/generate", user: ada, body: `{"courseId":"x"}`}, 400, "VALIDATION_ERROR", map[string][]string{"body": {"courseId: " + uuid, "moduleId: is required"}}},
		{request{method: "POST", path: "/quizzes/generate", user: ada, body: fmt.Sprintf(`{"courseId":%q,"moduleId":"m-1"}`, golang)}, 403, "FORBIDDEN", nil},
		{request{method: "POST", path: "/quizzes/generate", user: ada, body: fmt.Sprintf(`{"courseId":%q,"moduleId":"m-1"}`, unknownID)}, 404, "NOT_FOUND", nil},
		{request{method: "POST", path: "/quizzes/x/submit", user: ada, body: `{"answers":[{"selectedIndex":"a"}]}`}, 400, "VALIDATION_ERROR", map[string][]string{
			"params": {"id: " + uuid}, "body": {"answers[0].questionId: is required", "answers[0].selectedIndex: must be a whole number"},
		}},
		{request{method: "POST", path: "/quizzes/" + unknownID + "/submit", user: ada, body: `{"answers":[]}`}, 404, "NOT_FOUND", nil},

		{request{method: "POST", path: "/rewards/claim", user: ada, body: `{"submissionId":"x","idempotencyKey":" "}`}, 400, "VALIDATION_ERROR", map[string][]string{"body": {"submissionId: " + uuid, "idempotencyKey: must not be empty"}}},
		{request{method: "POST", path: "/rewards/claim", user: ada, body: fmt.Sprintf(`{"submissionId":%q,"idempotencyKey":"k"}`, unknownID)}, 404, "NOT_FOUND", nil},
		{request{path: "/rewards/history?limit=0", user: ada}, 400, "VALIDATION_ERROR", map[string][]string{"query": {"limit: must be between 1 and 50"}}},
		{request{method: "POST", path: "/credentials/mint", user: ada, body: `{}`}, 400, "VALIDATION_ERROR", map[string][]string{"body": {"courseId: is required", "submissionId: is required", "idempotencyKey: is required"}}},

		{request{path: "/nothing"}, 404, "NOT_FOUND", nil},
		{request{path: "//"}, 404, "NOT_FOUND", nil},
		{request{path: "//api/v1//courses"}, 404, "NOT_FOUND", nil},
		{request{path: "//api/v1/x/../courses"}, 404, "NOT_FOUND", nil},
		{request{path: "/courses/"}, 404, "NOT_FOUND", nil},
		{request{method: "DELETE", path: "/courses"}, 405, "METHOD_NOT_ALLOWED", nil},
		{request{method: "PATCH", path: "/users/me", user: ada}, 405, "METHOD_NOT_ALLOWED", nil},
		{request{method: "NONSENSE", path: "/courses/" + golang}, 405, "METHOD_NOT_ALLOWED", nil},
	} {
		t.Run(fmt.Sprintf("%s %.60s %.40s", tt.method, tt.path, tt.body), func(t *testing.T) {
			res := s.do(tt.request)
			if res.status != tt.status || res.body.StatusCode != tt.status || res.body.Error != tt.word || res.body.Message == "" ||
				res.body.RequestID == "" || res.body.RequestID != res.header.Get("X-Request-Id") {
				t.Errorf("%d %s", res.status, res.raw)
			}
			if !maps.EqualFunc(res.body.Details, tt.details, slices.Equal) {
				t.Errorf("details are\n%q, want\n%q", res.body.Details, tt.details)
			}
			if got := res.header.Get("Content-Type"); got != "application/json; charset=utf-8" {
				t.Errorf("Content-Type is %q", got)
			}
			if allow := res.header.Get("Allow"); (allow != "") != (tt.status == 405) {
				t.Errorf("Allow is %q", allow)
			}
		})
	}
}

var isoTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)

// The answers' fields are those of the contract, null where there is nothing, on both base
// paths.
func TestShapes(t *testing.T) {
	t.Parallel()
	s := start(t)
	res := s.mutate("POST", "/courses/"+golang+"/enroll", ada, "")
	if res.status != http.StatusCreated || res.body.Message != "Enrolled successfully" {
		t.Errorf("enrol: %d %s", res.status, res.raw)
	}
	submission := s.passQuiz(ada, golang, "m-1")
	s.mutate("POST", "/rewards/claim", ada, fmt.Sprintf(`{"submissionId":%q,"idempotencyKey":"k"}`, submission))
	s.mutate("POST", "/credentials/mint", ada, fmt.Sprintf(`{"courseId":%q,"submissionId":%q,"idempotencyKey":"k"}`, golang, submission))
	for path, want := range map[string]string{
		"/courses":                            "description difficulty enrolledCount id isActive isEnrolled title",
		"/courses/" + golang:                  "contentHash=null createdAt description difficulty enrolledCount id isActive isEnrolled modules title",
		"/courses/" + golang + "/modules/m-1": "courseId id isCompleted order title",
		"/users/me":                           "background=null createdAt credits displayName id language learningGoal=null pace stellarAddress",
		"/users/me/progress":                  "completedCourses credentialsEarned enrolledCourses rewardsClaimed totalQuizScore",
		"/rewards/history":                    "amount claimedAt courseTitle id score txHash=null",
		"/credentials":                        "courseId courseTitle id mintTxHash=null mintedAt nftAssetCode nftIssuer=null revoked score",
	} {
		for _, base := range []string{"//api", "//api/v1"} {
			res := s.get(base+path, ada)
			v := data[any](t, res)
			if list, ok := v.([]any); ok {
				v = list[0]
			}
			var fields []string
			for name, value := range v.(object) {
				if value == nil {
					name += "=null"
				}
				fields = append(fields, name)
				if strings.HasSuffix(name, "At") && !isoTime.MatchString(value.(string)) {
					t.Errorf("%s: %s is %v", path, name, value)
				}
			}
			slices.Sort(fields)
			if got := strings.Join(fields, " "); got != want {
				t.Errorf("%s has\n%s, want\n%s", path, got, want)
			}
			if !res.body.Success || res.body.Meta == nil || res.body.Meta.Version != "v1" || !isoTime.MatchString(res.body.Meta.Timestamp) ||
				res.body.Meta.RequestID != res.header.Get("X-Request-Id") {
				t.Errorf("%s: %s", path, res.raw)
			}
			if paged := path == "/courses" || path == "/rewards/history"; paged != (res.body.Pagination != nil) {
				t.Errorf("%s: pagination is %v", path, res.body.Pagination)
			}
		}
	}
	if got := string(s.get("/courses/"+golang, "").body.Data); !strings.Contains(got, `"modules":[{"id":"m-1","title":`) || !strings.Contains(got, `"order":2}]`) {
		t.Errorf("modules: %s", got)
	}
}

// A POST that needs no body takes any.
func TestEnrolWithAnyBody(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ body, contentType string }{{"", ""}, {"", "application/json"}, {"{}", "application/json"}, {"{}", ""}, {"{}", "text/plain"}} {
		s := start(t)
		r := request{method: "POST", path: "/courses/" + golang + "/enroll", user: ada, body: tt.body, header: http.Header{}}
		if tt.contentType != "" {
			r.header.Set("Content-Type", tt.contentType)
		}
		if res := s.do(r); res.status != http.StatusCreated {
			t.Errorf("body %q of type %q: %d %s", tt.body, tt.contentType, res.status, res.raw)
		}
	}
}

func TestTokensOverHTTP(t *testing.T) {
	t.Parallel()
	s := start(t)
	bear := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	bad := bear(s.token(ada) + "x")
	if res := s.do(request{path: "/users/me", header: bad}); res.status != http.StatusUnauthorized || res.header.Get("WWW-Authenticate") == "" {
		t.Errorf("a bad token: %d %s", res.status, res.raw)
	}
	if res := s.do(request{path: "/courses/" + golang, header: bad}); res.status != http.StatusOK || res.header.Get("Cache-Control") != "public, no-cache" {
		t.Errorf("a bad token where none is needed: %d %s", res.status, res.raw)
	}
	s.get("/users/me", ada)

	// Of another's address.
	s.externalWrite(`UPDATE users SET stellar_address = 'G-moved' WHERE id = ?`, ada)
	eventually(t, time.Second, func() string {
		if res := s.do(request{path: "/users/me", user: ada}); res.status != http.StatusUnauthorized {
			return fmt.Sprintf("the address is no longer the user's, and still %d", res.status)
		}
		return ""
	})

	// Revoked.
	s.get("/users/me", bob)
	s.externalWrite(`INSERT INTO revoked_tokens (jti, expires_at) VALUES (?, '2100-01-01T00:00:00.000Z')`, jti(t, s.token(bob)))
	eventually(t, time.Second, func() string {
		if res := s.do(request{path: "/users/me", user: bob}); res.status != http.StatusUnauthorized {
			return fmt.Sprintf("the token is revoked, and still %d", res.status)
		}
		return ""
	})
	if res := s.get("/courses/"+golang, bob); res.header.Get("Cache-Control") != "public, no-cache" {
		t.Errorf("a revoked token where none is needed: %s", res.raw)
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *httpapi.Config, _ *cache.Config) { c.RateLimit, c.RateWindow = 3, time.Hour })
	for i := range 3 {
		if res := s.do(request{path: "/courses"}); res.status != http.StatusOK || res.header.Get("RateLimit-Remaining") != fmt.Sprint(2-i) {
			t.Errorf("request %d: %d, %q remain", i, res.status, res.header.Get("RateLimit-Remaining"))
		}
	}
	res := s.do(request{path: "/courses"})
	if res.status != http.StatusTooManyRequests || res.body.Error != "RATE_LIMITED" || res.header.Get("Retry-After") == "" || res.header.Get("RateLimit-Limit") != "3" {
		t.Errorf("%d %v %s", res.status, res.header, res.raw)
	}
	if res := s.do(request{path: "/courses", user: ada}); res.status != http.StatusOK {
		t.Errorf("a learner at the same address: %d", res.status)
	}
	if res := s.do(request{path: "/courses", header: http.Header{"X-Forwarded-For": {"1.2.3.4"}}}); res.status != http.StatusTooManyRequests {
		t.Errorf("a claim to come from elsewhere: %d", res.status)
	}
	if res := s.do(request{path: "//health"}); res.status != http.StatusOK {
		t.Errorf("a probe: %d", res.status)
	}

	s = start(t, func(c *httpapi.Config, _ *cache.Config) {
		c.RateLimit, c.RateWindow, c.TrustedProxies = 1, time.Hour, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	for i, from := range []string{"1.2.3.4", "1.2.3.5", "1.2.3.4"} {
		want := []int{200, 200, 429}[i]
		if res := s.do(request{path: "/courses", header: http.Header{"X-Forwarded-For": {from}}}); res.status != want {
			t.Errorf("request %d, by way of a proxy: %d, want %d", i, res.status, want)
		}
	}
}

// The sign-in has a quota of its own, which belongs to the address: tokens are no way around it.
func TestSignInLimit(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *httpapi.Config, _ *cache.Config) {
		c.RateLimit, c.SignInLimit, c.RateWindow = 1000, 3, time.Hour
	})
	ask := func(path, user string) response {
		return s.do(request{method: "POST", path: path, body: `{}`, user: user})
	}
	for i, path := range []string{"/auth/challenge", "/auth/verify", "//api/auth/challenge"} {
		if res := ask(path, ""); res.status != http.StatusBadRequest || !strings.Contains(res.header.Get("RateLimit"), fmt.Sprintf(`"sign-in";r=%d;`, 2-i)) {
			t.Errorf("request %d: %d %v", i, res.status, res.header)
		}
	}
	for _, user := range []string{"", ada, bob} {
		if res := ask("/auth/verify", user); res.status != http.StatusTooManyRequests || res.header.Get("Retry-After") != "1200" {
			t.Errorf("one too many, as %q: %d %v", user, res.status, res.header)
		}
	}
	if res := s.do(request{path: "/courses"}); res.status != http.StatusOK || res.header.Get("RateLimit-Policy") != `"default";q=1000;w=3600` {
		t.Errorf("the catalogue: %d %v", res.status, res.header)
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *httpapi.Config, _ *cache.Config) { c.CORSOrigins = []string{"https://app.example"} })
	preflight := http.Header{"Origin": {"https://app.example"}, "Access-Control-Request-Method": {"PUT"}}
	res := s.do(request{method: "OPTIONS", path: "/users/me", header: preflight})
	if res.status != http.StatusNoContent || res.header.Get("Access-Control-Allow-Origin") != "https://app.example" || !strings.Contains(res.header.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("preflight: %d %v", res.status, res.header)
	}
	res = s.do(request{path: "/courses", header: http.Header{"Origin": {"https://app.example"}}})
	if res.header.Get("Access-Control-Allow-Origin") != "https://app.example" || !slices.Contains(res.header.Values("Vary"), "Origin") || !strings.Contains(res.header.Get("Access-Control-Expose-Headers"), "ETag") {
		t.Errorf("request: %v", res.header)
	}
	preflight.Set("Origin", "https://evil.example")
	res = s.do(request{method: "OPTIONS", path: "/users/me", header: preflight})
	if res.status != http.StatusMethodNotAllowed || res.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another origin: %d %v", res.status, res.header)
	}
	if res := start(t).do(request{path: "/courses", header: preflight}); res.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("without configuration: %v", res.header)
	}
}

func TestEveryAnswerHasSecurityHeaders(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, path := range []string{"/courses", "/nothing", "//health", "/users/me"} {
		res := s.do(request{path: path})
		if res.header.Get("X-Content-Type-Options") != "nosniff" || res.header.Get("Content-Security-Policy") == "" || res.header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: %v", path, res.header)
		}
	}
	if res := s.do(request{path: "/courses", header: http.Header{"X-Request-Id": {"mine-1"}}}); res.body.Meta.RequestID != "mine-1" {
		t.Errorf("the request's ID became %s", res.body.Meta.RequestID)
	}
}

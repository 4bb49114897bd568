package httpapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/httpapi"
)

// What links and trackers append to an address is not ours to refuse.
func TestForeignParametersAreIgnored(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, q := range []string{"utm_source=a;utm_medium=b", "ref=100%", "%zz", "limit=5&ref=%", "a=1;page=7"} {
		s.get("/courses?"+q, "")
	}
	if got := s.get("/courses?ref=100%&limit=5", "").body.Pagination; got.Limit != 5 {
		t.Errorf("beside a foreign one, limit=5 became %d", got.Limit)
	}
	for _, q := range []string{"page=%zz", "page=1;x", "limit=5;limit=6", "difficulty=%"} {
		if res := s.do(request{path: "/courses?" + q}); res.status != http.StatusBadRequest || len(res.body.Details["query"]) != 1 {
			t.Errorf("%s: %d %s", q, res.status, res.raw)
		}
	}
}

// What is stored is what was sent, or it is refused and the field named.
func TestTextsAreUnicode(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, text := range []string{"a\xffb", "\xc3", "\xed\xa0\x80", `\ud800`, `\udc00\ud800`, `x\uD83D`, `\ud83dx`, `\\\ud800`} {
		for _, field := range []string{"displayName", "language", "pace"} {
			res := s.do(request{method: "PUT", path: "/users/me", user: ada, body: fmt.Sprintf(`{"%s":"%s"}`, field, text)})
			if res.status != http.StatusBadRequest || len(res.body.Details["body"]) != 1 || !strings.HasPrefix(res.body.Details["body"][0], field+": must be Unicode") {
				t.Errorf("%s of %q: %d %s", field, text, res.status, res.raw)
			}
		}
		if res := s.do(request{method: "POST", path: "/quizzes/generate", user: ada, body: fmt.Sprintf(`{"courseId":"%s","moduleId":"%s"}`, golang, text)}); res.status != http.StatusBadRequest {
			t.Errorf("module %q: %d %s", text, res.status, res.raw)
		}
	}
	for text, want := range map[string]string{
		`\ud83d\ude00`: "😀", "😀": "😀", "\ufffd": "\ufffd", `\ufffd`: "\ufffd", `\\ud800`: `\ud800`, `\\\\ud800 �`: `\\ud800 ` + "\ufffd",
	} {
		res := s.mutate("PUT", "/users/me", ada, fmt.Sprintf(`{"displayName":"%s"}`, text))
		if got := data[struct{ DisplayName string }](t, res).DisplayName; got != want {
			t.Errorf("%s was stored as %q, want %q", text, got, want)
		}
	}
}

// A preflight is answered for what there is, and lets a script send what the contract names.
func TestPreflightKnowsTheRoutes(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *httpapi.Config, _ *cache.Config) { c.CORSOrigins = []string{"*"} })
	preflight := func(method, path string) response {
		return s.do(request{method: "OPTIONS", path: path, header: http.Header{"Origin": {"https://app.example"}, "Access-Control-Request-Method": {method}}})
	}
	for _, known := range [][2]string{{"GET", "/courses"}, {"PUT", "/users/me"}, {"POST", "/courses/" + golang + "/enroll"}, {"GET", "//api/courses/" + golang}, {"HEAD", "/courses"}} {
		res := preflight(known[0], known[1])
		if res.status != http.StatusNoContent {
			t.Errorf("%s: %d", known, res.status)
		}
		for _, field := range []string{"Cache-Control", "If-Match", "If-None-Match", "Authorization"} {
			if !strings.Contains(res.header.Get("Access-Control-Allow-Headers"), field) {
				t.Errorf("%s may not be sent: %v", field, res.header)
			}
		}
	}
	for _, unknown := range [][2]string{{"GET", "/nothing"}, {"DELETE", "/courses"}, {"POST", "//elsewhere"}, {"GET", "/courses/../x"}} {
		if res := preflight(unknown[0], unknown[1]); res.status != http.StatusNotFound && res.status != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", unknown, res.status)
		}
	}
}

// A body that does not arrive is waited for a bounded time, whether or not the route reads it, and the
// client is told. A body that has arrived has no deadline left: the request may take its time.
func TestSlowBodiesAreAnswered(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *httpapi.Config, _ *cache.Config) { c.BodyTimeout = 300 * time.Millisecond })
	send := func(method, path, user, body string, announced int) (string, error) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.api.URL, "http://"))
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = fmt.Fprintf(conn, "%s /api/v1%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", method, path, s.token(user), announced, body)
		must(t, err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return fmt.Sprint(res.StatusCode, " ", string(b)), err
	}
	for _, tt := range []struct{ method, path, status string }{
		{"PUT", "/users/me", "400"}, {"POST", "/quizzes/generate", "400"}, {"POST", "/courses/" + golang + "/enroll", "201"},
		{"GET", "/courses", "200"}, {"POST", "/nothing", "404"}, {"POST", "/courses", "405"},
	} {
		if got, err := send(tt.method, tt.path, ada, "{", 50); err != nil || !strings.HasPrefix(got, tt.status) {
			t.Errorf("%s %s: %s, %v", tt.method, tt.path, got, err)
		}
	}
	s.queries.hold("UPDATE users")
	time.AfterFunc(600*time.Millisecond, s.queries.release)
	if got, err := send("PUT", "/users/me", bob, `{"pace":"fast"}`, 15); err != nil || !strings.HasPrefix(got, "200") {
		t.Errorf("a whole body, and a write that takes its time: %s, %v", got, err)
	}
}

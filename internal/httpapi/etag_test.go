package httpapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// A client that has the representation is not sent it again, whatever form it asks in.
func TestNotModified(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.mutate("POST", "/courses/"+golang+"/enroll", ada, "")
	for _, tt := range []struct{ path, user string }{
		{"/courses", ""}, {"/courses", ada}, {"/courses/" + golang, ""}, {"/courses/" + golang, ada}, {"/courses/" + golang + "/modules/m-1", ada},
		{"/users/me", ada}, {"/users/me/progress", ada}, {"/rewards/history", ada}, {"/credentials", ada},
	} {
		first := s.get(tt.path, tt.user)
		etag := first.header.Get("ETag")
		if len(etag) < 20 || etag[0] != '"' {
			t.Fatalf("%s: the entity tag is %s", tt.path, etag)
		}
		if again := s.get(tt.path, tt.user).header.Get("ETag"); again != etag {
			t.Errorf("%s: the tag of the same answer was %s and is %s", tt.path, etag, again)
		}
		for _, match := range []string{etag, "W/" + etag, `"x", ` + etag, "*"} {
			res := s.do(request{path: tt.path, user: tt.user, header: http.Header{"If-None-Match": {match}}})
			if res.status != http.StatusNotModified || len(res.raw) > 0 {
				t.Errorf("%s with %s: %d %q", tt.path, match, res.status, res.raw)
			}
			for _, name := range []string{"ETag", "Cache-Control", "Vary"} {
				if !slices.Equal(res.header[http.CanonicalHeaderKey(name)], first.header[http.CanonicalHeaderKey(name)]) {
					t.Errorf("%s with %s: %s is %q, and was %q", tt.path, match, name, res.header[http.CanonicalHeaderKey(name)], first.header[http.CanonicalHeaderKey(name)])
				}
			}
			if res.cacheStatus() != "hit" {
				t.Errorf("%s with %s: Cache-Status is %s", tt.path, match, res.header.Get("Cache-Status"))
			}
		}
		if res := s.do(request{path: tt.path, user: tt.user, header: http.Header{"If-None-Match": {`"x"`}}}); res.status != http.StatusOK {
			t.Errorf("%s with another tag: %d", tt.path, res.status)
		}
		head := s.do(request{method: "HEAD", path: tt.path, user: tt.user})
		if head.status != http.StatusOK || head.header.Get("ETag") != etag || len(head.raw) > 0 {
			t.Errorf("HEAD %s: %d %s", tt.path, head.status, head.header.Get("ETag"))
		}
	}
}

// The tag is of what the client sees: the answer with the enrolment laid over it, of this
// resource.
func TestEntityTagsDiffer(t *testing.T) {
	t.Parallel()
	s := start(t)
	tags := map[string]string{}
	different := func(name, path, user string) {
		t.Helper()
		etag := s.get(path, user).header.Get("ETag")
		if before, taken := tags[etag]; taken {
			t.Errorf("%s and %s have the same tag", name, before)
		}
		tags[etag] = name
	}
	different("list", "/courses", "")
	different("page 2", "/courses?page=2", "")
	different("past the end", "/courses?page=100", "")
	different("further past the end", "/courses?page=101", "")
	different("empty history", "/rewards/history", ada)
	different("no credentials", "/credentials", ada)
	different("detail", "/courses/"+golang, ada)
	s.mutate("POST", "/courses/"+golang+"/enroll", bob, "")
	different("detail, one enrolled", "/courses/"+golang, ada)
	different("list, one enrolled", "/courses", ada)
	different("detail for an enrolled viewer", "/courses/"+golang, bob)
	different("list for an enrolled viewer", "/courses", bob)
	if got, want := s.get("/courses/"+golang, "").header.Get("ETag"), s.get("/courses/"+golang, ada).header.Get("ETag"); got != want {
		t.Errorf("the same representation has tags %s and %s", got, want)
	}
}

// Errors and answers to writes are not for keeping.
func TestNoStore(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, r := range []request{
		{path: "/courses/" + unknownID}, {path: "/courses?page=0"}, {path: "/users/me"},
		{method: "POST", path: "/courses/" + golang + "/enroll", user: ada},
	} {
		res := s.do(r)
		if got := res.header.Get("Cache-Control"); got != "no-store" || res.header.Get("ETag") != "" {
			t.Errorf("%s %s: Cache-Control %q, ETag %q", r.method, r.path, got, res.header.Get("ETag"))
		}
	}
}

// A profile is changed only as the request allows: RFC 9110, section 13.
func TestConditionalChange(t *testing.T) {
	t.Parallel()
	s := start(t)
	old := s.get("/users/me", ada).header.Get("ETag")
	s.mutate("PUT", "/users/me", ada, `{"displayName":"Ada"}`)
	for i, tt := range []struct {
		name   string
		header http.Header // NOW stands for the tag of now
		status int
	}{
		{"nothing", http.Header{}, 200},
		{"the tag", http.Header{"If-Match": {`NOW`}}, 200},
		{"the tag among others", http.Header{"If-Match": {`"x"`, old + `, NOW`}}, 200},
		{"any", http.Header{"If-Match": {`*`}}, 200},
		{"an older tag", http.Header{"If-Match": {old}}, 412},
		{"the tag, weakly", http.Header{"If-Match": {`W/NOW`}}, 412},
		{"a malformed tag", http.Header{"If-Match": {`x`}}, 412},
		{"an empty field", http.Header{"If-Match": {``}}, 412},
		{"not if it exists", http.Header{"If-None-Match": {`*`}}, 412},
		{"not if it is this", http.Header{"If-None-Match": {`NOW`}}, 412},
		{"not if it is this, weakly", http.Header{"If-None-Match": {`W/NOW`}}, 412},
		{"not if it is another", http.Header{"If-None-Match": {old}}, 200},
		{"both, which both hold", http.Header{"If-Match": {`NOW`}, "If-None-Match": {old}}, 200},
		{"both, of which one does not", http.Header{"If-Match": {`NOW`}, "If-None-Match": {`NOW`}}, 412},
	} {
		before := s.get("/users/me", ada)
		for _, lines := range tt.header {
			for i := range lines {
				lines[i] = strings.ReplaceAll(lines[i], "NOW", before.header.Get("ETag"))
			}
		}
		goal := fmt.Sprintf("goal %d", i)
		res := s.do(request{method: "PUT", path: "/users/me", user: ada, header: tt.header, body: `{"learningGoal":"` + goal + `"}`})
		want := data[object](t, before)["learningGoal"]
		if tt.status == 200 {
			want = goal
		} else if res.body.Error != "PRECONDITION_FAILED" || res.header.Get("ETag") != "" {
			t.Errorf("%s: %s, ETag %q", tt.name, res.raw, res.header.Get("ETag"))
		}
		if got := data[object](t, s.get("/users/me", ada))["learningGoal"]; res.status != tt.status || got != want {
			t.Errorf("%s: %d, and the goal is %v; want %d and %v", tt.name, res.status, got, tt.status, want)
		}
	}
	// What is wrong with the body is said first, and a stranger learns nothing.
	header := http.Header{"If-Match": {old}}
	if res := s.do(request{method: "PUT", path: "/users/me", user: ada, header: header, body: `{"pace":"warp"}`}); res.status != http.StatusBadRequest {
		t.Errorf("an invalid change under a condition that fails: %d", res.status)
	}
	if res := s.do(request{method: "PUT", path: "/users/me", header: header, body: `{}`}); res.status != http.StatusUnauthorized {
		t.Errorf("a stranger's change under a condition that fails: %d", res.status)
	}
}

// Of changes under the tag of one state only one is made.
func TestConditionalChangesRace(t *testing.T) {
	t.Parallel()
	s := start(t)
	for range 5 {
		header := http.Header{"If-Match": {s.get("/users/me", ada).header.Get("ETag")}}
		results := make(chan response, 8)
		for i := range cap(results) {
			go func() {
				res, err := s.try(request{method: "PUT", path: "/users/me", user: ada, header: header, body: fmt.Sprintf(`{"background":"%d of %s"}`, i, header["If-Match"][0][1:9])})
				if err != nil {
					t.Error(err)
				}
				results <- res
			}()
		}
		statuses := map[int]int{}
		for range cap(results) {
			statuses[(<-results).status]++
		}
		if statuses[200] != 1 || statuses[412] != cap(results)-1 {
			t.Errorf("of %d changes: %v, want one that is made", cap(results), statuses)
		}
	}
}

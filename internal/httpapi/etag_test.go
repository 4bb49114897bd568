package httpapi_test

import (
	"net/http"
	"slices"
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

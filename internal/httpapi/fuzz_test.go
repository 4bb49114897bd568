package httpapi

import (
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// FuzzCanonicalQuery checks that what is accepted has one spelling: written out again from what
// was read it means the same, so that no spelling of a question has a cached answer of its own,
// and a client learns of everything that is wrong with the others.
func FuzzCanonicalQuery(f *testing.F) {
	for _, s := range []string{
		"", "page=1", "page=01&limit=020", "difficulty=beginner", "difficulty=", "page=", "limit=51", "page=10000&limit=50",
		"page=1&page=1", "%70age=2", "page=%32", "page=2;limit=3", "page=%zz", "Page=2", "page=+2", "page=2%00", "&&=&a",
		strings.Repeat("page=1&", 2000), "page=" + strings.Repeat("0", 10000) + "1", "page=٣", "limit=1_0",
	} {
		f.Add(s)
	}
	read := func(raw string) (learning.ListParams, fieldErrors) {
		errs := fieldErrors{}
		r := httptest.NewRequest("GET", "/", nil)
		r.URL = &url.URL{Path: "/", RawQuery: raw}
		q := query(r)
		p := learning.ListParams{Difficulty: difficultyOf(q, errs)}
		p.Page, p.Limit = pageOf(q, errs)
		return p, errs
	}
	f.Fuzz(func(t *testing.T, raw string) {
		p, errs := read(raw)
		if errs.err() != nil {
			for place, problems := range errs {
				if place != "query" || len(problems) == 0 || len(problems) > 4 {
					t.Errorf("%q: %d problems in %q", raw, len(problems), place)
				}
			}
			return
		}
		canonical := url.Values{"page": {strconv.Itoa(p.Page)}, "limit": {strconv.Itoa(p.Limit)}}
		if p.Difficulty != "" {
			canonical.Set("difficulty", string(p.Difficulty))
		}
		if again, errs := read(canonical.Encode()); errs.err() != nil || again != p {
			t.Errorf("%q was read as %+v, and that as %+v, %v", raw, p, again, errs)
		}
		if p.Page < 1 || p.Page > learning.MaxPage || p.Limit < 1 || p.Limit > learning.MaxLimit {
			t.Errorf("%q was read as %+v", raw, p)
		}
	})
}

// fieldOfTags is RFC 9110's list of entity tags: empty members and white space included.
var fieldOfTags = regexp.MustCompile(`^[ \t,]*(W/)?"[\x21\x23-\x7e\x80-\xff]*"([ \t]*,[ \t,]*(W/)?"[\x21\x23-\x7e\x80-\xff]*")*[ \t,]*$`)
var oneTag = regexp.MustCompile(`"[\x21\x23-\x7e\x80-\xff]*"`)

// FuzzNamesETagByTheRFC compares with a reading of the field by its grammar, which may be slow.
// Where the field is well formed the two agree; where it is not, a match may only come from
// what is well formed before it.
func FuzzNamesETagByTheRFC(f *testing.F) {
	for _, s := range []string{
		`"abc"`, `W/"abc"`, `"x","abc"`, `"x" , W/"abc" ,`, `,,"abc"`, `*`, ` * `, `"*"`, `"x,y","abc"`, `"a"b"c"`, `"abc`, `abc"`, `"abc" "x"`,
		`"x""abc"`, "\"abc\"\t", `W/ "abc"`, `w/"abc"`, `"x", *`, "\"\xff\", \"abc\"", `"abc";q=1`, strings.Repeat(`"x",`, 5000) + `"abc"`,
	} {
		f.Add(s)
	}
	const etag = `"abc"`
	f.Fuzz(func(t *testing.T, line string) {
		got := namesETag([]string{line}, etag, true)
		if fieldOfTags.MatchString(line) {
			want := false
			for _, one := range oneTag.FindAllString(line, -1) {
				want = want || one == etag
			}
			if got != want {
				t.Errorf("namesETag(%q) is %t, want %t", line, got, want)
			}
		}
		if got && strings.Trim(line, " \t,") != "*" {
			if !strings.Contains(line, etag) {
				t.Fatalf("namesETag(%q) matched what is not there", line)
			}
		}
		// Lines are one list, and what is malformed in one does not reach another.
		if !namesETag([]string{line, etag}, etag, true) || !namesETag([]string{etag, line}, etag, true) {
			t.Errorf("%q hides a tag on another line", line)
		}
		if other := namesETag([]string{line, `"other"`}, etag, true); other != got {
			t.Errorf("namesETag(%q) is %t, and %t with another line", line, got, other)
		}
	})
}

package httpapi

import (
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/internal/learning"
)

func TestQueryParameters(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		query string
		want  learning.ListParams
		wrong []string
	}{
		{"", learning.ListParams{Page: 1, Limit: 20}, nil},
		{"page=007&limit=50&difficulty=advanced&sort=x", learning.ListParams{Difficulty: "advanced", Page: 7, Limit: 50}, nil},
		{"page=10000", learning.ListParams{Page: 10000, Limit: 20}, nil},
		{"page=0&limit=51&difficulty=hard", learning.ListParams{}, []string{
			"difficulty: must be one of beginner, intermediate, advanced", "page: must be between 1 and 10000", "limit: must be between 1 and 50",
		}},
		{"page=10001", learning.ListParams{}, []string{"page: must be between 1 and 10000"}},
		{"page=%2B1", learning.ListParams{}, []string{"page: must be between 1 and 10000"}},
		{"page=-1&limit=1e1", learning.ListParams{}, []string{"page: must be between 1 and 10000", "limit: must be between 1 and 50"}},
		{"page=1.0&limit=", learning.ListParams{}, []string{"page: must be between 1 and 10000", "limit: must be between 1 and 50"}},
		{"page=99999999999999999999", learning.ListParams{}, []string{"page: must be between 1 and 10000"}},
		{"page=1&page=2", learning.ListParams{}, []string{"page: must be given once, not 2 times"}},
		{"difficulty=Beginner", learning.ListParams{}, []string{"difficulty: must be one of beginner, intermediate, advanced"}},
		{"page=%zz", learning.ListParams{}, []string{"page: must be between 1 and 10000"}},
	} {
		t.Run(tt.query, func(t *testing.T) {
			t.Parallel()
			errs := fieldErrors{}
			r := httptest.NewRequest("GET", "/", nil)
			r.URL.RawQuery = tt.query
			q := query(r)
			got := learning.ListParams{Difficulty: difficultyOf(q, errs)}
			got.Page, got.Limit = pageOf(q, errs)
			if !slices.Equal(errs["query"], tt.wrong) {
				t.Fatalf("wrong: %q, want %q", errs["query"], tt.wrong)
			}
			if tt.wrong == nil && got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// FuzzQuery checks that what is accepted is within bounds, whatever is sent.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"page=1&limit=2", "page=%31", "limit=0x10", "page=1;limit=2", "difficulty=beginner&difficulty", "page=٣"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		faults := fieldErrors{}
		r := httptest.NewRequest("GET", "/", nil)
		r.URL = &url.URL{Path: "/", RawQuery: raw}
		q := query(r)
		d := difficultyOf(q, faults)
		page, limit := pageOf(q, faults)
		if faults.err() != nil {
			return
		}
		if page < 1 || page > learning.MaxPage || limit < 1 || limit > learning.MaxLimit || d != "" && !slices.Contains(learning.Difficulties, d) {
			t.Errorf("%q was read as page %d, limit %d, difficulty %q", raw, page, limit, d)
		}
	})
}

// FuzzBody reads every kind of field from hostile bodies: it must not panic, and what it
// accepts must be what it says.
func FuzzBody(f *testing.F) {
	for _, s := range []string{
		"", "{}", "null", "[]", `"x"`, "{", `{"answers":[{"questionId":"q","selectedIndex":1}]}`, `{"answers":[null,1,{}]}`,
		`{"id":"00000000-0000-4000-8000-00000000000A"}`, `{"id":null,"name":7,"answers":{}}`, strings.Repeat(`{"answers":[`, 500),
		`{"answers":[{"questionId":1,"selectedIndex":1.5}]} x`, `{"moduleId":"\u0000","key":"\u0007"}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		faults := fieldErrors{}
		o, err := body(httptest.NewRequest("POST", "/", strings.NewReader(s)), faults)
		if err != nil {
			return
		}
		id := requiredID[learning.Course](o, "id")
		module := o.moduleID("moduleId")
		key := o.idempotencyKey("key")
		name := o.nullableText("name")
		answers := o.objects("answers", MaxAnswers)
		for _, a := range answers {
			_, _ = a.requiredText("questionId")
			_ = a.requiredInt("selectedIndex")
		}
		if faults.err() != nil {
			return
		}
		if !json.Valid([]byte(s)) || module == "" || key == "" || len(id.String()) != 36 || len(answers) > MaxAnswers {
			t.Errorf("%q was read as %v %q %q %v %v", s, id, module, key, name, answers)
		}
	})
}

func TestBodyNamesEveryFault(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, body, want string }{
		{"empty", "", `must be a JSON object; it is empty`},
		{"null", "null", `must be a JSON object`},
		{"a list", "[]", `must be a JSON object`},
		{"cut off", `{"a":`, `must be a JSON object; unexpected end of JSON input at byte 5`},
		{"more than one", `{} {}`, `must be a JSON object; invalid character '{' after top-level value at byte 4`},
		{"nothing in it", "{}", "id: is required|answers: is required"},
		{"wrong types", `{"id":5,"answers":"x"}`, "id: must be a text|answers: must be a list"},
		{"null fields", `{"id":null,"answers":null}`, "id: must be a text|answers: must be a list"},
		{"wrong entries", `{"id":"x","answers":[1,{"questionId":2},{"selectedIndex":1.5,"questionId":"q"}]}`, strings.Join([]string{
			`id: must be a UUID such as 00000000-0000-4000-8000-000000000001, not "x"`, `answers[0]: must be an object`,
			`answers[1].questionId: must be a text`, `answers[1].selectedIndex: is required`, `answers[2].selectedIndex: must be a whole number`,
		}, "|")},
		{"too many entries", `{"id":"00000000-0000-4000-8000-00000000000A","answers":[` + strings.Repeat("{},", 100) + `{}]}`, "answers: must have at most 100 entries, not 101"},
		{"good, in another case and with more", `{"id":"00000000-0000-4000-8000-00000000000A","answers":[],"more":{}}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			errs := fieldErrors{}
			o, err := body(httptest.NewRequest("POST", "/", strings.NewReader(tt.body)), errs)
			if err != nil {
				t.Fatal(err)
			}
			_ = requiredID[learning.Course](o, "id")
			for _, a := range o.objects("answers", MaxAnswers) {
				_, _ = a.requiredText("questionId")
				_ = a.requiredInt("selectedIndex")
			}
			if got := strings.Join(errs["body"], "|"); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

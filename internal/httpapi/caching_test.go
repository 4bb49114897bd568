package httpapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// The first request asks the database, once; the second does not ask it at all, but for
// what is never cached: whether the caller is enrolled.
func TestSecondRequestAsksNothing(t *testing.T) {
	t.Parallel()
	const checkToken = 1 // the user, and whether the token was revoked
	for _, tt := range []struct {
		path, user    string
		first, second int // statements
		control       string
	}{
		{"/courses", "", 1, 0, "public, no-cache"},
		{"/courses?page=2&limit=10&difficulty=beginner", "", 2, 0, "public, no-cache"}, // and is there such a page
		{"/courses", ada, checkToken + 1 + 1, 1, "private, no-cache"},
		{"/courses/" + golang, "", 1, 0, "public, no-cache"},
		{"/courses/" + golang, ada, checkToken + 1 + 1, 1, "private, no-cache"},
		{"/courses/" + golang + "/modules/m-1", "", 1, 0, "public, no-cache"},
		{"/courses/" + golang + "/modules/m-1", ada, checkToken + 1 + 1, 1, "private, no-cache"},
		{"/users/me", ada, checkToken, 0, "private, no-cache"},
		{"/users/me/progress", ada, checkToken + 1, 0, "private, no-cache"},
		{"/rewards/history", ada, checkToken + 1, 0, "private, no-cache"},
		{"/credentials", ada, checkToken + 1, 0, "private, no-cache"},
	} {
		t.Run(fmt.Sprintf("%s by %q", tt.path, tt.user), func(t *testing.T) {
			t.Parallel()
			s := start(t)
			var res response
			get := func() { res = s.do(request{path: tt.path, user: tt.user}) }
			if seen := s.queries.during(get); len(seen) != tt.first || res.cacheStatus() != "fwd=miss" || res.status != http.StatusOK {
				t.Errorf("first: %d, %s, %d statements, want %d: %q", res.status, res.header.Get("Cache-Status"), len(seen), tt.first, seen)
			}
			first := string(res.body.Data)
			if seen := s.queries.during(get); len(seen) != tt.second || res.cacheStatus() != "hit" {
				t.Errorf("second: %s, %d statements, want %d: %q", res.header.Get("Cache-Status"), len(seen), tt.second, seen)
			}
			if string(res.body.Data) != first {
				t.Errorf("the cache changed the answer:\n%s\n%s", first, res.body.Data)
			}
			if got := res.header.Get("Cache-Control"); got != tt.control {
				t.Errorf("Cache-Control is %q, want %q", got, tt.control)
			}
		})
	}
}

// What a page, a difficulty or an identity is called makes no second copy.
func TestSpellingsShareAnAnswer(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.get("/courses", "")
	for _, path := range []string{"/courses?page=1", "/courses?page=001&limit=20", "//api/courses?sort=x", "/courses?limit=20&page=1"} {
		if res := s.do(request{path: path}); res.cacheStatus() != "hit" {
			t.Errorf("%s: %s", path, res.header.Get("Cache-Status"))
		}
	}
	s.get("/courses/"+golang, "")
	if res := s.get("/courses/"+strings.ToUpper(golang), ""); res.cacheStatus() != "hit" {
		t.Errorf("upper case: %s", res.header.Get("Cache-Status"))
	}
}

// Pages past the end are answered from the count: they have no entries of their own.
func TestPagesPastTheEnd(t *testing.T) {
	t.Parallel()
	s := start(t)
	seen := s.queries.during(func() {
		for _, page := range []int{4, 5, 100, 10_000} {
			res := s.get(fmt.Sprintf("/courses?page=%d", page), "")
			if string(res.body.Data) != "[]" || res.body.Pagination.Total != courses || res.body.Pagination.Page != page {
				t.Errorf("page %d: %s", page, res.raw)
			}
		}
	})
	if len(seen) != 1 {
		t.Errorf("%d statements, want the count alone: %q", len(seen), seen)
	}
	s.get("/rewards/history", ada)
	seen = s.queries.during(func() {
		for _, page := range []int{2, 3, 10_000} {
			if res := s.get(fmt.Sprintf("/rewards/history?page=%d", page), ada); string(res.body.Data) != "[]" || res.body.Pagination.Total != 0 {
				t.Errorf("page %d: %s", page, res.raw)
			}
		}
	})
	if countContaining(seen, "quiz_submissions") != 0 {
		t.Errorf("rewards: %q", seen)
	}
}

func TestListPagesAreWholeAndInOrder(t *testing.T) {
	t.Parallel()
	s := start(t)
	n := 0
	for page := 1; page <= 3; page++ {
		for _, c := range data[[]struct{ ID string }](t, s.get(fmt.Sprintf("/courses?page=%d", page), "")) {
			n++
			if want := fmt.Sprintf("00000000-0000-4000-8000-00000000c%03d", n); c.ID != want {
				t.Errorf("course %d is %s, want %s", n, c.ID, want)
			}
		}
	}
	if n != courses {
		t.Errorf("%d courses, want %d", n, courses)
	}
	res := s.get("/courses?difficulty=advanced&limit=50", "")
	if got := len(data[[]object](t, res)); got != 15 || res.body.Pagination.Total != 15 {
		t.Errorf("%d advanced courses of %d, want 15", got, res.body.Pagination.Total)
	}
}

// answers are everything that mutations may affect, as ada sees them.
var answers = map[string]string{
	"list":            "/courses?limit=5",
	"beginner list":   "/courses?limit=5&difficulty=beginner",
	"advanced list":   "/courses?limit=5&difficulty=advanced",
	"detail":          "/courses/" + golang,
	"detail of other": "/courses/" + other,
	"progress":        "/users/me/progress",
	"rewards":         "/rewards/history",
	"credentials":     "/credentials",
	"profile":         "/users/me",
}

// warm asks for everything, and then again, when it must come from the cache.
func (s *testService) warm(user string) {
	s.t.Helper()
	for range 2 {
		for _, path := range answers {
			s.get(path, user)
		}
	}
	for name, path := range answers {
		if res := s.get(path, user); res.cacheStatus() != "hit" {
			s.t.Fatalf("%s is not warm: %s", name, res.header.Get("Cache-Status"))
		}
	}
}

// Every mutation of the API makes exactly the answers that it affects be loaded again, and
// they show it at once. What it does not affect stays.
func TestMutationsShowAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t)
	var submission string
	at := func(path string, keys ...any) func() any {
		return func() any {
			v := data[any](t, s.get(path, ada))
			for _, key := range keys {
				switch k := key.(type) {
				case int:
					list := v.([]any)
					if k >= len(list) {
						return nil
					}
					v = list[k]
				case string:
					v = v.(object)[k]
				}
			}
			return v
		}
	}
	type shows struct {
		what string
		get  func() any
		want any
	}
	for _, step := range []struct {
		name    string
		mutate  func()
		affects []string
		shows   []shows
	}{
		{
			"enrol", func() { s.mutate("POST", "/courses/"+golang+"/enroll", ada, "") },
			[]string{"list", "beginner list", "detail", "progress"},
			[]shows{
				{"enrolled in the list", at(answers["list"], 0, "isEnrolled"), true},
				{"count in the list", at(answers["list"], 0, "enrolledCount"), 1.0},
				{"count in the list of the difficulty", at(answers["beginner list"], 0, "enrolledCount"), 1.0},
				{"enrolled in the detail", at(answers["detail"], "isEnrolled"), true},
				{"count in the detail", at(answers["detail"], "enrolledCount"), 1.0},
				{"progress", at(answers["progress"], "enrolledCourses"), 1.0},
			},
		},
		{
			"generate", func() {
				s.mutate("POST", "/quizzes/generate", ada, fmt.Sprintf(`{"courseId":%q,"moduleId":"m-1"}`, golang))
			},
			nil, nil,
		},
		{
			"submit and fail", func() { s.submit(ada, golang, "m-1", 1) },
			[]string{"progress", "rewards"},
			[]shows{{"progress", at(answers["progress"], "totalQuizScore"), 0.0}, {"module", at("/courses/"+golang+"/modules/m-1", "isCompleted"), false}},
		},
		{
			"submit and pass", func() { submission = s.passQuiz(ada, golang, "m-1") },
			[]string{"progress", "rewards"},
			[]shows{
				{"score", at(answers["progress"], "totalQuizScore"), 3.0},
				{"course, half done", at(answers["progress"], "completedCourses"), 0.0},
				{"module", at("/courses/"+golang+"/modules/m-1", "isCompleted"), true},
				{"other module", at("/courses/"+golang+"/modules/m-2", "isCompleted"), false},
			},
		},
		{
			"pass the last module", func() { s.passQuiz(ada, golang, "m-2") },
			[]string{"progress", "rewards"},
			[]shows{
				{"score", at(answers["progress"], "totalQuizScore"), 6.0},
				{"course", at(answers["progress"], "completedCourses"), 1.0},
			},
		},
		{
			"claim", func() {
				s.mutate("POST", "/rewards/claim", ada, fmt.Sprintf(`{"submissionId":%q,"idempotencyKey":"claim"}`, submission))
			},
			[]string{"progress", "rewards", "profile"},
			[]shows{
				{"history", at(answers["rewards"], 0, "amount"), 10.0},
				{"title in the history", at(answers["rewards"], 0, "courseTitle"), "Course 1"},
				{"credits", at(answers["profile"], "credits"), 10.0},
				{"progress", at(answers["progress"], "rewardsClaimed"), 1.0},
			},
		},
		{
			"mint", func() {
				s.mutate("POST", "/credentials/mint", ada, fmt.Sprintf(`{"courseId":%q,"submissionId":%q,"idempotencyKey":"mint"}`, golang, submission))
			},
			[]string{"progress", "credentials"},
			[]shows{
				{"credential", at(answers["credentials"], 0, "courseTitle"), "Course 1"},
				{"score", at(answers["credentials"], 0, "score"), 3.0},
				{"progress", at(answers["progress"], "credentialsEarned"), 1.0},
			},
		},
		{
			"profile", func() { s.mutate("PUT", "/users/me", ada, `{"displayName":"<b>Countess</b> & Co","pace":"fast"}`) },
			[]string{"profile"},
			[]shows{
				{"name", at(answers["profile"], "displayName"), "Countess & Co"},
				{"pace", at(answers["profile"], "pace"), "fast"},
				{"what was left out", at(answers["profile"], "language"), "en"},
			},
		},
	} {
		s.warm(ada)
		step.mutate()
		affected := map[string]bool{}
		for _, name := range step.affects {
			affected[name] = true
		}
		for name, path := range answers {
			var res response
			seen := s.queries.during(func() { res = s.get(path, ada) })
			if name == "profile" { // asked to authenticate whatever request came first
				if affected[name] {
					continue
				}
			}
			switch {
			case affected[name] && (res.cacheStatus() == "hit" || len(seen) == 0):
				t.Errorf("%s: %s was not loaded again: %s", step.name, name, res.header.Get("Cache-Status"))
			case !affected[name] && res.cacheStatus() != "hit":
				t.Errorf("%s: %s was loaded again: %s", step.name, name, res.header.Get("Cache-Status"))
			}
		}
		for _, show := range step.shows {
			if got := show.get(); got != show.want {
				t.Errorf("%s: %s is %v, want %v", step.name, show.what, got, show.want)
			}
		}
	}
}

// A learner's own enrolment is never cached, and never another's.
func TestEnrolmentIsTheCallersOwn(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.mutate("POST", "/courses/"+golang+"/enroll", ada, "")
	for _, tt := range []struct {
		user string
		want bool
	}{{ada, true}, {bob, false}, {"", false}, {ada, true}} {
		if got := data[struct{ IsEnrolled bool }](t, s.get("/courses/"+golang, tt.user)).IsEnrolled; got != tt.want {
			t.Errorf("%q sees the detail as enrolled: %v", tt.user, got)
		}
		if got := data[[]struct{ IsEnrolled bool }](t, s.get("/courses", tt.user))[0].IsEnrolled; got != tt.want {
			t.Errorf("%q sees the list as enrolled: %v", tt.user, got)
		}
	}
}

// Private answers are their owner's.
func TestPrivateAnswersAreApart(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.mutate("POST", "/courses/"+golang+"/enroll", ada, "")
	submission := s.passQuiz(ada, golang, "m-1")
	s.mutate("POST", "/rewards/claim", ada, fmt.Sprintf(`{"submissionId":%q,"idempotencyKey":"k"}`, submission))
	s.mutate("POST", "/credentials/mint", ada, fmt.Sprintf(`{"courseId":%q,"submissionId":%q,"idempotencyKey":"k"}`, golang, submission))
	s.warm(ada)
	for path, want := range map[string]string{"/rewards/history": "[]", "/credentials": "[]"} {
		if res := s.get(path, bob); string(res.body.Data) != want || res.cacheStatus() != "fwd=miss" {
			t.Errorf("bob's %s is %s, %s", path, res.body.Data, res.header.Get("Cache-Status"))
		}
	}
	if got := data[object](t, s.get("/users/me/progress", bob))["enrolledCourses"]; got != 0.0 {
		t.Errorf("bob has progress %v", got)
	}
	if got := data[object](t, s.get("/users/me", bob))["displayName"]; got != "Bob" {
		t.Errorf("bob is %v", got)
	}
}

// What another program writes to the same file is visible within a second.
func TestExternalWritesAreSeen(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.warm(ada)
	const newest = "00000000-0000-4000-8000-00000000c0aa"
	for _, tt := range []struct {
		name, path, want string
		query            string
		args             []any
	}{
		{"a title in the list", "/courses", `"title":"Renamed"`, `UPDATE courses SET title = 'Renamed' WHERE id = ?`, []any{golang}},
		{"a title in the detail", "/courses/" + golang, `"title":"Again"`, `UPDATE courses SET title = 'Again' WHERE id = ?`, []any{golang}},
		{"a new course", "/courses", newest, `INSERT INTO courses (id, title) VALUES (?, 'New')`, []any{newest}},
		{"an enrolment in the detail", "/courses/" + other, `"enrolledCount":1`, `INSERT INTO enrollments (user_id, course_id) VALUES (?, ?)`, []any{ada, other}},
		{"an enrolment in the progress", "/users/me/progress", `"enrolledCourses":2`, `INSERT INTO enrollments (user_id, course_id) VALUES (?, ?)`, []any{ada, newest}},
		{"credits", "/users/me", `"credits":7`, `UPDATE users SET credits = 7 WHERE id = ?`, []any{ada}},
		{"a credential", "/credentials", `"courseTitle":"Course 2"`, `INSERT INTO credentials (user_id, course_id, score) VALUES (?, ?, 3)`, []any{ada, other}},
		{"a new title in a credential", "/credentials", `"courseTitle":"Newer"`, `UPDATE courses SET title = 'Newer' WHERE id = ?`, []any{other}},
		{"a module", "/courses/" + other, `"title":"Named"`, `INSERT INTO modules (course_id, module_id, title, position) VALUES (?, 'm-1', 'Named', 1)`, []any{other}},
	} {
		s.externalWrite(tt.query, tt.args...)
		eventually(t, time.Second, func() string {
			if res := s.get(tt.path, ada); !strings.Contains(string(res.body.Data), tt.want) {
				return fmt.Sprintf("%s: no %s in %s", tt.name, tt.want, res.body.Data)
			}
			return ""
		})
	}
	s.externalWrite(`DELETE FROM courses WHERE id = ?`, newest)
	eventually(t, time.Second, func() string {
		if res := s.do(request{path: "/courses/" + newest}); res.status != http.StatusNotFound {
			return fmt.Sprintf("a deleted course is still there: %s", res.raw)
		}
		return ""
	})
}

// A course that does not exist is remembered as that, until it does.
func TestNotFoundIsCachedUntilItIsFound(t *testing.T) {
	t.Parallel()
	s := start(t)
	path := "/courses/" + unknownID
	for i, want := range []string{"fwd=miss", "hit"} {
		res := s.do(request{path: path})
		if res.status != http.StatusNotFound || res.body.Message != "Course not found" || res.cacheStatus() != want {
			t.Errorf("request %d: %s %s", i, res.raw, res.header.Get("Cache-Status"))
		}
	}
	s.externalWrite(`INSERT INTO courses (id, title) VALUES (?, 'Here now')`, unknownID)
	eventually(t, time.Second, func() string {
		if res := s.do(request{path: path}); res.status != http.StatusOK {
			return string(res.raw)
		}
		return ""
	})
}

// Kept near and proven, the catalogue is as exact as Redis, also as others write.
func TestNearStrictCatalogue(t *testing.T) {
	t.Parallel()
	s := startWith(t, learning.Config{NearStrict: true})
	for _, path := range []string{"/courses", "/courses/" + golang} {
		eventually(t, 10*time.Second, func() string {
			if got := s.get(path, "").header.Get("Cache-Status"); !strings.HasSuffix(got, "detail=near_proven") {
				return path + " is not kept near: " + got
			}
			return ""
		})
	}
	s.mutate("POST", "/courses/"+golang+"/enroll", ada, "")
	if got := string(s.get("/courses/"+golang, "").body.Data); !strings.Contains(got, `"enrolledCount":1,`) {
		t.Errorf("after an enrolment, the course is %s", got)
	}
}

// Kept near, the catalogue costs nothing; what this process writes shows at once all the same, and
// a client that asks for it has the shared cache asked.
func TestNearCatalogue(t *testing.T) {
	t.Parallel()
	s := startWith(t, learning.Config{Near: time.Minute})
	for _, path := range []string{"/courses", "/courses/" + golang} {
		near := func() bool {
			return strings.Contains(s.get(path, "").header.Get("Cache-Status"), "; hit;") &&
				strings.Contains(s.get(path, "").header.Get("Cache-Status"), "; detail=near")
		}
		eventually(t, 10*time.Second, func() string {
			if !near() {
				return path + " is not kept near"
			}
			return ""
		})
		fresh := http.Header{"Cache-Control": {"max-age=0, No-Cache"}}
		if got := s.do(request{path: path, header: fresh}).header.Get("Cache-Status"); !strings.Contains(got, "; hit;") || strings.HasSuffix(got, "detail=near") {
			t.Errorf("%s with no-cache: Cache-Status is %s", path, got)
		}
	}
	s.mutate("POST", "/courses/"+golang+"/enroll", ada, "")
	if got := string(s.get("/courses/"+golang, "").body.Data); !strings.Contains(got, `"enrolledCount":1,`) {
		t.Errorf("after an enrolment, the course is %s", got)
	}
	if res := s.get("/courses", ada); !strings.Contains(string(res.body.Data), `"isEnrolled":true`) {
		t.Errorf("the list does not show the enrolment: %s", res.body.Data)
	}
}

package httpapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/storetest"
	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// twin is one of two services that begin with the same data and are asked the same.
type twin struct {
	*testService
	own    *strings.Replacer // what stands for an ID → the ID that this service has made
	names  map[string]string // the reverse
	began  time.Time
	served map[string]int // Cache-Status → how many answers had it
}

// withoutCache is a service whose store never answers a call: it loads every answer from the database.
func withoutCache(_ *httpapi.Config, c *cache.Config) {
	c.Store.(*storetest.Faulty).Fail(errors.New("there is no cache"))
}

var anID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

var aQuestion = regexp.MustCompile(`“[^”]*”`)

// nameOf returns what stands for an ID that the service has made: the same for both, since they make them in
// the same order.
func (w *twin) nameOf(id string) string {
	if w.names[id] == "" {
		w.names[id] = fmt.Sprintf("<ID %d>", len(w.names))
		pairs := make([]string, 0, 2*len(w.names))
		for id, name := range w.names {
			pairs = append(pairs, name, id)
		}
		w.own = strings.NewReplacer(pairs...)
	}
	return w.names[id]
}

// canonical returns an answer without what no two services have in common: the IDs and the times that it
// has made itself, and the order of the questions of a quiz.
func (w *twin) canonical(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, field := range v {
			v[name] = w.canonical(field)
		}
		if feedback, ok := v["feedback"].(string); ok { // names questions in their order
			questions := aQuestion.FindAllString(feedback, -1)
			slices.Sort(questions)
			v["feedback"] = aQuestion.ReplaceAllString(feedback, "?") + strings.Join(questions, " ")
		}
		if code, ok := v["nftAssetCode"].(string); ok {
			v["nftAssetCode"] = w.nameOf(code)
		}
		if questions, ok := v["questions"].([]any); ok {
			slices.SortFunc(questions, func(a, b any) int { return strings.Compare(a.(object)["id"].(string), b.(object)["id"].(string)) })
		}
	case []any:
		for i := range v {
			v[i] = w.canonical(v[i])
		}
	case string:
		if anID.MatchString(v) && !strings.HasPrefix(v, "00000000-") {
			return w.nameOf(v)
		}
		if at, err := time.Parse("2006-01-02T15:04:05.000Z", v); err == nil && !at.Before(w.began) {
			return "<a time>"
		}
	}
	return v
}

// ask sends a request, in which names stand for IDs, and returns its status and what clients may rely on of
// its body.
func (w *twin) ask(r request) (status int, body string, data any) {
	w.t.Helper()
	r.path, r.body = w.own.Replace(r.path), w.own.Replace(r.body)
	res := w.do(r)
	if how := res.cacheStatus(); how != "" {
		w.served[how]++
	}
	var all map[string]any
	if len(res.raw) > 0 {
		must(w.t, json.Unmarshal(res.raw, &all))
	}
	delete(all, "meta")
	delete(all, "requestId")
	w.canonical(all)
	b, err := json.MarshalIndent(all, "", " ")
	must(w.t, err)
	return res.status, string(b), all["data"]
}

// walk is a random walk over all routes, which two services go together.
type walk struct {
	*testing.T
	*rand.Rand
	cached, bare *twin
	quizzes      []knownQuiz
	submissions  []string
	statuses     map[int]int
}

type knownQuiz struct {
	name      string
	questions []string
}

// both asks both services, and returns the data.
func (s *walk) both(r request) any {
	s.Helper()
	status, body, data := s.cached.ask(r)
	bareStatus, bareBody, _ := s.bare.ask(r)
	if status != bareStatus || body != bareBody {
		s.Fatalf("%s %s by %q with %s: with the cache\n%d %s\nand without\n%d %s", r.method, r.path, r.user, r.body, status, body, bareStatus, bareBody)
	}
	s.statuses[status]++
	return data
}

func pick[T any](s *walk, list ...T) T { return list[s.IntN(len(list))] }

func (s *walk) user() string   { return pick(s, ada, bob, ada, bob, unknownID) }
func (s *walk) viewer() string { return pick(s, "", ada, bob, unknownID) }
func (s *walk) course() string {
	return pick(s, golang, golang, other, other, hidden, unknownID, strings.ToUpper(golang), "not-an-id", fmt.Sprintf("00000000-0000-4000-8000-00000000c%03d", 1+s.IntN(courses)))
}
func (s *walk) module() string { return pick(s, "m-1", "m-1", "m-2", "m-3", "") }
func (s *walk) text() string {
	return pick(s, `null`, `""`, `"plain"`, `"<b>bold</b> & more"`, `5`, `"`+strings.Repeat("é", s.IntN(1200))+`"`)
}

func (s *walk) submission() string { return pick(s, append(s.submissions, unknownID, "x")...) }

func (s *walk) read() {
	s.Helper()
	switch s.IntN(8) {
	case 0, 1:
		s.both(request{path: "/courses?" + strings.Join([]string{
			pick(s, "", "page=1", "page=2", "page=3", "page=0", "page=99999", "page=x"),
			pick(s, "", "limit=1", "limit=20", "limit=50", "limit=51"),
			pick(s, "", "difficulty=beginner", "difficulty=advanced", "difficulty=easy"),
			pick(s, "", "utm=%", "a;b"),
		}, "&"), user: s.viewer()})
	case 2:
		s.both(request{path: "/courses/" + s.course(), user: s.viewer()})
	case 3:
		s.both(request{path: "/courses/" + s.course() + "/modules/" + s.module(), user: s.viewer()})
	case 4:
		s.both(request{path: "/users/me", user: s.user()})
	case 5:
		s.both(request{path: "/users/me/progress", user: s.user()})
	case 6:
		s.both(request{path: "/rewards/history" + pick(s, "", "?page=2", "?limit=1", "?limit=0"), user: s.user()})
	case 7:
		s.both(request{path: "/credentials", user: s.user()})
	}
}

func (s *walk) write() {
	s.Helper()
	switch s.IntN(9) {
	case 0:
		s.both(request{method: "POST", path: "/courses/" + s.course() + "/enroll", user: s.user(), body: pick(s, "", "{}")})
	case 1:
		s.both(request{method: "PUT", path: "/users/me", user: s.user(), body: fmt.Sprintf(`{%q:%s,"pace":%q}`,
			pick(s, "displayName", "background", "learningGoal", "language", "credits"), s.text(), pick(s, "slow", "fast", "warp"))})
	case 2, 3:
		quiz, ok := s.both(request{method: "POST", path: "/quizzes/generate", user: s.user(), body: fmt.Sprintf(`{"courseId":%q,"moduleId":%q}`, s.course(), s.module())}).(object)
		if !ok {
			return
		}
		known := knownQuiz{name: quiz["id"].(string)}
		for _, q := range quiz["questions"].([]any) {
			known.questions = append(known.questions, q.(object)["id"].(string))
		}
		s.quizzes = append(s.quizzes, known)
	case 4, 5:
		quiz := pick(s, append(s.quizzes, knownQuiz{unknownID, []string{"q1"}})...)
		right := s.IntN(len(quiz.questions) + 2)
		var answers []string
		for i, q := range quiz.questions {
			selected := 1
			if i < right {
				selected = 0
			}
			answers = append(answers, fmt.Sprintf(`{"questionId":%q,"selectedIndex":%d}`, q, selected))
		}
		if s.IntN(10) == 0 {
			answers = answers[1:]
		}
		done, ok := s.both(request{method: "POST", path: "/quizzes/" + quiz.name + "/submit", user: s.user(), body: `{"answers":[` + strings.Join(answers, ",") + `]}`}).(object)
		if ok {
			s.submissions = append(s.submissions, done["id"].(string))
		}
	case 6:
		s.both(request{method: "POST", path: "/rewards/claim", user: s.user(), body: fmt.Sprintf(`{"submissionId":%q,"idempotencyKey":"key %d"}`, s.submission(), s.IntN(20))})
	case 7:
		s.both(request{method: "POST", path: "/credentials/mint", user: s.user(), body: fmt.Sprintf(`{"courseId":%q,"submissionId":%q,"idempotencyKey":"key %d"}`, s.course(), s.submission(), s.IntN(20))})
	case 8:
		s.elsewhere(pick(s,
			fmt.Sprintf(`UPDATE courses SET title = 'Title %d' WHERE id = '%s'`, s.IntN(100), pick(s, golang, other, hidden)),
			fmt.Sprintf(`UPDATE courses SET is_active = NOT is_active WHERE id = '%s'`, pick(s, golang, other, hidden)),
			fmt.Sprintf(`UPDATE courses SET description = title || %d`, s.IntN(100)),
			fmt.Sprintf(`UPDATE users SET credits = credits + %d WHERE id = '%s'`, s.IntN(5), pick(s, ada, bob)),
			fmt.Sprintf(`INSERT INTO enrollments (user_id, course_id) VALUES ('%s', '%s') ON CONFLICT DO NOTHING`, pick(s, ada, bob), pick(s, golang, other)),
			`DELETE FROM enrollments WHERE course_id = '`+other+`'`,
			`UPDATE credentials SET revoked = NOT revoked`,
		))
	}
}

// elsewhere lets another program change the database, and waits until the cache has been told.
func (s *walk) elsewhere(statement string) {
	s.Helper()
	s.bare.externalWrite(statement)
	s.cached.externalWrite(statement)
	eventually(s.T, 10*time.Second, func() string {
		var rows int
		must(s.T, s.cached.db.QueryRowContext(s.Context(), `SELECT count(*) FROM cache_outbox`).Scan(&rows))
		if rows > 0 {
			return fmt.Sprintf("%d rows are in the outbox", rows)
		}
		return ""
	})
}

// signOut ends a token of a user, on both services.
func (s *walk) signOut() {
	s.Helper()
	user := pick(s, ada, bob)
	id, err := learning.ParseID[learning.Profile](user)
	must(s.T, err)
	tokens := map[*twin]string{}
	for _, w := range []*twin{s.cached, s.bare} {
		tokens[w], err = w.tokens.Issue(learning.Profile{ID: id, StellarAddress: "G" + user}, time.Hour)
		must(s.T, err)
	}
	for _, want := range []struct {
		request
		status int
	}{
		{request{path: "/users/me"}, http.StatusOK},
		{request{method: "POST", path: "/auth/logout"}, http.StatusOK},
		{request{path: "/users/me"}, http.StatusUnauthorized},
		{request{path: "/courses"}, http.StatusOK},
	} {
		want.token = tokens[s.cached]
		status, body, _ := s.cached.ask(want.request)
		want.token = tokens[s.bare]
		bareStatus, bareBody, _ := s.bare.ask(want.request)
		if status != want.status || bareStatus != want.status || body != bareBody {
			s.Fatalf("%s %s around a logout: with the cache\n%d %s\nand without\n%d %s", want.method, want.path, status, body, bareStatus, bareBody)
		}
	}
}

// A long random session over all routes is answered alike by a service with every tier on and by one
// without a cache.
func TestSameAnswersWithAndWithoutCache(t *testing.T) {
	t.Parallel()
	steps := 1500
	if testing.Short() {
		steps = 150
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	began := time.Now().Add(-time.Hour)
	twinOf := func(platform learning.Config, options ...option) *twin {
		return &twin{testService: startWith(t, platform, options...), own: strings.NewReplacer(), names: map[string]string{}, began: began, served: map[string]int{}}
	}
	s := &walk{
		T: t, Rand: rand.New(rand.NewPCG(seed, 0)), statuses: map[int]int{},
		cached: twinOf(learning.Config{Near: time.Minute}), bare: twinOf(learning.Config{}, withoutCache),
	}
	for range steps {
		switch n := s.IntN(20); {
		case n == 0:
			s.signOut()
		case n < 8:
			s.write()
		default:
			s.read()
		}
	}
	t.Logf("statuses: %v", s.statuses)
	for _, status := range []int{200, 201, 400, 401, 403, 404, 409} {
		if s.statuses[status] == 0 && !testing.Short() {
			t.Errorf("no answer had status %d: %v", status, s.statuses)
		}
	}
	t.Logf("with the cache: %v; without: %v", s.cached.served, s.bare.served)
	if s.cached.served["hit"] == 0 {
		t.Error("the service with a cache had no hit")
	}
	for how := range s.bare.served {
		if !strings.HasPrefix(how, "fwd=bypass") {
			t.Errorf("an answer of the service without a cache was %s", how)
		}
	}
}

package httpapi_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stellar/go-stellar-sdk/network"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cacheprom"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/storetest"
	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/openapi/openapitest"
	"github.com/chainlearn/chainlearn/internal/sep10"
	"github.com/chainlearn/chainlearn/internal/sqlite"
)

// testService is the whole service in this process, on a database file of its own.
type testService struct {
	t       *testing.T
	db      *sql.DB // another program on the same file
	queries *queries
	store   *storetest.Faulty
	cache   *cache.Cache
	tokens  *httpapi.Tokens
	storage *sqlite.Storage
	server  *httpapi.Server
	metrics *prometheus.Registry
	api     *httptest.Server
	private *httptest.Server
	log     *lockedBuffer

	mu     sync.Mutex
	issued map[string]string // user → token
}

type option func(*httpapi.Config, *cache.Config)

// withCrowd is for a test that keeps the machine busy: the store is the one that the service has by
// default, in process and with nothing around it. One that might be elsewhere is distrusted when it
// does not prove within a second that it takes writes, and for that the scheduler suffices.
func withCrowd(_ *httpapi.Config, c *cache.Config) {
	c.Store, c.StoreTimeout = memstore.New(memstore.Config{}), 30*time.Second
}

// start returns a service that has loaded nothing yet and that is ready.
func start(t *testing.T, options ...option) *testService {
	t.Helper()
	return startWith(t, learning.Config{}, options...)
}

func startWith(t *testing.T, platform learning.Config, options ...option) *testService {
	t.Helper()
	s := &testService{t: t, queries: &queries{}, metrics: prometheus.NewRegistry(), log: &lockedBuffer{}, issued: map[string]string{}}
	path := filepath.Join(t.TempDir(), "chainlearn.db")
	s.db = open(t, path)
	logger := slog.New(slog.NewJSONHandler(s.log, nil))

	s.store = storetest.NewFaulty(memstore.New(memstore.Config{}))
	cfg := httpapi.Config{Metrics: s.metrics, Logger: logger}
	metrics, err := cacheprom.New(s.metrics)
	must(t, err)
	cacheConfig := cache.Config{Store: s.store, Observer: metrics, Logger: logger}
	for _, o := range options {
		o(&cfg, &cacheConfig)
	}
	s.cache, err = cache.New(cacheConfig)
	must(t, err)
	storage, err := sqlite.Open(t.Context(), path, sqlite.Config{
		Cache: s.cache,
		Relay: outbox.RelayConfig{
			Logger: logger,
			// The writers of these tests are alive: nothing of theirs is to be bumped a
			// second time because the machine is slow.
			Grace: time.Minute,
		},
		OnQuery: s.queries.record,
	})
	must(t, err)
	s.tokens, err = httpapi.NewTokens(bytes.Repeat([]byte("s"), httpapi.MinSecret))
	must(t, err)
	key, _, err := sep10.NewKey()
	must(t, err)
	platform.SignIn, err = sep10.New(sep10.Config{Key: key, NetworkPassphrase: network.TestNetworkPassphrase, HomeDomain: "example.org"})
	must(t, err)
	s.storage = storage
	cfg.Platform, cfg.Cache, cfg.Tokens = learning.New(s.cache, storage, platform), s.cache, s.tokens
	s.server, err = httpapi.New(cfg)
	must(t, err)
	s.server.Ready()
	s.api = httptest.NewServer(s.server.Public())
	s.private = httptest.NewServer(s.server.Private())
	s.api.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 1000
	s.api.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	t.Cleanup(func() {
		s.queries.release()
		s.store.Heal()
		s.api.Close()
		s.private.Close()
		parts := []func() error{storage.Close, s.cache.Close, s.store.Close}
		if own, ok := cacheConfig.Store.(*memstore.Store); ok {
			parts = append(parts, own.Close)
		}
		for _, closePart := range parts {
			if err := closePart(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until f says "", or fails with what it says last.
func eventually(t *testing.T, within time.Duration, f func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		problem := f()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v still: %s", within, problem)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// What is in the database of each test.
const (
	ada       = "00000000-0000-4000-8000-0000000000a1" // enrolled in nothing
	bob       = "00000000-0000-4000-8000-0000000000b2"
	golang    = "00000000-0000-4000-8000-00000000c001" // the newest course; beginner; modules m-1 and m-2
	other     = "00000000-0000-4000-8000-00000000c002" // beginner; module m-1
	hidden    = "00000000-0000-4000-8000-00000000c0ff" // not active
	unknownID = "00000000-0000-4000-8000-0000000000ff" // no user, and no course

	courses = 45 // active ones: c001 to c045, newest first; the last 15 advanced, the others beginner
)

// open puts a populated database at path and returns a connection to it that the service
// knows nothing of.
func open(t *testing.T, path string) *sql.DB {
	t.Helper()
	template, err := populated()
	must(t, err)
	must(t, os.WriteFile(path, template, 0o600))
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)")
	must(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// populated makes the database once for all tests.
var populated = sync.OnceValues(func() (file []byte, err error) {
	dir, err := os.MkdirTemp("", "httpapi-test-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "template.db")
	storage, err := sqlite.Open(context.Background(), path, sqlite.Config{})
	if err != nil {
		return nil, err
	}
	if err := storage.Close(); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=foreign_keys(1)")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(populate(db), db.Close()); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

func populate(db *sql.DB) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	exec := func(query string, args ...any) {
		if err == nil {
			_, err = tx.Exec(query, args...)
		}
	}
	for i, id := range []string{ada, bob} {
		exec(`INSERT INTO users (id, stellar_address, display_name) VALUES (?, ?, ?)`, id, "G"+id, []string{"Ada", "Bob"}[i])
	}
	for i := range courses {
		difficulty := "beginner"
		if i >= 30 {
			difficulty = "advanced"
		}
		exec(`INSERT INTO courses (id, title, difficulty, created_at) VALUES (?, ?, ?, ?)`,
			fmt.Sprintf("00000000-0000-4000-8000-00000000c%03d", i+1), fmt.Sprint("Course ", i+1), difficulty,
			time.Date(2026, 1, 1, 0, 0, -i, 0, time.UTC).Format("2006-01-02T15:04:05.000Z"))
	}
	exec(`INSERT INTO courses (id, title, is_active) VALUES (?, 'Hidden', 0)`, hidden)
	for _, quiz := range [][2]string{{golang, "m-1"}, {golang, "m-2"}, {other, "m-1"}} {
		var questions []learning.Question // the first option is right
		for i := range 3 {
			questions = append(questions, learning.Question{
				ID: fmt.Sprint("q", i+1), Text: fmt.Sprintf("%s of %s, question %d?", quiz[1], quiz[0], i+1), Options: []string{"right", "wrong", "wronger"},
			})
		}
		b, marshalErr := json.Marshal(questions)
		err = errors.Join(err, marshalErr)
		exec(`INSERT INTO quizzes (course_id, module_id, questions) VALUES (?, ?, ?)`, quiz[0], quiz[1], string(b))
	}
	exec(`DELETE FROM cache_outbox`) // nothing is cached yet
	if err != nil {
		return err
	}
	return tx.Commit()
}

// externalWrite changes the database as another program.
func (s *testService) externalWrite(query string, args ...any) {
	s.t.Helper()
	if _, err := s.db.ExecContext(s.t.Context(), query, args...); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
}

// token returns the user's, always the same, whether or not there is such a user.
func (s *testService) token(user string) string {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if token, ok := s.issued[user]; ok {
		return token
	}
	id, err := learning.ParseID[learning.Profile](user)
	must(s.t, err)
	token, err := s.tokens.Issue(learning.Profile{ID: id, StellarAddress: "G" + user}, time.Hour)
	must(s.t, err)
	s.issued[user] = token
	return token
}

// request is one to the API. Its zero fields are left out.
type request struct {
	method, path string // "GET" if empty; the path is under /api/v1 unless it begins with //
	user         string // whose token to bear
	token        string // to bear instead
	body         string
	header       http.Header
	ctx          context.Context
}

type response struct {
	status int
	header http.Header
	raw    []byte
	body   struct {
		Success    bool
		Message    string
		Data       json.RawMessage
		Pagination *struct{ Page, Limit, Total int }
		Meta       *struct{ Version, Timestamp, RequestID string }

		StatusCode int
		Error      string
		Details    map[string][]string
		RequestID  string
	}
}

// try sends a request and returns what came of it, also from other goroutines.
func (s *testService) try(r request) (response, error) {
	var res response
	if r.method == "" {
		r.method = "GET"
	}
	if r.ctx == nil {
		r.ctx = s.t.Context()
	}
	url := s.api.URL + "/api/v1" + r.path
	if strings.HasPrefix(r.path, "//") {
		url = s.api.URL + r.path[1:]
	}
	req, err := http.NewRequestWithContext(r.ctx, r.method, url, strings.NewReader(r.body))
	if err != nil {
		return res, err
	}
	maps.Copy(req.Header, r.header)
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	if r.user != "" {
		req.Header.Set("Authorization", "Bearer "+s.token(r.user))
	}
	got, err := s.api.Client().Do(req)
	if err != nil {
		return res, err
	}
	defer got.Body.Close()
	res.status, res.header = got.StatusCode, got.Header
	if res.raw, err = io.ReadAll(got.Body); err != nil {
		return res, err
	}
	if len(res.raw) > 0 {
		if err := json.Unmarshal(res.raw, &res.body); err != nil {
			return res, fmt.Errorf("%s %s: %d %q: %w", r.method, r.path, res.status, res.raw, err)
		}
	}
	return res, openapitest.Check(req, r.body, res.status, res.header, res.raw)
}

func (s *testService) do(r request) response {
	s.t.Helper()
	res, err := s.try(r)
	must(s.t, err)
	return res
}

// get sends a GET that must succeed.
func (s *testService) get(path, user string) response {
	s.t.Helper()
	res := s.do(request{path: path, user: user})
	if res.status != http.StatusOK {
		s.t.Fatalf("GET %s: %d %s", path, res.status, res.raw)
	}
	return res
}

// mutate sends a request that changes something and must succeed.
func (s *testService) mutate(method, path, user, body string) response {
	s.t.Helper()
	res := s.do(request{method: method, path: path, user: user, body: body})
	if res.status != http.StatusOK && res.status != http.StatusCreated {
		s.t.Fatalf("%s %s: %d %s", method, path, res.status, res.raw)
	}
	return res
}

// status is the Cache-Status without its parameters' values.
func (r response) cacheStatus() string {
	s, _, _ := strings.Cut(strings.TrimPrefix(r.header.Get("Cache-Status"), "chainlearn; "), "; ttl=")
	return s
}

// data decodes the answer.
func data[V any](t *testing.T, r response) V {
	t.Helper()
	var v V
	if err := json.Unmarshal(r.body.Data, &v); err != nil {
		t.Fatalf("%s: %v", r.raw, err)
	}
	return v
}

type object = map[string]any

// passQuiz enrols no user: it generates the user's quiz on a module, answers everything rightly,
// and returns the submission's ID.
func (s *testService) passQuiz(user, course, module string) string {
	s.t.Helper()
	return data[struct{ ID string }](s.t, s.submit(user, course, module, 0)).ID
}

// submit generates a quiz and chooses one option throughout; 0 is right.
func (s *testService) submit(user, course, module string, option int) response {
	s.t.Helper()
	quiz := data[struct {
		ID        string
		Questions []struct{ ID string }
	}](s.t, s.mutate("POST", "/quizzes/generate", user, fmt.Sprintf(`{"courseId":%q,"moduleId":%q}`, course, module)))
	var answers []string
	for _, q := range quiz.Questions {
		answers = append(answers, fmt.Sprintf(`{"questionId":%q,"selectedIndex":%d}`, q.ID, option))
	}
	return s.mutate("POST", "/quizzes/"+quiz.ID+"/submit", user, `{"answers":[`+strings.Join(answers, ",")+`]}`)
}

// queries are the statements that reached the driver, without the relay's own, and without the
// bounds of transactions, which do not say whose they are.
type queries struct {
	mu   sync.Mutex
	seen []string
	gate chan struct{} // statements that contain held wait for it
	held string
}

func (q *queries) record(query string) {
	if query == "BEGIN" || query == "COMMIT" || query == "ROLLBACK" {
		return
	}
	if strings.Contains(query, "cache_outbox") || strings.Contains(query, "cache_consumers") || strings.Contains(query, "cache_delivered") || strings.Contains(query, "data_version") {
		return
	}
	q.mu.Lock()
	q.seen = append(q.seen, query)
	gate := q.gate
	if !strings.Contains(query, q.held) {
		gate = nil
	}
	q.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

// during returns the statements that ran while f did.
func (q *queries) during(f func()) []string {
	q.mu.Lock()
	before := len(q.seen)
	q.mu.Unlock()
	f()
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.seen[before:])
}

// hold makes statements that contain a text wait for release.
func (q *queries) hold(text string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gate, q.held = make(chan struct{}), text
}

func (q *queries) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gate != nil {
		close(q.gate)
		q.gate = nil
	}
}

func countContaining(statements []string, text string) int {
	n := 0
	for _, s := range statements {
		if strings.Contains(s, text) {
			n++
		}
	}
	return n
}

// metric returns a value from the page that operators scrape.
func (s *testService) metric(series string) string {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), "GET", s.private.URL+"/metrics", nil)
	must(s.t, err)
	res, err := s.private.Client().Do(req)
	must(s.t, err)
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	must(s.t, err)
	for line := range strings.Lines(string(page)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// lockedBuffer is a log that a test may read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

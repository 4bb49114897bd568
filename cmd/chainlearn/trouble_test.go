package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/openapi/openapitest"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// An apiRequest is one to a route.
type apiRequest struct {
	route, path, body string
	token             string
}

func (r apiRequest) method() string { return strings.Fields(r.route)[0] }
func (r apiRequest) isRead() bool   { return r.method() == http.MethodGet }

type apiAnswer struct {
	status int
	header http.Header
	body   string
	took   time.Duration
	err    error
}

func (r apiRequest) send(ctx context.Context, api string) apiAnswer {
	return r.sendWith(ctx, http.DefaultClient, api)
}

func (r apiRequest) sendWith(ctx context.Context, client *http.Client, api string) (a apiAnswer) {
	began := time.Now()
	defer func() { a.took = time.Since(began) }()
	req, err := http.NewRequestWithContext(ctx, r.method(), api+r.path, strings.NewReader(r.body))
	if err != nil {
		return apiAnswer{err: err}
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	res, err := client.Do(req)
	if err != nil {
		return apiAnswer{err: err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil {
		err = openapitest.Check(req, r.body, res.StatusCode, res.Header, body)
	}
	return apiAnswer{status: res.StatusCode, header: res.Header, body: string(body), err: err}
}

// everyRoute returns requests to each route that there is, by a learner who has passed a module and done
// everything there is to do: each request is well again and again. A route without one here fails the test.
func everyRoute(t *testing.T, p *process, token string) []apiRequest {
	t.Helper()
	api := p.api
	course := courseID(1)
	id := func(r apiRequest) string {
		a := r.send(t.Context(), api)
		var v struct {
			Data struct {
				ID        string
				Questions []struct{ ID string }
			}
		}
		if a.err != nil || a.status >= 300 || json.Unmarshal([]byte(a.body), &v) != nil {
			t.Fatalf("%s: %d %s, %v", r.route, a.status, a.body, a.err)
		}
		return v.Data.ID
	}
	enroll := apiRequest{"POST /courses/{id}/enroll", "/courses/" + course + "/enroll", "", token}
	id(enroll)
	generate := apiRequest{"POST /quizzes/generate", "/quizzes/generate", fmt.Sprintf(`{"courseId":%q,"moduleId":"m-1"}`, course), token}
	quiz := id(generate)
	submit := apiRequest{"POST /quizzes/{id}/submit", "/quizzes/" + quiz + "/submit", `{"answers":[{"questionId":"q1","selectedIndex":0}]}`, token}
	submission := id(submit)
	w := newWallet(t, p)
	w.signIn()
	used, err := json.Marshal(w.signedChallenge())
	testservers.Must(t, err)
	verify := apiRequest{"POST /auth/verify", "/auth/verify", string(used), ""}
	id(verify)
	logout := apiRequest{"POST /auth/logout", "/auth/logout", "", w.token}
	id(logout)
	all := []apiRequest{
		{"POST /auth/challenge", "/auth/challenge", fmt.Sprintf(`{"stellarAddress":%q}`, w.pair.Address()), ""},
		verify, logout,
		enroll, generate, submit,
		{"POST /rewards/claim", "/rewards/claim", fmt.Sprintf(`{"submissionId":%q,"idempotencyKey":"k"}`, submission), token},
		{"POST /credentials/mint", "/credentials/mint", fmt.Sprintf(`{"courseId":%q,"submissionId":%q,"idempotencyKey":"k"}`, course, submission), token},
		{"PUT /users/me", "/users/me", `{"pace":"fast"}`, token},
		{"GET /courses", "/courses", "", ""},
		{"GET /courses", "/courses?page=2&limit=1", "", token},
		{"GET /courses/{id}", "/courses/" + course, "", ""},
		{"GET /courses/{id}", "/courses/" + course, "", token},
		{"GET /courses/{id}/modules/{moduleId}", "/courses/" + course + "/modules/m-1", "", token},
		{"GET /users/me", "/users/me", "", token},
		{"GET /users/me/progress", "/users/me/progress", "", token},
		{"GET /rewards/history", "/rewards/history", "", token},
		{"GET /credentials", "/credentials", "", token},
		{"GET /health", "/health", "", ""},
		{"GET /health/live", "/health/live", "", ""},
		{"GET /health/ready", "/health/ready", "", ""},
	}
	for _, route := range httpapi.Routes() {
		if !slices.ContainsFunc(all, func(r apiRequest) bool { return r.route == route }) {
			t.Errorf("nothing here asks %s: add a request", route)
		}
	}
	return all
}

// learnerSQL makes what everyRoute needs: two courses, one with a module, and a learner.
func learnerSQL() []string {
	return []string{
		fmt.Sprintf(`INSERT INTO courses (id, title) VALUES ('%s', 'Course 1'), ('%s', 'Course 2')`, courseID(1), courseID(2)),
		fmt.Sprintf(`INSERT INTO users (id, stellar_address) VALUES ('%s', '%[1]s')`, userID(1)),
		fmt.Sprintf(`INSERT INTO quizzes (id, course_id, module_id, questions) VALUES ('%s', '%s', 'm-1', '[{"id":"q1","text":"?","options":["a","b"],"correctIndex":0}]')`, courseID(3), courseID(1)),
	}
}

// A trouble is a fault of a part, and what clients may be answered meanwhile.
type trouble struct {
	name         string
	inject, heal func()
	reads        []int // statuses of GET
	writes       []int // of the others; what writes nothing may be answered all the same
	update       []int // of PUT /users/me, which always writes
	ready        []int // of readiness
	says         string
}

var (
	well       = []int{200}
	done       = []int{200, 201, 409} // 409: it was done before
	refused    = []int{503}
	asMayBe    = []int{200, 503}
	doneOrNot  = []int{200, 201, 409, 503}
	mostWaited = 6 * time.Second
)

// walk sends every request at once, so that waiting costs its time once, and holds each answer
// against what is documented.
func (f trouble) walk(t *testing.T, api string, all []apiRequest) {
	t.Helper()
	var wg sync.WaitGroup
	for _, r := range all {
		wg.Go(func() {
			a := r.send(t.Context(), api)
			allowed := f.writes
			switch {
			case r.route == "GET /health/live":
				allowed = well
			case strings.HasPrefix(r.route, "GET /health"):
				allowed = f.ready
			case r.route == "POST /auth/challenge": // is stored nowhere
				allowed = well
			case strings.HasPrefix(r.route, "POST /auth/"): // used, or logged out, before
				allowed = append([]int{http.StatusUnauthorized}, allowed...)
			case r.method() == http.MethodPut:
				allowed = f.update
			case r.isRead():
				allowed = f.reads
			}
			if a.err != nil || !slices.Contains(allowed, a.status) {
				t.Errorf("%s: %s: %d %s, %v", f.name, r.route, a.status, a.body, a.err)
			}
			if a.took > mostWaited {
				t.Errorf("%s: %s was answered after %v", f.name, r.route, a.took)
			}
			if a.status == http.StatusServiceUnavailable && !strings.HasPrefix(r.route, "GET /health") &&
				(a.header.Get("Retry-After") == "" || !strings.Contains(a.body, `"error":"UNAVAILABLE"`) && !strings.Contains(a.body, `"error":"OVERLOADED"`)) {
				t.Errorf("%s: %s: %v %s", f.name, r.route, a.header, a.body)
			}
			if strings.Contains(a.body, "SQLSTATE") || strings.Contains(a.body, "127.0.0.1") {
				t.Errorf("%s: %s tells of the inside: %s", f.name, r.route, a.body)
			}
		})
	}
	wg.Wait()
}

func (f trouble) run(t *testing.T, api string, all []apiRequest) {
	t.Helper()
	f.inject()
	f.walk(t, api, all)
	f.walk(t, api, all) // and when it is known
	ready := apiRequest{"GET /health/ready", "/health/ready", "", ""}
	if a := ready.send(t.Context(), api); !slices.Contains(f.ready, a.status) || !strings.Contains(a.body, f.says) {
		t.Errorf("%s: readiness is %d %s, want %q", f.name, a.status, a.body, f.says)
	}
	f.heal()
	testservers.Eventually(t, 20*time.Second, func() (bool, string) {
		a := ready.send(t.Context(), api)
		return a.status == http.StatusOK && strings.Contains(a.body, `"status":"ok"`), f.name + " is over, and " + a.body
	})
	// As soon as the process says that it is ready, nothing is left of the trouble.
	trouble{name: "after " + f.name, reads: well, writes: done, update: well, ready: well}.walk(t, api, all)
	if t.Failed() {
		t.FailNow()
	}
}

// Whatever happens to the database or to Redis, every route gives an answer that the contract documents:
// a failing database is 503 with Retry-After where it is needed, and a failing Redis costs no answer.
func TestTroubleIsAnsweredAsDocumented(t *testing.T) {
	t.Parallel()
	pg := testservers.StartPostgres(t, testservers.PostgresConfig{})
	redis := testservers.StartRedis(t, testservers.RedisConfig{})
	direct := pg.Database(t)
	f := &fleet{t: t, dir: t.TempDir(), database: direct, redis: redis}
	admin := func(statements ...string) {
		t.Helper()
		shell := f.psql()
		for _, s := range statements {
			shell.run("%s", s)
		}
	}
	u, err := url.Parse(direct)
	testservers.Must(t, err)
	name := strings.TrimPrefix(u.Path, "/")
	admin(`CREATE ROLE learner LOGIN`, `ALTER DATABASE `+name+` OWNER TO learner`)
	u.User = url.User("learner")
	f.env = map[string]string{"DATABASE_URL": u.String(), "REDIS_URL": redis.URL(), "JWT_SECRET": strings.Repeat("s", httpapi.MinSecret)}
	p := f.start()
	admin(learnerSQL()...)
	all := everyRoute(t, p, f.token(userID(1)))
	trouble{name: "nothing", reads: well, writes: done, update: well, ready: well}.walk(t, p.api, all)

	const terminate = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'learner'`
	nothing := func() {}
	var locking *psql
	redisDo := func(command ...string) { testservers.Must(t, redis.Do(t.Context(), command...).Error()) }
	for _, f := range []trouble{
		{
			name: "database stopped", inject: func() { testservers.Must(t, pg.Stop(t.Context())) }, heal: func() { testservers.Must(t, pg.Restart(t.Context())) },
			reads: asMayBe, writes: refused, update: refused, ready: refused, says: `"database":"down"`,
		},
		{
			name: "database restarted", inject: func() { testservers.Must(t, pg.Stop(t.Context())); testservers.Must(t, pg.Restart(t.Context())) }, heal: nothing,
			reads: well, writes: done, update: well, ready: well,
		},
		{
			name: "sessions ended", inject: func() { admin(terminate) }, heal: nothing,
			reads: well, writes: done, update: well, ready: well,
		},
		{
			name: "out of connections", inject: func() { admin(`ALTER ROLE learner CONNECTION LIMIT 0`, terminate) }, heal: func() { admin(`ALTER ROLE learner CONNECTION LIMIT -1`) },
			reads: asMayBe, writes: refused, update: refused, ready: refused, says: `"database":"down"`,
		},
		{
			name:   "database read-only", // as after a failover to a standby: sessions end, and new ones may not write
			inject: func() { admin(`ALTER ROLE learner SET default_transaction_read_only = on`, terminate) },
			heal:   func() { admin(`ALTER ROLE learner RESET default_transaction_read_only`, terminate) },
			reads:  well, writes: doneOrNot, update: refused, ready: refused, says: `"database":"read-only"`,
		},
		{
			name: "database full",
			inject: func() {
				admin(`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'could not extend file' USING ERRCODE = '53100'; END $$`,
					`CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON users FOR EACH STATEMENT EXECUTE FUNCTION full_disk()`,
					`CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON enrollments FOR EACH STATEMENT EXECUTE FUNCTION full_disk()`)
			},
			heal:  func() { admin(`DROP FUNCTION full_disk CASCADE`) },
			reads: well, writes: doneOrNot, update: refused, ready: asMayBe, // the probe finds room
		},
		{
			name: "tables locked",
			inject: func() {
				locking = f.psql()
				locking.run(`BEGIN; LOCK TABLE users, courses, enrollments IN ACCESS EXCLUSIVE MODE`)
			},
			heal:  func() { locking.run(`ROLLBACK`) },
			reads: asMayBe, writes: doneOrNot, update: refused, ready: well,
		},
		{
			name: "Redis stopped", inject: func() { testservers.Must(t, redis.Stop(t.Context())) }, heal: func() { testservers.Must(t, redis.Restart(t.Context())) },
			reads: well, writes: done, update: well, ready: well, says: `"status":"degraded"`,
		},
		{
			name: "Redis frozen", inject: func() { testservers.Must(t, redis.Freeze()) }, heal: func() { testservers.Must(t, redis.Thaw()) },
			reads: well, writes: done, update: well, ready: well, says: `"status":"degraded"`,
		},
		{
			name: "Redis read-only", inject: func() { redisDo("REPLICAOF", "127.0.0.1", "1") }, heal: func() { redisDo("REPLICAOF", "NO", "ONE") },
			reads: well, writes: done, update: well, ready: well, says: `"status":"degraded"`,
		},
	} {
		f.run(t, p.api, all)
	}
	if log := p.stderr.String(); strings.Contains(log, "panic") {
		t.Error(log)
	}
	p.stop(syscall.SIGTERM)
}

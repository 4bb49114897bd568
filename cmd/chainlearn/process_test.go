package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/openapi/openapitest"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// asProgram is set for a test binary that is to be the program itself: it has the same main,
// and needs no second build.
const asProgram = "CHAINLEARN_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(testservers.Main(m))
}

// process is a running service.
type process struct {
	t            *testing.T
	cmd          *exec.Cmd
	api, private string
	stdout       string // until it was ready
	stderr       *output
	ended        chan error
}

// output of a process, which may be read while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func command(t *testing.T, dir string, env map[string]string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = dir
	cmd.Env = []string{asProgram + "=1", "PORT=0", "ADMIN_PORT=0", "HOST=127.0.0.1", "RATE_LIMIT_MAX=0", "SHUTDOWN_DELAY=0s"}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// serve starts a service on dir's default database and waits until it says that it is ready.
func serve(t *testing.T, dir string, env map[string]string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: command(t, dir, env, append([]string{"serve"}, args...)...), stderr: &output{}, ended: make(chan error, 1)}
	p.cmd.Stderr = p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	late := time.AfterFunc(time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	lines := bufio.NewReader(out)
	address := regexp.MustCompile(`http://\S+`)
	for !strings.Contains(p.stdout, "curl") {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the service ended before it was ready: %v\n%s", p.cmd.Wait(), p.stderr)
		}
		p.stdout += line
		switch fields := strings.Fields(line); {
		case len(fields) == 0:
		case fields[0] == "API":
			p.api = address.FindString(line)
		case fields[0] == "Private":
			p.private = strings.TrimSuffix(address.FindString(line), "/metrics")
		}
	}
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		p.ended <- p.cmd.Wait()
	}()
	return p
}

// stop sends a signal and checks that the service ends well and in time.
func (p *process) stop(signal os.Signal) {
	p.t.Helper()
	p.stopWithin(signal, 5*time.Second)
}

func (p *process) stopWithin(signal os.Signal, limit time.Duration) {
	p.t.Helper()
	began := time.Now()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
	select {
	case err := <-p.ended:
		if took := time.Since(began); err != nil || took > limit {
			p.t.Errorf("the service ended after %v with %v\n%s", took, err, p.stderr)
		}
	case <-time.After(20 * time.Second):
		p.t.Fatalf("the service does not stop\n%s", p.stderr)
	}
}

func request(ctx context.Context, method, url, token string) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, nil, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil {
		err = openapitest.Check(req, "", res.StatusCode, res.Header, body)
	}
	return res.StatusCode, res.Header, body, err
}

func (p *process) get(url string) (int, http.Header, string) {
	p.t.Helper()
	status, header, body, err := request(p.t.Context(), "GET", url, "")
	if err != nil {
		p.t.Fatal(err)
	}
	return status, header, string(body)
}

// openFile opens the database as another program would.
func openFile(t *testing.T, dir string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "var", "chainlearn.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func migrated(t *testing.T) (dir string, db *sql.DB) {
	t.Helper()
	dir = t.TempDir()
	if out, err := command(t, dir, nil, "migrate").CombinedOutput(); err != nil {
		t.Fatalf("migrate: %v\n%s", err, out)
	}
	return dir, openFile(t, dir)
}

func TestServeAndStop(t *testing.T) {
	t.Parallel()
	dir, db := migrated(t)
	for i := range 30 {
		if _, err := db.Exec(`INSERT INTO courses (title) VALUES (?)`, fmt.Sprint("Course ", i)); err != nil {
			t.Fatal(err)
		}
	}
	p := serve(t, dir, nil)

	// It said that it is ready, so the catalogue is warm.
	if status, _, body := p.get(strings.TrimSuffix(p.api, "/api/v1") + "/health/ready"); status != http.StatusOK {
		t.Errorf("ready: %d %s", status, body)
	}
	for _, path := range []string{"/courses", "/courses?page=2", "/courses?difficulty=beginner"} {
		if status, header, _ := p.get(p.api + path); status != http.StatusOK || !strings.Contains(header.Get("Cache-Status"), "; hit;") {
			t.Errorf("first %s: %d %s", path, status, header.Get("Cache-Status"))
		}
	}
	if _, _, page := p.get(p.private + "/metrics"); !strings.Contains(page, `cache_hits_total{namespace="courses",query="list",tier="shared"}`) || !strings.Contains(page, "process_open_fds") {
		t.Errorf("metrics:\n%.500s", page)
	}
	if status, _, _ := p.get(p.private + "/debug/pprof/"); status != http.StatusOK {
		t.Errorf("profiles: %d", status)
	}

	// A cache of its own is no good to two services on one file.
	second := command(t, dir, nil, "serve")
	if out, _ := second.CombinedOutput(); second.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(out), "in use by another process") {
		t.Errorf("a second service: exit code %d\n%s", second.ProcessState.ExitCode(), out)
	}
	p.stop(syscall.SIGTERM)

	p = serve(t, dir, nil)
	p.stop(os.Interrupt)
}

// What was acknowledged before the service was told to stop is there afterwards, and no
// request was cut off.
func TestStopLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	dir, db := migrated(t)
	const users = 200
	var tokens []string
	if _, err := db.Exec(`INSERT INTO courses (id, title) VALUES ('00000000-0000-4000-8000-00000000c001', 'Course')`); err != nil {
		t.Fatal(err)
	}
	secret := strings.Repeat("s", httpapi.MinSecret)
	issuer, err := httpapi.NewTokens([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	for i := range users {
		id := fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
		if _, err := db.Exec(`INSERT INTO users (id, stellar_address) VALUES (?, ?)`, id, "G"+id); err != nil {
			t.Fatal(err)
		}
		user, err := learning.ParseID[learning.Profile](id)
		if err != nil {
			t.Fatal(err)
		}
		token, err := issuer.Issue(learning.Profile{ID: user, StellarAddress: "G" + id}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	p := serve(t, dir, nil, "--jwt-secret", secret)

	var acknowledged atomic.Int64
	var wg sync.WaitGroup
	next := make(chan string, users)
	for _, token := range tokens {
		next <- token
	}
	close(next)
	enough := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for token := range next {
				status, _, body, err := request(t.Context(), "POST", p.api+"/courses/00000000-0000-4000-8000-00000000c001/enroll", token)
				if err != nil {
					// Only a connection that no answer began on: it was not accepted any more.
					if strings.Contains(err.Error(), "unexpected EOF") {
						t.Errorf("cut off: %v", err)
					}
					return
				}
				if status != http.StatusCreated {
					t.Errorf("%d %s", status, body)
					return
				}
				if acknowledged.Add(1) == 40 {
					close(enough)
				}
			}
		})
	}
	<-enough
	p.stop(syscall.SIGTERM)
	wg.Wait()
	var kept int64
	if err := db.QueryRow(`SELECT count(*) FROM enrollments`).Scan(&kept); err != nil {
		t.Fatal(err)
	}
	if n := acknowledged.Load(); kept < n || n == users {
		t.Errorf("%d enrolments were acknowledged (of %d asked for) and %d kept", n, users, kept)
	}
}

func TestTokenCommand(t *testing.T) {
	t.Parallel()
	dir, db := migrated(t)
	const id = "00000000-0000-4000-8000-0000000000aa"
	if _, err := db.Exec(`INSERT INTO users (id, stellar_address) VALUES (?, 'GADDRESS')`, id); err != nil {
		t.Fatal(err)
	}
	p := serve(t, dir, nil) // shares the secret beside the database with the command
	var stderr bytes.Buffer
	cmd := command(t, dir, nil, "token", "--user", strings.ToUpper(id))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || strings.Count(string(out), "\n") != 1 || stderr.Len() > 0 {
		t.Fatalf("token: %v, stdout %q, stderr %q", err, out, stderr.String())
	}
	status, _, body, err := request(t.Context(), "GET", p.api+"/users/me", strings.TrimSpace(string(out)))
	var answer struct {
		Data struct{ StellarAddress string }
	}
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &answer) != nil || answer.Data.StellarAddress != "GADDRESS" {
		t.Errorf("with the token: %d %s, %v", status, body, err)
	}
	for _, tt := range []struct {
		dir  string
		args []string
		says string
	}{
		{dir, []string{"--user", "00000000-0000-4000-8000-0000000000bb"}, "there is no user"},
		{t.TempDir(), []string{"--user", id}, "there is no database"},
	} {
		cmd := command(t, tt.dir, nil, append([]string{"token"}, tt.args...)...)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(out), tt.says) {
			t.Errorf("token %q: exit code %d, %s", tt.args, cmd.ProcessState.ExitCode(), out)
		}
	}
	p.stop(syscall.SIGTERM)
}

// A file that is no database of ours is named, and left as it is.
func TestForeignFileIsLeftUntouched(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "thesis.db")
	content := []byte(strings.Repeat("my thesis. ", 1000))
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"serve"}, {"migrate"}, {"token", "--user", "00000000-0000-4000-8000-0000000000aa"}} {
		cmd := command(t, dir, map[string]string{"DATABASE_URL": "sqlite:thesis.db"}, args...)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(out), "thesis.db") || !strings.Contains(string(out), "not a SQLite database") {
			t.Errorf("%s: exit code %d, %s", args[0], cmd.ProcessState.ExitCode(), out)
		}
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, content) {
		t.Errorf("the file was changed: %v", err)
	}
}

func TestBadConfigurationEndsTheProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := command(t, dir, map[string]string{"PORT": "http", "LOG_LEVEL": "loud", "JWT_SECRET": "short"}, "serve")
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitUsage {
		t.Errorf("exit code %d", cmd.ProcessState.ExitCode())
	}
	for _, name := range []string{"PORT is", "LOG_LEVEL is", "JWT_SECRET has 5 bytes"} {
		if !strings.Contains(string(out), name) {
			t.Errorf("nothing about %s:\n%s", name, out)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("it left %v behind", left)
	}
}

// What the demonstration prints works as it is printed.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := serve(t, dir, nil, "--demo")
	match := regexp.MustCompile(`curl -i -H 'Authorization: Bearer (\S+)' (http://\S+)`).FindStringSubmatch(p.stdout)
	if match == nil {
		t.Fatalf("no command in:\n%s", p.stdout)
	}
	status, _, body, err := request(t.Context(), "GET", match[2], match[1])
	var progress struct{ Data struct{ EnrolledCourses int } }
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &progress) != nil || progress.Data.EnrolledCourses == 0 {
		t.Errorf("%d %s, %v", status, body, err)
	}
	var list struct{ Pagination struct{ Total int } }
	if _, _, body := p.get(p.api + "/courses"); json.Unmarshal([]byte(body), &list) != nil || list.Pagination.Total < 24 {
		t.Errorf("the catalogue: %.300s", body)
	}
	p.stop(syscall.SIGTERM)

	// A database that holds something is left as it is.
	db := openFile(t, dir)
	if _, err := db.Exec(`DELETE FROM users`); err != nil {
		t.Fatal(err)
	}
	p = serve(t, dir, nil, "--demo")
	p.stop(syscall.SIGTERM)
	var users int
	if err := db.QueryRow(`SELECT count(*) FROM users`).Scan(&users); err != nil || users != 0 {
		t.Errorf("%d users were added to a database in use, %v", users, err)
	}
}

// A running service shows what is seeded meanwhile.
func TestSeedCommand(t *testing.T) {
	t.Parallel()
	dir, _ := migrated(t)
	p := serve(t, dir, nil)
	if _, _, body := p.get(p.api + "/courses"); !strings.Contains(body, `"total":0`) {
		t.Fatalf("before: %s", body)
	}
	args := []string{"seed", "--courses", "30", "--users", "50", "--enrollments", "300", "--submissions", "400", "--credentials", "20", "--random-seed", "7"}
	out, err := command(t, dir, nil, args...).Output()
	if want := "added 30 courses, 50 users, 300 enrollments, 400 submissions and 20 credentials in"; err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("seed: %v %q", err, out)
	}
	testservers.Eventually(t, time.Second, func() (bool, string) {
		_, _, body := p.get(p.api + "/courses")
		return strings.Contains(body, `"total":30`), "not seen yet: " + body
	})
	if out, err := command(t, dir, nil, args...).Output(); err != nil || !strings.HasPrefix(string(out), "added 0 courses, 0 users, 0 enrollments, 0 submissions and 0 credentials") {
		t.Errorf("the same again: %v %q", err, out)
	}
	cmd := command(t, dir, nil, "seed", "--users", "1", "--courses", "1", "--enrollments", "2")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "enrollments is 2: at most 1 are possible") {
		t.Errorf("more enrollments than there can be: %v %s", err, out)
	}
	p.stop(syscall.SIGTERM)
}

// With PostgreSQL and Redis, any number of processes are one service: what is written by
// way of one is seen by way of the other at once.
func TestReplicas(t *testing.T) {
	t.Parallel()
	const (
		course = "00000000-0000-4000-8000-00000000c001"
		user   = "00000000-0000-4000-8000-0000000000aa"
	)
	env := map[string]string{
		"DATABASE_URL": testservers.SharedPostgres(t).Database(t),
		"REDIS_URL":    testservers.SharedRedis(t).URL(),
		"JWT_SECRET":   strings.Repeat("s", httpapi.MinSecret),
	}
	dir := t.TempDir()
	if out, err := command(t, dir, env, "migrate").CombinedOutput(); err != nil {
		t.Fatalf("migrate: %v\n%s", err, out)
	}
	db, err := pgx.Connect(t.Context(), env["DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.WithoutCancel(t.Context())) })
	for _, statement := range []string{
		`INSERT INTO courses (id, title) VALUES ('` + course + `', 'Course')`,
		`INSERT INTO users (id, stellar_address) VALUES ('` + user + `', 'GADDRESS')`,
	} {
		if _, err := db.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	token, err := command(t, dir, env, "token", "--user", user).Output()
	if err != nil {
		t.Fatal(err)
	}
	a, b := serve(t, dir, env), serve(t, dir, env)
	before := func(body string) bool { return strings.Contains(body, `"enrolledCount":0`) }
	for _, p := range []*process{a, b} {
		if _, _, body := p.get(p.api + "/courses/" + course); !before(body) {
			t.Fatalf("before: %s", body)
		}
	}
	if _, header, _ := b.get(b.api + "/courses/" + course); !strings.Contains(header.Get("Cache-Status"), "; hit;") {
		t.Errorf("the answer is not kept: %s", header.Get("Cache-Status"))
	}
	status, _, body, err := request(t.Context(), "POST", a.api+"/courses/"+course+"/enroll", strings.TrimSpace(string(token)))
	if err != nil || status != http.StatusCreated {
		t.Fatalf("enrol: %d %s, %v", status, body, err)
	}
	if _, _, body := b.get(b.api + "/courses/" + course); before(body) {
		t.Errorf("written by way of one, and not seen by way of the other: %s", body)
	}
	a.stop(syscall.SIGTERM)
	b.stop(syscall.SIGTERM)
}

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// fleet is several processes that serve one database, and share a Redis that is theirs alone.
type fleet struct {
	t         *testing.T
	dir       string
	database  string // as external writers reach it
	redis     *testservers.Redis
	env       map[string]string
	processes []*process
}

// newFleet prepares an empty database and starts n processes, which reach it at the URL that
// through makes of its own; nil leaves it as it is.
func newFleet(t *testing.T, n int, through func(url string) string) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), database: testservers.SharedPostgres(t).Database(t), redis: testservers.StartRedis(t, testservers.RedisConfig{})}
	f.env = map[string]string{
		"DATABASE_URL": f.database,
		"REDIS_URL":    f.redis.URL(),
		"JWT_SECRET":   strings.Repeat("s", httpapi.MinSecret),
	}
	if through != nil {
		f.env["DATABASE_URL"] = through(f.database)
	}
	if out, err := command(t, f.dir, f.env, "migrate").CombinedOutput(); err != nil {
		t.Fatalf("migrate: %v\n%s", err, out)
	}
	for range n {
		f.start()
	}
	return f
}

func (f *fleet) start() *process {
	f.t.Helper()
	p := serve(f.t, f.dir, f.env)
	f.processes = append(f.processes, p)
	return p
}

// kill ends a process of the fleet as a crash does.
func (f *fleet) kill(i int) {
	f.t.Helper()
	p := f.processes[i]
	testservers.Must(f.t, p.cmd.Process.Kill())
	<-p.ended //nolint:errcheck // it was killed, which is what it says
	f.processes = append(f.processes[:i:i], f.processes[i+1:]...)
}

// courseID and userID are the numbered rows of a test.
func courseID(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-00000c%06d", n) }
func userID(n int) string   { return fmt.Sprintf("00000000-0000-4000-8000-00000a%06d", n) }

// token of a user whose Stellar address is its ID.
func (f *fleet) token(user string) string {
	f.t.Helper()
	issuer, err := httpapi.NewTokens([]byte(f.env["JWT_SECRET"]))
	testservers.Must(f.t, err)
	id, err := learning.ParseID[learning.Profile](user)
	testservers.Must(f.t, err)
	token, err := issuer.Issue(learning.Profile{ID: id, StellarAddress: user}, time.Hour)
	testservers.Must(f.t, err)
	return token
}

// An expectation is a request to the API and what its answer must be.
type expectation struct {
	path, token string
	status      int // default 200
	contains    string
}

func (e expectation) String() string {
	return fmt.Sprintf("%d with %q", cmp.Or(e.status, http.StatusOK), e.contains)
}

func (e expectation) check(ctx context.Context, p *process) (ok, hit bool, got string) {
	status, header, body, err := request(ctx, "GET", p.api+e.path, e.token)
	if err != nil {
		return false, false, err.Error()
	}
	return status == cmp.Or(e.status, http.StatusOK) && strings.Contains(string(body), e.contains),
		strings.Contains(header.Get("Cache-Status"), "; hit"), fmt.Sprintf("%d %.600s", status, body)
}

// waitOldCached waits until every process answers each request from its cache, with the old
// value: a new value seen later was not loaded by chance.
func (f *fleet) waitOldCached(looks ...expectation) {
	f.t.Helper()
	for _, p := range f.processes {
		for _, e := range looks {
			testservers.Eventually(f.t, visibilityTimeout, func() (bool, string) {
				ok, hit, got := e.check(f.t.Context(), p)
				return hit && !ok, fmt.Sprintf("%s is not yet kept as it was before it is %s: %s", e.path, e, got)
			})
		}
	}
}

// visibilityTimeout is when a test gives up. It is generous: a busy machine is not a broken promise.
// The true times are logged.
const visibilityTimeout = 5 * time.Second

// waitSeen asks every process at once until all its answers are as they are to be, and returns how
// long after began that was, for each.
func (f *fleet) waitSeen(began time.Time, looks ...expectation) []time.Duration {
	f.t.Helper()
	ctx, cancel := context.WithDeadline(f.t.Context(), began.Add(visibilityTimeout))
	defer cancel()
	took := make([]time.Duration, len(f.processes))
	var wg sync.WaitGroup
	for i, p := range f.processes {
		wg.Go(func() {
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for _, e := range looks {
				got := "nothing"
				for {
					ok, _, answer := e.check(ctx, p)
					took[i] = time.Since(began)
					if ok {
						break
					}
					if ctx.Err() == nil {
						got = answer
					}
					select {
					case <-tick.C:
					case <-ctx.Done():
						f.t.Errorf("process %d: after %v %s is not yet %s, but %s", i, took[i], e.path, e, got)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return took
}

// psql is an external writer: a SQL shell that knows of no cache.
type psql struct {
	t      *testing.T
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *bytes.Buffer
}

func (f *fleet) psql() *psql {
	f.t.Helper()
	path := testservers.Require(f.t, "postgresql-client", "psql")
	cmd := exec.CommandContext(f.t.Context(), path, "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", f.database)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	p := &psql{t: f.t, stderr: &bytes.Buffer{}}
	cmd.Stderr = p.stderr
	out, err := cmd.StdoutPipe()
	testservers.Must(f.t, err)
	p.out = bufio.NewReader(out)
	p.in, err = cmd.StdinPipe()
	testservers.Must(f.t, err)
	testservers.Must(f.t, cmd.Start())
	f.t.Cleanup(func() {
		_ = p.in.Close()
		_ = cmd.Process.Kill() // it may wait for a lock
		_ = cmd.Wait()
	})
	return p
}

// run returns what the statements print, when they have all run.
func (p *psql) run(format string, args ...any) string {
	p.t.Helper()
	out, err := p.try(fmt.Sprintf(format, args...))
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p *psql) try(sql string) (string, error) {
	const end = "-- end --"
	if _, err := fmt.Fprintf(p.in, "%s;\n\\echo '%s'\n", sql, end); err != nil {
		return "", fmt.Errorf("psql: %s: %w\n%s", sql, err, p.stderr)
	}
	var said []string
	for {
		line, err := p.out.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("psql: %s: %w\n%s", sql, err, p.stderr)
		}
		line = strings.TrimSpace(line)
		if line == end {
			return strings.Join(said, "\n"), nil
		}
		if line != "" {
			said = append(said, line)
		}
	}
}

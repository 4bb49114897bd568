package testservers_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// A recordingTB is a test that records how it was ended.
type recordingTB struct {
	testing.TB
	ending string
}

func (v *recordingTB) Helper()           {}
func (v *recordingTB) Skip(args ...any)  { v.end("skip", args) }
func (v *recordingTB) Fatal(args ...any) { v.end("fatal", args) }
func (v *recordingTB) end(how string, args []any) {
	v.ending = how + ": " + fmt.Sprint(args...)
	runtime.Goexit()
}

// endingOf returns how test ended, "" if it ran to its end.
func endingOf(t *testing.T, test func(testing.TB)) string {
	v := &recordingTB{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(v)
	}()
	<-done
	return v.ending
}

func TestMissingProgramSkipsOrFailsWithCI(t *testing.T) {
	t.Setenv("REDIS_SERVER_BIN", "no-such-redis")
	t.Setenv("POSTGRES_BIN_DIR", "/no/such/directory")
	t.Setenv("PGBOUNCER_BIN", "no-such-bouncer")
	starts := map[string]func(testing.TB){
		"no-such-redis":   func(tb testing.TB) { testservers.StartRedis(tb, testservers.RedisConfig{}) },
		"PostgreSQL":      func(tb testing.TB) { testservers.StartPostgres(tb, testservers.PostgresConfig{}) },
		"no-such-bouncer": func(tb testing.TB) { new(testservers.Postgres).StartPgBouncer(tb) },
		"no-such-tool":    func(tb testing.TB) { testservers.Require(tb, "some-package", "no-such-tool") },
	}
	for ci, how := range map[string]string{"": "skip: ", "true": "fatal: "} {
		t.Setenv("CI", ci)
		for name, start := range starts {
			want := how + name + " is not installed: run scripts/install-deps.sh"
			if got := endingOf(t, start); !strings.HasPrefix(got, want) {
				t.Errorf("with CI=%q: %q, want %q…", ci, got, want)
			}
		}
	}
}

func TestRequireFindsTheFirstThatIsThere(t *testing.T) {
	t.Parallel()
	if got := testservers.Require(t, "coreutils", "no-such-tool", "ls"); !strings.HasSuffix(got, "/ls") {
		t.Errorf("got %q, want the path of ls", got)
	}
}

func TestEventuallyGivesTheLastReason(t *testing.T) {
	t.Parallel()
	looks := 0
	got := endingOf(t, func(tb testing.TB) {
		testservers.Eventually(tb, 50*time.Millisecond, func() (bool, string) {
			looks++
			return false, fmt.Sprintf("look %d of many", looks)
		})
	})
	if !strings.HasPrefix(got, "fatal: gave up after ") || !strings.Contains(got, "of many") || looks < 3 {
		t.Errorf("after %d looks: %q", looks, got)
	}
	if got := endingOf(t, func(tb testing.TB) {
		testservers.Eventually(tb, time.Minute, func() (bool, string) { looks++; return looks%3 == 0, "" })
	}); got != "" {
		t.Errorf("a condition that came true ended the test: %q", got)
	}
}

func TestPollReportsWhatWasWrongBeforeTheEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	boom := errors.New("boom")
	err := testservers.Poll(ctx, func() (bool, string) {
		if ctx.Err() != nil {
			return false, "the context is over"
		}
		cancel(boom)
		return false, "the server is red"
	})
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), "the server is red") {
		t.Errorf("got %v, want the reason and the cause", err)
	}
}

func TestSupervisorNamesTheGoroutine(t *testing.T) {
	t.Parallel()
	testservers.SharedRedis(t)
	buf := make([]byte, 1<<20)
	if stacks := string(buf[:runtime.Stack(buf, true)]); !strings.Contains(stacks, testservers.Supervisor+"(") {
		t.Errorf("no goroutine is in %s:\n%s", testservers.Supervisor, stacks)
	}
}

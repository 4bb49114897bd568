package testservers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// startTimeout bounds every wait whose context has no deadline of its own. It
// is far above what any step takes, since it only has to end a hung test before
// the test binary's own timeout loses the reason.
const startTimeout = 30 * time.Second

// The pause between two looks at a condition grows, so that what comes at once
// is seen at once and what takes seconds is not slowed down by being watched.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = 50 * time.Millisecond
)

// A MissingError says that a program the tests run is not installed. Start
// functions turn it into a skip, or with CI set into a failure.
type MissingError struct {
	Program string // as it was looked for
	Package string // the Debian package that holds it
	Hint    string // another remedy than the package; empty when there is none
}

func (e *MissingError) Error() string {
	s := fmt.Sprintf("%s is not installed: run scripts/install-deps.sh or install the package %s", e.Program, e.Package)
	if e.Hint != "" {
		s += ", or " + e.Hint
	}
	return s
}

// Require returns the path of the first of programs that is installed. If none
// is, it skips the test, or fails it when CI is set. debianPackage is what the
// message tells the reader to install.
func Require(tb testing.TB, debianPackage string, programs ...string) string {
	tb.Helper()
	for _, p := range programs {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	check(tb, &MissingError{Program: programs[0], Package: debianPackage})
	return ""
}

// check ends the test if err is not nil: it skips where a program is missing,
// since a contributor without PostgreSQL can still run the rest, and fails
// otherwise. With CI set a missing program fails too, or a broken image would
// turn the whole suite green by skipping it.
func check(tb testing.TB, err error) {
	tb.Helper()
	if err == nil {
		return
	}
	if errors.As(err, new(*MissingError)) && os.Getenv("CI") == "" {
		tb.Skip(err)
	}
	tb.Fatal(err)
}

// Must fails the test if err is not nil.
func Must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// Eventually calls cond until it reports true, and fails the test with the last
// reason it gave when timeout has passed. It is for what has no signal to wait
// on. The timeout only costs time when the test fails, so be generous.
func Eventually(tb testing.TB, timeout time.Duration, cond func() (ok bool, why string)) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := Poll(ctx, cond); err != nil {
		tb.Fatal(err)
	}
}

// Poll calls cond until it reports true, and returns an error with the last
// reason it gave when ctx ends. cond is called at least once.
func Poll(ctx context.Context, cond func() (ok bool, why string)) error {
	began := time.Now()
	last := ""
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		ok, why := cond()
		if ok {
			return nil
		}
		if ctx.Err() != nil {
			// What a cond says that shares ctx is only that ctx has ended.
			return fmt.Errorf("gave up after %s: %s: %w", time.Since(began).Round(time.Millisecond), cmp.Or(last, why), context.Cause(ctx))
		}
		last = why
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// withDefaultTimeout gives ctx a deadline if it has none.
func withDefaultTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, startTimeout)
}

// cleanupContext returns a context for the steps of a Close or a cleanup, which must
// run even though the context of the test is already over.
func cleanupContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), startTimeout)
}

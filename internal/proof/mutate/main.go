// Mutate takes out each if of a package in turn, and tells which of them no test misses.
//
//	go run ./internal/proof/mutate cache/outbox cache/memstore
//
// An if is taken out by making its condition false. The tests are compiled once, with a switch around each
// condition (go test -overlay: the program itself has none), and each test is first run by itself, to learn which
// conditions come true in it: no other can it miss. Then each condition is false in the tests in which it
// came true, the quickest first, until one fails.
//
// What no test misses is to be tested, to be deleted, or to stay with a reason in reasons.txt. Without one
// the command fails. A condition whose absence makes a test slow may pass for one that is missed.
package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// A subject is a package, and the directories of the tests that hold it.
type subject struct {
	dir   string
	tests []string
}

// Those of the protocol. The tests of an adapter hold what is shared by all as well.
var protocol = []subject{
	{"cache/coalesce", []string{"cache/coalesce", "cache"}},
	{"cache/driver", []string{"cache", "cache/memstore"}},
	{"cache/memstore", []string{"cache/memstore", "cache"}},
	{"cache/outbox", []string{"cache/outbox", "cache/outbox/sqlite", "cache/outbox/postgres"}},
	{"cache", []string{"cache", "cache/redisstore"}},
	{"cache/redisstore", []string{"cache/redisstore"}},
	{"cache/outbox/pgschema", []string{"cache/outbox/postgres"}},
	{"cache/outbox/postgres", []string{"cache/outbox/postgres"}},
}

//go:embed reasons.txt
var reasonsText string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	jobs := flag.Int("jobs", runtime.GOMAXPROCS(0), "how many tests run at once")
	flag.Usage = func() {
		_, _ = fmt.Fprintln(flag.CommandLine.Output(), "usage: mutate [-jobs N] [directory of a package ...]\nThe packages of the protocol, if none is named.")
		flag.PrintDefaults()
	}
	flag.Parse()
	subjects := protocol
	if flag.NArg() > 0 {
		subjects = nil
		for _, dir := range flag.Args() {
			subjects = append(subjects, subjectOf(dir))
		}
	}
	if err := run(ctx, subjects, max(*jobs, 1), os.Stdout, os.Stderr); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

// subjectOf returns what the protocol has for a directory; of another the tests in it.
func subjectOf(dir string) subject {
	dir = strings.TrimPrefix(strings.TrimSuffix(dir, "/"), "./")
	if i := slices.IndexFunc(protocol, func(s subject) bool { return s.dir == dir }); i >= 0 {
		return protocol[i]
	}
	return subject{dir, []string{dir}}
}

// run prints what became of the conditions of each package.
func run(ctx context.Context, subjects []subject, jobs int, out, progress io.Writer) error {
	reasons, err := readReasons(reasonsText)
	if err != nil {
		return err
	}
	without := 0
	for _, s := range subjects {
		conditions, err := conditionsOf(s.dir)
		if err != nil {
			return err
		}
		if err := mutate(ctx, s, conditions, jobs, progress); err != nil {
			return fmt.Errorf("%s: %w", s.dir, err)
		}
		text, n := report(s, conditions, reasons)
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
		without += n
	}
	if without > 0 {
		return fmt.Errorf("no test misses %d conditions that reasons.txt does not name", without)
	}
	return nil
}

// report returns the fates of the conditions of a package, and how many are missed by no test and have no reason.
func report(s subject, conditions []*condition, reasons reasons) (text string, without int) {
	var out strings.Builder
	missed, never := 0, 0
	var survivors []*condition
	for _, c := range conditions {
		switch {
		case c.missedBy != "":
			missed++
			continue
		case !c.came:
			never++
		}
		survivors = append(survivors, c)
	}
	fmt.Fprintf(&out, "## %s\n\n%d conditions, tested by %s: without %d of them a test fails; %d came true in no test, and %d in tests that pass without.\n\n",
		s.dir, len(conditions), strings.Join(s.tests, ", "), missed, never, len(survivors)-never)
	for _, c := range survivors {
		reason, ok := reasons[c.name]
		if !ok {
			reason = "NO REASON IS GIVEN"
			without++
		}
		kind := "not missed"
		if !c.came {
			kind = "never true"
		}
		fmt.Fprintf(&out, "- `%s` (%s): %s\n", c.name, kind, reason)
	}
	for name := range reasons {
		file, _, _ := strings.Cut(name, ":")
		if path.Dir(file) == s.dir && !slices.ContainsFunc(survivors, func(c *condition) bool { return c.name == name }) {
			fmt.Fprintf(&out, "- `%s` is in reasons.txt, and needs no reason\n", name)
		}
	}
	return out.String() + "\n", without
}

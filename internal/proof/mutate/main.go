// Mutate takes out each if of a package in turn, and tells which of them no test misses.
//
//	go run ./internal/proof/mutate ./cache/outbox ./cache/memstore
//
// An if is taken out by making its condition false; the program itself has no switch for it
// (go test -overlay). What does not compile then is passed over. What the tests of the package do not
// miss is printed: write the test, delete the if, or list it with the reason why it stays.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	m := mutator{out: os.Stdout, progress: os.Stderr}
	flag.DurationVar(&m.limit, "limit", 2*time.Minute, "how long the tests may take without one if; longer is a failure")
	flag.StringVar(&m.run, "run", "", "only tests that match, as of go test")
	flag.StringVar(&m.only, "file", "", "only files whose name contains this")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "name the directories of the packages, such as ./cache/outbox")
		os.Exit(2)
	}
	for _, dir := range flag.Args() {
		if err := m.mutate(ctx, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

type mutator struct {
	limit         time.Duration
	run, only     string
	out, progress io.Writer
}

// A condition of an if, by its place in the text of a file.
type condition struct {
	file     string
	line     int
	from, to int
}

// mutate prints a table of what became of the conditions of a package.
func (m *mutator) mutate(ctx context.Context, dir string) error {
	conditions, err := conditionsOf(dir, m.only)
	if err != nil {
		return err
	}
	if missed, output, err := m.test(ctx, dir, ""); err != nil || missed {
		return errors.Join(err, fmt.Errorf("the tests of %s fail as it is:\n%s", dir, output))
	}
	caught, refused := 0, 0
	var survivors []string
	for i, c := range conditions {
		fate, err := m.without(ctx, dir, c)
		if err != nil {
			return err
		}
		switch fate {
		case "caught":
			caught++
		case "does not compile":
			refused++
		default:
			survivors = append(survivors, c.String())
		}
		_, _ = fmt.Fprintf(m.progress, "%d of %d: %s: %s\n", i+1, len(conditions), c, fate)
	}
	var report strings.Builder
	fmt.Fprintf(&report, "## %s\n\n%d conditions: %d are missed by a test, %d do not compile without, %d are missed by none.\n\n", dir, len(conditions), caught, refused, len(survivors))
	for _, s := range survivors {
		fmt.Fprintf(&report, "- `%s`\n", s)
	}
	_, err = fmt.Fprintln(m.out, report.String())
	return err
}

func (c condition) String() string {
	text, err := os.ReadFile(c.file)
	if err != nil || c.to > len(text) {
		return fmt.Sprintf("%s:%d", c.file, c.line)
	}
	return fmt.Sprintf("%s:%d: %s", c.file, c.line, strings.Join(strings.Fields(string(text[c.from:c.to])), " "))
}

// conditionsOf returns the conditions in the files of a package that are no tests.
func conditionsOf(dir, only string) (all []condition, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || !strings.Contains(filepath.Base(file), only) {
			continue
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if s, ok := n.(*ast.IfStmt); ok {
				from, to := set.Position(s.Cond.Pos()), set.Position(s.Cond.End())
				all = append(all, condition{file, from.Line, from.Offset, to.Offset})
			}
			return true
		})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no if in a Go file that is no test", dir)
	}
	return all, nil
}

// without runs the tests with the condition made false.
func (m *mutator) without(ctx context.Context, dir string, c condition) (fate string, err error) {
	text, err := os.ReadFile(c.file)
	if err != nil {
		return "", err
	}
	// What the condition names stays used, or most of it would not compile.
	changed := slices.Concat(text[:c.from], []byte("false && ("), text[c.from:c.to], []byte(")"), text[c.to:])
	original, err := filepath.Abs(c.file)
	if err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	replacement, overlay := filepath.Join(tmp, filepath.Base(c.file)), filepath.Join(tmp, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {original: replacement}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.WriteFile(replacement, changed, 0o600), os.WriteFile(overlay, list, 0o600)); err != nil {
		return "", err
	}
	missed, output, err := m.test(ctx, dir, overlay)
	switch {
	case err != nil:
		return "", err
	case !missed:
		return "no test misses it", nil
	case bytes.Contains(output, []byte("[build failed]")):
		return "does not compile", nil
	}
	return "caught", nil
}

// test says whether a test of the package fails, hangs or does not compile.
func (m *mutator) test(ctx context.Context, dir, overlay string) (failed bool, output []byte, err error) {
	args := []string{"test", "-count=1", "-failfast", "-vet=off", "-timeout", m.limit.String(), "-run", m.run}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = dir
	cmd.WaitDelay = 10 * time.Second // servers that a test has left behind may hold its output open
	output, err = cmd.CombinedOutput()
	if ctx.Err() != nil {
		return false, nil, context.Cause(ctx)
	}
	if _, ran := errors.AsType[*exec.ExitError](err); ran || errors.Is(err, exec.ErrWaitDelay) {
		return true, output, nil
	}
	return false, output, err
}

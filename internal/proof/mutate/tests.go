package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// A test of a compiled program.
type test struct {
	name, program, dir string
	took               time.Duration
}

// mutate finds out which test misses each of the conditions of a package.
func mutate(ctx context.Context, s subject, conditions []*condition, jobs int, progress io.Writer) error {
	tmp, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	tests, err := compile(ctx, s, conditions, tmp)
	if err != nil {
		return err
	}
	cover := make([][]*test, len(conditions)+1) // by the numbers of conditions
	var mu sync.Mutex
	done := 0
	err = each(ctx, jobs, tests, func(ctx context.Context, i int, t *test) error {
		list := filepath.Join(tmp, strconv.Itoa(i))
		began := time.Now()
		failed, output, err := t.run(ctx, 10*time.Minute, "MUTANT_TRUE="+list)
		if err != nil || failed {
			return errors.Join(err, fmt.Errorf("%s in %s fails as the program is:\n%s", t.name, t.dir, output))
		}
		t.took = time.Since(began)
		came, err := os.ReadFile(list)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for line := range strings.Lines(string(came)) {
			n, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil || n < 1 || n > len(conditions) {
				return fmt.Errorf("%s is not the number of a condition", line)
			}
			if !slices.Contains(cover[n], t) { // programs that a test starts write, too
				cover[n] = append(cover[n], t)
			}
		}
		done++
		_, _ = fmt.Fprintf(progress, "%s: test %d of %d: %s\n", s.dir, done, len(tests), t.name)
		return nil
	})
	if err != nil {
		return err
	}
	done = 0
	return each(ctx, jobs, conditions, func(ctx context.Context, _ int, c *condition) error {
		covering := cover[c.number]
		c.came = len(covering) > 0
		slices.SortFunc(covering, func(a, b *test) int { return int(a.took - b.took) })
		for _, t := range covering {
			failed, _, err := t.run(ctx, 10*time.Second+5*t.took, "MUTANT_OUT="+strconv.Itoa(c.number))
			if err != nil {
				return err
			}
			if failed {
				c.missedBy = t.name
				break
			}
		}
		mu.Lock()
		defer mu.Unlock()
		done++
		fate := "not missed"
		if c.missedBy != "" {
			fate = "missed by " + c.missedBy
		} else if !c.came {
			fate = "never true"
		}
		_, _ = fmt.Fprintf(progress, "%d of %d: %s: %s\n", done, len(conditions), c.name, fate)
		return nil
	})
}

// each does something with each of some, several at once, until an error.
func each[T any](ctx context.Context, jobs int, some []T, do func(context.Context, int, T) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for i, one := range some {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return do(ctx, i, one)
		})
	}
	return g.Wait()
}

// compile compiles the tests of a package with a switch around each condition.
func compile(ctx context.Context, s subject, conditions []*condition, tmp string) (tests []*test, err error) {
	replace := map[string]string{}
	overlay := func(original string, text []byte) error {
		path, err := filepath.Abs(original)
		if err != nil {
			return err
		}
		replace[path] = filepath.Join(tmp, filepath.Base(original))
		return os.WriteFile(replace[path], text, 0o600)
	}
	of := map[string][]*condition{}
	for _, c := range conditions {
		of[c.file] = append(of[c.file], c)
	}
	for file, in := range of {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := overlay(file, switched(text, in)); err != nil {
			return nil, err
		}
	}
	name, err := output(ctx, s.dir, "go", "list", "-f", "{{.Name}}", ".")
	if err != nil {
		return nil, err
	}
	if err := overlay(filepath.Join(s.dir, "mutant_switch.go"), fmt.Appendf(nil, switchText, strings.TrimSpace(name), len(conditions)+1)); err != nil {
		return nil, err
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	overlays := filepath.Join(tmp, "overlay.json")
	if err := os.WriteFile(overlays, list, 0o600); err != nil {
		return nil, err
	}
	for i, dir := range s.tests {
		program := filepath.Join(tmp, fmt.Sprintf("%d.test", i))
		if _, err := output(ctx, dir, "go", "test", "-c", "-vet=off", "-overlay", overlays, "-o", program, "."); err != nil {
			return nil, err
		}
		names, err := output(ctx, dir, program, "-test.list", "^(Test|Example|Fuzz)")
		if err != nil {
			return nil, err
		}
		for name := range strings.FieldsSeq(names) {
			tests = append(tests, &test{name: name, program: program, dir: dir})
		}
	}
	return tests, nil
}

// run says whether the test fails or takes longer than limit.
func (t *test) run(ctx context.Context, limit time.Duration, setting string) (failed bool, output []byte, err error) {
	ctx, stop := context.WithTimeout(ctx, limit+30*time.Second) // it ends itself, or is ended
	defer stop()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, t.program, "-test.run", "^"+t.name+"$", "-test.timeout", limit.String())
	cmd.Dir, cmd.Env = t.dir, append(os.Environ(), setting)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // servers that a test leaves behind end with it
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return false, nil, err
	}
	err = cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if _, ran := errors.AsType[*exec.ExitError](err); ran || errors.Is(err, exec.ErrWaitDelay) {
		return true, out.Bytes(), nil
	}
	return false, out.Bytes(), err
}

// output runs a command and returns what it prints; of one that fails the error says it.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &stderr
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s in %s: %w\n%s%s", name, strings.Join(args, " "), dir, err, text, stderr.Bytes())
	}
	return string(text), nil
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// service is one process of the service, built from this tree.
type service struct {
	name string // in the report
	addr string // of the API, host:port
	pid  int
	stop func() error
}

// buildService compiles the service into dir.
func buildService(ctx context.Context, dir string) (string, error) {
	where := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	where.Stderr = os.Stderr
	bench, err := where.Output()
	if err != nil {
		return "", fmt.Errorf("find the service's source; run this in the folder bench: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(bench))) // the service is the module around this one
	binary := filepath.Join(dir, "chainlearn")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "./cmd/chainlearn")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the service: %w:\n%s", err, out)
	}
	return binary, nil
}

// command runs the service's program to its end.
func command(ctx context.Context, binary string, env []string, args ...string) error {
	c := exec.CommandContext(ctx, binary, args...)
	c.Env = append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("chainlearn %s: %w:\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

var apiAddress = regexp.MustCompile(`API\s+http://([^/\s]+)/`)

// startService runs the service until stop is called, and returns when it says where it is.
func startService(ctx context.Context, name, binary string, env []string) (*service, error) {
	c := exec.CommandContext(ctx, binary, "serve")
	c.Env = append(append(os.Environ(), env...), "HOST=127.0.0.1", "PORT=0", "ADMIN_PORT=0", "RATE_LIMIT_MAX=0", "LOG_LEVEL=error")
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var complaints strings.Builder
	c.Stderr = &complaints // read only after the end
	if err := c.Start(); err != nil {
		return nil, err
	}
	s := &service{name: name, pid: c.Process.Pid}
	s.stop = sync.OnceValue(func() error {
		_ = c.Process.Signal(syscall.SIGTERM) // it may have ended by itself, which Wait reports
		if err := c.Wait(); err != nil {
			return fmt.Errorf("chainlearn serve: %w:\n%s", err, complaints.String())
		}
		return nil
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := apiAddress.FindStringSubmatch(lines.Text()); m != nil {
			s.addr = m[1]
			go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
			return s, nil
		}
	}
	return nil, errors.Join(errors.New("the service did not say where it listens"), s.stop())
}

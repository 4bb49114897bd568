package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// healthTimeout is longer than the service takes to find out that its database does not answer.
const healthTimeout = 5 * time.Second

type healthCommand struct {
	Host string `group:"Settings" default:"0.0.0.0" placeholder:"HOST" help:"Address of the API; default ${default}."`
	Port string `group:"Settings" default:"3000" placeholder:"PORT" help:"Port of the API on this machine; default ${default}."`
}

func (s *healthCommand) Help() string {
	return `Asks the service on this machine whether it may be sent requests, and prints what it says. It is for health checks of containers that hold no other program.

The exit code is 0 if it may, also while Redis is away, and 1 if it may not or does not answer.`
}

func (s *healthCommand) Run(env *environment) error {
	wrong := &settingsError{}
	port := parsePort("PORT", s.Port, wrong)
	if err := wrong.err(); err != nil {
		return err
	}
	host := s.Host
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // it listens on all
	}
	ctx, cancel := context.WithTimeout(env.ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/health/ready", nil)
	if err != nil {
		return fmt.Errorf("HOST is %q: %w", s.Host, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the service does not answer: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	said, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("the service does not finish its answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the service may not be sent requests: %s", strings.TrimSpace(string(said)))
	}
	_, err = fmt.Fprintln(env.stdout, strings.TrimSpace(string(said)))
	return err
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/learning"
)

type cacheCommand struct {
	Doctor doctorCommand `cmd:"" help:"Check how the cache, its store and the database fit together, as serve does when it starts."`
}

type doctorCommand struct {
	databaseSettings
	poolSettings
	storeSettings
	logSettings
	JSON bool `name:"json" help:"Print the findings as a JSON array."`
}

func (s *doctorCommand) Help() string {
	return "Prints each finding and its remedy. The exit code is 0 if nothing is wrong (notices do not count), " +
		"1 if there are findings, and 2 if the check could not be made. Opens the database as serve does, which brings its schema up to date."
}

// doctorTimeout bounds the command: the check itself, and the opening of what it checks.
const doctorTimeout = time.Minute

func (s *doctorCommand) Run(env *environment) error {
	wrong := &settingsError{}
	db := s.databaseSettings.parse(wrong)
	s.poolSettings.parse(&db, wrong)
	s.storeSettings.check(wrong)
	log := s.logger(env, wrong)
	if err := wrong.err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(env.ctx, doctorTimeout)
	defer cancel()
	findings, err := s.check(ctx, db, log)
	printed := s.print(env, findings, err == nil)
	if err := errors.Join(err, printed); err != nil {
		return &exitError{exitUsage, fmt.Errorf("the cache could not be checked: %w", err)}
	}
	count := 0
	for _, f := range findings {
		if !f.Notice {
			count++
		}
	}
	if count > 0 {
		return &exitError{exitFailed, fmt.Errorf("findings: %d", count)}
	}
	return nil
}

// check opens what serve opens, but for a relay, and runs the check that it runs.
func (s *doctorCommand) check(ctx context.Context, db databaseConfig, log *slog.Logger) (findings []cache.Finding, err error) {
	if _, err := os.Stat(db.path); db.path != "" && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no database %s yet: start the service first", db.path) // opening would make one
	}
	store, storeTimeout, err := openStore(ctx, s.RedisURL, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	c, err := cache.New(cache.Config{Store: store, StoreTimeout: storeTimeout, Logger: log})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	// It serves no requests, so it may run beside the service, and delivers nothing, so that it sees
	// whether the service does. A store of its own says nothing of the service's.
	options := cacheOptions{noRelay: true}
	if s.RedisURL != "" {
		options.cache = c
	}
	storage, err := openStorage(ctx, db, options, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, storage.Close()) }()
	learning.New(c, storage, learning.Config{})
	return c.Check(ctx, storage.Source())
}

// print prints the findings; complete says that there are no others.
func (s *doctorCommand) print(env *environment, findings []cache.Finding, complete bool) error {
	if s.JSON {
		type finding struct {
			Subject string `json:"subject"`
			Problem string `json:"problem"`
			Remedy  string `json:"remedy"`
			Notice  bool   `json:"notice"`
		}
		list := make([]finding, 0, len(findings))
		for _, f := range findings {
			list = append(list, finding(f))
		}
		e := json.NewEncoder(env.stdout)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(list)
	}
	for _, f := range findings {
		level := "WRONG "
		if f.Notice {
			level = "NOTICE"
		}
		if _, err := fmt.Fprintf(env.stdout, "%s  %s: %s\n        remedy: %s\n", level, f.Subject, f.Problem, f.Remedy); err != nil {
			return err
		}
	}
	if len(findings) == 0 && complete {
		_, err := fmt.Fprintln(env.stdout, "nothing is wrong")
		return err
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/chainlearn/chainlearn/cache"
)

type cacheCommand struct {
	Doctor     doctorCommand     `cmd:"" help:"Check how the cache, its store and the database fit together, as serve does when it starts."`
	Explain    explainCommand    `cmd:"" help:"Explain an answer: what Redis has of it, and what the next read would do."`
	Invalidate invalidateCommand `cmd:"" help:"Have every answer that depends on some tags loaded again."`
	Purge      purgeCommand      `cmd:"" help:"Remove stored answers from Redis."`
}

type doctorCommand struct {
	besideSettings
	JSON bool `name:"json" help:"Print the findings as a JSON array."`
}

func (s *doctorCommand) Help() string {
	return "Prints each finding and its remedy. The exit code is 0 if nothing is wrong (notices do not count), " +
		"1 if there are findings, and 2 if the check could not be made. Opens the database as serve does, which brings its schema up to date."
}

func (s *doctorCommand) Run(env *environment) error {
	wrong := &settingsError{}
	db, log := s.parse(env, wrong)
	if err := wrong.err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(env.ctx, besideTimeout)
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

// check runs the check that serve runs when it starts.
func (s *doctorCommand) check(ctx context.Context, db databaseConfig, log *slog.Logger) (findings []cache.Finding, err error) {
	opened, err := openBeside(ctx, db, s.storeSettings, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	return opened.cache.Check(ctx, opened.storage.Source())
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
		return printJSON(env.stdout, list)
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

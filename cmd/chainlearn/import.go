package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/chainlearn/chainlearn/internal/coursefile"
	"github.com/chainlearn/chainlearn/internal/learning"
)

type importCommand struct {
	databaseSettings
	logSettings
	File   string `arg:"" help:"A file of courses, in YAML or JSON; - is standard input. docs/import.md describes it."`
	DryRun bool   `help:"Print what would change, and change nothing."`
}

// Run has no cache of its own: the services that run deliver what it changes to theirs.
func (s *importCommand) Run(env *environment) error {
	wrong := &settingsError{}
	db := s.databaseSettings.parse(wrong)
	log := s.logger(env, wrong)
	if err := wrong.err(); err != nil {
		return err
	}
	text, err := readFile(s.File)
	if err != nil {
		return err
	}
	courses, err := coursefile.Parse(s.File, text)
	if err != nil {
		return err
	}
	storage, err := openStorage(env.ctx, db, cacheOptions{}, log)
	if err != nil {
		return err
	}
	defer storage.Close()
	began := time.Now()
	changes, err := learning.ImportCourses(env.ctx, storage, courses, began, s.DryRun)
	if err != nil {
		if refused, ok := errors.AsType[*learning.Error](err); ok {
			return fmt.Errorf("%s: nothing was imported:\n%w", s.File, refused)
		}
		if errors.Is(err, context.DeadlineExceeded) && env.ctx.Err() == nil {
			return fmt.Errorf("%s: nothing was imported: it takes longer than a transaction may: split the file: %w", s.File, err)
		}
		return fmt.Errorf("%s: nothing was imported: %w", s.File, err)
	}
	for _, change := range changes {
		if _, err := fmt.Fprintln(env.stdout, change); err != nil {
			return err
		}
	}
	done := fmt.Sprintf("imported %d courses: %d changes, in %v", len(courses), len(changes), time.Since(began).Round(time.Millisecond))
	switch {
	case len(changes) == 0:
		done = "nothing to change: the courses are as the file says"
	case s.DryRun:
		done = fmt.Sprintf("a dry run: %d changes would be made, and none was", len(changes))
	}
	_, err = fmt.Fprintln(env.stdout, done)
	return err
}

// readFile reads a file up to the bound of coursefile.Parse, and one byte more.
func readFile(name string) ([]byte, error) {
	in := os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, coursefile.MaxFile+1))
}

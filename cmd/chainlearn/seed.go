package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/seed"
)

type seedCommand struct {
	databaseSettings
	logSettings
	Courses     int   `default:"200" placeholder:"N" help:"How many courses; default ${default}."`
	Users       int   `default:"10000" placeholder:"N" help:"How many users; default ${default}."`
	Enrollments int   `default:"20000" placeholder:"N" help:"How many enrollments; default ${default}."`
	Submissions int   `default:"20000" placeholder:"N" help:"How many quiz submissions; default ${default}."`
	Credentials int   `default:"2000" placeholder:"N" help:"How many credentials; default ${default}."`
	RandomSeed  int64 `default:"1" placeholder:"N" help:"Equal seeds make equal data; default ${default}."`
}

func (s *seedCommand) Run(env *environment) error {
	wrong := &settingsError{}
	db := s.databaseSettings.parse(wrong)
	log := s.logger(env, wrong)
	const most = 1_000_000_000
	for name, n := range map[string]int{
		"--courses": s.Courses, "--users": s.Users, "--enrollments": s.Enrollments, "--submissions": s.Submissions, "--credentials": s.Credentials,
	} {
		if n < 0 || n > most {
			wrong.add(name, "is %d: use a number from 0 to %d", n, most)
		}
	}
	if err := wrong.err(); err != nil {
		return err
	}
	storage, err := openStorage(env.ctx, db, cacheOptions{}, log)
	if err != nil {
		return err
	}
	defer storage.Close()
	began := time.Now()
	counts, err := seed.Generate(env.ctx, storage, seed.Spec{
		Courses: s.Courses, Users: s.Users, Enrollments: s.Enrollments, Submissions: s.Submissions, Credentials: s.Credentials,
		RandomSeed: s.RandomSeed, Progress: progressOn(env.stderr),
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.stdout, "added %d courses, %d users, %d enrollments, %d submissions and %d credentials in %v\n",
		counts.Courses, counts.Users, counts.Enrollments, counts.Submissions, counts.Credentials, time.Since(began).Round(time.Millisecond))
	return err
}

// progressOn shows rows done out of rows to do: as a bar on a terminal, else as a line for
// each tenth, for logs.
func progressOn(w io.Writer) func(done, total int) {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		var bar *progressbar.ProgressBar
		return func(done, total int) {
			if bar == nil {
				bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription("rows"),
					progressbar.OptionShowCount(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
			}
			_ = bar.Set(done) // a bar that cannot be drawn is no reason to stop
		}
	}
	next := 0
	return func(done, total int) {
		if total > 0 && done*10/total >= next {
			next = done*10/total + 1
			_, _ = fmt.Fprintf(w, "%d of %d rows\n", done, total)
		}
	}
}

var demoLearner = learning.UserID{UUID: seed.DemoLearner}

// demo fills an empty database with the demonstration catalogue, and leaves any other as
// it is.
func seedDemo(ctx context.Context, storage storage, log *slog.Logger) error {
	courses, err := storage.CountCourses(ctx, "")
	if err != nil || courses > 0 {
		return err
	}
	counts, err := seed.Demo(ctx, storage, nil)
	if err != nil {
		return fmt.Errorf("demonstration data: %w", err)
	}
	log.InfoContext(ctx, "stored the demonstration catalogue", "courses", counts.Courses, "users", counts.Users)
	return nil
}

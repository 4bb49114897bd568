package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/bench/load"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// enrolments returns enrolments of the learners that are not there yet, in an order in which
// neither a learner nor a course comes again soon.
func enrolments(ctx context.Context, pg *testservers.Postgres, learners []learner) (*load.Target, error) {
	courses, there, err := enrolledAlready(ctx, pg)
	if err != nil {
		return nil, err
	}
	t := &load.Target{}
	for shift := range courses {
		for i, x := range learners {
			course := courses[(i+shift)%len(courses)]
			if there[enrolment{x.id, course}] {
				continue
			}
			t.Requests = append(t.Requests, load.Request{
				Method: http.MethodPost, Path: "/api/v1/courses/" + course.String() + "/enroll", Token: x.token, Accept: http.StatusCreated,
			})
		}
	}
	return t, nil
}

type enrolment struct{ User, Course uuid.UUID }

// enrolledAlready returns all courses, and the enrolments that exist.
func enrolledAlready(ctx context.Context, pg *testservers.Postgres) (courses []uuid.UUID, there map[enrolment]bool, err error) {
	conn, err := pgx.Connect(ctx, pg.URL())
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, _ := conn.Query(ctx, `SELECT id FROM courses ORDER BY id`) // CollectRows returns its error
	if courses, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]); err != nil {
		return nil, nil, err
	}
	rows, _ = conn.Query(ctx, `SELECT user_id, course_id FROM enrollments`)
	pairs, err := pgx.CollectRows(rows, pgx.RowToStructByPos[enrolment])
	if err != nil {
		return nil, nil, err
	}
	there = make(map[enrolment]bool, len(pairs))
	for _, p := range pairs {
		there[p] = true
	}
	return courses, there, nil
}

const (
	withoutEnrolments = "no enrolments"
	withEnrolments    = "100 enrolments/s"
	enrolmentRate     = "enrolments/s"

	leastUnderEnrolments = 0.5 // of the rate without enrolments; the bar
)

// underEnrolments measures the hot list with and without writes going on.
func (x *experimentRun) underEnrolments(ctx context.Context, s *service, list serviceCase, writes *load.Target) error {
	slice := 10 * x.slice
	for round := range x.rounds {
		for _, case_ := range []string{withoutEnrolments, withEnrolments} {
			o, wrote, err := listWhile(ctx, s, list, writes, case_ == withEnrolments, slice)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, case_, err)
			}
			x.Add(round, case_, s.name, measure.Rate, o.Rate())
			x.Add(round, case_, s.name, measure.P99, float64(o.Latency.ValueAtQuantile(99)))
			if case_ == withEnrolments {
				x.Add(round, case_, s.name, enrolmentRate, wrote.Rate())
			}
		}
		x.logf("enrolments, round %d", round+1)
	}
	quiet, _ := x.Median(withoutEnrolments, s.name, measure.Rate)
	busy, _ := x.Median(withEnrolments, s.name, measure.Rate)
	ratio, _ := x.Growth(s.name, measure.Rate, withEnrolments, withoutEnrolments)
	p99, _ := x.Median(withoutEnrolments, s.name, measure.P99)
	p99Busy, _ := x.Median(withEnrolments, s.name, measure.P99)
	made, _ := x.Median(withEnrolments, s.name, enrolmentRate)
	x.section.Tables = append(x.section.Tables, report.Table{
		Caption: "The hot list while learners enrol.",
		Head:    []string{"", withoutEnrolments, withEnrolments, "ratio", "99th percentile, " + withoutEnrolments, withEnrolments, "enrolments that were made"},
		Rows: [][]string{{s.name, report.Count(quiet) + "/s", report.Count(busy) + "/s", report.Times(ratio),
			report.Nanoseconds(p99), report.Nanoseconds(p99Busy), fmt.Sprintf("%.0f/s", made)}},
	})
	bar := report.Bar{
		Subject: "service: list under 100 enrolments/s",
		Limit:   fmt.Sprintf("at least %g × its rate without writes", leastUnderEnrolments),
		Ours:    report.Count(busy) + "/s", Alternative: "without writes " + report.Count(quiet) + "/s", Ratio: report.Times(ratio),
		Verdict: report.Judge(ratio >= leastUnderEnrolments),
	}
	if made < 0.95*enrolRate {
		bar.Remark = fmt.Sprintf("The service took %.0f enrolments each second, not %d.", made, enrolRate)
	}
	x.section.Bars = append(x.section.Bars, bar)
	return nil
}

// listWhile asks for the list as often as it can, while learners enrol if stormy.
func listWhile(ctx context.Context, s *service, list serviceCase, writes *load.Target, enrol bool, slice time.Duration) (read, wrote load.Outcome, err error) {
	var wg sync.WaitGroup
	if enrol {
		writes.Addr = s.addr
		wg.Go(func() { wrote = load.Open(ctx, writes, connections, enrolRate, slice) })
	}
	read, _, err = drive(s, func() load.Outcome {
		return load.Closed(ctx, &load.Target{Addr: s.addr, Requests: list.requests}, connections, slice)
	})
	wg.Wait()
	if wrote.Failures > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d enrolments failed: %w", wrote.Failures, wrote.Requests, wrote.Err))
	}
	return read, wrote, err
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/bench/load"
	"github.com/chainlearn/chainlearn/internal/testservers"
)

const (
	serviceSecret = "this secret signs the tokens of a benchmark only"
	connections   = 16
	loadLearners  = 200 // whose tokens take turns
	enrolRate     = 100 // each second
	openShare     = 0.5 // of what the service can do at most, where latency is measured
)

// What is compared.
const (
	theService = "chainlearn serve"
	theBare    = "bare net/http"
)

var serviceLoad = experiment{
	name:  "service",
	title: "The service under load",
	about: fmt.Sprintf("`chainlearn serve`, built from this tree, on PostgreSQL and Redis, beside a process whose bare `net/http` handler "+
		"writes the same headers and bytes; all of it and the client on this machine. The rate is what %d connections get that always have a request under way. "+
		"Latencies are measured at half of the service's rate for both, with requests sent at even intervals whatever the answers take, "+
		"and counted from the moment a request was due (so coordinated omission is not left out). "+
		"Processor time is that of the server process alone, for a request. %d learners with tokens take turns.", connections, loadLearners),
	run: runService,
}

// serviceCase is one way to ask the service.
type serviceCase struct {
	name     string
	requests []load.Request
	least    float64 // of the bare rate; the bar
}

func runService(ctx context.Context, l *lab) error {
	dir, err := os.MkdirTemp("", "chainlearn-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary, err := buildService(ctx, dir)
	if err != nil {
		return err
	}
	pg, err := testservers.OpenPostgres(ctx, testservers.PostgresConfig{})
	if err != nil {
		return err
	}
	err = withRedis(ctx, func(r *testservers.Redis) error {
		return l.onServers(ctx, binary, pg, []string{
			"DATABASE_URL=" + pg.URL(), "REDIS_URL=" + r.URL(), "JWT_SECRET=" + serviceSecret,
		})
	})
	return errors.Join(err, pg.Close())
}

func (l *lab) onServers(ctx context.Context, binary string, pg *testservers.Postgres, env []string) (err error) {
	if _, err := command(ctx, binary, env, "migrate"); err != nil {
		return err
	}
	if _, err := command(ctx, binary, env, "seed", "--courses=200", "--users=5000", "--enrollments=10000", "--submissions=10000", "--credentials=1000"); err != nil {
		return err
	}
	l.say("the database is filled")
	s, err := startService(ctx, binary, env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	learners, err := tokens(ctx, pg)
	if err != nil {
		return err
	}
	course, err := aCourse(ctx, s.addr)
	if err != nil {
		return err
	}
	cases := serviceCases(learners, course)
	bare, bareAddr, err := startBare(ctx, s.addr, cases)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.Kill(), bare.Close()) }()
	if err := l.paths(ctx, cases, s, &service{addr: bareAddr, pid: bare.PID()}); err != nil {
		return err
	}
	arg, err := tolerating(ctx, binary)
	if err != nil {
		return err
	}
	storms := []*service{s}
	if arg != "" {
		tolerant, err := startService(ctx, binary, env, arg)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, tolerant.stop()) }()
		storms = append(storms, tolerant)
	}
	writes, err := enrolments(ctx, pg, learners)
	if err != nil {
		return err
	}
	return l.underEnrolments(ctx, storms, cases[0], writes)
}

// learner is somebody who can ask.
type learner struct {
	id    uuid.UUID
	token string
}

// tokens signs tokens for learners who have something to show.
func tokens(ctx context.Context, pg *testservers.Postgres) ([]learner, error) {
	conn, err := pgx.Connect(ctx, pg.URL())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, `
		SELECT u.id, u.stellar_address FROM users u
		JOIN (SELECT user_id, count(*) n FROM enrollments GROUP BY user_id) e ON e.user_id = u.id
		ORDER BY (SELECT count(*) FROM credentials c WHERE c.user_id = u.id) DESC, e.n DESC, u.id LIMIT $1`, loadLearners)
	if err != nil {
		return nil, err
	}
	type user struct {
		ID      uuid.UUID
		Address string
	}
	users, err := pgx.CollectRows(rows, pgx.RowToStructByPos[user])
	if err != nil {
		return nil, err
	}
	if len(users) == 0 {
		return nil, errors.New("there are no learners to ask as")
	}
	learners := make([]learner, len(users))
	for i, u := range users {
		now := time.Now()
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"sub": u.ID, "jti": uuid.NewString(), "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "stellarAddress": u.Address,
		}).SignedString([]byte(serviceSecret))
		if err != nil {
			return nil, err
		}
		learners[i] = learner{u.ID, token}
	}
	return learners, nil
}

// aCourse returns the first course of the list.
func aCourse(ctx context.Context, addr string) (string, error) {
	_, body, err := fetch(ctx, addr, "/api/v1/courses", "")
	if err != nil {
		return "", err
	}
	var page struct{ Data []struct{ ID string } }
	if err := json.Unmarshal(body, &page); err != nil {
		return "", err
	}
	if len(page.Data) == 0 {
		return "", errors.New("there are no courses to ask for")
	}
	return page.Data[0].ID, nil
}

func serviceCases(learners []learner, course string) []serviceCase {
	const list = "/api/v1/courses"
	as := func(path string) (all []load.Request) {
		for _, l := range learners {
			all = append(all, load.Request{Path: path, Token: l.token})
		}
		return all
	}
	return []serviceCase{
		{"list", []load.Request{{Path: list}}, 0.7},
		{"detail", []load.Request{{Path: list + "/" + course}}, 0.7},
		{"list, with token", as(list), 0.5},
		{"progress", as("/api/v1/users/me/progress"), 0.5},
		{"history", as("/api/v1/rewards/history"), 0.5},
		{"credentials", as("/api/v1/credentials"), 0.5},
	}
}

// The metrics of a server.
const (
	serverCPU = "server cpu ns"
	p999      = "p99.9 ns"
	written   = "enrolments/s"
)

// paths measures every case with both servers in turns: first how much they can do, then how
// long clients wait at a rate that both can take.
func (l *lab) paths(ctx context.Context, cases []serviceCase, s, bare *service) error {
	servers := []struct {
		name string
		*service
	}{{theService, s}, {theBare, bare}}
	slice := 4 * l.slice
	for round := -1; round < l.rounds; round++ {
		for _, c := range cases {
			for _, srv := range servers {
				o, cpu, err := drive(srv.service, func() load.Outcome {
					return load.Closed(ctx, &load.Target{Addr: srv.addr, Requests: c.requests}, connections, slice)
				})
				if err != nil {
					return fmt.Errorf("%s, %s: %w", c.name, srv.name, err)
				}
				if round < 0 {
					continue // warming up
				}
				l.Add(round, c.name, srv.name, measure.Rate, o.Rate())
				l.Add(round, c.name, srv.name, serverCPU, float64(cpu)/float64(o.Requests))
			}
		}
		slices.Reverse(servers)
		l.say("rates, round %d", round+1)
	}
	for round := range l.rounds {
		for _, c := range cases {
			rate, _ := l.Median(c.name, theService, measure.Rate)
			for _, srv := range servers {
				o, _, err := drive(srv.service, func() load.Outcome {
					return load.Open(ctx, &load.Target{Addr: srv.addr, Requests: c.requests}, connections, openShare*rate, slice)
				})
				if err != nil {
					return fmt.Errorf("%s, %s, open: %w", c.name, srv.name, err)
				}
				l.Add(round, c.name, srv.name, measure.P50, float64(o.Latency.ValueAtQuantile(50)))
				l.Add(round, c.name, srv.name, measure.P99, float64(o.Latency.ValueAtQuantile(99)))
				l.Add(round, c.name, srv.name, p999, float64(o.Latency.ValueAtQuantile(99.9)))
			}
		}
		slices.Reverse(servers)
		l.say("latencies, round %d", round+1)
	}
	l.tabulatePaths(cases)
	return nil
}

// drive runs a load, and returns also the processor time that the server took for it.
func drive(s *service, f func() load.Outcome) (load.Outcome, time.Duration, error) {
	before, err := measure.CPUOf(s.pid)
	if err != nil {
		return load.Outcome{}, 0, err
	}
	o := f()
	after, err := measure.CPUOf(s.pid)
	switch {
	case err != nil:
		return o, 0, err
	case o.Requests == 0:
		return o, 0, errors.New("not one request was sent")
	case float64(o.Failures) > 0.01*float64(o.Requests):
		return o, 0, fmt.Errorf("%d of %d requests failed: %w", o.Failures, o.Requests, o.Err)
	}
	return o, after - before, nil
}

func (l *lab) tabulatePaths(cases []serviceCase) {
	rates := report.Table{Head: []string{"", theService, theBare, "ratio", "server's processor time", "bare", "ratio"}}
	tails := report.Table{Caption: "Latency at half of the service's rate: 50th, 99th and 99.9th percentile.", Head: []string{"", theService, theBare}}
	for _, c := range cases {
		mine, _ := l.Median(c.name, theService, measure.Rate)
		theirs, _ := l.Median(c.name, theBare, measure.Rate)
		ratio, _ := l.Ratio(c.name, measure.Rate, theService, theBare)
		cpu, _ := l.Median(c.name, theService, serverCPU)
		bareCPU, _ := l.Median(c.name, theBare, serverCPU)
		cpuRatio, _ := l.Ratio(c.name, serverCPU, theService, theBare)
		rates.Rows = append(rates.Rows, []string{c.name, report.Count(mine) + "/s", report.Count(theirs) + "/s", report.Times(ratio),
			report.Nanoseconds(cpu), report.Nanoseconds(bareCPU), report.Times(cpuRatio)})
		row := []string{c.name}
		for _, name := range []string{theService, theBare} {
			var three []string
			for _, metric := range []string{measure.P50, measure.P99, p999} {
				v, _ := l.Median(c.name, name, metric)
				three = append(three, report.Nanoseconds(v))
			}
			row = append(row, strings.Join(three, ", "))
		}
		tails.Rows = append(tails.Rows, row)
		l.section.Bars = append(l.section.Bars, report.Bar{
			Subject: "service: " + c.name, Limit: fmt.Sprintf("at least %g × the requests/s of a bare net/http handler", c.least),
			Ours: report.Count(mine) + "/s", Alternative: theBare + " " + report.Count(theirs) + "/s", Ratio: report.Times(ratio),
			Verdict: report.Judge(ratio >= c.least),
		})
	}
	l.section.Tables = append(l.section.Tables, rates, tails)
}

// enrolments returns enrolments of the learners that are not there yet, in an order in which
// neither a learner nor a course comes again soon.
func enrolments(ctx context.Context, pg *testservers.Postgres, learners []learner) (*load.Target, error) {
	courses, there, err := enrolled(ctx, pg)
	if err != nil {
		return nil, err
	}
	t := &load.Target{}
	for shift := range courses {
		for i, l := range learners {
			course := courses[(i+shift)%len(courses)]
			if there[enrolment{l.id, course}] {
				continue
			}
			t.Requests = append(t.Requests, load.Request{
				Method: http.MethodPost, Path: "/api/v1/courses/" + course.String() + "/enroll", Token: l.token, Accept: http.StatusCreated,
			})
		}
	}
	return t, nil
}

type enrolment struct{ User, Course uuid.UUID }

// enrolled returns all courses, and who is enrolled where.
func enrolled(ctx context.Context, pg *testservers.Postgres) (courses []uuid.UUID, there map[enrolment]bool, err error) {
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

// underEnrolments measures the hot list with and without writes going on. The second
// service, if there is one, tolerates being a second behind.
func (l *lab) underEnrolments(ctx context.Context, servers []*service, list serviceCase, writes *load.Target) error {
	names := []string{theService, theService + ", tolerating 1 s"}
	const calm, stormy = "no enrolments", "100 enrolments/s"
	slice := 10 * l.slice
	for round := range l.rounds {
		for i, s := range servers {
			for _, case_ := range []string{calm, stormy} {
				o, wrote, err := l.listWhile(ctx, s, list, writes, case_ == stormy, slice)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", names[i], case_, err)
				}
				if case_ == stormy {
					l.Add(round, case_, names[i], written, wrote.Rate())
				}
				l.Add(round, case_, names[i], measure.Rate, o.Rate())
				l.Add(round, case_, names[i], measure.P99, float64(o.Latency.ValueAtQuantile(99)))
			}
		}
		l.say("enrolments, round %d", round+1)
	}
	t := report.Table{Caption: "The hot list while learners enrol.", Head: []string{"", calm, stormy, "ratio", "99th percentile, " + calm, stormy, "enrolments that were made"}}
	for i, name := range names {
		bar := report.Bar{Subject: "service: list under 100 enrolments/s" + strings.TrimPrefix(name, theService), Ours: "–", Alternative: "–", Ratio: "–", Verdict: report.NotMeasured}
		least := []float64{0.5, 0.8}[i]
		bar.Limit = fmt.Sprintf("at least %g × its rate without writes", least)
		if i < len(servers) {
			quiet, _ := l.Median(calm, name, measure.Rate)
			busy, _ := l.Median(stormy, name, measure.Rate)
			ratio, _ := l.Growth(name, measure.Rate, stormy, calm)
			made, _ := l.Median(stormy, name, written)
			p99, _ := l.Median(calm, name, measure.P99)
			p99Busy, _ := l.Median(stormy, name, measure.P99)
			t.Rows = append(t.Rows, []string{name, report.Count(quiet) + "/s", report.Count(busy) + "/s", report.Times(ratio),
				report.Nanoseconds(p99), report.Nanoseconds(p99Busy), fmt.Sprintf("%.0f/s", made)})
			if made < 0.95*enrolRate {
				bar.Remark = fmt.Sprintf("The service took %.0f enrolments each second, not %d.", made, enrolRate)
			}
			bar.Ours, bar.Alternative, bar.Ratio = report.Count(busy)+"/s", "without writes "+report.Count(quiet)+"/s", report.Times(ratio)
			bar.Verdict = report.Judge(ratio >= least)
		} else {
			bar.Remark = "The service has no setting to tolerate it."
		}
		l.section.Bars = append(l.section.Bars, bar)
	}
	l.section.Tables = append(l.section.Tables, t)
	return nil
}

// listWhile asks for the list as often as it can, while learners enrol if stormy.
func (l *lab) listWhile(ctx context.Context, s *service, list serviceCase, writes *load.Target, stormy bool, slice time.Duration) (read, wrote load.Outcome, err error) {
	var wg sync.WaitGroup
	if stormy {
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

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/bench/load"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

const (
	serviceSecret = "this secret signs the tokens of a benchmark only"
	connections   = 16
	loadLearners  = 200 // whose tokens are used in turn
	enrolRate     = 100 // each second
	openShare     = 0.5 // of what the service can do at most, where latency is measured
)

// What is compared.
const (
	serviceName     = "chainlearn serve"
	serviceNearName = serviceName + ", " + nearSetting
	bareName        = "bare net/http"

	nearSetting = "CACHE_NEAR=1s"
)

var serviceLoad = experiment{
	name:  "service",
	title: "The service under load",
	about: fmt.Sprintf("`chainlearn serve`, built from this tree, on PostgreSQL and Redis, beside a process whose bare `net/http` handler "+
		"writes the same headers and bytes; all of it and the client on this machine. The rate is what %d connections get that always have a request under way. "+
		"Latencies are measured at half of the service's rate for all, with requests sent at even intervals whatever the answers take, "+
		"and counted from the moment a request was due if no connection was free for it then (so coordinated omission is not left out). "+
		"Processor time is that of the server process alone, for a request. %d learners with tokens take turns. "+
		"With `%s` the catalogue is served from the process's memory, within a second of other processes' writes.",
		connections, loadLearners, nearSetting),
	run: runService,
}

// serviceCase is one way to ask the service.
type serviceCase struct {
	name     string
	requests []load.Request
	least    float64 // of the bare rate; the bar
	public   bool    // a part of the catalogue, which may be kept near
}

func runService(ctx context.Context, x *experimentRun) error {
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
		return x.onServers(ctx, binary, pg, r, []string{
			"DATABASE_URL=" + pg.URL(), "REDIS_URL=" + r.URL(), "JWT_SECRET=" + serviceSecret,
		})
	})
	return errors.Join(err, pg.Close())
}

func (x *experimentRun) onServers(ctx context.Context, binary string, pg *testservers.Postgres, r *testservers.Redis, env []string) (err error) {
	if err := command(ctx, binary, env, "migrate"); err != nil {
		return err
	}
	if err := command(ctx, binary, env, "seed", "--courses=200", "--users=5000", "--enrollments=10000", "--submissions=10000", "--credentials=1000"); err != nil {
		return err
	}
	x.logf("the database is filled")
	s, err := startService(ctx, serviceName, binary, env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	learners, err := tokens(ctx, pg)
	if err != nil {
		return err
	}
	course, err := firstCourse(ctx, s.addr)
	if err != nil {
		return err
	}
	cases := serviceCases(learners, course)
	if err := x.besideBare(ctx, cases, s, binary, env, []processGroup{{"Redis", r.PIDs}, {"PostgreSQL", pg.PIDs}}); err != nil {
		return err
	}
	writes, err := enrolments(ctx, pg, learners)
	if err != nil {
		return err
	}
	return x.underEnrolments(ctx, s, cases[0], writes)
}

// besideBare measures the paths of the service, of one that keeps the catalogue near, and of
// a bare handler.
func (x *experimentRun) besideBare(ctx context.Context, cases []serviceCase, s *service, binary string, env []string, others []processGroup) (err error) {
	near, err := startService(ctx, serviceNearName, binary, append(slices.Clone(env), nearSetting))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, near.stop()) }()
	bare, err := startBare(ctx, s.addr, cases)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.stop()) }()
	return x.paths(ctx, cases, s, near, bare, others)
}

// learner is a user of the service and its token.
type learner struct {
	id    uuid.UUID
	token string
}

// tokens signs tokens for learners that have enrolments.
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

// firstCourse returns the first course of the list.
func firstCourse(ctx context.Context, addr string) (string, error) {
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
		for _, learner := range learners {
			all = append(all, load.Request{Path: path, Token: learner.token})
		}
		return all
	}
	return []serviceCase{
		{"list", []load.Request{{Path: list}}, 0.7, true},
		{"detail", []load.Request{{Path: list + "/" + course}}, 0.7, true},
		{"list, with token", as(list), 0.5, true},
		{"progress", as("/api/v1/users/me/progress"), 0.5, false},
		{"history", as("/api/v1/rewards/history"), 0.5, false},
		{"credentials", as("/api/v1/credentials"), 0.5, false},
	}
}

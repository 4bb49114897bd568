package soak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	outboxpg "github.com/chainlearn/chainlearn/cache/outbox/postgres"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// shape is how many rows there are: Groups lists of Keys rows each. The last row of each
// group comes and goes, so that lists grow and shrink and "not found" is an answer too.
type shape struct{ Groups, Keys int }

func (s shape) rows() int        { return s.Groups * s.Keys }
func (s shape) key(g, i int) int { return g*s.Keys + i }
func (s shape) group(k int) int  { return k / s.Keys }

// FleetConfig describes a Fleet. The zero value is good for tests.
type FleetConfig struct {
	// Workers is the number of processes. Default 4.
	Workers int
	// Groups and Keys are how many lists there are, and rows in each. Few rows make for
	// many conflicts. Default 4 and 4.
	Groups, Keys int
	// StoreTimeout of the caches. Default 250 ms: a busy machine must not look like a broken Redis.
	StoreTimeout time.Duration
	// Lease of a fence. Default 2 s, so that leases of killed workers run out during a run.
	Lease time.Duration
	// DelayBeforeBump is the longest delay of a writer between its commit and its bump: the gap
	// that a fence closes is short otherwise. Default: not at all.
	DelayBeforeBump time.Duration
	// Near bounds the near answers. Default 1 s.
	Near time.Duration
	// Postgres is a server to use. Default: one of its own.
	Postgres *testservers.Postgres
}

func (c FleetConfig) withDefaults() FleetConfig {
	c.Workers = cmp.Or(c.Workers, 4)
	c.Groups = cmp.Or(c.Groups, 4)
	c.Keys = cmp.Or(c.Keys, 4)
	c.StoreTimeout = cmp.Or(c.StoreTimeout, 250*time.Millisecond)
	c.Lease = cmp.Or(c.Lease, 2*time.Second)
	c.Near = cmp.Or(c.Near, time.Second)
	return c
}

// A Fleet is servers, and worker processes that share them.
type Fleet struct {
	cfg          FleetConfig
	shape        shape
	postgres     *testservers.Postgres
	ownsPostgres bool // postgres was started by the fleet
	database     string
	virtualIP    *virtualIP
	slots        []*slot
	admin        *pgx.Conn // to the database, past every proxy; for the one goroutine that drives the run

	onEvents func(*Process, []event) // set before the workers start

	mu         sync.Mutex
	redis      *testservers.Redis // guarded by mu
	lastNumber int                // guarded by mu
	workload   *Workload          // of new workers; nil: none; guarded by mu
	exited     []*Process         // guarded by mu
}

// OpenFleet starts servers and workers, and waits until every worker's cache is healthy. onEvents is
// called with the events of workers, by one goroutine for each worker; nil ignores them. The
// caller must Close the fleet. The program must call BecomeWorker first of all.
func OpenFleet(ctx context.Context, cfg FleetConfig, onEvents func(*Process, []event)) (*Fleet, error) {
	cfg = cfg.withDefaults()
	if onEvents == nil {
		onEvents = func(*Process, []event) {}
	}
	f := &Fleet{cfg: cfg, shape: shape{cfg.Groups, cfg.Keys}, postgres: cfg.Postgres, onEvents: onEvents}
	if err := f.open(ctx); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *Fleet) open(ctx context.Context) (err error) {
	if f.redis, err = testservers.OpenRedis(ctx, testservers.RedisConfig{}); err != nil {
		return err
	}
	if f.virtualIP, err = openVirtualIP(f.redis.Addr()); err != nil {
		return err
	}
	if f.postgres == nil {
		if f.postgres, err = testservers.OpenPostgres(ctx, testservers.PostgresConfig{}); err != nil {
			return err
		}
		f.ownsPostgres = true
	}
	if f.database, err = f.postgres.CreateDatabase(ctx); err != nil {
		return err
	}
	if f.admin, err = pgx.Connect(ctx, f.postgres.DatabaseURL(f.database)); err != nil {
		return err
	}
	if err := f.migrate(ctx); err != nil {
		return err
	}
	for range f.cfg.Workers {
		s := &slot{}
		f.slots = append(f.slots, s)
		if s.redis, err = testservers.OpenProxy(f.virtualIP.addr()); err != nil {
			return err
		}
		if s.postgres, err = testservers.OpenProxy(f.postgres.Addr()); err != nil {
			return err
		}
	}
	var starting errgroup.Group
	for i := range f.slots {
		starting.Go(func() error { return f.start(ctx, i) })
	}
	return starting.Wait()
}

// migrate creates the tables. history is not watched: it is the reference of the check.
func (f *Fleet) migrate(ctx context.Context) error {
	if _, err := f.admin.Exec(ctx, outboxpg.Migration()); err != nil {
		return fmt.Errorf("create the outbox: %w", err)
	}
	_, err := f.admin.Exec(ctx, fmt.Sprintf(`
		CREATE TABLE items (id int PRIMARY KEY, grp int NOT NULL, value bigint NOT NULL);
		CREATE INDEX ON items (grp);
		CREATE TABLE locks (key int PRIMARY KEY);
		CREATE TABLE history (value bigint PRIMARY KEY, key int NOT NULL, absent bool NOT NULL, op bigint NOT NULL);
		CREATE SEQUENCE item_values;
		INSERT INTO locks SELECT k FROM generate_series(0, %[1]d - 1) k;
		INSERT INTO items SELECT k, k / %[2]d, nextval('item_values') FROM generate_series(0, %[1]d - 1) k WHERE k %% %[2]d <> %[2]d - 1;

		-- soak_change gives rows new values, and makes those that come and go do so. The
		-- value is taken while the row is locked: so values grow in the order of commits.
		CREATE FUNCTION soak_change(keys int[], op bigint) RETURNS bytea LANGUAGE plpgsql AS $$
		DECLARE
			k int;
			v bigint;
			gone bool;
		BEGIN
			PERFORM FROM locks WHERE key = ANY (keys) ORDER BY key FOR UPDATE;
			FOREACH k IN ARRAY keys LOOP
				v := nextval('item_values');
				gone := false;
				IF k %% %[2]d = %[2]d - 1 THEN
					DELETE FROM items WHERE id = k;
					gone := FOUND;
					IF NOT gone THEN
						INSERT INTO items VALUES (k, k / %[2]d, v);
					END IF;
				ELSE
					UPDATE items SET value = v WHERE id = k;
				END IF;
				INSERT INTO history VALUES (v, k, gone, op);
			END LOOP;
			RETURN cache_mark();
		END
		$$`, f.shape.rows(), f.shape.Keys))
	if err != nil {
		return fmt.Errorf("create the tables: %w", err)
	}
	return outboxpg.Watch(ctx, f.admin, "soak", "items", "item:{id}", "group:{grp}")
}

// start puts a new worker in a slot and waits until its cache is healthy.
func (f *Fleet) start(ctx context.Context, at int) error {
	f.mu.Lock()
	f.lastNumber++
	number := f.lastNumber
	s := f.slots[at]
	if s.process != nil {
		f.exited = append(f.exited, s.process)
	}
	f.mu.Unlock()
	m, err := startProcess(workerConfig{
		Number:          number,
		Postgres:        strings.Replace(f.postgres.DatabaseURL(f.database), f.postgres.Addr(), s.postgres.Addr(), 1),
		Redis:           "redis://" + s.redis.Addr(),
		Shape:           f.shape,
		StoreTimeout:    f.cfg.StoreTimeout,
		Lease:           f.cfg.Lease,
		DelayBeforeBump: f.cfg.DelayBeforeBump,
		Near:            f.cfg.Near,
	}, at, f.onEvents)
	if err != nil {
		return fmt.Errorf("start a worker: %w", err)
	}
	f.mu.Lock()
	s.process = m
	l := f.workload
	f.mu.Unlock()
	if err := f.waitUntilHealthy(ctx, m); err != nil || l == nil {
		return err
	}
	_, err = m.call(ctx, request{Workload: l})
	return err
}

// waitUntilHealthy waits until the entries of the worker's store are served.
func (f *Fleet) waitUntilHealthy(ctx context.Context, m *Process) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return testservers.Poll(ctx, func() (bool, string) {
		answer, err := m.call(ctx, request{Stats: true})
		if err != nil {
			return false, fmt.Sprintf("%v\n%s", err, m.stderr)
		}
		return answer.Stats.State == "ok", fmt.Sprintf("worker %d: the cache is %s", m.number, answer.Stats.State)
	})
}

// processes returns the workers that run.
func (f *Fleet) processes() []*Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []*Process
	for _, s := range f.slots {
		if s.process != nil && s.process.running() {
			list = append(list, s.process)
		}
	}
	return list
}

// callAll sends one request to every worker at once. A worker that exits before it answers has no reply.
func (f *Fleet) callAll(ctx context.Context, r request) (map[*Process]*reply, error) {
	var mu sync.Mutex
	replies := map[*Process]*reply{}
	var calls errgroup.Group
	for _, m := range f.processes() {
		calls.Go(func() error {
			answer, err := m.call(ctx, r)
			if errors.Is(err, errExited) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			replies[m] = answer
			return err
		})
	}
	return replies, calls.Wait()
}

// startWorkload lets every worker read and write at random, also those that start from now on.
func (f *Fleet) startWorkload(ctx context.Context, l Workload) error {
	f.mu.Lock()
	f.workload = &l
	f.mu.Unlock()
	_, err := f.callAll(ctx, request{Workload: &l})
	return err
}

// stopWorkload ends it and waits until nothing is under way.
func (f *Fleet) stopWorkload(ctx context.Context) error {
	f.mu.Lock()
	f.workload = nil
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 3*callTimeout)
	defer cancel()
	_, err := f.callAll(ctx, request{StopWorkload: true})
	return err
}

// unexpectedExits returns an error if a worker has exited that was not killed by a fault.
func (f *Fleet) unexpectedExits() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.slots {
		if m := s.process; m != nil && !m.running() {
			return fmt.Errorf("worker %d has exited by itself, with %v:\n%s", m.number, m.cmd.ProcessState, m.stderr)
		}
	}
	return nil
}

// exitTimes returns when the workers exited that no longer run.
func (f *Fleet) exitTimes() map[int]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	times := map[int]int64{}
	for _, m := range f.exited {
		times[m.number] = m.exitedAt
	}
	for _, s := range f.slots {
		if s.process != nil && !s.process.running() {
			times[s.process.number] = s.process.exitedAt
		}
	}
	return times
}

// server returns the Redis server that is in use.
func (f *Fleet) server() *testservers.Redis {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.redis
}

// dataRaces returns what the race detectors of the workers found, or nil.
func (f *Fleet) dataRaces() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := slices.Clone(f.exited)
	for _, s := range f.slots {
		if s.process != nil {
			list = append(list, s.process)
		}
	}
	for _, m := range list {
		if m.hasDataRace() {
			return fmt.Errorf("worker %d has a data race:\n%s", m.number, m.stderr)
		}
	}
	return nil
}

// Close shuts the workers down, and then the servers. Its error includes what the workers could
// not close, and what their race detectors found.
func (f *Fleet) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var mu sync.Mutex
	var errs []error
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	}
	var closing sync.WaitGroup
	for _, m := range f.processes() {
		closing.Go(func() { fail(m.close(ctx)) })
	}
	closing.Wait()
	fail(f.dataRaces())
	if f.admin != nil {
		fail(f.admin.Close(ctx))
	}
	for _, s := range f.slots {
		for _, p := range []*testservers.Proxy{s.redis, s.postgres} {
			if p != nil {
				fail(p.Close())
			}
		}
	}
	if f.virtualIP != nil {
		fail(f.virtualIP.close())
	}
	if f.redis != nil {
		fail(f.redis.Close())
	}
	switch {
	case f.ownsPostgres:
		fail(f.postgres.Close())
	case f.database != "":
		fail(f.postgres.DropDatabase(ctx, f.database))
	}
	return errors.Join(errs...)
}

// databaseActivity says what the database is doing, and for how long.
func (f *Fleet) databaseActivity(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var text strings.Builder
	text.WriteString("  the database\n")
	rows, err := f.admin.Query(ctx, `SELECT format('%s %s for %s, in a transaction for %s, waits for %s, blocked by %s: %s', pid, state,
			clock_timestamp() - query_start, clock_timestamp() - xact_start, wait_event, pg_blocking_pids(pid), left(regexp_replace(query, '\s+', ' ', 'g'), 120))
		FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' ORDER BY xact_start LIMIT 20`)
	if err == nil {
		var line string
		_, err = pgx.ForEachRow(rows, []any{&line}, func() error {
			fmt.Fprintf(&text, "    %s\n", line)
			return nil
		})
	}
	if err != nil {
		fmt.Fprintf(&text, "    %v\n", err)
	}
	return text.String()
}

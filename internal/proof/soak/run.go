package soak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// Config of a Run.
type Config struct {
	FleetConfig

	// Seed makes the schedule of faults and the choices of the clients. The same seed gives
	// the same schedule; what the processes do under it differs.
	Seed uint64
	// Duration is how long the run lasts, at most. Default 20 s.
	Duration time.Duration
	// Rounds ends the run when every fault has been injected that often, and Writes when
	// that many writes have been acknowledged. Default: neither does.
	Rounds int
	Writes int64
	// Faults are (parts of) the names of those to inject. Default: all.
	Faults []string
	// NoFaults injects no faults at all: there is nothing but reads and writes.
	NoFaults bool

	// Workload of each worker. Default: 3 readers every 10 ms, 2 writers every 30 ms.
	Workload Workload
	// ExternalPause is the pause between two writes of a client that does not use the library.
	// Default 400 ms; negative: none.
	ExternalPause time.Duration

	// Repair is how long after the last fault what is not strict may take to show
	// everywhere. Default 5 s, since tests run on busy machines; the report has
	// the time that it took.
	Repair time.Duration

	// Log receives a line for each segment. Default: none.
	Log io.Writer
}

func (c Config) withDefaults() Config {
	c.FleetConfig = c.FleetConfig.withDefaults()
	c.Duration = cmp.Or(c.Duration, 20*time.Second)
	c.Workload.Seed = c.Seed
	c.Workload.Readers = cmp.Or(c.Workload.Readers, 3)
	c.Workload.Writers = cmp.Or(c.Workload.Writers, 2)
	c.Workload.Pace = cmp.Or(c.Workload.Pace, 10*time.Millisecond)
	c.Workload.WritePace = cmp.Or(c.Workload.WritePace, 30*time.Millisecond)
	c.Workload.Near = true
	c.ExternalPause = cmp.Or(c.ExternalPause, 400*time.Millisecond)
	c.Repair = cmp.Or(c.Repair, 5*time.Second)
	c.Log = cmp.Or(c.Log, io.Discard)
	return c
}

// Run runs a history and checks it. The error is about the run itself; violations are in the
// report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	cfg = cfg.withDefaults()
	plan, err := newSchedule(cfg.Seed, cfg.Faults)
	if err != nil {
		return nil, err
	}
	r := &testRun{cfg: cfg, plan: plan, history: newHistory(), report: newReport(cfg)}
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	err = r.segments(ctx)
	r.report.finish(r)
	return r.report, errors.Join(err, r.fleet.Close())
}

// open starts the fleet.
func (r *testRun) open(ctx context.Context) (err error) {
	if r.fleet, err = OpenFleet(ctx, r.cfg.FleetConfig, r.history.record); err != nil {
		return fmt.Errorf("soak: %w", err)
	}
	if r.base, err = r.state(ctx); err != nil {
		return errors.Join(err, r.fleet.Close())
	}
	return nil
}

// testRun is a history that is being recorded. It consists of segments: reads and writes go on while a fault
// is injected and heals, and then pause until everything is repaired, so that each segment
// is a history of its own that begins and ends in a known state.
type testRun struct {
	cfg            Config
	plan           *schedule
	fleet          *Fleet
	history        *history
	report         *Report
	base           map[int]*commit
	externalWrites int64 // writes by the external writer so far
}

func (r *testRun) segments(ctx context.Context) (err error) {
	began := time.Now()
	// One segment without a fault comes first: later sizes are compared with those measured
	// after it.
	if err := r.segment(ctx, r.noFault); err != nil {
		return err
	}
	if r.report.before, err = r.measureSizes(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil && time.Since(began) < r.cfg.Duration && !r.done() {
		harm := r.noFault
		if !r.cfg.NoFaults {
			b := r.plan.next()
			harm = func(ctx context.Context) ([]window, error) { return r.inject(ctx, b) }
		}
		if err := r.segment(ctx, harm); err != nil {
			return err
		}
	}
	r.report.after, err = r.measureSizes(context.WithoutCancel(ctx))
	return err
}

// done reports whether the run has reached its goal, or found a violation.
func (r *testRun) done() bool {
	r.history.mu.Lock()
	writes := r.history.counts.Acknowledged
	r.history.mu.Unlock()
	return len(r.report.Violations) > 0 ||
		r.cfg.Rounds > 0 && r.plan.done(r.cfg.Rounds) ||
		r.cfg.Writes > 0 && writes >= r.cfg.Writes
}

const (
	beforeFault     = 300 * time.Millisecond // of reads and writes before a fault
	afterFault      = 300 * time.Millisecond // and after it
	noFaultDuration = 2 * time.Second        // instead of one
)

// noFault is what happens in a segment without a fault.
func (r *testRun) noFault(ctx context.Context) ([]window, error) {
	return nil, wait(ctx, noFaultDuration)
}

// segment runs the workload of all clients during harm, and checks what they saw.
func (r *testRun) segment(ctx context.Context, harm func(context.Context) ([]window, error)) error {
	stop, err := r.startWorkload(ctx)
	if err != nil {
		return err
	}
	var injected []window
	if err = wait(ctx, beforeFault); err == nil {
		injected, err = harm(ctx)
	}
	var serving time.Duration
	if err == nil {
		serving = r.untilServing(ctx)
		err = wait(ctx, afterFault)
	}
	// A cancelled run still shuts down properly, and is checked.
	if ctx.Err() != nil {
		err = nil
	}
	ctx = context.WithoutCancel(ctx)
	if err := errors.Join(err, stop(ctx), r.fleet.unexpectedExits()); err != nil {
		return err
	}
	return r.checkSegment(ctx, injected, serving)
}

// untilServing returns how long it takes from now on until every process serves from the cache.
func (r *testRun) untilServing(ctx context.Context) time.Duration {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var laggard *Process
	late := testservers.Poll(ctx, func() (bool, string) {
		replies, err := r.fleet.callAll(ctx, request{State: true})
		if err != nil {
			return false, err.Error()
		}
		for m, answer := range replies {
			if s := answer.Stats.State; s != "ok" {
				laggard = m
				return false, fmt.Sprintf("the cache of worker %d is %s: %s", m.number, s, answer.Stats.Why)
			}
		}
		return true, ""
	})
	if late != nil && !errors.Is(context.Cause(ctx), context.Canceled) {
		r.report.addViolation(Violation{What: "the fleet does not serve from the cache again", Text: "  " + late.Error() + "\n" + r.fleet.databaseActivity(context.WithoutCancel(ctx)) + laggard.explain(context.WithoutCancel(ctx)), at: now()})
	}
	return time.Since(began)
}

// startWorkload starts the clients of all workers and the external writer. It returns a
// function that stops them.
func (r *testRun) startWorkload(ctx context.Context) (stop func(context.Context) error, err error) {
	if err := r.fleet.startWorkload(ctx, r.cfg.Workload); err != nil {
		return nil, err
	}
	external, end := context.WithCancel(ctx)
	var externalDone sync.WaitGroup
	if r.cfg.ExternalPause > 0 {
		externalDone.Go(func() { r.writeExternally(external) })
	}
	return func(ctx context.Context) error {
		end()
		externalDone.Wait()
		return r.fleet.stopWorkload(ctx)
	}, nil
}

// writeExternally writes over a plain connection, as psql does.
func (r *testRun) writeExternally(ctx context.Context) {
	rnd := newRand(r.cfg.Seed, externalWriter, int(r.externalWrites))
	conn, err := pgx.Connect(ctx, r.fleet.postgres.DatabaseURL(r.fleet.database))
	if err != nil {
		return // the run is over
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for sleepAbout(ctx, rnd, r.cfg.ExternalPause) {
		r.externalWrites++
		op, begin := r.externalWrites, now()
		_, err := conn.Exec(context.WithoutCancel(ctx), `SELECT soak_change($1, $2)`, []int{rnd.IntN(r.fleet.shape.rows())}, op)
		r.history.recordExternal(op, begin, now(), err)
	}
}

// inject injects the fault, or both, and returns when they have healed.
func (r *testRun) inject(ctx context.Context, b injection) ([]window, error) {
	all := []fault{b.fault}
	if b.with != nil {
		all = append(all, *b.with)
	}
	windows := make([]window, len(all))
	errs := make([]error, len(all))
	var injecting sync.WaitGroup
	for i, f := range all {
		windows[i] = window{Name: f.name, Lossy: f.lossy, Begin: now()}
		injecting.Go(func() {
			rnd := rand.New(rand.NewPCG(b.seed, uint64(i)))
			errs[i] = f.inject(ctx, r.fleet, rnd, b.duration)
			windows[i].End = now()
		})
	}
	injecting.Wait()
	for i, f := range all {
		if errs[i] != nil && ctx.Err() == nil {
			return windows, fmt.Errorf("soak: %s: %w", f.name, errs[i])
		}
		r.report.Faults[f.name]++
	}
	return windows, nil
}

// checkSegment waits until every strict answer of every process is that of the database, and then
// checks what was seen since the segment before.
func (r *testRun) checkSegment(ctx context.Context, injected []window, serving time.Duration) error {
	began := time.Now()
	if err := r.waitForTransactions(ctx); err != nil {
		return err
	}
	state, err := r.state(ctx)
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, r.cfg.Repair)
	late := testservers.Poll(limit, func() (bool, string) { return r.answersMatch(limit, state) })
	cancel()
	r.report.Agreed = max(r.report.Agreed, time.Since(began))
	if late != nil {
		r.report.addViolation(Violation{What: "answers differ from the database for longer than repairs may take", Text: "  " + late.Error() + "\n", at: now()})
	}
	limit, cancel = context.WithTimeout(ctx, 30*time.Second)
	late = testservers.Poll(limit, func() (bool, string) { return r.recovered(limit) })
	cancel()
	r.report.Recovered = max(r.report.Recovered, time.Since(began))
	if late != nil {
		r.report.addViolation(Violation{What: "the fleet does not recover", Text: "  " + late.Error() + "\n", at: now()})
	}

	rows, err := r.committed(ctx)
	if err != nil {
		return err
	}
	segment := r.history.endSegment(r.base, rows, r.fleet.exitTimes(), injected, r.cfg.Near, r.cfg.Repair)
	figures, violations := segment.check()
	r.report.Figures.add(figures)
	if len(injected) == 1 {
		r.report.addRepair(injected[0].Name, serving, figures.Repair)
	}
	for _, v := range violations {
		r.report.addViolation(v)
	}
	r.base = state
	r.report.logSegment(r, injected, figures)
	return r.fleet.dataRaces()
}

// waitForTransactions waits until no transaction is open that may still be committed, also of
// killed workers.
func (r *testRun) waitForTransactions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return testservers.Poll(ctx, func() (bool, string) {
		var open int
		err := r.fleet.admin.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND query NOT LIKE '%cache_outbox%'`).Scan(&open)
		return err == nil && open == 0, fmt.Sprintf("%d transactions are still open (%v)", open, err)
	})
}

// state returns what the database holds now. No writer runs.
func (r *testRun) state(ctx context.Context) (map[int]*commit, error) {
	state := map[int]*commit{}
	for k := range r.fleet.shape.rows() {
		state[k] = &commit{
			keyValue: keyValue{Key: k}, Absent: true,
			Begin: longAgo, End: longAgo, FaultFreeFrom: longAgo, Deadline: longAgo, Outcome: acknowledged, BindsReaders: true,
		}
	}
	rows, err := r.fleet.admin.Query(ctx, `SELECT id, value FROM items`)
	if err != nil {
		return nil, err
	}
	var s keyValue
	_, err = pgx.ForEachRow(rows, []any{&s.Key, &s.Value}, func() error {
		state[s.Key].Value, state[s.Key].Absent = s.Value, false
		return nil
	})
	return state, err
}

// answersMatch reports whether every process gives the answers of the database.
func (r *testRun) answersMatch(ctx context.Context, state map[int]*commit) (bool, string) {
	replies, err := r.fleet.callAll(ctx, request{ReadAll: true})
	if err != nil {
		return false, err.Error()
	}
	for m, answer := range replies {
		for _, s := range append(answer.Lists, answer.Items) {
			for _, s := range s {
				if want := state[s.Key]; s.Value != want.Value && !(s.Value == 0 && want.Absent) {
					return false, fmt.Sprintf("worker %d answers %d for key %d, the database %d", m.number, s.Value, s.Key, want.Value)
				}
			}
		}
	}
	return true, ""
}

// recovered reports whether the caches are healthy and the outbox is empty again.
func (r *testRun) recovered(ctx context.Context) (bool, string) {
	for _, m := range r.fleet.processes() {
		answer, err := m.call(ctx, request{Stats: true})
		if err != nil {
			return false, err.Error()
		}
		if s := answer.Stats.State; s != "ok" {
			return false, fmt.Sprintf("the cache of worker %d is %s", m.number, s)
		}
	}
	return r.outboxEmpty(ctx)
}

// undelivered counts the rows of the outbox that a consumer has not got which has been heard of: when
// Redis has lost the name of the store, and all processes that knew it are gone, rows stay for them
// until they are forgotten.
const undelivered = `SELECT count(*) FROM cache_outbox o WHERE EXISTS (
	SELECT FROM cache_consumers c WHERE c.seen_at > clock_timestamp() - interval '30 seconds'
	AND NOT EXISTS (SELECT FROM cache_delivered d WHERE d.row_id = o.id AND d.consumer = c.name))`

// outboxEmpty reports whether everything is delivered.
func (r *testRun) outboxEmpty(ctx context.Context) (bool, string) {
	var rows int
	err := r.fleet.admin.QueryRow(ctx, undelivered).Scan(&rows)
	return err == nil && rows == 0, fmt.Sprintf("%d rows are left in the outbox (%v)", rows, err)
}

// committed takes the rows of the history that the database has kept.
func (r *testRun) committed(ctx context.Context) ([]row, error) {
	rows, err := r.fleet.admin.Query(ctx, `DELETE FROM history RETURNING value, key, absent, op`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(from pgx.CollectableRow) (c row, err error) {
		err = from.Scan(&c.Value, &c.Key, &c.absent, &c.op)
		return c, err
	})
}

// measureSizes measures everything that must not grow.
func (r *testRun) measureSizes(ctx context.Context) (m sizes, err error) {
	replies, err := r.fleet.callAll(ctx, request{Stats: true})
	if err != nil {
		return m, err
	}
	for _, answer := range replies {
		v := answer.Stats
		m.Goroutines = max(m.Goroutines, v.Goroutines)
		m.Heap = max(m.Heap, v.Heap)
		m.Near = v.Watchable
	}
	const count = `local n, lasting = 0, 0
		for _, k in ipairs(redis.call('KEYS', '*')) do
			n = n + 1
			if redis.call('PTTL', k) == -1 then lasting = lasting + 1 end
		end
		return {n, lasting}`
	keys, err := r.fleet.server().Do(ctx, "EVAL", count, "0").AsIntSlice()
	if err != nil {
		return m, fmt.Errorf("count the keys of Redis: %w", err)
	}
	m.Keys, m.Lasting = keys[0], keys[1]
	clients, err := r.fleet.server().Do(ctx, "CLIENT", "LIST", "TYPE", "NORMAL").ToString()
	if err != nil {
		return m, fmt.Errorf("list the clients of Redis: %w", err)
	}
	listeners, err := r.fleet.server().Do(ctx, "CLIENT", "LIST", "TYPE", "PUBSUB").ToString()
	if err != nil {
		return m, fmt.Errorf("list the listeners of Redis: %w", err)
	}
	m.Redis = strings.Count(clients, "\n") + strings.Count(listeners, "\n")
	err = r.fleet.admin.QueryRow(ctx, `SELECT (`+undelivered+`),
		(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database())`).Scan(&m.Rows, &m.Postgres)
	return m, err
}

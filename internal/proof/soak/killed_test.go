package soak

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// A writer is killed at every step of its write, while others read: what it had committed
// shows within the repair time, and no later read is older; what it had not is never seen.
func TestWriterIsKilledAtEveryStep(t *testing.T) {
	const victims = 3 // at the same time, each with a row and a list of its own
	cfg := Config{
		Seed: *seed, ExternalPause: -1,
		FleetConfig: FleetConfig{Workers: victims + 2, Postgres: testservers.SharedPostgres(t)},
		Workload:    Workload{Readers: 2, Pace: 4 * time.Millisecond, Writers: -1},
	}.withDefaults()
	cfg.Workload.Writers = 0
	r := &testRun{cfg: cfg, history: newHistory(), report: newReport(cfg)}
	require(t, r.open(t.Context()))
	defer func() { testservers.Must(t, r.fleet.Close()) }()

	var queue []crashPoint
	for range *kills {
		queue = append(queue, crashPoints...)
	}
	killed := map[crashPoint]int{}
	var stale, repairs []time.Duration
	for len(queue) > 0 && !t.Failed() {
		points := queue[:min(victims, len(queue))]
		queue = queue[len(points):]
		r.report.Figures = Figures{}
		testservers.Must(t, r.segment(t.Context(), func(ctx context.Context) ([]window, error) {
			took, err := r.killWriters(ctx, points)
			repairs = append(repairs, took)
			return nil, err
		}))
		stale = append(stale, r.report.Figures.Repair)
		for _, s := range points {
			killed[s]++
		}
		for _, v := range r.report.Violations {
			t.Errorf("killed %v: %s", points, v)
		}
	}
	slices.Sort(stale)
	slices.Sort(repairs)
	t.Logf("writers killed: %v", killed)
	t.Logf("after a writer was killed, an old answer was served for at most %s; its outbox rows were delivered after %s (median) and %s (at most)",
		stale[len(stale)-1], median(repairs), repairs[len(repairs)-1])
	// The promise is a p99 below one second on a machine with nothing else to do.
	if worst := repairs[len(repairs)-1]; worst > 3*time.Second {
		t.Errorf("the outbox rows of a killed writer were delivered after %s", worst)
	}
}

// killWriters has the first workers write, each to crash at one of points, and then replaces them. It
// returns how long after the last crash the outbox was empty.
func (r *testRun) killWriters(ctx context.Context, points []crashPoint) (time.Duration, error) {
	var killing errgroup.Group
	for i, at := range points {
		killing.Go(func() error {
			m := r.fleet.slots[i].process
			// A plain row, or one that comes and goes.
			key := r.fleet.shape.key(i, int(at)%r.fleet.shape.Keys)
			_, err := m.call(ctx, request{Write: &writeRequest{Keys: []int{key}, CrashAt: at}})
			if at != afterAck && !errors.Is(err, errExited) {
				return fmt.Errorf("a writer that was to crash %s answers: %w", at, err)
			}
			select {
			case <-m.exited:
				return nil
			case <-time.After(callTimeout):
				return fmt.Errorf("a writer that was to crash %s still runs", at)
			}
		})
	}
	if err := killing.Wait(); err != nil {
		return 0, err
	}
	crashed := now()
	limit, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := testservers.Poll(limit, func() (bool, string) { return r.outboxEmpty(limit) })
	took := time.Duration(now() - crashed)
	var starting errgroup.Group
	for i := range points {
		starting.Go(func() error { return r.fleet.start(ctx, i) })
	}
	return took, errors.Join(err, starting.Wait())
}

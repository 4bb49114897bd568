package soak

import (
	"context"
	"flag"
	"testing"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

var (
	seed      = flag.Uint64("seed", 1, "of the schedule of TestHistories")
	only      = flag.String("faults", "", "inject only those in TestHistories whose names contain this")
	stampedes = flag.Int("stampedes", 3, "how often TestCrowdsOfAFleet makes each stampede")
	kills     = flag.Int("kills", 2, "how often TestWriterIsKilledAtEveryStep kills a writer at each step")
)

func TestMain(m *testing.M) {
	BecomeWorker()
	goleak.VerifyTestMain(testservers.Main(m))
}

// startFleet opens a fleet on the shared PostgreSQL server and closes it when the test ends.
func startFleet(t *testing.T, cfg FleetConfig, onEvents func(*Process, []event)) *Fleet {
	t.Helper()
	cfg.Postgres = testservers.SharedPostgres(t)
	f, err := OpenFleet(t.Context(), cfg, onEvents)
	require(t, err)
	t.Cleanup(func() { testservers.Must(t, f.Close()) })
	return f
}

// require skips the test where a server is not installed.
func require(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	testservers.Require(t, "redis-server", "redis-server")
	t.Fatal(err)
}

// callAll sends one request to every worker at once, and fails the test if one does not answer.
func callAll(t *testing.T, f *Fleet, r request) map[*Process]*reply {
	t.Helper()
	replies, err := f.callAll(t.Context(), r)
	testservers.Must(t, err)
	if len(replies) != len(f.slots) {
		t.Fatalf("%d of %d workers answered", len(replies), len(f.slots))
	}
	return replies
}

// runHistory runs a history on the shared PostgreSQL server and fails the test if it is wrong.
func runHistory(t *testing.T, cfg Config) *Report {
	t.Helper()
	cfg.Postgres = testservers.SharedPostgres(t)
	cfg.Log = t.Output()
	report, err := Run(context.WithoutCancel(t.Context()), cfg)
	if report != nil {
		t.Logf("\n%s", report)
		for _, v := range report.Violations {
			t.Error(v.What)
		}
	}
	require(t, err)
	return report
}

package soak

import (
	"testing"
	"time"
)

// Every fault once, on four processes, while they read and write.
func TestHistories(t *testing.T) {
	cfg := Config{Seed: *seed, Rounds: 1, Duration: 3 * time.Minute}
	if *only != "" {
		cfg.Faults, cfg.Rounds = []string{*only}, 5
	}
	r := runHistory(t, cfg)
	if *only != "" {
		return // what follows is about all of them together
	}
	for _, name := range Faults() {
		if r.Faults[name] == 0 && !t.Failed() {
			t.Errorf("it took too long for this to happen: %s", name)
		}
	}
	// A run proves nothing if its faults excuse everything, or if hardly anything happened.
	if f := r.Figures; f.Strict < f.Commits/3 || f.Linear < 20 || f.Checked < 5000 {
		t.Errorf("only %d of %d commits excuse nothing, %d histories were strict, and %d answers were checked", f.Strict, f.Commits, f.Linear, f.Checked)
	}
}

// Without faults, after each acknowledgement every strict answer of every process contains the
// write: 4 writers, 16 readers, 4 processes.
func TestAcknowledgedWritesAreSeenEverywhere(t *testing.T) {
	r := runHistory(t, Config{
		Seed: *seed, NoFaults: true, Writes: 1000, Duration: time.Minute, ExternalPause: -1, // a busy machine takes longer for them
		// A downgrade would be an excuse.
		FleetConfig: FleetConfig{StoreTimeout: time.Second, DelayBeforeBump: 5 * time.Millisecond},
		Workload:    Workload{Readers: 4, Writers: 1, Pace: 5 * time.Millisecond, WritePace: time.Millisecond},
	})
	if r.Writes() < 300 && !t.Failed() {
		t.Errorf("only %d writes were acknowledged in %s", r.Writes(), r.Took)
	}
	if f := r.Figures; f.Strict < f.Commits*99/100 {
		t.Errorf("only %d of %d commits excuse nothing", f.Strict, f.Commits)
	}
}

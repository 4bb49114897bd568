package model

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestReductionsLoseNothing explores small systems twice, with and without the
// steps run together and the readers left out, and compares the verdicts: for
// the whole protocol and for each ablated one, under its own accidents.
func TestReductionsLoseNothing(t *testing.T) {
	t.Parallel()
	type size struct{ writers, readers int }
	done := map[Config]bool{}
	for _, a := range ablations {
		sizes := []size{{1, 2}, {2, 1}}
		switch {
		case raceEnabled || a.faults.Failover && !*fullSystems:
			sizes = []size{{1, 1}} // a failover takes millions of states from there on
		case *fullSystems && a.faults == Faults{}:
			sizes = append(sizes, size{2, 2}) // and every other fault tens of millions
		}
		whole, ablated := a.configs(t)
		for _, size := range sizes {
			for _, cfg := range []Config{whole, ablated} {
				cfg.Writers, cfg.Readers = size.writers, size.readers
				name := cfg.Name
				if cfg.Name = ""; done[cfg] {
					continue
				}
				done[cfg] = true
				t.Run(fmt.Sprintf("%s/%d writers %d readers", name, size.writers, size.readers), func(t *testing.T) {
					t.Parallel()
					sameVerdict(t, cfg)
				})
			}
		}
	}
}

func sameVerdict(t *testing.T, cfg Config) {
	t.Helper()
	reduced := mustCheck(t, cfg, Options{})
	cfg.Fine = true
	fine := mustCheck(t, cfg, Options{})
	t.Logf("%d states, every step on its own: %d in %v", reduced.States, fine.States, fine.Elapsed)
	if reduced.Broken() != fine.Broken() {
		t.Errorf("broken: %q; with every step on its own: %q", reduced.Broken(), fine.Broken())
		for _, r := range []Result{reduced, fine} {
			for _, trace := range r.Traces {
				t.Logf("fine %v:\n%s", r.Config.Fine, trace)
			}
		}
	}
}

// TestRandomRunsStayInside takes random runs in which nothing is renamed and no
// two writers or readers are held for the same, and looks each state up in what
// the exploration visited. A renaming that mixed up two different states would
// leave part of the system unexplored, and the runs would walk out of it.
func TestRandomRunsStayInside(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{
		{Name: "everyday", Writers: 2, Readers: 2, Tags: 1, Protocol: Full(), Faults: everyday},
		{Name: "two tags", Writers: 2, Readers: 1, Tags: 2, Protocol: Full(), Faults: everyday, Touch: [MaxWriters]uint8{0b01, 0b11}},
		{Name: "failover", Writers: 1, Readers: 2, Tags: 1, Protocol: without(t, "MixIdentity"), Faults: Faults{Failover: true}},
		{Name: "outage", Writers: 2, Readers: 2, Tags: 1, Protocol: Full(), Faults: Faults{Outage: true}},
		{Name: "fine", Writers: 1, Readers: 2, Tags: 1, Protocol: Full(), Faults: Faults{Expiry: true}, Fine: true},
	} {
		t.Run(cfg.Name, func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(1, 2))
			e := newExploration(cfg, Options{})
			if err := e.run(); err != nil {
				t.Fatal(err)
			}
			runs, longest := 300, 0
			for range runs {
				longest = max(longest, randomRun(t, e, rnd))
			}
			if longest < e.result.Depth/2 {
				t.Errorf("the longest of %d runs took %d steps, the system is %d deep: too short for a verdict", runs, longest, e.result.Depth)
			}
		})
	}
}

func randomRun(t *testing.T, e *exploration, rnd *rand.Rand) (steps int) {
	t.Helper()
	m := newMachine(e.result.Config)
	now := m.initial()
	for m.fresh = 3; m.fresh < freshName; m.fresh++ { // a new name at every step, used or not
		var next []state
		m.successors(&now, func(n *state, _ action, _ Property) { next = append(next, *n) })
		if len(next) == 0 {
			return steps
		}
		now = next[rnd.IntN(len(next))]
		m.tidy(&now)
		steps++
		if !visited(e, m, now) {
			t.Fatalf("step %d reached a state the exploration had not visited: %+v", steps, now)
		}
	}
	return steps
}

// visited looks s up under every order of its readers: among readers that differ
// only in the callers that came before their loads, canonicalize may pick another order each time.
func visited(e *exploration, m *machine, s state) bool {
	n := m.cfg.Readers
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var try func(k int) bool
	try = func(k int) bool {
		if k == n {
			c := s
			m.reorderReaders(&c, order)
			m.canonicalize(&c)
			return e.seen.has(&c)
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			if try(k + 1) {
				return true
			}
			order[k], order[i] = order[i], order[k]
		}
		return false
	}
	return try(0)
}

// TestCountedByHand: one writer, no reader, no accidents. Idle; fenced;
// committed, its row waiting or delivered; acknowledged with its row; done.
func TestCountedByHand(t *testing.T) {
	r := mustCheck(t, Config{Writers: 1, Tags: 1, Protocol: Full()}, Options{})
	if r.States != 6 || r.Transitions != 7 || r.Depth != 4 {
		t.Errorf("%d states, %d transitions, depth %d; want 6, 7, 4", r.States, r.Transitions, r.Depth)
	}
	r = mustCheck(t, Config{Writers: 1, Tags: 1, Protocol: Protocol{}}, Options{})
	if r.States != 3 { // idle, committed, acknowledged
		t.Errorf("%d states, want 3", r.States)
	}
}

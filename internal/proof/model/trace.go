package model

import (
	"fmt"
	"slices"
	"strings"
)

// Trace is a run that ends in a violation, one sentence per step.
type Trace struct {
	Property Property
	Steps    []string
	Verdict  string
}

func (t Trace) String() string {
	var b strings.Builder
	for i, step := range t.Steps {
		fmt.Fprintf(&b, "%3d. %s\n", i+1, step)
	}
	fmt.Fprintf(&b, "  => %s: %s\n", t.Property, t.Verdict)
	return b.String()
}

// trace replays the shortest path to v. The states on record are canonical:
// writers, readers and versions change names from one to the next. The replay
// walks beside them without renaming, so that "reader 2" stays the same caller
// and a version, once drawn, keeps its number.
func (e *exploration) trace(p Property, v violation) Trace {
	var path []uint32
	for at := v.from; at != 0; at = e.parent[at] {
		path = append(path, at)
	}
	m := newMachine(e.m.cfg)
	now := m.initial()
	m.fresh = 2
	t := Trace{Property: p}

	walk := func(want func(next *state, a action, broken Property) bool) {
		var found *state
		var done action
		m.fresh++
		m.successors(&now, func(n *state, a action, broken Property) {
			if found == nil && want(n, a, broken) {
				copied := *n
				found, done = &copied, a
			}
		})
		if found == nil {
			panic(fmt.Sprintf("model: step %d of a recorded path cannot be replayed", len(t.Steps)+1))
		}
		t.Steps = append(t.Steps, m.describe(&now, done, found))
		if found.ver == now.ver {
			m.fresh-- // nothing was drawn: keep the numbers dense
		}
		now = *found
		m.tidy(&now)
		for j := range now.r {
			if found.r[j].pc != rIdle && now.r[j].pc == rIdle {
				t.Steps[len(t.Steps)-1] += fmt.Sprintf(" [reader %d can no longer go wrong; left out]", j+1)
			}
		}
	}
	for _, step := range slices.Backward(path) {
		target := e.seen.states[step]
		walk(func(n *state, _ action, _ Property) bool {
			c := *n
			m.canonicalize(&c)
			return c == target
		})
	}
	if v.inState {
		t.Verdict = fmt.Sprintf("the entry is valid and holds %d, the database holds %d, and nothing will repair it", now.entry.val, now.db)
		return t
	}
	before := now
	walk(func(_ *state, _ action, broken Property) bool { return broken&p != 0 })
	t.Verdict = verdict(p, &before)
	return t
}

func verdict(p Property, before *state) string {
	if p&(Inversion|UnfencedInversion) != 0 {
		return fmt.Sprintf("an earlier read had already returned %d", before.seen)
	}
	return fmt.Sprintf("write %d was acknowledged before this read began", before.acked)
}

package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The scheduler explores the code itself as the model explores the protocol. Every step of a read
// or a write that others could observe (each call of the store, each read of the source, each
// commit) waits until the scheduler resumes it, one at a time, in every possible order. Between
// two steps all goroutines run until each one waits, on virtual time. So a schedule is a list of
// choices that can be repeated, and all schedules form a tree.

// scheduler holds the waiting steps.
type scheduler struct {
	mu           sync.Mutex
	waitingSteps []*waitingStep
	arrivals     map[string]int
	open         bool // steps no longer wait
	trace        []string
}

type waitingStep struct {
	name   string
	nth    int      // of this name, from 0
	faults []string // the faults it may have
	resume chan string
}

// wait blocks the caller until its step is resumed, and returns the fault to inject: "" for none.
func (s *scheduler) wait(name string, faults ...string) string {
	s.mu.Lock()
	if s.open {
		s.mu.Unlock()
		return ""
	}
	p := &waitingStep{name, s.arrivals[name], faults, make(chan string)}
	s.arrivals[name]++
	s.waitingSteps = append(s.waitingSteps, p)
	s.mu.Unlock()
	return <-p.resume
}

// take removes the i-th waiting step, by name and then by arrival.
func (s *scheduler) take(i int) *waitingStep {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortStableFunc(s.waitingSteps, func(a, b *waitingStep) int { return strings.Compare(a.name, b.name) })
	p := s.waitingSteps[i]
	s.waitingSteps = slices.Delete(s.waitingSteps, i, i+1)
	return p
}

func (s *scheduler) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waitingSteps)
}

// releaseAll resumes all steps, now and from now on.
func (s *scheduler) releaseAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = true
	for _, p := range s.waitingSteps {
		p.resume <- ""
	}
	s.waitingSteps = nil
}

// choices walks all lists of choices.
type choices struct {
	picked, widths []int
	depth          int
}

// pick returns a number below n: another one each time the same list of choices leads here.
func (c *choices) pick(n int) int {
	if c.depth == len(c.picked) {
		c.picked, c.widths = append(c.picked, 0), append(c.widths, n)
	}
	if c.widths[c.depth] != n {
		panic(fmt.Sprintf("choice %d was among %d and is among %d: the schedule cannot be repeated", c.depth, c.widths[c.depth], n))
	}
	c.depth++
	return c.picked[c.depth-1]
}

// next moves on to the next list of choices, and returns false after the last.
func (c *choices) next() bool {
	c.depth = 0
	for i := len(c.picked) - 1; i >= 0; i-- {
		if c.picked[i]++; c.picked[i] < c.widths[i] {
			c.picked, c.widths = c.picked[:i+1], c.widths[:i+1]
			return true
		}
	}
	return false
}

// explore runs play under every schedule, until one goes wrong, and returns how many there are.
// In every schedule at most faults steps have a fault.
func explore(t *testing.T, faults int, run func(t *testing.T, r *execution)) (schedules int) {
	t.Helper()
	c := &choices{}
	for more := true; more && !t.Failed(); more = c.next() {
		schedules++
		synctest.Test(t, func(t *testing.T) {
			r := &execution{scheduler: &scheduler{arrivals: map[string]int{}}, tree: c, faults: faults}
			run(t, r)
			if t.Failed() {
				t.Logf("schedule %d: %s", schedules, strings.Join(r.scheduler.trace, ", "))
			}
		})
	}
	return schedules
}

// execution is one schedule.
type execution struct {
	*scheduler
	tree   *choices
	faults int // that may still happen
	step   int // how many steps have been resumed
}

// run resumes steps until done. It calls before for each, with how many of its name came earlier,
// and after once all goroutines are blocked. When no step waits, time passes.
func (r *execution) run(t *testing.T, done func() bool, before func(name string, nth int, fault string), after func()) {
	t.Helper()
	const most = 500
	for idle := 0; ; {
		synctest.Wait()
		after()
		if done() {
			return
		}
		if r.step++; r.step > most {
			t.Errorf("after %d steps the schedule has not ended", most)
			return
		}
		n := r.waiting()
		if n == 0 {
			if idle++; idle > 200 {
				t.Error("all goroutines are blocked and no step waits")
				return
			}
			time.Sleep(50 * time.Millisecond)
			continue
		}
		p := r.take(r.tree.pick(n))
		fault := ""
		if r.faults > 0 && len(p.faults) > 0 {
			if i := r.tree.pick(1 + len(p.faults)); i > 0 {
				fault = p.faults[i-1]
				r.faults--
			}
		}
		text := p.name
		if fault != "" {
			text += " (" + fault + ")"
		}
		r.trace = append(r.trace, text)
		before(p.name, p.nth, fault)
		p.resume <- fault
	}
}

// The faults of a step.
const (
	failsWithoutEffect = "fails, and did nothing"
	failsAfterEffect   = "fails, and did it"
	crashes            = "its process dies"
)

var errInjected = errors.New("injected")

// stepped runs do as a step, with the fault that the scheduler injects.
func (s *scheduler) stepped(ctx context.Context, name string, do func() error, faults ...string) error {
	switch s.wait(name, faults...) {
	case failsWithoutEffect:
		return errInjected
	case failsAfterEffect:
		_ = do()
		return errInjected
	}
	return do()
}

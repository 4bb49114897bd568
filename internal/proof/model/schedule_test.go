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

// What follows explores the code itself as the model explores the protocol: every step of a
// read or a write that others could notice (each call of the store, each look at the source, each
// commit) waits until it is let go, one at a time, in every order there is. Between two
// steps everybody runs until nobody can, on virtual time, so a schedule is a list of choices
// that can be repeated, and trying all of them is walking a tree.

// stage is where steps wait.
type stage struct {
	mu     sync.Mutex
	parked []*parked
	came   map[string]int
	open   bool // nobody waits any more
	trace  []string
}

type parked struct {
	name string
	nth  int      // of this name, from 0
	ends []string // how it may end, beside well
	let  chan string
}

// wait parks the caller until it is let go, and returns how its step is to end: "" is well.
func (s *stage) wait(name string, ends ...string) string {
	s.mu.Lock()
	if s.open {
		s.mu.Unlock()
		return ""
	}
	p := &parked{name, s.came[name], ends, make(chan string)}
	s.came[name]++
	s.parked = append(s.parked, p)
	s.mu.Unlock()
	return <-p.let
}

// take removes the i-th of those who wait, by name and then by arrival.
func (s *stage) take(i int) *parked {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortStableFunc(s.parked, func(a, b *parked) int { return strings.Compare(a.name, b.name) })
	p := s.parked[i]
	s.parked = slices.Delete(s.parked, i, i+1)
	return p
}

func (s *stage) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.parked)
}

// clear lets everybody go, now and from now on.
func (s *stage) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = true
	for _, p := range s.parked {
		p.let <- ""
	}
	s.parked = nil
}

// tree walks all lists of choices.
type tree struct {
	choices, widths []int
	depth           int
}

// pick returns a number below n: another one each time the same list of choices leads here.
func (c *tree) pick(n int) int {
	if c.depth == len(c.choices) {
		c.choices, c.widths = append(c.choices, 0), append(c.widths, n)
	}
	if c.widths[c.depth] != n {
		panic(fmt.Sprintf("choice %d was among %d and is among %d: the schedule cannot be repeated", c.depth, c.widths[c.depth], n))
	}
	c.depth++
	return c.choices[c.depth-1]
}

// next moves on to the next list of choices, and returns false after the last.
func (c *tree) next() bool {
	c.depth = 0
	for i := len(c.choices) - 1; i >= 0; i-- {
		if c.choices[i]++; c.choices[i] < c.widths[i] {
			c.choices, c.widths = c.choices[:i+1], c.widths[:i+1]
			return true
		}
	}
	return false
}

// explore runs play under every schedule, until one goes wrong, and returns how many there are.
// Of every schedule at most faults steps end otherwise than well.
func explore(t *testing.T, faults int, play func(t *testing.T, r *rehearsal)) (schedules int) {
	t.Helper()
	c := &tree{}
	for more := true; more && !t.Failed(); more = c.next() {
		schedules++
		synctest.Test(t, func(t *testing.T) {
			r := &rehearsal{stage: &stage{came: map[string]int{}}, tree: c, faults: faults}
			play(t, r)
			if t.Failed() {
				t.Logf("schedule %d: %s", schedules, strings.Join(r.stage.trace, ", "))
			}
		})
	}
	return schedules
}

// rehearsal is one schedule.
type rehearsal struct {
	*stage
	tree   *tree
	faults int // that may still happen
	step   int // how many steps have been let go
}

// act lets steps go until done. It tells before of each, with how many of its name came earlier,
// and calls after once nobody can go on. When nobody waits, time passes.
func (r *rehearsal) act(t *testing.T, done func() bool, before func(name string, nth int, end string), after func()) {
	t.Helper()
	const most = 500
	for idle := 0; ; {
		synctest.Wait()
		after()
		if done() {
			return
		}
		if r.step++; r.step > most {
			t.Errorf("after %d steps it is not over", most)
			return
		}
		n := r.waiting()
		if n == 0 {
			if idle++; idle > 200 {
				t.Error("everybody waits, and for nothing")
				return
			}
			time.Sleep(50 * time.Millisecond)
			continue
		}
		p := r.take(r.tree.pick(n))
		end := ""
		if r.faults > 0 && len(p.ends) > 0 {
			if i := r.tree.pick(1 + len(p.ends)); i > 0 {
				end = p.ends[i-1]
				r.faults--
			}
		}
		told := p.name
		if end != "" {
			told += " (" + end + ")"
		}
		r.trace = append(r.trace, told)
		before(p.name, p.nth, end)
		p.let <- end
	}
}

// How a step may end.
const (
	refused = "fails, and did nothing"
	silent  = "fails, and did it"
	dies    = "its process dies"
)

var errInjected = errors.New("injected")

// stepped runs do between what the stage says.
func (s *stage) stepped(ctx context.Context, name string, do func() error, ends ...string) error {
	switch s.wait(name, ends...) {
	case refused:
		return errInjected
	case silent:
		_ = do()
		return errInjected
	}
	return do()
}

package model

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"time"
)

// Result is what exploring one Config found.
type Result struct {
	Config      Config
	States      int // distinct states, up to renaming
	Transitions int
	Depth       int  // steps of the longest shortest path
	Complete    bool // every reachable state was visited
	Elapsed     time.Duration

	// Wrong counts, per property, the steps that break it (for StuckStale: the states).
	Wrong map[Property]int
	// Traces holds, per broken property, a shortest run that breaks it.
	Traces map[Property]Trace
}

// Broken returns the properties found broken.
func (r Result) Broken() Property {
	var p Property
	for q := range r.Wrong {
		p |= q
	}
	return p
}

// Options bound a Check.
type Options struct {
	StopAt    Property // stop once all of these have been found broken; 0 explores everything
	MaxStates int      // give up beyond; default 50 million
}

// Check explores every state cfg can reach, breadth first, so that the traces it
// returns are as short as any. It fails if cfg makes no sense or the bound is hit.
func Check(cfg Config, opt Options) (Result, error) {
	if err := cfg.validate(); err != nil {
		return Result{}, fmt.Errorf("configuration %q: %w", cfg.Name, err)
	}
	e := newExploration(cfg, opt)
	begin := time.Now()
	err := e.run()
	e.result.Elapsed = time.Since(begin)
	e.result.States = len(e.seen.states)
	for p, v := range e.first {
		e.result.Traces[p] = e.trace(p, v)
	}
	return e.result, err
}

type exploration struct {
	m      *machine
	seen   *index
	parent []uint32
	result Result
	opt    Options
	first  map[Property]violation
}

// violation is where a property was first broken: by action, from the state at
// index from; or in that state itself.
type violation struct {
	from    uint32
	action  action
	inState bool
}

func newExploration(cfg Config, opt Options) *exploration {
	opt.MaxStates = cmp.Or(opt.MaxStates, 50_000_000)
	return &exploration{
		m:      newMachine(cfg),
		seen:   newIndex(),
		result: Result{Config: cfg, Wrong: map[Property]int{}, Traces: map[Property]Trace{}},
		opt:    opt,
		first:  map[Property]violation{},
	}
}

func (e *exploration) run() error {
	start := e.m.initial()
	e.m.canonicalize(&start)
	e.seen.add(start)
	e.parent = append(e.parent, 0)

	levelEnd := 1
	for at := 0; at < len(e.seen.states); at++ {
		if at == levelEnd {
			e.result.Depth++
			levelEnd = len(e.seen.states)
		}
		if len(e.seen.states) > e.opt.MaxStates {
			return fmt.Errorf("configuration %q: more than %d states; choose fewer writers, readers or faults",
				e.result.Config.Name, e.opt.MaxStates)
		}
		s := e.seen.states[at]
		if e.m.stuck(&s) {
			e.note(StuckStale, violation{from: uint32(at), inState: true})
		}
		e.m.successors(&s, func(n *state, a action, broken Property) {
			e.result.Transitions++
			if broken != 0 {
				e.note(broken, violation{from: uint32(at), action: a})
			}
			next := *n
			e.m.canonicalize(&next)
			if e.seen.add(next) {
				e.parent = append(e.parent, uint32(at))
			}
		})
		if e.opt.StopAt != 0 && e.result.Broken()&e.opt.StopAt == e.opt.StopAt {
			return nil
		}
	}
	e.result.Complete = true
	return nil
}

func (e *exploration) note(broken Property, v violation) {
	for _, p := range AllProperties {
		if broken&p == 0 {
			continue
		}
		if e.result.Wrong[p] == 0 {
			e.first[p] = v
		}
		e.result.Wrong[p]++
	}
}

// index numbers states in the order they are added. A map of states would hold
// each one twice, and these are most of the memory.
type index struct {
	seed   maphash.Seed
	states []state
	slots  []slot // open addressing
}

// slot keeps part of the hash beside the position, so that most misses and all
// of growing are settled without a look at the states, which are not in the
// processor's cache.
type slot struct {
	hash uint32
	next uint32 // 1 + position in states; 0: free
}

func newIndex() *index {
	return &index{seed: maphash.MakeSeed(), slots: make([]slot, 1<<12)}
}

// add reports whether s is new.
func (x *index) add(s state) bool {
	if 2*len(x.states) >= len(x.slots) {
		x.grow()
	}
	at, hash := x.find(&s)
	if x.slots[at].next != 0 {
		return false
	}
	x.states = append(x.states, s)
	x.slots[at] = slot{hash, uint32(len(x.states))}
	return true
}

func (x *index) has(s *state) bool {
	at, _ := x.find(s)
	return x.slots[at].next != 0
}

// find returns where s is, or the free slot where it belongs.
func (x *index) find(s *state) (at, hash uint32) {
	hash = uint32(maphash.Comparable(x.seed, *s))
	mask := uint32(len(x.slots) - 1)
	for at = hash & mask; x.slots[at].next != 0; at = (at + 1) & mask {
		if x.slots[at].hash == hash && x.states[x.slots[at].next-1] == *s {
			break
		}
	}
	return at, hash
}

func (x *index) grow() {
	old := x.slots
	x.slots = make([]slot, 2*len(old))
	mask := uint32(len(x.slots) - 1)
	for _, sl := range old {
		if sl.next == 0 {
			continue
		}
		at := sl.hash & mask
		for x.slots[at].next != 0 {
			at = (at + 1) & mask
		}
		x.slots[at] = sl
	}
}

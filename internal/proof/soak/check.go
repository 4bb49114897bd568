package soak

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"sort"
	"time"
)

// requirement is the least that may be read from some moment on, and why.
type requirement struct {
	at     int64 // holds for reads that begin later
	commit *commit
	read   *read // that showed it; nil: it was acknowledged, or is long over
}

func (d requirement) value() int64 {
	if d.commit == nil {
		return 0
	}
	return d.commit.Value
}

type requirementHeap []requirement

func (d requirementHeap) Len() int           { return len(d) }
func (d requirementHeap) Less(i, j int) bool { return d[i].at < d[j].at }
func (d requirementHeap) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *requirementHeap) Push(x any)        { *d = append(*d, x.(requirement)) }
func (d *requirementHeap) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	*d = (*d)[:last]
	return x
}

// lowerBound is what reads must show at least, over time. Each requirement is higher than the one
// before.
type lowerBound []requirement

// raise adds d, which is later than all before.
func (f *lowerBound) raise(d requirement) {
	if d.value() > f.last().value() {
		*f = append(*f, d)
	}
}

func (f lowerBound) last() requirement {
	if len(f) == 0 {
		return requirement{}
	}
	return f[len(f)-1]
}

// before returns the requirement for a read that begins at t.
func (f lowerBound) before(t int64) requirement {
	return f[:sort.Search(len(f), func(i int) bool { return f[i].at >= t })].last()
}

// Figures is what a check has measured.
type Figures struct {
	Checked  int64 // answers, counting each row of a list
	Commits  int64 // of keys
	Strict   int64 // commits that excuse nothing
	Linear   int64 // histories of a key that porcupine was asked about
	NearRead int64 // of the checked answers, near ones
	// Staleness is how long after the end of a write a strict answer was still older than it, at
	// most. Repair is the same, counted from the end of the faults. Only writes that are not
	// strict can make them more than zero; otherwise there is a violation.
	Staleness, Repair time.Duration
	// NearStaleness is the same as Staleness for near answers.
	NearStaleness time.Duration
	// Stalest explains the read behind Staleness.
	Stalest string
}

func (f *Figures) add(g Figures) {
	f.Checked += g.Checked
	f.Commits += g.Commits
	f.Strict += g.Strict
	f.Linear += g.Linear
	f.NearRead += g.NearRead
	if g.Staleness > f.Staleness {
		f.Staleness, f.Stalest = g.Staleness, g.Stalest
	}
	f.Repair = max(f.Repair, g.Repair)
	f.NearStaleness = max(f.NearStaleness, g.NearStaleness)
}

// check compares every read of the segment with what was committed. It returns the first
// violation of each key.
func (c *segmentHistory) check() (Figures, []Violation) {
	var figures Figures
	violations := c.violations
	for key := range c.base {
		k := keyCheck{segmentHistory: c, key: key, figures: &figures}
		if v := k.checkReads(); v != nil {
			violations = append(violations, *v)
		} else if v := k.checkLinear(); v != nil {
			violations = append(violations, *v)
		}
	}
	slices.SortFunc(violations, func(a, b Violation) int { return cmp.Compare(a.at, b.at) })
	return figures, violations
}

// keyCheck is the check of one key.
type keyCheck struct {
	*segmentHistory
	key               int
	figures           *Figures
	commits           []*commit           // base first
	index             map[int64]int       // of a value in commits
	begunBy           []int64             // when each commit and all before it had begun: none shows earlier
	binding           []*commit           // the last one up to each commit that binds readers
	bound             lowerBound          // for all processes
	ownBounds         map[int]*lowerBound // for each process, its own acknowledged writes
	notFoundAs        map[int]*commit     // what a read that found nothing has seen: its place in reads → commit
	earliestEnd       []int64             // the earliest end of each commit and those after it
	earliestFaultFree []int64             // the same of FaultFreeFrom
}

func (k *keyCheck) prepare() {
	k.commits = append([]*commit{k.base[k.key]}, k.segmentHistory.commits[k.key]...)
	k.index = map[int64]int{}
	k.binding = make([]*commit, len(k.commits))
	k.ownBounds = map[int]*lowerBound{}
	k.notFoundAs = map[int]*commit{}
	k.begunBy = make([]int64, len(k.commits))
	for i, c := range k.commits {
		k.index[c.Value] = i
		if k.begunBy[i] = c.Begin; i > 0 {
			k.begunBy[i] = max(c.Begin, k.begunBy[i-1])
		}
		if c.BindsReaders {
			k.binding[i] = c
		} else if i > 0 {
			k.binding[i] = k.binding[i-1]
		}
		k.figures.Commits++
		if c.strict() {
			k.figures.Strict++
		}
	}
	n := len(k.commits)
	k.earliestEnd, k.earliestFaultFree = make([]int64, n+1), make([]int64, n+1)
	k.earliestEnd[n], k.earliestFaultFree[n] = never, never
	for i := n - 1; i >= 0; i-- {
		k.earliestEnd[i] = min(k.earliestEnd[i+1], k.commits[i].End)
		k.earliestFaultFree[i] = min(k.earliestFaultFree[i+1], k.commits[i].FaultFreeFrom)
	}
	acked := slices.Clone(k.commits)
	slices.SortFunc(acked, func(a, b *commit) int { return cmp.Compare(a.End, b.End) })
	for _, c := range acked {
		if c.Outcome == acknowledged && c.By != externalWriter {
			if k.ownBounds[c.By] == nil {
				k.ownBounds[c.By] = &lowerBound{}
			}
			k.ownBounds[c.By].raise(requirement{at: c.End, commit: c})
		}
	}
}

// checkReads goes through the reads in the order of their beginnings. The requirement for one
// depends only on reads that ended before it began, and these come earlier.
func (k *keyCheck) checkReads() *Violation {
	k.prepare()
	var pending requirementHeap
	for _, c := range k.commits {
		pending = append(pending, requirement{at: c.Deadline, commit: c})
	}
	heap.Init(&pending)
	reads := k.reads[k.key]
	for i := range reads {
		r := &reads[i]
		if r.Kind == kindNear {
			continue
		}
		for len(pending) > 0 && pending[0].at < r.Begin {
			k.bound.raise(heap.Pop(&pending).(requirement))
		}
		k.figures.Checked++
		required := k.required(r, r.Begin)
		seen, v := k.identify(r, required)
		if v != nil {
			return v
		}
		if r.Value == 0 {
			k.notFoundAs[i] = seen
		}
		if seen.Value < required.value() {
			return k.tooOld(r, seen, required)
		}
		k.measure(r, seen)
		if b := k.binding[k.index[seen.Value]]; b != nil {
			heap.Push(&pending, requirement{at: r.End, commit: b, read: r})
		}
	}
	for len(pending) > 0 {
		k.bound.raise(heap.Pop(&pending).(requirement))
	}
	for i := range reads {
		if r := &reads[i]; r.Kind == kindNear {
			k.figures.Checked++
			k.figures.NearRead++
			required := k.required(r, r.Begin-int64(k.near))
			seen, v := k.identify(r, required)
			if v != nil {
				return v
			}
			if seen.Value < required.value() {
				return k.tooOld(r, seen, required)
			}
			k.figures.NearStaleness = max(k.figures.NearStaleness, time.Duration(r.Begin-k.earliestEnd[k.next(r, seen)]))
		}
	}
	return nil
}

// requirement returns what r must show: what every read must at the time t, and what its own
// process had written before it began.
func (k *keyCheck) required(r *read, t int64) requirement {
	required := k.bound.before(t)
	if bound := k.ownBounds[r.By]; bound != nil {
		if d := bound.before(r.Begin); d.value() > required.value() {
			required = d
		}
	}
	return required
}

// identify returns the commit that r shows. "Not there" names none: of those that removed the
// row and may be meant, it is the first that satisfies the requirement, which
// requires the least of later reads.
func (k *keyCheck) identify(r *read, required requirement) (*commit, *Violation) {
	if r.Value != 0 {
		i, ok := k.index[r.Value]
		if !ok {
			return nil, k.violation("never committed", r, nil, required)
		}
		if k.begunBy[i] > r.End {
			return nil, k.violation("read before it was written", r, k.commits[i], required)
		}
		return k.commits[i], nil
	}
	var last *commit
	for i, c := range k.commits {
		if c.Absent && k.begunBy[i] <= r.End {
			if last = c; c.Value >= required.value() {
				return c, nil
			}
		}
	}
	if last == nil {
		return nil, k.violation("not found, though it was never removed", r, nil, required)
	}
	return last, nil
}

// next returns the place of the first commit that is newer than what r shows.
func (k *keyCheck) next(r *read, seen *commit) int {
	if r.Value == 0 { // the latest that it may mean
		for i, c := range k.commits {
			if c.Absent && k.begunBy[i] <= r.End {
				seen = c
			}
		}
	}
	return k.index[seen.Value] + 1
}

func (k *keyCheck) measure(r *read, seen *commit) {
	next := k.next(r, seen)
	if behind := time.Duration(r.Begin - k.earliestEnd[next]); behind > k.figures.Staleness {
		k.figures.Staleness = behind
		i := slices.IndexFunc(k.commits[next:], func(c *commit) bool { return c.End == k.earliestEnd[next] })
		v := Violation{Key: k.key, read: *r, seen: seen, required: requirement{commit: k.commits[next+i]}, faults: k.faults}
		k.figures.Stalest = v.explain()
	}
	k.figures.Repair = max(k.figures.Repair, time.Duration(r.Begin-k.earliestFaultFree[next]))
}

func (k *keyCheck) tooOld(r *read, seen *commit, required requirement) *Violation {
	what := "stale after the write was acknowledged"
	switch {
	case required.read != nil:
		what = "older than what had been read before"
	case required.commit.By == r.By && required.commit.Outcome == acknowledged:
		what = "its own write is not seen"
	case required.commit.Deadline != required.commit.End:
		what = "stale for longer than repairs may take"
	}
	if r.Kind == kindNear {
		what = "near answer beyond its bound: " + what
	}
	return k.violation(what, r, seen, required)
}

func (k *keyCheck) violation(what string, r *read, seen *commit, required requirement) *Violation {
	v := &Violation{What: what, Key: k.key, at: r.Begin, read: *r, seen: seen, required: required, faults: k.faults}
	v.Text = v.explain()
	return v
}

// Violation is a promise that was broken, with the fewest events that show it.
type Violation struct {
	What string
	Key  int
	Text string

	at       int64
	read     read
	seen     *commit
	required requirement
	faults   []window
}

func (v Violation) String() string { return fmt.Sprintf("key %d: %s\n%s", v.Key, v.What, v.Text) }

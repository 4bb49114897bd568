package soak

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"sort"
	"time"
)

// demand is the least that may be read from some moment on, and why.
type demand struct {
	at     int64 // holds for reads that begin later
	commit *commit
	read   *read // that showed it; nil: it was acknowledged, or is long over
}

func (d demand) value() int64 {
	if d.commit == nil {
		return 0
	}
	return d.commit.Value
}

type demands []demand

func (d demands) Len() int           { return len(d) }
func (d demands) Less(i, j int) bool { return d[i].at < d[j].at }
func (d demands) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *demands) Push(x any)        { *d = append(*d, x.(demand)) }
func (d *demands) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	*d = (*d)[:last]
	return x
}

// floor is what is demanded, over time: each step demands more than the one before.
type floor []demand

// raise adds d, which comes after all before.
func (f *floor) raise(d demand) {
	if d.value() > f.last().value() {
		*f = append(*f, d)
	}
}

func (f floor) last() demand {
	if len(f) == 0 {
		return demand{}
	}
	return f[len(f)-1]
}

// before returns what is demanded of a read that begins at t.
func (f floor) before(t int64) demand {
	return f[:sort.Search(len(f), func(i int) bool { return f[i].at >= t })].last()
}

// Figures is what a check has measured.
type Figures struct {
	Checked  int64 // answers, counting each row of a list
	Commits  int64 // of keys
	Strict   int64 // commits that excuse nothing
	Linear   int64 // histories of a key that porcupine was asked about
	NearRead int64 // of the checked answers, near ones
	// Staleness is for how long a strict answer was older than a write that was over, at
	// most, and Repair the same from when on no fault was at work. Only writes that are not
	// strict can make them more than zero, or there is a violation.
	Staleness, Repair time.Duration
	// NearStaleness is the same as Staleness for near answers.
	NearStaleness time.Duration
	// Stalest tells the history behind Staleness.
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

// check holds every read of the chronicle against what was committed. It returns the first
// violation of each key.
func (c *chronicle) check() (Figures, []Violation) {
	var figures Figures
	wrong := c.wrong
	for key := range c.base {
		k := keyCheck{chronicle: c, key: key, figures: &figures}
		if v := k.run(); v != nil {
			wrong = append(wrong, *v)
		} else if v := k.linear(); v != nil {
			wrong = append(wrong, *v)
		}
	}
	slices.SortFunc(wrong, func(a, b Violation) int { return cmp.Compare(a.at, b.at) })
	return figures, wrong
}

// keyCheck is the check of one key.
type keyCheck struct {
	*chronicle
	key     int
	figures *Figures
	commits []*commit       // base first
	places  map[int64]int   // of a value in commits
	begun   []int64         // when each commit and all before it had begun: none shows earlier
	binds   []*commit       // the last one up to each commit that is due once it was read
	floors  floor           // for everybody
	own     map[int]*floor  // for each process, its own acknowledged writes
	known   map[int]*commit // what a read that found nothing has seen: its place in reads → commit
	overEnd []int64         // the earliest end of each commit and those after it
	overCal []int64         // the same of Calm
}

func (k *keyCheck) prepare() {
	k.commits = append([]*commit{k.base[k.key]}, k.chronicle.commits[k.key]...)
	k.places = map[int64]int{}
	k.binds = make([]*commit, len(k.commits))
	k.own = map[int]*floor{}
	k.known = map[int]*commit{}
	k.begun = make([]int64, len(k.commits))
	for i, c := range k.commits {
		k.places[c.Value] = i
		if k.begun[i] = c.Begin; i > 0 {
			k.begun[i] = max(c.Begin, k.begun[i-1])
		}
		if c.Binding {
			k.binds[i] = c
		} else if i > 0 {
			k.binds[i] = k.binds[i-1]
		}
		k.figures.Commits++
		if c.strict() {
			k.figures.Strict++
		}
	}
	n := len(k.commits)
	k.overEnd, k.overCal = make([]int64, n+1), make([]int64, n+1)
	k.overEnd[n], k.overCal[n] = never, never
	for i := n - 1; i >= 0; i-- {
		k.overEnd[i] = min(k.overEnd[i+1], k.commits[i].End)
		k.overCal[i] = min(k.overCal[i+1], k.commits[i].Calm)
	}
	acked := slices.Clone(k.commits)
	slices.SortFunc(acked, func(a, b *commit) int { return cmp.Compare(a.End, b.End) })
	for _, c := range acked {
		if c.Outcome == acknowledged && c.By != stranger {
			if k.own[c.By] == nil {
				k.own[c.By] = &floor{}
			}
			k.own[c.By].raise(demand{at: c.End, commit: c})
		}
	}
}

// run goes through the reads in the order of their beginnings. What is demanded of one depends
// only on reads that ended before it began, and these come earlier.
func (k *keyCheck) run() *Violation {
	k.prepare()
	var due demands
	for _, c := range k.commits {
		due = append(due, demand{at: c.Due, commit: c})
	}
	heap.Init(&due)
	reads := k.reads[k.key]
	for i := range reads {
		r := &reads[i]
		if r.Asked == askNear {
			continue
		}
		for len(due) > 0 && due[0].at < r.Begin {
			k.floors.raise(heap.Pop(&due).(demand))
		}
		k.figures.Checked++
		need := k.need(r, r.Begin)
		seen, v := k.identify(r, need)
		if v != nil {
			return v
		}
		if r.Value == 0 {
			k.known[i] = seen
		}
		if seen.Value < need.value() {
			return k.tooOld(r, seen, need)
		}
		k.measure(r, seen)
		if b := k.binds[k.places[seen.Value]]; b != nil {
			heap.Push(&due, demand{at: r.End, commit: b, read: r})
		}
	}
	for len(due) > 0 {
		k.floors.raise(heap.Pop(&due).(demand))
	}
	for i := range reads {
		if r := &reads[i]; r.Asked == askNear {
			k.figures.Checked++
			k.figures.NearRead++
			need := k.need(r, r.Begin-int64(k.near))
			seen, v := k.identify(r, need)
			if v != nil {
				return v
			}
			if seen.Value < need.value() {
				return k.tooOld(r, seen, need)
			}
			k.figures.NearStaleness = max(k.figures.NearStaleness, time.Duration(r.Begin-k.overEnd[k.next(r, seen)]))
		}
	}
	return nil
}

// need returns what is demanded of r: what was due at the time t, and what its own process had
// written before it began.
func (k *keyCheck) need(r *read, t int64) demand {
	need := k.floors.before(t)
	if own := k.own[r.By]; own != nil {
		if d := own.before(r.Begin); d.value() > need.value() {
			need = d
		}
	}
	return need
}

// identify returns the commit that r shows. "Not there" names none: of those that removed the
// row and may be meant, it is the first that satisfies what is demanded, which demands
// the least of reads to come.
func (k *keyCheck) identify(r *read, need demand) (*commit, *Violation) {
	if r.Value != 0 {
		i, ok := k.places[r.Value]
		if !ok {
			return nil, k.violation("never committed", r, nil, need)
		}
		if k.begun[i] > r.End {
			return nil, k.violation("read before it was written", r, k.commits[i], need)
		}
		return k.commits[i], nil
	}
	var last *commit
	for i, c := range k.commits {
		if c.Absent && k.begun[i] <= r.End {
			if last = c; c.Value >= need.value() {
				return c, nil
			}
		}
	}
	if last == nil {
		return nil, k.violation("not found, though it was never removed", r, nil, need)
	}
	return last, nil
}

// next returns the place of the first commit that is newer than what r shows.
func (k *keyCheck) next(r *read, seen *commit) int {
	if r.Value == 0 { // the latest that it may mean
		for i, c := range k.commits {
			if c.Absent && k.begun[i] <= r.End {
				seen = c
			}
		}
	}
	return k.places[seen.Value] + 1
}

func (k *keyCheck) measure(r *read, seen *commit) {
	next := k.next(r, seen)
	if behind := time.Duration(r.Begin - k.overEnd[next]); behind > k.figures.Staleness {
		k.figures.Staleness = behind
		i := slices.IndexFunc(k.commits[next:], func(c *commit) bool { return c.End == k.overEnd[next] })
		v := Violation{Key: k.key, read: *r, seen: seen, need: demand{commit: k.commits[next+i]}, faults: k.faults}
		k.figures.Stalest = v.explain()
	}
	k.figures.Repair = max(k.figures.Repair, time.Duration(r.Begin-k.overCal[next]))
}

func (k *keyCheck) tooOld(r *read, seen *commit, need demand) *Violation {
	what := "stale after the write was acknowledged"
	switch {
	case need.read != nil:
		what = "older than what had been read before"
	case need.commit.By == r.By && need.commit.Outcome == acknowledged:
		what = "its own write is not seen"
	case need.commit.Due != need.commit.End:
		what = "stale for longer than repairs may take"
	}
	if r.Asked == askNear {
		what = "near answer beyond its bound: " + what
	}
	return k.violation(what, r, seen, need)
}

func (k *keyCheck) violation(what string, r *read, seen *commit, need demand) *Violation {
	v := &Violation{What: what, Key: k.key, at: r.Begin, read: *r, seen: seen, need: need, faults: k.faults}
	v.Text = v.explain()
	return v
}

// Violation is a promise that was broken, with the fewest events that show it.
type Violation struct {
	What string
	Key  int
	Text string

	at     int64
	read   read
	seen   *commit
	need   demand
	faults []window
}

func (v Violation) String() string { return fmt.Sprintf("key %d: %s\n%s", v.Key, v.What, v.Text) }

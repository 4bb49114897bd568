package soak

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

const (
	longAgo = math.MinInt64 / 4
	never   = math.MaxInt64 / 4
)

// externalWriter is the number of the writer that does not use the library. No worker has it.
const externalWriter = 0

// read is one key as one answer showed it.
type read struct {
	keyValue
	Begin, End int64
	By         int // number of the worker
	Kind       readKind
	Status     cache.Status
}

// commit is one key as one committed write left it.
type commit struct {
	keyValue
	Absent     bool // it removed the row; Value is then its number in the sequence only
	Op         int64
	By         int
	Begin, End int64 // End: acknowledged, or failed, or its process exited
	Outcome    outcome
	Fenced     bool // its fence stood before it was committed
	Bumped     bool // its own bump reached Redis before it ended
	Lost       bool // Redis may have lost the fence

	// Deadline is the moment from which no strict read may show less.
	Deadline int64
	// BindsReaders: a read that showed it requires it of all reads that begin later.
	BindsReaders bool
	// FaultFreeFrom is the end, or the end of the faults that were then at work, whichever is later:
	// from here on no fault delays the repair.
	FaultFreeFrom int64
}

// strict reports that nothing excuses a stale read, or an old one after a new one.
func (c *commit) strict() bool {
	return c.BindsReaders && (c.Outcome != acknowledged || c.Deadline == c.End)
}

// window is the time of a fault.
type window struct {
	Name       string
	Begin, End int64
	Lossy      bool // Redis may lose fences in it
}

// write is a transaction as its process reports it.
type write struct {
	by         int
	begin, end int64 // end 0: its end was not reported
	fenced     bool
	bumped     bool
	outcome    outcome
	err        string
}

// row is a line of the table history.
type row struct {
	keyValue
	absent bool
	op     int64
}

// history collects what is seen during one segment of a run.
type history struct {
	mu     sync.Mutex
	writes map[int64]*write
	reads  []read
	counts counts
}

// counts are sums over a whole run.
type counts struct {
	Reads, Failed                       int64 // answers asked for, and those of them that were errors
	Hits, Stale, Loads, Bypassed        int64
	Proven                              int64 // of the hits, those of near answers that were proven for their callers
	Acknowledged, NotCommitted, Unknown int64 // transactions
	LastError                           string
}

func newHistory() *history { return &history{writes: map[int64]*write{}} }

// record keeps the events of a worker.
func (h *history) record(m *Process, events []event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range events {
		switch e.Kind {
		case eventRead, eventFailedRead:
			h.recordRead(m, e)
		case eventWriteBegins:
			h.writes[e.Op] = &write{by: m.number, begin: e.Begin}
		case eventFenced:
			if w := h.writes[e.Op]; w != nil {
				w.fenced = true
			}
		case eventWriteEnds:
			if w := h.writes[e.Op]; w != nil {
				w.end, w.outcome, w.bumped, w.err = e.End, e.Outcome, e.Bumped, e.Err
			}
		}
	}
}

func (h *history) recordRead(m *Process, e event) {
	h.counts.Reads++
	if e.Kind == eventFailedRead {
		h.counts.Failed++
		h.counts.LastError = e.Err
		return
	}
	switch e.Status {
	case cache.Hit:
		h.counts.Hits++
		if e.ReadKind == kindProven {
			h.counts.Proven++
		}
	case cache.Stale:
		h.counts.Stale++
	case cache.Bypass:
		h.counts.Bypassed++
	default:
		h.counts.Loads++
	}
	for _, s := range e.Values {
		h.reads = append(h.reads, read{s, e.Begin, e.End, m.number, e.ReadKind, e.Status})
	}
}

// recordExternal keeps a write by the external writer.
func (h *history) recordExternal(op, begin, end int64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &write{by: externalWriter, begin: begin, end: end, outcome: acknowledged}
	if err != nil {
		w.outcome, w.err = unknown, err.Error()
	}
	h.writes[op] = w
}

// segmentHistory is one segment of a run, complete: nothing was under way at its beginning or
// its end.
type segmentHistory struct {
	near       time.Duration
	base       map[int]*commit   // what each key was at the beginning
	commits    map[int][]*commit // by key, in the order of their values; without base
	reads      map[int][]read    // by key, in the order of their beginnings
	faults     []window
	violations []Violation // found before the reads are checked
}

// endSegment ends the segment. rows is what was committed in it according to the database,
// exits when workers exited, and repair how long what is not strict may take to show.
func (h *history) endSegment(base map[int]*commit, rows []row, exits map[int]int64, faults []window, near, repair time.Duration) *segmentHistory {
	h.mu.Lock()
	writes, reads := h.writes, h.reads
	h.writes, h.reads = map[int64]*write{}, nil
	for _, w := range writes {
		switch w.outcome {
		case acknowledged:
			h.counts.Acknowledged++
		case notCommitted:
			h.counts.NotCommitted++
		default:
			h.counts.Unknown++
		}
	}
	h.mu.Unlock()

	c := &segmentHistory{near: near, base: base, commits: map[int][]*commit{}, reads: map[int][]read{}, faults: faults}
	for _, r := range reads {
		c.reads[r.Key] = append(c.reads[r.Key], r)
	}
	for _, list := range c.reads {
		slices.SortFunc(list, func(a, b read) int { return int(a.Begin - b.Begin) })
	}
	found := map[int64]bool{}
	slices.SortFunc(rows, func(a, b row) int { return int(a.Value - b.Value) })
	for _, r := range rows {
		found[r.op] = true
		w := writes[r.op]
		if w == nil {
			c.violations = append(c.violations, Violation{What: "not written by a client", Key: r.Key,
				Text: fmt.Sprintf("the database holds the value %d of the write %x, which no writer began", r.Value, r.op)})
			continue
		}
		if w.outcome == notCommitted {
			c.violations = append(c.violations, Violation{What: "failed write was committed", Key: r.Key,
				Text: fmt.Sprintf("the write %x of worker %d failed (%s), yet its value %d was committed", r.op, w.by, w.err, r.Value)})
		}
		c.commits[r.Key] = append(c.commits[r.Key], c.newCommit(r, w, exits, repair))
	}
	for op, w := range writes {
		if w.outcome == acknowledged && !found[op] {
			c.violations = append(c.violations, Violation{What: "acknowledged write is lost",
				Text: fmt.Sprintf("the write %x of worker %d was acknowledged, and the database does not have it", op, w.by)})
		}
		if _, exited := exits[w.by]; w.end == 0 && !exited {
			c.violations = append(c.violations, Violation{What: "write never ended",
				Text: fmt.Sprintf("the write %x of worker %d, which runs, has not ended", op, w.by)})
		}
	}
	return c
}

// newCommit decides what a committed write requires of later reads.
func (c *segmentHistory) newCommit(r row, w *write, exits map[int]int64, repair time.Duration) *commit {
	k := &commit{
		keyValue: r.keyValue, Absent: r.absent, Op: r.op, By: w.by, Begin: w.begin, End: w.end,
		Outcome: w.outcome, Fenced: w.fenced, Bumped: w.bumped,
	}
	if w.end == 0 {
		k.End, k.Outcome = exits[w.by], unknown
	}
	k.FaultFreeFrom = c.faultFreeFrom(k.End, repair)
	until := k.End // its fence or its bump protects others
	if k.Outcome != acknowledged || !k.Bumped {
		until = k.FaultFreeFrom + int64(repair)
	}
	for _, f := range c.faults {
		k.Lost = k.Lost || f.Lossy && f.Begin < until && f.End > k.Begin
	}
	k.BindsReaders = k.Fenced && !k.Lost
	if k.Outcome == acknowledged && (k.Bumped || k.BindsReaders) {
		k.Deadline = k.End
	} else {
		k.Deadline = k.FaultFreeFrom + int64(repair)
	}
	return k
}

// faultFreeFrom returns the first moment from t on when no fault is at work, and none was just before
// the time for repairs had passed.
func (c *segmentHistory) faultFreeFrom(t int64, repair time.Duration) int64 {
	for again := true; again; {
		again = false
		for _, f := range c.faults {
			if f.Begin < t+int64(repair) && f.End > t {
				t, again = f.End, true
			}
		}
	}
	return t
}

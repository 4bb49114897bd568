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

// stranger is the number of the writer that knows nothing of the cache. No worker has it.
const stranger = 0

// read is one key as one answer showed it.
type read struct {
	sight
	Begin, End int64
	By         int // number of the worker
	Asked      question
	Status     cache.Status
}

// commit is one key as one committed write left it.
type commit struct {
	sight
	Absent     bool // it removed the row; Value is then its number in the sequence only
	Op         int64
	By         int
	Begin, End int64 // End: acknowledged, or given up, or died
	Outcome    outcome
	Fenced     bool // its fence stood before it was committed
	Bumped     bool // its own bump reached Redis before it ended
	Lost       bool // Redis may have lost the fence

	// Due is from when on no strict read may show less.
	Due int64
	// Binding says that it is due for all that begin after a read that showed it.
	Binding bool
	// Calm is the end, or the end of the faults that were then at work, whichever is later:
	// from here on nothing stands in the way of repairing.
	Calm int64
}

// strict reports that nothing excuses a stale or a turned-round read.
func (c *commit) strict() bool { return c.Binding && (c.Outcome != acknowledged || c.Due == c.End) }

// window is the time of a fault.
type window struct {
	Name       string
	Begin, End int64
	Lossy      bool // Redis may lose fences in it
}

// write is a transaction as its process tells of it.
type write struct {
	by         int
	begin, end int64 // end 0: not heard of
	fenced     bool
	bumped     bool
	outcome    outcome
	err        string
}

// row is a line of the table history.
type row struct {
	sight
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
	Reads, Failed                 int64 // answers asked for, and those of them that were errors
	Hits, Stale, Loads, Bypassed  int64
	Acknowledged, Undone, Unknown int64 // transactions
	LastError                     string
}

func newHistory() *history { return &history{writes: map[int64]*write{}} }

// hear takes note of what a worker says.
func (h *history) hear(m *Member, events []event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range events {
		switch e.Kind {
		case eventRead, eventFailedRead:
			h.read(m, e)
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

func (h *history) read(m *Member, e event) {
	h.counts.Reads++
	if e.Kind == eventFailedRead {
		h.counts.Failed++
		h.counts.LastError = e.Err
		return
	}
	switch e.Status {
	case cache.Hit:
		h.counts.Hits++
	case cache.Stale:
		h.counts.Stale++
	case cache.Bypass:
		h.counts.Bypassed++
	default:
		h.counts.Loads++
	}
	for _, s := range e.Seen {
		h.reads = append(h.reads, read{s, e.Begin, e.End, m.number, e.Asked, e.Status})
	}
}

// foreign takes note of a write by the stranger.
func (h *history) foreign(op, begin, end int64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &write{by: stranger, begin: begin, end: end, outcome: acknowledged}
	if err != nil {
		w.outcome, w.err = unknown, err.Error()
	}
	h.writes[op] = w
}

// chronicle is one segment of a run, complete: nothing was under way at its beginning, nor at
// its end.
type chronicle struct {
	near    time.Duration
	base    map[int]*commit   // what each key was at the beginning
	commits map[int][]*commit // by key, in the order of their values; without base
	reads   map[int][]read    // by key, in the order of their beginnings
	faults  []window
	wrong   []Violation // what is wrong before any read is looked at
}

// close ends the segment. rows is what the database says was committed in it, deaths when
// workers ended, and repair how long what is not strict may take to show.
func (h *history) close(base map[int]*commit, rows []row, deaths map[int]int64, faults []window, near, repair time.Duration) *chronicle {
	h.mu.Lock()
	writes, reads := h.writes, h.reads
	h.writes, h.reads = map[int64]*write{}, nil
	for _, w := range writes {
		switch w.outcome {
		case acknowledged:
			h.counts.Acknowledged++
		case undone:
			h.counts.Undone++
		default:
			h.counts.Unknown++
		}
	}
	h.mu.Unlock()

	c := &chronicle{near: near, base: base, commits: map[int][]*commit{}, reads: map[int][]read{}, faults: faults}
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
			c.wrong = append(c.wrong, Violation{What: "written by nobody", Key: r.Key,
				Text: fmt.Sprintf("the database holds the value %d of the write %x, which nobody began", r.Value, r.op)})
			continue
		}
		if w.outcome == undone {
			c.wrong = append(c.wrong, Violation{What: "failed write was committed", Key: r.Key,
				Text: fmt.Sprintf("the write %x of worker %d failed (%s), yet its value %d was committed", r.op, w.by, w.err, r.Value)})
		}
		c.commits[r.Key] = append(c.commits[r.Key], c.judge(r, w, deaths, repair))
	}
	for op, w := range writes {
		if w.outcome == acknowledged && !found[op] {
			c.wrong = append(c.wrong, Violation{What: "acknowledged write is lost",
				Text: fmt.Sprintf("the write %x of worker %d was acknowledged, and the database does not have it", op, w.by)})
		}
		if _, dead := deaths[w.by]; w.end == 0 && !dead {
			c.wrong = append(c.wrong, Violation{What: "write never ended",
				Text: fmt.Sprintf("the write %x of worker %d, which lives, has not ended", op, w.by)})
		}
	}
	return c
}

// judge decides what may be demanded of a committed write.
func (c *chronicle) judge(r row, w *write, deaths map[int]int64, repair time.Duration) *commit {
	k := &commit{
		sight: r.sight, Absent: r.absent, Op: r.op, By: w.by, Begin: w.begin, End: w.end,
		Outcome: w.outcome, Fenced: w.fenced, Bumped: w.bumped,
	}
	if w.end == 0 {
		k.End, k.Outcome = deaths[w.by], unknown
	}
	k.Calm = c.calm(k.End, repair)
	until := k.End // its fence or its bump protects others
	if k.Outcome != acknowledged || !k.Bumped {
		until = k.Calm + int64(repair)
	}
	for _, f := range c.faults {
		k.Lost = k.Lost || f.Lossy && f.Begin < until && f.End > k.Begin
	}
	k.Binding = k.Fenced && !k.Lost
	if k.Outcome == acknowledged && (k.Bumped || k.Binding) {
		k.Due = k.End
	} else {
		k.Due = k.Calm + int64(repair)
	}
	return k
}

// calm returns the first moment from t on when no fault is at work, and none was just before
// the time for repairs had passed.
func (c *chronicle) calm(t int64, repair time.Duration) int64 {
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

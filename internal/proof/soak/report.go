package soak

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is what a run has found.
type Report struct {
	Seed    uint64
	Began   time.Time
	Took    time.Duration
	Workers int

	Figures    Figures
	Faults     map[string]int // how often each was injected
	Violations []Violation    // in the order of their discovery; a run ends with the first segment that has any
	Segments   int
	Killed     int // workers that were killed and replaced

	// Agreed is how long it took at most, after clients had paused, until every strict answer
	// of every process was that of the database, and Recovered until the caches were
	// healthy and the outbox empty as well.
	Agreed, Recovered time.Duration

	repairs       map[string]*repairs // by fault, of segments with no other
	counts        counts
	before, after sizes
	cfg           Config
}

// repairs are the shortest and the longest times after one kind of fault.
type repairs struct {
	serving [2]time.Duration // from its end until all processes served from the cache
	old     [2]time.Duration // for how long an answer was behind a write of which only the outbox told
}

func (r *Report) addRepair(fault string, serving, old time.Duration) {
	v := r.repairs[fault]
	if v == nil {
		r.repairs[fault] = &repairs{[2]time.Duration{serving, serving}, [2]time.Duration{old, old}}
		return
	}
	v.serving = [2]time.Duration{min(v.serving[0], serving), max(v.serving[1], serving)}
	v.old = [2]time.Duration{min(v.old[0], old), max(v.old[1], old)}
}

// sizes are sizes that must not grow.
type sizes struct {
	Goroutines int    // of the worker with the most
	Heap       uint64 // likewise
	Keys       int64  // in Redis
	Lasting    int64  // of them, those without a time to live
	Rows       int    // in the outbox
	Redis      int    // connections to Redis
	Postgres   int    // and to the database, of all workers
	Near       bool   // there are near answers
}

func newReport(cfg Config) *Report {
	return &Report{Seed: cfg.Seed, Began: time.Now(), Workers: cfg.Workers, Faults: map[string]int{}, repairs: map[string]*repairs{}, cfg: cfg}
}

func (r *Report) addViolation(v Violation) { r.Violations = append(r.Violations, v) }

// logSegment logs the result of a segment.
func (r *Report) logSegment(of *testRun, injected []window, f Figures) {
	r.Segments++
	var names []string
	for _, w := range injected {
		names = append(names, fmt.Sprintf("%s (%s)", w.Name, time.Duration(w.End-w.Begin).Round(time.Millisecond)))
	}
	if names == nil {
		names = []string{"no fault"}
	}
	_, _ = fmt.Fprintf(r.cfg.Log, "%7s  %-70s %6d checked, %d of %d commits strict, stale for %s, repaired in %s\n",
		time.Since(r.Began).Round(100*time.Millisecond), strings.Join(names, " and "), f.Checked, f.Strict, f.Commits,
		f.Staleness.Round(time.Millisecond), f.Repair.Round(time.Millisecond))
}

// What may grow during a run without being a leak: goroutines of connections that were not yet
// needed before, and a heap that has seen its first collections.
const (
	moreGoroutines = 60
	moreHeap       = 16 << 20
	mostKeysPerRow = 20
	// A worker has separate connections to read, to write, to track changes in Redis and to wait
	// for notifications, and its pool has 12 to the database.
	mostToRedis    = 10
	mostToPostgres = 16
)

// finish completes the report at the end of the run.
func (r *Report) finish(of *testRun) {
	r.Took = time.Since(r.Began)
	of.history.mu.Lock()
	r.counts = of.history.counts
	of.history.mu.Unlock()
	r.Killed = len(of.fleet.exited)
	if len(r.Violations) > 0 || r.after == (sizes{}) {
		return
	}
	grown := func(what string, before, after, room uint64) {
		if after > before+room {
			r.addViolation(Violation{What: "grows", Text: fmt.Sprintf("  %s: %d after the first segment, %d at the end\n", what, before, after)})
		}
	}
	grown("goroutines of a worker", uint64(r.before.Goroutines), uint64(r.after.Goroutines), moreGoroutines)
	grown("heap of a worker", r.before.Heap, r.after.Heap, moreHeap)
	keys := mostKeysPerRow * of.fleet.shape.rows()
	if r.Faults[batchesFault] > 0 {
		keys += 2 * batchSize // an entry and a tag each
	}
	grown("keys in Redis", 0, uint64(r.after.Keys), uint64(keys))
	grown("keys in Redis without a time to live", 0, uint64(r.after.Lasting), 0)
	grown("undelivered rows in the outbox", 0, uint64(r.after.Rows), 0)
	grown("connections to Redis", 0, uint64(r.after.Redis), uint64(mostToRedis*r.Workers))
	grown("connections to the database", 0, uint64(r.after.Postgres), uint64(mostToPostgres*r.Workers))
}

// Reads returns how many answers were asked for, and Writes how many transactions were
// acknowledged.
func (r *Report) Reads() int64  { return r.counts.Reads }
func (r *Report) Writes() int64 { return r.counts.Acknowledged }

// String formats the report.
func (r *Report) String() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	c, f := r.counts, r.Figures
	p("seed        %d, %d workers, %s, %d segments", r.Seed, r.Workers, r.Took.Round(time.Second), r.Segments)
	p("operations  %d: %d reads, %d writes (%d acknowledged, %d rolled back or refused, %d of unknown outcome)",
		c.Reads+c.Acknowledged+c.NotCommitted+c.Unknown, c.Reads, c.Acknowledged+c.NotCommitted+c.Unknown, c.Acknowledged, c.NotCommitted, c.Unknown)
	p("answers     %d hits (%d near and proven for their callers), %d stale by time, %d loads, %d bypassed, %d errors", c.Hits, c.Proven, c.Stale, c.Loads, c.Bypassed, c.Failed)
	if c.Failed > 0 {
		p("            the last error: %s", c.LastError)
	}
	p("checked     %d rows read (%d of them near), against %d commits, of which %d excuse nothing", f.Checked, f.NearRead, f.Commits, f.Strict)
	p("            %d histories of a row confirmed by porcupine", f.Linear)
	total := 0
	for _, n := range r.Faults {
		total += n
	}
	p("faults      %d, and %d workers killed", total, r.Killed)
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		p("            %5d  %s", r.Faults[name], name)
	}
	p("staleness   at most %s behind a write that could not be fenced or did not use the library", f.Staleness.Round(time.Millisecond))
	for text := range strings.Lines(f.Stalest) {
		p("          %s", strings.TrimSuffix(text, "\n"))
	}
	p("            a near answer at most %s", f.NearStaleness.Round(time.Millisecond))
	p("repair      at most %s after the last fault had ended; all processes agreed at most %s after a pause, and had recovered after %s",
		f.Repair.Round(time.Millisecond), r.Agreed.Round(time.Millisecond), r.Recovered.Round(time.Millisecond))
	p("            after each fault alone, until all processes served from the cache, and for how long an answer was old")
	p("            counted from its end or the write's, whichever is later; shortest and longest")
	ms := func(d time.Duration) int64 { return d.Milliseconds() }
	for _, name := range slices.Sorted(maps.Keys(r.repairs)) {
		v := r.repairs[name]
		p("            %5d to %5d ms, %4d to %4d ms  %s", ms(v.serving[0]), ms(v.serving[1]), ms(v.old[0]), ms(v.old[1]), name)
	}
	p("sizes       %d goroutines and %.1f MB in a worker, %d keys in Redis, %d of them lasting, %d undelivered rows in the outbox",
		r.after.Goroutines, float64(r.after.Heap)/1e6, r.after.Keys, r.after.Lasting, r.after.Rows)
	p("            %d connections to Redis, %d to the database", r.after.Redis, r.after.Postgres)
	if !r.after.Near {
		p("            (no near answers: the store does not report changes)")
	}
	p("violations  %d", len(r.Violations))
	for _, v := range r.Violations {
		p("\n%s", v)
	}
	if len(r.Violations) > 0 {
		p("Reproduce the schedule with the seed %d.", r.Seed)
	}
	return b.String()
}

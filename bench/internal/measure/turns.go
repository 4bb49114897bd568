package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Subject is one of several that do the same work.
type Subject struct {
	Name string
	// Op does the work for the key with number i. Workers call it at the same time.
	Op func(i uint32) error
	// Meanwhile, if not nil, is started before the subject's turns and its result called
	// after them, to have something else going on.
	Meanwhile func() (stop func())
	// Latency, like that of the turns.
	Latency bool
	// Case and Sequence, if set, take the place of those of the turns: subjects of several
	// cases are then measured in the same rounds, and can be compared over cases.
	Case     string
	Sequence []uint32
}

// Turns says how subjects are measured: each gets the machine for Slice, one after the
// other, and all of them again in every round, in another order.
type Turns struct {
	Case     string
	Workers  int           // callers at the same time, each waiting for its answer
	Sequence []uint32      // what they ask for; each worker begins elsewhere in it
	Slice    time.Duration // for each subject in each round
	Rounds   int
	Latency  bool // also percentiles; for work of a microsecond and more
	// LargeHeap collects garbage once in a round and not before every turn, which with
	// millions of live objects would take longer than what is measured.
	LargeHeap bool
}

// The metrics that Run records.
const (
	PerCall    = "ns/call"   // how long one caller waits, on average
	Rate       = "calls/s"   // of all workers
	Allocs     = "allocs"    // of the whole process, for each call
	AllocBytes = "B"         // the same in bytes
	CPU        = "cpu ns"    // of the whole process, for each call
	P50        = "p50 ns"    // only with Latency
	P99        = "p99 ns"    // only with Latency
	Failures   = "failures"  // calls that returned an error, of a thousand
	maxErrors  = 0.01        // more of them, and it is no measurement
	warmUp     = 1.0 / 4     // of a slice, before the first round, not counted
	maxLatency = time.Minute // a histogram's last bucket
)

// Run measures subjects in turns. It fails when more than one call in a hundred of a
// subject does.
func (t Turns) Run(ctx context.Context, subjects []Subject, to *Samples) error {
	order := slices.Clone(subjects)
	for i := range order {
		s := &order[i]
		s.Case = cmp.Or(s.Case, t.Case)
		if s.Sequence == nil {
			s.Sequence = t.Sequence
		}
	}
	for round := -1; round < t.Rounds; round++ {
		slice := t.Slice
		if round < 0 {
			slice = time.Duration(float64(slice) * warmUp)
		}
		if t.LargeHeap {
			runtime.GC()
		}
		for _, s := range order {
			if err := ctx.Err(); err != nil {
				return err
			}
			r, err := t.once(ctx, s, slice)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.Case, s.Name, err)
			}
			if round >= 0 {
				r.record(round, s, to)
			}
		}
		// Back and forth: a drift of the machine then favours no subject.
		slices.Reverse(order)
	}
	return nil
}

type turn struct {
	calls, failures int64
	busy            time.Duration // summed over the workers
	elapsed         time.Duration
	before, after   runtime.MemStats
	cpu             time.Duration
	latency         *hdrhistogram.Histogram
}

func (r *turn) record(round int, s Subject, to *Samples) {
	calls := float64(r.calls)
	add := func(metric string, v float64) { to.Add(round, s.Case, s.Name, metric, v) }
	add(PerCall, float64(r.busy)/calls)
	add(Rate, calls/r.elapsed.Seconds())
	add(Allocs, float64(r.after.Mallocs-r.before.Mallocs)/calls)
	add(AllocBytes, float64(r.after.TotalAlloc-r.before.TotalAlloc)/calls)
	add(CPU, float64(r.cpu)/calls)
	add(Failures, 1000*float64(r.failures)/calls)
	if r.latency != nil {
		add(P50, float64(r.latency.ValueAtQuantile(50)))
		add(P99, float64(r.latency.ValueAtQuantile(99)))
	}
}

// worker is what one caller counts, on cache lines of its own.
type worker struct {
	calls, failures int64
	busy            time.Duration
	err             error
	latency         *hdrhistogram.Histogram
	_               [64]byte
}

func (t Turns) once(ctx context.Context, s Subject, slice time.Duration) (*turn, error) {
	var r turn
	workers := make([]worker, t.Workers)
	for i := range workers {
		if t.Latency || s.Latency {
			workers[i].latency = hdrhistogram.New(100, int64(maxLatency), 3)
		}
	}
	if s.Meanwhile != nil {
		defer s.Meanwhile()()
	}
	if !t.LargeHeap {
		runtime.GC() // no turn pays for the garbage of the one before
	}
	cpu := ProcessCPU()
	runtime.ReadMemStats(&r.before)
	began := time.Now()
	var stop atomic.Bool
	timer := time.AfterFunc(slice, func() { stop.Store(true) })
	defer timer.Stop()
	var wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() {
			// A profile of the whole run can then be looked at for one of them.
			pprof.Do(ctx, pprof.Labels("case", s.Case, "subject", s.Name), func(context.Context) {
				workers[n].work(s, n*len(s.Sequence)/t.Workers, &stop)
			})
		})
	}
	wg.Wait()
	r.elapsed = time.Since(began)
	runtime.ReadMemStats(&r.after)
	r.cpu = ProcessCPU() - cpu

	var errs []error
	for i := range workers {
		w := &workers[i]
		r.calls, r.failures, r.busy = r.calls+w.calls, r.failures+w.failures, r.busy+w.busy
		if w.err != nil && len(errs) == 0 {
			errs = append(errs, w.err)
		}
		if w.latency == nil {
			continue
		}
		if r.latency == nil {
			r.latency = w.latency
		} else {
			r.latency.Merge(w.latency)
		}
	}
	if float64(r.failures) > maxErrors*float64(r.calls) {
		return nil, fmt.Errorf("%d of %d calls failed, the first with: %w", r.failures, r.calls, errors.Join(errs...))
	}
	return &r, nil
}

func (w *worker) work(s Subject, at int, stop *atomic.Bool) {
	sequence := s.Sequence
	began := time.Now()
	last := began
	for first := true; first || !stop.Load(); first = false { // once, however late it came to run
		if at == len(sequence) {
			at = 0
		}
		if err := s.Op(sequence[at]); err != nil {
			w.failures++
			w.err = err
		}
		at++
		w.calls++
		if w.latency != nil {
			now := time.Now()
			_ = w.latency.RecordValue(min(int64(now.Sub(last)), int64(maxLatency))) // in range
			last = now
		}
	}
	w.busy = time.Since(began)
}

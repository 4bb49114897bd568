package storetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// proofEvery is how often a Faulty proves that nothing was missed, and how late reports are
// that it delays, beside the delay.
const proofEvery = 20 * time.Millisecond

var errNotWatchable = errors.New("storetest: the store that Faulty wraps is not Watchable")

// Watch implements driver.Watcher, if the inner store does, and fails at once if not. It
// proves only what is past, whatever the inner store promises: then a partition is
// noticed.
func (f *Faulty) Watch(ctx context.Context, w driver.Listener) error {
	f.calls[OpWatch].Add(1)
	inner, ok := f.inner.(driver.Watcher)
	if !ok {
		return errNotWatchable
	}
	if x, _ := f.fault(OpWatch); x.before != nil {
		return x.before
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &reports{f: f, w: w, wake: make(chan struct{}, 1)}
	f.data.watch(r, true)
	defer f.data.watch(r, false)
	ended := make(chan error, 1)
	go func() { ended <- inner.Watch(ctx, r) }()
	t := time.NewTicker(proofEvery)
	defer t.Stop()
	for {
		_, healed := f.fault(OpWatch)
		r.prove()
		select {
		case <-t.C:
		case <-r.wake:
		case <-healed:
		case err := <-ended:
			cancel()
			return err
		case <-f.done:
			cancel()
			return errors.Join(errFaultyClosed, <-ended)
		}
	}
}

// reports passes on what the inner store reports to one Watcher. Changes pass within the
// call that reports them while no fault stands in the way; everything else is the
// business of the goroutine in Watch.
type reports struct {
	f    *Faulty
	w    driver.Listener
	wake chan struct{}

	missed atomic.Int64              // how often the inner store said so
	proven atomic.Pointer[time.Time] // by the inner store; nil when never
	gaps   int64                     // of any kind that w was told of

	mu    sync.Mutex
	queue []late // guarded by mu
}

// late is a report that is delayed.
type late struct {
	due  time.Time
	tell func()
}

// Changed implements driver.Listener for the inner store.
func (r *reports) Changed(tags ...driver.Tag) { r.report(r.f.data.callers(tags)) }

// Missed implements driver.Listener for the inner store.
func (r *reports) Missed() {
	r.missed.Add(1)
	r.rouse()
}

// Proven implements driver.Listener for the inner store.
func (r *reports) Proven(at time.Time) {
	r.proven.Store(&at)
	r.rouse()
}

func (r *reports) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reports) report(tags []driver.Tag) {
	if len(tags) > 0 {
		tags = slices.Clone(tags)
		r.send(func() { r.w.Changed(tags...) })
	}
}

// send tells the watcher now, or later, or never, as the faults are. Reports never overtake
// those before them.
func (r *reports) send(tell func()) {
	x, _ := r.f.fault(OpWatch)
	if x.loses() {
		return // and the gap was counted before
	}
	r.mu.Lock()
	if len(r.queue) > 0 || x.delay > 0 {
		r.queue = append(r.queue, late{time.Now().Add(x.delay), tell})
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	tell()
}

// prove delivers what is due and says how far everything has been reported.
func (r *reports) prove() {
	// The time first: what is acknowledged before it has been sent, or was lost in a gap
	// that is counted. And the inner proof before the inner gaps, which it covers.
	now, proven := time.Now(), r.proven.Load()
	x, gaps := r.faults()
	r.deliver(now, x.loses())
	if proven == nil || x.loses() {
		return
	}
	if gaps != r.gaps {
		r.gaps = gaps
		r.send(r.w.Missed)
	}
	if proven.Before(now) {
		now = *proven
	}
	r.send(func() { r.w.Proven(now) })
}

func (r *reports) faults() (x fault, gaps int64) {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.faults[OpWatch], r.missed.Load() + int64(r.f.gaps) + r.f.data.incarnation.Load()
}

// deliver ends the delay of what is due, or loses it.
func (r *reports) deliver(now time.Time, lose bool) {
	r.mu.Lock()
	n := 0
	for n < len(r.queue) && !now.Before(r.queue[n].due) {
		n++
	}
	due := slices.Clone(r.queue[:n])
	r.mu.Unlock()
	for _, l := range due {
		if !lose {
			l.tell()
		}
	}
	// Only now: while they are in the queue, nothing overtakes them.
	r.mu.Lock()
	r.queue = slices.Delete(r.queue, 0, n)
	r.mu.Unlock()
}

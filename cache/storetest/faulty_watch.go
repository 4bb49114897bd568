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

var errNoWatcher = errors.New("storetest: the store that Faulty wraps is no driver.Watcher")

// Watch implements driver.Watcher, if the inner store does, and fails at once if not. It
// proves only what is past, also if the inner store proves the future, so that a partition is
// noticed.
func (f *Faulty) Watch(ctx context.Context, w driver.Listener) error {
	f.counts[OpWatch].Add(1)
	inner, ok := f.inner.(driver.Watcher)
	if !ok {
		return errNoWatcher
	}
	if x, _ := f.fault(OpWatch); x.before != nil {
		return x.before
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &faultyListener{faulty: f, listener: w, signals: make(chan struct{}, 1), advanced: make(chan struct{})}
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
		case <-r.signals:
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

// faultyListener passes on what the inner store reports to one Listener. While no fault stands
// in the way, changes pass within the call that reports them. Everything else is done by the
// goroutine in Watch.
type faultyListener struct {
	faulty   *Faulty
	listener driver.Listener
	signals  chan struct{}

	missed atomic.Int64              // how often the inner store reported it
	proven atomic.Pointer[time.Time] // by the inner store; nil when never
	gaps   int64                     // of any kind that were reported to listener

	mu       sync.Mutex
	queue    []delayedReport // guarded by mu
	passed   time.Time       // the latest proof that listener was told of; guarded by mu
	advanced chan struct{}   // closed when that changes; guarded by mu
}

// delayedReport is a report that is delivered later.
type delayedReport struct {
	due     time.Time
	deliver func()
}

// Changed implements driver.Listener for the inner store.
func (r *faultyListener) Changed(tags ...driver.Tag) { r.report(r.faulty.data.namesOfCallers(tags)) }

// Missed implements driver.Listener for the inner store.
func (r *faultyListener) Missed() {
	r.missed.Add(1)
	r.signal()
}

// Proven implements driver.Listener for the inner store.
func (r *faultyListener) Proven(at time.Time) {
	r.proven.Store(&at)
	r.signal()
}

func (r *faultyListener) signal() {
	select {
	case r.signals <- struct{}{}:
	default:
	}
}

func (r *faultyListener) report(tags []driver.Tag) {
	if len(tags) > 0 {
		tags = slices.Clone(tags)
		r.send(func() { r.listener.Changed(tags...) })
	}
}

// send delivers a report now, or later, or never, depending on the faults. Reports keep their
// order.
func (r *faultyListener) send(tell func()) {
	x, _ := r.faulty.fault(OpWatch)
	if x.loses() {
		return // the gap was counted when the fault began
	}
	r.mu.Lock()
	if len(r.queue) > 0 || x.delay > 0 {
		r.queue = append(r.queue, delayedReport{time.Now().Add(x.delay), tell})
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	tell()
}

// prove delivers what is due, and proves up to when everything has been reported.
func (r *faultyListener) prove() {
	// The time comes first: a change that was acknowledged before it has been sent, or was
	// lost in a gap that is counted. The inner proof comes before the inner gaps, which it
	// covers.
	now, proven := time.Now(), r.proven.Load()
	x, gaps := r.faults()
	r.deliver(now, x.loses())
	if proven == nil || x.loses() {
		return
	}
	if gaps != r.gaps {
		r.gaps = gaps
		r.send(r.listener.Missed)
	}
	if proven.Before(now) {
		now = *proven
	}
	r.send(func() {
		r.listener.Proven(now)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.passed = now
		close(r.advanced)
		r.advanced = make(chan struct{})
	})
}

// Prove implements driver.Prover. It waits as long as reports are delayed, and until ctx ends while they
// are lost.
func (f *Faulty) Prove(ctx context.Context) error {
	at := time.Now()
	return f.do(ctx, OpProve, func() error {
		for _, r := range f.data.listening(f) {
			if err := r.awaitProof(ctx, at); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *faultyListener) awaitProof(ctx context.Context, at time.Time) error {
	for {
		r.signal()
		r.mu.Lock()
		passed, advanced := r.passed, r.advanced
		r.mu.Unlock()
		if passed.After(at) {
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r *faultyListener) faults() (x fault, gaps int64) {
	r.faulty.mu.Lock()
	defer r.faulty.mu.Unlock()
	return r.faulty.faults[OpWatch], r.missed.Load() + int64(r.faulty.gaps) + r.faulty.data.incarnation.Load()
}

// deliver ends the delay of what is due, or loses it.
func (r *faultyListener) deliver(now time.Time, lose bool) {
	r.mu.Lock()
	n := 0
	for n < len(r.queue) && !now.Before(r.queue[n].due) {
		n++
	}
	due := slices.Clone(r.queue[:n])
	r.mu.Unlock()
	for _, l := range due {
		if !lose {
			l.deliver()
		}
	}
	// Only now: while they are in the queue, nothing overtakes them.
	r.mu.Lock()
	r.queue = slices.Delete(r.queue, 0, n)
	r.mu.Unlock()
}

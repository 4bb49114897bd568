package storetest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Op names a method of driver.Store.
type Op uint8

// The methods that faults apply to and calls are counted of. OpAnnounced stands for the
// announcements that arrive: when it fails or hangs, they are lost. OpWatch stands for the
// reports of changes: when it fails or hangs they are lost, and nothing is proven, until
// Heal, which Missed follows. While it fails, Watch returns the error.
const (
	OpRead Op = iota
	OpFence
	OpBump
	OpClaim
	OpRenew
	OpSettle
	OpAnnounced
	OpIdentity
	OpPurge
	OpWatch
	OpCheckWrites
	OpProve
	numOps
)

// Faulty is a handle on a real Store that fails on request, as the network and servers do.
// With no fault switched on it keeps every rule of the suite. All its methods are safe for
// concurrent use, and faults may be switched while calls run.
//
// A fault named without an Op is one of all of them.
type Faulty struct {
	inner driver.Store
	owner bool // of inner, which Close closes
	data  *lostData

	counts [numOps]atomic.Int64
	proof  atomic.Int64 // the incarnation whose identity was last asked for; -1 for none

	mu         sync.Mutex
	faults     [numOps]fault // guarded by mu
	gaps       int           // how often the reports of changes began to be lost; guarded by mu
	healed     chan struct{} // closed when faults shrink, and then replaced; guarded by mu
	closed     bool          // guarded by mu
	done       chan struct{} // closed by Close
	forwarders sync.WaitGroup
}

var _ driver.Prover = (*Faulty)(nil)

type fault struct {
	delay  time.Duration
	hang   bool
	before error // instead of the call
	after  error // instead of its answer

	refused map[driver.Tag]error // instead of a call that names the tag; never changed once set
}

// loses reports whether announcements and reports are lost.
func (x fault) loses() bool { return x.hang || x.before != nil || x.after != nil }

// NewFaulty wraps s, which it closes when it is closed itself.
func NewFaulty(s driver.Store) *Faulty {
	return newHandle(s, true, &lostData{tags: make(map[driver.Tag]int), watches: make(map[*faultyListener]bool)})
}

// Peer returns another handle on the same data, as another process has: with faults and
// counts of its own, and with the same losses. Closing it leaves the store open.
func (f *Faulty) Peer() *Faulty { return newHandle(f.inner, false, f.data) }

func newHandle(inner driver.Store, owner bool, data *lostData) *Faulty {
	f := &Faulty{inner: inner, owner: owner, data: data, healed: make(chan struct{}), done: make(chan struct{})}
	f.proof.Store(data.incarnation.Load())
	return f
}

// Fail makes calls return err at once, and do nothing.
func (f *Faulty) Fail(err error, ops ...Op) {
	f.set(ops, func(x *fault) { x.before = err })
}

// LoseReplies makes calls do their work and then return err, as when a reply is lost.
func (f *Faulty) LoseReplies(err error, ops ...Op) {
	f.set(ops, func(x *fault) { x.after = err })
}

// Hang makes calls wait until their context ends, or until Heal, and then go on.
func (f *Faulty) Hang(ops ...Op) {
	f.set(ops, func(x *fault) { x.hang = true })
}

// Delay makes each call wait for d, or until its context ends, before anything else.
func (f *Faulty) Delay(d time.Duration, ops ...Op) {
	f.set(ops, func(x *fault) { x.delay = d })
}

// DropAnnouncements makes all announcements to this handle get lost.
func (f *Faulty) DropAnnouncements() { f.Hang(OpAnnounced) }

// RefuseWrites makes everything that writes return err, as a server does that is out of memory
// or out of replicas.
func (f *Faulty) RefuseWrites(err error) { f.Fail(err, writes...) }

// PauseWrites makes everything that writes hang.
func (f *Faulty) PauseWrites() { f.Hang(writes...) }

var writes = []Op{OpFence, OpBump, OpClaim, OpRenew, OpSettle, OpCheckWrites}

// RefuseTag makes every Bump that names tag return err and do nothing, while it takes all others.
func (f *Faulty) RefuseTag(tag driver.Tag, err error) {
	f.set([]Op{OpBump}, func(x *fault) {
		refused := map[driver.Tag]error{tag: err}
		maps.Copy(refused, x.refused)
		x.refused = refused
	})
}

// Heal ends the faults of ops. What was lost stays lost.
func (f *Faulty) Heal(ops ...Op) {
	f.set(ops, func(x *fault) { *x = fault{} })
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.healed)
	f.healed = make(chan struct{})
}

// Unprove makes Read fail with ErrUnproven until Identity was called, as a new connection
// does.
func (f *Faulty) Unprove() { f.proof.Store(-1) }

// ChangeIdentity gives the data a new identity, for this handle and its peers, and
// unproves all of them. The data stays: a failover that lost nothing.
func (f *Faulty) ChangeIdentity() { f.data.incarnation.Add(1) }

// Restart loses everything, and changes the identity: a server without persistence was
// restarted.
func (f *Faulty) Restart() {
	f.data.loseAll()
	f.ChangeIdentity()
}

// LoseTags loses the versions and the marks of tags, as eviction does, and reports that.
func (f *Faulty) LoseTags(tags ...driver.Tag) { f.data.loseTags(tags) }

// LoseEntries loses entries, as eviction does. A * or ? in a key takes similar keys along.
// No fault stands in its way.
func (f *Faulty) LoseEntries(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if _, err := f.inner.Purge(ctx, patternFor(f.data.key(key))); err != nil {
			return err
		}
	}
	return nil
}

// Calls returns how often the method was called, whatever became of the calls.
func (f *Faulty) Calls(op Op) int { return int(f.counts[op].Load()) }

func (f *Faulty) set(ops []Op, change func(*fault)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for op := range numOps {
		if len(ops) == 0 || slices.Contains(ops, op) {
			change(&f.faults[op])
		}
	}
	if f.faults[OpWatch].loses() {
		f.gaps++ // also if it did before: once too often does no harm
	}
}

// fault returns the present faults of op, and a channel that is closed when faults are healed.
func (f *Faulty) fault(op Op) (fault, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.faults[op], f.healed
}

var errFaultyClosed = errors.New("storetest: faulty store is closed")

// do runs call under the faults of op.
func (f *Faulty) do(ctx context.Context, op Op, call func() error) error {
	f.counts[op].Add(1)
	x, _ := f.fault(op)
	if x.delay > 0 {
		timer := time.NewTimer(x.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-f.done:
			return errFaultyClosed
		}
	}
	for {
		x, healed := f.fault(op)
		switch {
		case x.hang:
			select {
			case <-healed: // of this fault or of another
			case <-ctx.Done():
				return ctx.Err()
			case <-f.done:
				return errFaultyClosed
			}
		case x.before != nil:
			return x.before
		case x.after != nil:
			_ = call() // its result is lost
			return x.after
		default:
			return call()
		}
	}
}

// Read implements driver.Store.
func (f *Faulty) Read(ctx context.Context, tags []driver.Tag, keys []string) (snap driver.Snapshot, err error) {
	err = f.do(ctx, OpRead, func() error {
		if f.proof.Load() != f.data.incarnation.Load() {
			return driver.ErrUnproven
		}
		snap, err = f.inner.Read(ctx, f.data.tagsOf(tags), f.data.keysOf(keys))
		return err
	})
	if err != nil {
		return driver.Snapshot{}, err
	}
	return snap, nil
}

// Fence implements driver.Store.
func (f *Faulty) Fence(ctx context.Context, tags []driver.Tag, mark driver.Mark, lease time.Duration) error {
	return f.do(ctx, OpFence, func() error { return f.inner.Fence(ctx, f.data.tagsOf(tags), mark, lease) })
}

// Bump implements driver.Store.
func (f *Faulty) Bump(ctx context.Context, tags []driver.Tag, mark driver.Mark) error {
	return f.do(ctx, OpBump, func() error {
		x, _ := f.fault(OpBump)
		for _, tag := range tags {
			if err := x.refused[tag]; err != nil {
				return err
			}
		}
		return f.inner.Bump(ctx, f.data.tagsOf(tags), mark)
	})
}

// Claim implements driver.Store.
func (f *Faulty) Claim(ctx context.Context, claims []driver.Claim) (answers []driver.Claimed, err error) {
	err = f.do(ctx, OpClaim, func() error {
		answers, err = f.inner.Claim(ctx, f.data.claimsOf(claims))
		return err
	})
	if err != nil {
		return nil, err
	}
	return answers, nil
}

// Renew implements driver.Store.
func (f *Faulty) Renew(ctx context.Context, key string, token driver.Token, ttl time.Duration) error {
	return f.do(ctx, OpRenew, func() error { return f.inner.Renew(ctx, f.data.key(key), token, ttl) })
}

// Settle implements driver.Store.
func (f *Faulty) Settle(ctx context.Context, fills []driver.Fill) error {
	return f.do(ctx, OpSettle, func() error { return f.inner.Settle(ctx, f.data.fillsOf(fills)) })
}

// Announced implements driver.Store.
func (f *Faulty) Announced(key string) (<-chan struct{}, func()) {
	f.counts[OpAnnounced].Add(1)
	heard, leave := f.inner.Announced(f.data.key(key))
	passed, ended := make(chan struct{}, 1), make(chan struct{})
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.forwarders.Go(func() { f.forward(heard, passed, ended) })
	}
	return passed, sync.OnceFunc(func() {
		close(ended)
		leave()
	})
}

// forward passes announcements on while no fault stands in the way.
func (f *Faulty) forward(heard <-chan struct{}, passed chan<- struct{}, ended <-chan struct{}) {
	for {
		select {
		case <-heard:
		case <-ended:
			return
		case <-f.done:
			return
		}
		x, _ := f.fault(OpAnnounced)
		if x.delay > 0 {
			select {
			case <-time.After(x.delay):
			case <-ended:
				return
			case <-f.done:
				return
			}
		}
		if x.loses() {
			continue
		}
		select {
		case passed <- struct{}{}:
		default: // the one before was not taken yet, and says as much
		}
	}
}

// Name implements driver.Store. It fails when Identity does.
func (f *Faulty) Name(ctx context.Context) (name string, err error) {
	err = f.do(ctx, OpIdentity, func() (err error) {
		name, err = f.inner.Name(ctx)
		return err
	})
	return name, err
}

// Identity implements driver.Store.
func (f *Faulty) Identity(ctx context.Context) (id string, err error) {
	err = f.do(ctx, OpIdentity, func() error {
		now := f.data.incarnation.Load()
		if id, err = f.inner.Identity(ctx); err != nil {
			return err
		}
		id += suffix(now, 0)
		f.proof.Store(now)
		return nil
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

// CheckWrites implements driver.Store.
func (f *Faulty) CheckWrites(ctx context.Context) error {
	return f.do(ctx, OpCheckWrites, func() error { return f.inner.CheckWrites(ctx) })
}

// Purge implements driver.Store.
func (f *Faulty) Purge(ctx context.Context, pattern string) (n int, err error) {
	err = f.do(ctx, OpPurge, func() error {
		n, err = f.inner.Purge(ctx, f.data.key(pattern))
		return err
	})
	return n, err
}

// Close implements driver.Store. Calls that hang return with an error.
func (f *Faulty) Close() error {
	f.mu.Lock()
	first := !f.closed
	if f.closed = true; first {
		close(f.done)
	}
	f.mu.Unlock()
	f.forwarders.Wait()
	if !f.owner {
		return nil
	}
	return f.inner.Close()
}

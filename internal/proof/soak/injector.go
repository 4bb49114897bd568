package soak

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
)

// crashPoint is a place in a write at which its process can be made to crash.
type crashPoint int

const (
	noCrash         crashPoint = iota
	afterStatements            // all statements have run
	afterFence                 // the tags are fenced
	duringCommit               // COMMIT has been sent and not been answered
	afterCommit                // it is committed, and nothing is bumped
	halfBumped                 // half of the tags are bumped
	afterBump                  // all are; nothing is acknowledged
	afterAck                   // acknowledged; the outbox rows are still there
)

// crashPoints are all places at which a writer can crash.
var crashPoints = []crashPoint{afterStatements, afterFence, duringCommit, afterCommit, halfBumped, afterBump, afterAck}

func (s crashPoint) String() string {
	return [...]string{"no crash", "after the statements", "after the fence", "during COMMIT", "after COMMIT",
		"after half of the bumps", "before the acknowledgement", "before the outbox delete"}[s]
}

// crash ends this process as a crash does: nothing is flushed, closed or rolled back.
func crash() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}

// injector wraps the store and the database connections of a worker. It follows each write from
// outside of the library, knows which have been fenced and bumped, and crashes the process at a
// crash point. It also injects a wrong wall clock and a delay before bumps.
type injector struct {
	fenced          func(op int64)
	crashOnCommit   atomic.Bool  // the write that is to crash during COMMIT has been fenced
	clockSkew       atomic.Int64 // by how much the wall clock is ahead
	delayBeforeBump time.Duration
	calls           storeCalls

	mu     sync.Mutex
	writes map[driver.Mark]*trackedWrite
}

type trackedWrite struct {
	op      int64
	crashAt crashPoint
	bumped  bool
}

func newInjector(fenced func(op int64)) *injector {
	return &injector{fenced: fenced, writes: map[driver.Mark]*trackedWrite{}}
}

// track announces a write that bears mark.
func (t *injector) track(mark driver.Mark, op int64, crashAt crashPoint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writes[mark] = &trackedWrite{op: op, crashAt: crashAt}
}

// untrack stops to follow a write, and returns whether its bump reached the store.
func (t *injector) untrack(mark driver.Mark) (bumped bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.writes[mark]; w != nil {
		bumped = w.bumped
	}
	delete(t.writes, mark)
	return bumped
}

// tracked returns the write that bears mark, or an empty one for bumps of other processes.
func (t *injector) tracked(mark driver.Mark) *trackedWrite {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.writes[mark]; w != nil {
		return w
	}
	return &trackedWrite{}
}

// injectedStore is a store whose fences and bumps the injector observes, and whose user's wall
// clock may be wrong (see clockskew.go).
type injectedStore struct {
	driver.Store
	*injector
}

// injectedWatcher is the same for a store that reports changes. The library asks the type
// whether a store does.
type injectedWatcher struct {
	injectedStore
	watch func(context.Context, driver.Listener) error
	prove func(context.Context) error
}

func (s injectedWatcher) Watch(ctx context.Context, w driver.Listener) error { return s.watch(ctx, w) }
func (s injectedWatcher) Prove(ctx context.Context) error                    { return s.prove(ctx) }

// wrap returns store with the injector around it.
func (t *injector) wrap(store driver.Store) driver.Store {
	s := injectedStore{store, t}
	if w, ok := store.(driver.Prover); ok {
		return injectedWatcher{s, w.Watch, w.Prove}
	}
	return s
}

func (s injectedStore) Fence(ctx context.Context, tags []cache.Tag, mark driver.Mark, lease time.Duration) error {
	err := s.Store.Fence(ctx, tags, mark, lease)
	if w := s.tracked(mark); err == nil && w.op != 0 {
		s.fenced(w.op)
		switch w.crashAt {
		case afterFence:
			crash()
		case duringCommit:
			s.crashOnCommit.Store(true)
		}
	}
	return err
}

func (s injectedStore) Bump(ctx context.Context, tags []cache.Tag, mark driver.Mark) error {
	w := s.tracked(mark)
	switch w.crashAt {
	case afterCommit:
		crash()
	case halfBumped:
		_ = s.Store.Bump(ctx, tags[:(len(tags)+1)/2], mark)
		crash()
	}
	if w.op != 0 && s.delayBeforeBump > 0 {
		_ = wait(ctx, rand.N(s.delayBeforeBump))
	}
	err := s.Store.Bump(ctx, tags, mark)
	if err == nil && w.op != 0 {
		s.mu.Lock()
		w.bumped = true
		s.mu.Unlock()
		if w.crashAt == afterBump {
			crash()
		}
	}
	return err
}

// dial connects to the database, through the injector.
func (t *injector) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &injectedConn{conn, t}, nil
}

type injectedConn struct {
	net.Conn
	*injector
}

var commitQuery = []byte("commit\x00") // as a simple query ends

func (c *injectedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if c.crashOnCommit.Load() && bytes.Contains(b, commitQuery) {
		crash()
	}
	return n, err
}

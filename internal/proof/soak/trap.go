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

// step is a place in a write at which its process can be made to die.
type step int

const (
	alive           step = iota
	afterStatements      // all statements have run
	afterFence           // the tags are fenced
	duringCommit         // COMMIT has been sent and not been answered
	afterCommit          // it is committed, and nothing is bumped
	halfBumped           // half of the tags are bumped
	afterBump            // all are; nothing is acknowledged
	afterAck             // acknowledged; the outbox rows are still there
)

// steps are all places at which a writer can die.
var steps = []step{afterStatements, afterFence, duringCommit, afterCommit, halfBumped, afterBump, afterAck}

func (s step) String() string {
	return [...]string{"alive", "after the statements", "after the fence", "during COMMIT", "after COMMIT",
		"after half of the bumps", "before the acknowledgement", "before the outbox delete"}[s]
}

// die ends this process as a crash does: nothing is flushed, closed or rolled back.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}

// trap follows the writes of a worker through the store and the connection, from outside of
// the library: it knows which have been fenced and bumped, and ends the process at a step.
type trap struct {
	fenced func(op int64)
	commit atomic.Bool  // the write that is to die during COMMIT has been fenced
	skew   atomic.Int64 // by how much the wall clock is ahead
	linger time.Duration

	mu     sync.Mutex
	writes map[driver.Mark]*traced
}

type traced struct {
	op     int64
	die    step
	bumped bool
}

func newTrap(fenced func(op int64)) *trap {
	return &trap{fenced: fenced, writes: map[driver.Mark]*traced{}}
}

// expect announces a write that bears mark.
func (t *trap) expect(mark driver.Mark, op int64, die step) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writes[mark] = &traced{op: op, die: die}
}

// forget ends the watch of a write, and returns whether its bump reached the store.
func (t *trap) forget(mark driver.Mark) (bumped bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.writes[mark]; w != nil {
		bumped = w.bumped
	}
	delete(t.writes, mark)
	return bumped
}

// find returns the write that bears mark, or one that is nobody's: bumps for others.
func (t *trap) find(mark driver.Mark) *traced {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.writes[mark]; w != nil {
		return w
	}
	return &traced{}
}

// trappedStore is a store whose fences and bumps the trap sees, and whose user's wall clock may
// be wrong (see skew.go).
type trappedStore struct {
	driver.Store
	*trap
}

// trappedWatchable is the same for a store that reports changes: whether it does is told by
// its type.
type trappedWatchable struct {
	trappedStore
	watch func(context.Context, driver.Listener) error
}

func (s trappedWatchable) Watch(ctx context.Context, w driver.Listener) error { return s.watch(ctx, w) }

// wrap returns store with the trap around it.
func (t *trap) wrap(store driver.Store) driver.Store {
	s := trappedStore{store, t}
	if w, ok := store.(driver.Watcher); ok {
		return trappedWatchable{s, w.Watch}
	}
	return s
}

func (s trappedStore) Fence(ctx context.Context, tags []cache.Tag, mark driver.Mark, lease time.Duration) error {
	err := s.Store.Fence(ctx, tags, mark, lease)
	if w := s.find(mark); err == nil && w.op != 0 {
		s.fenced(w.op)
		switch w.die {
		case afterFence:
			die()
		case duringCommit:
			s.commit.Store(true)
		}
	}
	return err
}

func (s trappedStore) Bump(ctx context.Context, tags []cache.Tag, mark driver.Mark) error {
	w := s.find(mark)
	switch w.die {
	case afterCommit:
		die()
	case halfBumped:
		_ = s.Store.Bump(ctx, tags[:(len(tags)+1)/2], mark)
		die()
	}
	if w.op != 0 && s.linger > 0 {
		_ = wait(ctx, rand.N(s.linger))
	}
	err := s.Store.Bump(ctx, tags, mark)
	if err == nil && w.op != 0 {
		s.mu.Lock()
		w.bumped = true
		s.mu.Unlock()
		if w.die == afterBump {
			die()
		}
	}
	return err
}

// dial connects to the database, through the trap.
func (t *trap) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &trappedConn{conn, t}, nil
}

type trappedConn struct {
	net.Conn
	*trap
}

var commitQuery = []byte("commit\x00") // as a simple query ends

func (c *trappedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if c.commit.Load() && bytes.Contains(b, commitQuery) {
		die()
	}
	return n, err
}

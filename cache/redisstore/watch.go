package redisstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Watch implements driver.Watcher, by client tracking. It fails at once where a server
// refuses that, and says what is missing. A server that is unavailable is tried again until
// ctx ends. Each call has a connection of its own to each master.
//
// Proven reports the least of what the masters proved. While one of them is silent, nothing
// is proven.
func (s *Store) Watch(ctx context.Context, w driver.Listener) error {
	s.mu.Lock()
	if s.ctx.Err() != nil {
		s.mu.Unlock()
		return fmt.Errorf("redisstore: watch: %w", errClosed)
	}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()

	watching, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer context.AfterFunc(s.ctx, func() { end(errClosed) })()
	session := &watchSession{store: s, fail: end, listener: w, advanced: make(chan struct{})}
	s.mu.Lock()
	s.sessions[session] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.sessions, session)
		s.mu.Unlock()
		session.stop()
	}()
	for watching.Err() == nil {
		t, changed := s.currentTopology()
		if t != nil {
			session.follow(watching, t)
		}
		select {
		case <-changed:
		case <-watching.Done():
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("redisstore: watch: %w", context.Cause(watching))
}

// Prove implements driver.Prover.
func (s *Store) Prove(ctx context.Context) error {
	s.mu.Lock()
	sessions := slices.Collect(maps.Keys(s.sessions))
	s.mu.Unlock()
	at := time.Now()
	for _, session := range sessions {
		if err := session.awaitProof(ctx, at); err != nil {
			return fmt.Errorf("redisstore: prove: %w", err)
		}
	}
	return nil
}

// watchSession is one call of Watch: the tracking connections of one driver.Listener, one to
// each master.
type watchSession struct {
	store *Store
	fail  context.CancelCauseFunc // ends the call with an error

	// All reports are made under mu, so that none comes after Watch has returned, and no
	// proof under a topology that has been replaced.
	mu       sync.Mutex
	listener driver.Listener               // nil when Watch has returned; guarded by mu
	topology *topology                     // that tracking belongs to; guarded by mu
	tracking map[incarnation]*trackingConn // changed by follow alone, under mu
	proven   time.Time                     // reported to listener last; guarded by mu
	advanced chan struct{}                 // closed, and replaced, when proven or who reports is another; guarded by mu
}

// incarnation is one server process, with its data, at one address.
type incarnation struct {
	addr     string
	identity identity
}

// follow starts tracking connections to the masters in t, and stops those to others.
func (w *watchSession) follow(ctx context.Context, t *topology) {
	keys := make(map[incarnation]string, len(t.shards)) // → key to ask it for
	for i := range t.shards {
		sh := &t.shards[i]
		key := ""
		if t.slots != nil {
			key = t.proofs[i]
		}
		keys[incarnation{sh.addr, sh.info.identity}] = key
	}
	tracking := make(map[incarnation]*trackingConn, len(keys))
	var stopped, started []*trackingConn
	for in, c := range w.tracking {
		if _, stays := keys[in]; stays {
			tracking[in] = c
		} else {
			c.stop()
			stopped = append(stopped, c)
		}
	}
	for in := range keys {
		if tracking[in] == nil {
			tracking[in] = newTrackingConn(ctx, w, in)
			started = append(started, tracking[in])
		}
	}

	w.mu.Lock()
	prev := w.topology
	w.topology, w.tracking = t, tracking
	for in, c := range tracking {
		c.proofKey = keys[in]
	}
	if prev != nil && !prev.sameMasters(t) {
		w.listener.Missed()
	}
	w.advance()
	w.mu.Unlock()

	for _, c := range stopped {
		<-c.done
	}
	for _, c := range started {
		go c.run()
	}
}

// ask asks every tracking connection for a proof that begins from now on. mu is held.
func (w *watchSession) ask() {
	for _, c := range w.tracking {
		select {
		case c.asked <- struct{}{}:
		default: // it has been asked, and has not begun
		}
	}
}

var errNotReporting = errors.New("redis does not report changes at present")

// awaitProof waits until every change before at has been reported.
func (w *watchSession) awaitProof(ctx context.Context, at time.Time) error {
	for {
		w.mu.Lock()
		proven, advanced, err := w.proven, w.advanced, w.silent()
		if err == nil && !proven.After(at) {
			w.ask() // once more after one that began before, or at the same moment by a coarse clock
		}
		w.mu.Unlock()
		switch {
		case err != nil:
			return err
		case proven.After(at):
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// silent says why nothing can be proven at present. mu is held.
func (w *watchSession) silent() error {
	if w.listener == nil || w.store.topology.Load() != w.topology || len(w.tracking) == 0 {
		return errNotReporting
	}
	for _, c := range w.tracking {
		if !c.reports {
			return errNotReporting
		}
	}
	return nil
}

// advance wakes those who wait for a proof. mu is held.
func (w *watchSession) advance() {
	close(w.advanced)
	w.advanced = make(chan struct{})
}

// interrupted notes that c has lost its network connection.
func (w *watchSession) interrupted(c *trackingConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c.reports = false
	w.advance()
}

// stop stops the tracking connections. Nothing is reported after it.
func (w *watchSession) stop() {
	w.mu.Lock()
	w.listener = nil
	w.advance()
	w.mu.Unlock()
	for _, c := range w.tracking {
		c.stop()
	}
	for _, c := range w.tracking {
		<-c.done
	}
}

// changed reports the names of keys that a server has pushed.
func (w *watchSession) changed(keys []string) {
	tags := make([]driver.Tag, 0, len(keys))
	for _, key := range keys {
		if tag, ok := strings.CutPrefix(key, w.store.names.tag("")); ok {
			tags = append(tags, driver.Tag(tag))
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener != nil && len(tags) > 0 {
		w.listener.Changed(tags...)
	}
}

// missed reports a gap.
func (w *watchSession) missed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener != nil {
		w.listener.Missed()
	}
}

// proved notes that c has reported every change before at. first says that it is the first
// proof over a network connection, which ends a gap. proved returns false if the proof counts
// for nothing because the topology has changed: c may lead to a master that no process writes
// to any more.
func (w *watchSession) proved(c *trackingConn, at time.Time, first bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener == nil || w.store.topology.Load() != w.topology {
		return false
	}
	if first {
		w.listener.Missed()
	}
	c.proven, c.reports = at, true
	oldest := slices.MinFunc(slices.Collect(maps.Values(w.tracking)), func(x, y *trackingConn) int { return x.proven.Compare(y.proven) })
	if oldest.proven.After(w.proven) {
		w.proven = oldest.proven
		w.listener.Proven(w.proven)
		w.advance()
	}
	return true
}

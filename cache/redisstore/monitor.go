package redisstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

const (
	// probeEvery is how often the topology is probed when nothing happens. It bounds for how
	// long a server may be replaced unnoticed without its connections ending: behind a proxy,
	// or by REPLICAOF.
	probeEvery = time.Second

	// probeEveryDegraded is the same while a master is unavailable and may be replaced.
	probeEveryDegraded = 100 * time.Millisecond

	// probeTimeout bounds a probe by a client that is connected.
	probeTimeout = time.Second

	// reconnectWait bounds how long a probe waits for a master that was unavailable before.
	// Callers that wait for the probe may need only other masters.
	reconnectWait = 20 * time.Millisecond

	// While Redis is unavailable, the next probe begins after minRetry, and each further one
	// after a longer time up to maxRetry. A caller that asks for the identity has it probed at
	// once, but not sooner than minRetry after the last probe.
	minRetry = 20 * time.Millisecond
	maxRetry = time.Second

	// remindEvery is how often it is logged that Redis is still unavailable.
	remindEvery = 5 * time.Minute
)

// probeResult is the result of one probe. done is closed when the other fields are set.
type probeResult struct {
	done     chan struct{}
	topology *topology
	err      error
}

// wake makes monitor probe now. It never blocks.
func (s *Store) wake() {
	select {
	case s.wakes <- struct{}{}:
	default:
	}
}

// nextProbe returns the result of a probe that begins after the call.
func (s *Store) nextProbe() *probeResult {
	s.mu.Lock()
	if s.next == nil {
		s.next = &probeResult{done: make(chan struct{})}
	}
	result := s.next
	s.mu.Unlock()
	s.wake()
	return result
}

// monitor connects and probes: when it is woken, and at intervals. No call of the Store dials;
// calls wait for this goroutine if at all.
func (s *Store) monitor(c *connections) {
	defer c.closeAll(silenceTimeout / 2)
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry := minRetry
	var said time.Time // that it is unavailable
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.wakes:
		case <-timer.C:
		}
		s.mu.Lock()
		result := s.next
		s.next = nil
		s.mu.Unlock()

		t, err := s.probe(c)
		if s.ctx.Err() != nil {
			err = errClosed
		}
		if err == nil {
			t = s.publish(t)
			s.down.Store(nil)
			retry = minRetry
			timer.Reset(t.probeInterval())
		} else {
			if s.down.Swap(&err) == nil {
				said = time.Time{}
			}
			if s.ctx.Err() == nil && time.Since(said) >= remindEvery {
				said = time.Now()
				s.log.Warn("redis is unavailable: see that it runs at the configured address and lets this account in", "err", err)
			}
			timer.Reset(retry + rand.N(retry))
			retry = min(2*retry, maxRetry)
		}
		if result != nil {
			result.topology, result.err = t, err
			close(result.done)
		}
		if err != nil {
			select { // minRetry at least between failed probes
			case <-s.ctx.Done():
			case <-time.After(minRetry):
			}
		}
	}
}

// probe connects if necessary, and finds out the topology.
func (s *Store) probe(c *connections) (*topology, error) {
	if err := c.connect(); err != nil {
		return nil, err
	}
	s.control.Store(&c.control)
	ctx, cancel := context.WithTimeout(s.ctx, probeTimeout)
	defer cancel()
	return c.probe(ctx, s.topology.Load())
}

// publish makes t the topology, unless it equals the last, and returns the one that is.
func (s *Store) publish(t *topology) *topology {
	prev := s.topology.Load()
	if prev != nil && prev.equal(t) {
		if s.down.Load() != nil {
			s.log.Info("redis is available again", "changed", false)
		}
		return prev
	}
	t.setProofs(s.names)
	if prev == nil {
		s.logServer(t)
	} else {
		t.observed.Store(prev.observed.Load() && prev.identity == t.identity)
		if s.down.Load() != nil || prev.identity != t.identity {
			s.log.Info("redis is available again", "changed", prev.identity != t.identity)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.topology.Store(t)
	close(s.topologyChanged)
	s.topologyChanged = make(chan struct{})
	return t
}

// currentTopology returns the topology, nil if there is none yet, and a channel that is closed
// when there is another.
func (s *Store) currentTopology() (*topology, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.topology.Load(), s.topologyChanged
}

// Identity implements driver.Store. It asks every master for its identity.
func (s *Store) Identity(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.waitLimit(ctx))
	defer cancel()
	t, err := s.waitForProbe(ctx)
	if err != nil {
		return "", fmt.Errorf("redisstore: identity: %w", err)
	}
	// From here on a caller knows this identity. After a change, reads fail until a caller asks
	// for the new one.
	t.observed.Store(true)
	return t.identity, nil
}

// checkLife is how long the key of a check is kept after the last one.
const checkLife = time.Minute

// CheckWrites implements driver.Store. It does to a key of each master that answers what a bump
// does to a tag, over the connection of bumps, and reads it by the command of reads. Permissions
// that a read or a bump lacks are found too. A master that is unavailable is left out: what is on
// it is not served either.
func (s *Store) CheckWrites(ctx context.Context) error {
	t := s.topology.Load()
	if t == nil {
		if _, err := s.waitForProbe(ctx); err != nil {
			return fmt.Errorf("redisstore: check writes: %w", err)
		}
		t = s.topology.Load()
	}
	read := "MGET"
	if t.slots != nil {
		read = "GET"
	}
	var none driver.Mark
	var commands []command
	for i, key := range t.proofs {
		if key != "" && t.shards[i].err == nil {
			commands = append(commands,
				command{setVersionScript, []string{key}, []string{millis(checkLife), string(none[:]), "0"}},
				command{nil, []string{key}, []string{read}})
		}
	}
	if _, err := s.exec(ctx, commands); err != nil {
		return fmt.Errorf("redisstore: check writes: %w", err)
	}
	return nil
}

// waitLimit is how long a call may take: until the deadline of its context or, without one, for
// the configured timeout.
func (s *Store) waitLimit(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return time.Until(deadline)
	}
	return s.cfg.Timeout
}

// waitForProbe waits for a probe that begins now.
func (s *Store) waitForProbe(ctx context.Context) (*topology, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.ctx.Err() != nil {
		return nil, errClosed
	}
	result := s.nextProbe()
	select {
	case <-result.done:
		return result.topology, result.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.ctx.Done():
		return nil, errClosed
	}
}

// unavailable returns the error of a call that finds no verified server: the reason why Redis
// is down, if it is known, or ErrUnproven. After ErrUnproven the cache calls Identity, and so
// waits for the connection.
func (s *Store) unavailable() error {
	if err := s.down.Load(); err != nil {
		return *err
	}
	s.wake()
	return driver.ErrUnproven
}

// unverify makes monitor verify every master again: one of them behaved like a replica.
func (s *Store) unverify() {
	if t := s.topology.Load(); t != nil {
		for i := range t.shards {
			t.shards[i].read.endpoint.generation.Add(1)
		}
	}
	s.wake()
}

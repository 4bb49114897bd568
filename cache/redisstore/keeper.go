package redisstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

const (
	// heartbeat is how often the identity is looked at when nothing happens. It bounds
	// how long a server may be replaced without its connections ending: behind a proxy,
	// or by REPLICAOF.
	heartbeat = time.Second

	// impatience is the same while a master of a Cluster is lost and may be replaced.
	impatience = 100 * time.Millisecond

	// surveyTimeout bounds a survey on a connected client.
	surveyTimeout = time.Second

	// reviveTimeout bounds how long a survey waits for a master that was lost before: who
	// waits for the survey may need only the others.
	reviveTimeout = 20 * time.Millisecond

	// While Redis is lost it is looked for after minRetry, then ever more seldom; who asks
	// for the identity has it looked for at once, but not more often than minRetry.
	minRetry = 20 * time.Millisecond
	maxRetry = time.Second
)

// outcome is that of one survey. done is closed when it is known.
type outcome struct {
	done chan struct{}
	view *view
	err  error
}

// kick makes the keeper survey now. It never blocks.
func (s *Store) kick() {
	select {
	case s.kicks <- struct{}{}:
	default:
	}
}

// nextSurvey returns the outcome of a survey that begins after the call.
func (s *Store) nextSurvey() *outcome {
	s.mu.Lock()
	if s.next == nil {
		s.next = &outcome{done: make(chan struct{})}
	}
	o := s.next
	s.mu.Unlock()
	s.kick()
	return o
}

// keep connects, and surveys: when it is kicked, and after a while by itself. It is the
// only goroutine that dials while anybody could wait for it.
func (s *Store) keep(l *link) {
	defer l.close(deadAfter / 2)
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry := minRetry
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.kicks:
		case <-timer.C:
		}
		s.mu.Lock()
		o := s.next
		s.next = nil
		s.mu.Unlock()

		v, err := s.survey(l)
		if s.ctx.Err() != nil {
			err = errClosed
		}
		if err == nil {
			v = s.publish(v)
			s.down.Store(nil)
			retry = minRetry
			timer.Reset(v.pace())
		} else {
			if s.down.Swap(&err) == nil && s.ctx.Err() == nil {
				s.log.Warn("redis is lost", "err", err)
			}
			timer.Reset(retry + rand.N(retry))
			retry = min(2*retry, maxRetry)
		}
		if o != nil {
			o.view, o.err = v, err
			close(o.done)
		}
		if err != nil {
			select { // before the next kick
			case <-s.ctx.Done():
			case <-time.After(minRetry):
			}
		}
	}
}

// survey connects if need be, and looks at what is there.
func (s *Store) survey(l *link) (*view, error) {
	if err := l.connect(); err != nil {
		return nil, err
	}
	s.writer.Store(&l.client)
	ctx, cancel := context.WithTimeout(s.ctx, surveyTimeout)
	defer cancel()
	return l.survey(ctx, s.view.Load())
}

// publish makes v the view, unless it is as the last, and returns which is.
func (s *Store) publish(v *view) *view {
	prev := s.view.Load()
	if prev != nil && prev.same(v) {
		if s.down.Load() != nil {
			s.log.Info("redis is back", "changed", false)
		}
		return prev
	}
	if prev == nil {
		s.report(v)
	} else {
		v.told.Store(prev.told.Load() && prev.identity == v.identity)
		if s.down.Load() != nil || prev.identity != v.identity {
			s.log.Info("redis is back", "changed", prev.identity != v.identity)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view.Store(v)
	close(s.renewed)
	s.renewed = make(chan struct{})
	return v
}

// current returns the view, nil if there is none yet, and a channel that is closed when
// there is another.
func (s *Store) current() (*view, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view.Load(), s.renewed
}

// Identity implements driver.Store. It asks every master who it is.
func (s *Store) Identity(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience(ctx))
	defer cancel()
	v, err := s.wait(ctx)
	if err != nil {
		return "", fmt.Errorf("redisstore: identity: %w", err)
	}
	// From here on a change is somebody's to hear of: reads fail until they ask again.
	v.told.Store(true)
	return v.identity, nil
}

// patience is how long a call may take whose context allows it: the configured timeout,
// unless its context has a deadline.
func (s *Store) patience(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return time.Until(deadline)
	}
	return s.cfg.Timeout
}

// wait waits for a survey that begins now.
func (s *Store) wait(ctx context.Context) (*view, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.ctx.Err() != nil {
		return nil, errClosed
	}
	o := s.nextSurvey()
	select {
	case <-o.done:
		return o.view, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.ctx.Done():
		return nil, errClosed
	}
}

// lost is the error of a call that finds nothing to ask: why Redis is down, if that is
// known, or ErrUnproven, upon which the caller asks for the identity and so waits for the
// connection.
func (s *Store) lost() error {
	if err := s.down.Load(); err != nil {
		return *err
	}
	s.kick()
	return driver.ErrUnproven
}

// distrust ends the proof of every master: one of them behaved like a replica.
func (s *Store) distrust() {
	if v := s.view.Load(); v != nil {
		for i := range v.shards {
			v.shards[i].lane.node.gen.Add(1)
		}
	}
	s.kick()
}

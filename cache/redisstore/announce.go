package redisstore

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const (
	// resubscribeAfter is the pause between the end of a subscription and the next attempt,
	// and resubscribeForbiddenAfter the pause after the server refused it: the right may be
	// granted later.
	resubscribeAfter          = 50 * time.Millisecond
	resubscribeForbiddenAfter = 30 * time.Second
)

// Announced implements driver.Store. Announcements before the first subscription, and while
// the connection is lost, are missed. So each new subscription wakes all waiters.
func (s *Store) Announced(key string) (<-chan struct{}, func()) {
	return s.waiters.subscribe(key)
}

// receiveAnnouncements keeps one subscription for the whole Store, on the control connection of
// any master: a Cluster passes messages on to all of its nodes.
func (s *Store) receiveAnnouncements() {
	warned := false
	for {
		confirmed, err := s.subscribe()
		if confirmed {
			s.waiters.announceAll() // what is announced from here on is missed: waiters must read
		}
		pause := resubscribeAfter + rand.N(resubscribeAfter)
		if re, ok := rueidis.IsRedisErr(err); ok && isForbidden(re) {
			if !warned {
				warned = true
				s.log.Warn("redis refuses the subscription: a load in another process is noticed late, when its lease ends",
					"channel", s.names.channel(), "remedy", "allow the channel, as &"+string(s.names)+"* does", "err", err)
			}
			pause = resubscribeForbiddenAfter
		}
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// subscribe passes on announcements until the subscription ends, and reports whether it ever
// was confirmed.
func (s *Store) subscribe() (confirmed bool, err error) {
	t := s.topology.Load()
	if t == nil {
		if t, err = s.waitForProbe(s.ctx); err != nil {
			return false, err
		}
	}
	sh := &t.shards[rand.N(len(t.shards))]
	if !sh.verified() {
		s.wake()
		return false, sh.err
	}
	var live atomic.Bool
	// The hook runs between two replies: it must not block.
	ctx := rueidis.WithOnSubscriptionHook(s.ctx, func(rueidis.PubSubSubscription) {
		live.Store(true)
		s.waiters.announceAll() // what was announced before was missed
	})
	err = sh.control.Receive(ctx, sh.control.B().Subscribe().Channel(s.names.channel()).Build(),
		func(m rueidis.PubSubMessage) { s.waiters.announce(m.Message) })
	return live.Load(), err
}

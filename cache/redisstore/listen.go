package redisstore

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const (
	// relisten is how long after the end of the subscription the next is tried, and
	// relistenRefused after the account was refused it: somebody may grant it.
	relisten        = 50 * time.Millisecond
	relistenRefused = 30 * time.Second
)

// Announced implements driver.Store. Announcements from before the first subscription and
// during a lost connection are made up for when there is a new one: everybody hears.
func (s *Store) Announced(key string) (<-chan struct{}, func()) {
	return s.hub.subscribe(key)
}

// listen keeps one subscription for the whole Store, on the connection of any master: a
// Cluster passes messages on to all of its nodes.
func (s *Store) listen() {
	warned := false
	for {
		live, err := s.subscription()
		if live {
			s.hub.announceAll() // what comes now is missed: better to look than to wait
		}
		pause := relisten + rand.N(relisten)
		if re, ok := rueidis.IsRedisErr(err); ok && refusal(re) {
			if !warned {
				warned = true
				s.log.Warn("redis refuses the subscription: a load in another process is noticed late, when its lease ends",
					"channel", s.names.channel(), "remedy", "allow the channel, as &"+string(s.names)+"* does", "err", err)
			}
			pause = relistenRefused
		}
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// subscription announces what it hears until it ends, and reports whether it ever was live.
func (s *Store) subscription() (live bool, err error) {
	v := s.view.Load()
	if v == nil {
		if v, err = s.wait(s.ctx); err != nil {
			return false, err
		}
	}
	sh := &v.shards[rand.N(len(v.shards))]
	if !sh.proven() {
		s.kick()
		return false, sh.err
	}
	var confirmed atomic.Bool
	// The hook runs between two replies: it must not block.
	ctx := rueidis.WithOnSubscriptionHook(s.ctx, func(rueidis.PubSubSubscription) {
		confirmed.Store(true)
		s.hub.announceAll() // what came before now was missed
	})
	err = sh.ctl.Receive(ctx, sh.ctl.B().Subscribe().Channel(s.names.channel()).Build(),
		func(m rueidis.PubSubMessage) { s.hub.announce(m.Message) })
	return confirmed.Load(), err
}

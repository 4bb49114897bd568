package redisstore

import (
	"context"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// report says once, when the Store first connects, what it found and what is missing.
// What a server does not tell is not held against it.
func (s *Store) report(v *view) {
	sh := &v.shards[0]
	for i := range v.shards {
		if v.shards[i].err == nil {
			sh = &v.shards[i]
		}
	}
	s.log.Info("redis is connected", "server", sh.info.version, "mode", sh.info.mode, "masters", len(v.shards), "prefix", string(s.names))
	if sh.info.nameless {
		s.log.Warn("redis does not say which process it is, so nobody could tell a restart or a failover: every new connection "+
			"begins with an empty cache, and processes do not share answers", "remedy", "allow the account INFO, as +info does")
	}
	switch policy := s.evictionPolicy(sh.ctl); {
	case policy == "noeviction":
		s.log.Warn("redis refuses writes when its memory is full, and so invalidations: their tags are then repaired late",
			"maxmemory-policy", policy, "remedy", "set maxmemory-policy to volatile-lru or volatile-lfu")
	case strings.HasPrefix(policy, "allkeys") || strings.HasPrefix(policy, "volatile"):
		s.log.Info("redis evicts keys when its memory is full: answers whose tags are evicted are loaded again", "maxmemory-policy", policy)
	}
}

// evictionPolicy returns the policy if the server has a bound on its memory at all and
// tells, else "".
func (s *Store) evictionPolicy(client rueidis.Client) string {
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	text, err := client.Do(ctx, client.B().Arbitrary("INFO", "memory").Build()).ToString()
	if err != nil || infoField(text, "maxmemory") == "0" {
		return ""
	}
	return infoField(text, "maxmemory_policy")
}

package redisstore

import (
	"context"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// logServer logs once, when the Store first connects, what the server is and what it lacks.
// It does not warn about what the server does not tell.
func (s *Store) logServer(t *topology) {
	sh := &t.shards[0]
	for i := range t.shards {
		if t.shards[i].err == nil {
			sh = &t.shards[i]
		}
	}
	s.log.Info("redis is connected", "server", sh.info.version, "mode", sh.info.mode, "masters", len(t.shards), "prefix", string(s.names))
	if sh.info.withoutRunID {
		s.log.Warn("redis does not tell its run id, so a restart or a failover cannot be noticed: every new connection "+
			"begins with an empty cache, and processes do not share answers", "remedy", "allow the account INFO, as +info does")
	}
	switch policy := s.evictionPolicy(sh.control); {
	case policy == "noeviction":
		s.log.Warn("redis refuses writes when its memory is full, and so invalidations: their tags are then repaired late",
			"maxmemory-policy", policy, "remedy", "set maxmemory-policy to volatile-lru or volatile-lfu")
	case strings.HasPrefix(policy, "allkeys") || strings.HasPrefix(policy, "volatile"):
		s.log.Info("redis evicts keys when its memory is full: answers whose tags are evicted are loaded again", "maxmemory-policy", policy)
	}
}

// evictionPolicy returns the policy, or "" if the server has no bound on its memory or does not
// tell.
func (s *Store) evictionPolicy(client rueidis.Client) string {
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	text, err := client.Do(ctx, client.B().Arbitrary("INFO", "memory").Build()).ToString()
	if err != nil || infoField(text, "maxmemory") == "0" {
		return ""
	}
	return infoField(text, "maxmemory_policy")
}

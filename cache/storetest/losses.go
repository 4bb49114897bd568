package storetest

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/chainlearn/chainlearn/cache"
)

// losses is what handles on the same data have lost together. No Store can be told to lose
// something, so the names change instead: behind a new name nothing is known.
type losses struct {
	incarnation atomic.Int64 // of the data's identity

	mu       sync.RWMutex
	restarts int64             // guarded by mu
	tags     map[cache.Tag]int // how often each was lost since the restart; guarded by mu
}

// suffix is nothing for data that lost nothing: such names stay what they were.
func suffix(restarts int64, lost int) string {
	if restarts == 0 && lost == 0 {
		return ""
	}
	return fmt.Sprintf("†%d.%d", restarts, lost)
}

func (l *losses) loseAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restarts++
	clear(l.tags)
}

func (l *losses) loseTags(tags []cache.Tag) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, tag := range tags {
		l.tags[tag]++
	}
}

func (l *losses) key(key string) string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return key + suffix(l.restarts, 0)
}

func (l *losses) tag(tag cache.Tag) cache.Tag {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return tag + cache.Tag(suffix(l.restarts, l.tags[tag]))
}

func (l *losses) tagsOf(tags []cache.Tag) []cache.Tag { return each(tags, l.tag) }

func (l *losses) keysOf(keys []string) []string { return each(keys, l.key) }

func (l *losses) claimsOf(claims []cache.Claim) []cache.Claim {
	return each(claims, func(c cache.Claim) cache.Claim {
		c.Key = l.key(c.Key)
		return c
	})
}

func (l *losses) fillsOf(fills []cache.Fill) []cache.Fill {
	return each(fills, func(f cache.Fill) cache.Fill {
		f.Key, f.Tags = l.key(f.Key), l.tagsOf(f.Tags)
		return f
	})
}

func each[T any](in []T, change func(T) T) []T {
	out := make([]T, len(in))
	for i, v := range in {
		out[i] = change(v)
	}
	return out
}

// exactly returns the pattern that comes closest to key alone.
func exactly(key string) string { return strings.ReplaceAll(key, "*", "?") }

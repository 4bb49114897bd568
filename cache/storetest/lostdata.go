package storetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// losses is what handles on the same data have lost together. No Store can be told to lose
// something, so the names change instead: behind a new name nothing is known.
type losses struct {
	incarnation atomic.Int64 // of the data's identity

	mu       sync.RWMutex
	restarts int64              // guarded by mu
	tags     map[driver.Tag]int // how often each was lost since the restart; guarded by mu
	watches  map[*reports]bool  // of all handles; guarded by mu
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

func (l *losses) loseTags(tags []driver.Tag) {
	l.mu.Lock()
	for _, tag := range tags {
		l.tags[tag]++
	}
	watches := slices.Collect(maps.Keys(l.watches))
	l.mu.Unlock()
	for _, w := range watches {
		w.report(tags)
	}
}

func (l *losses) watch(r *reports, on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watches[r] = on; !on {
		delete(l.watches, r)
	}
}

// callers returns by which names callers know tags of the inner store, leaving out those
// that were lost.
func (l *losses) callers(tags []driver.Tag) (known []driver.Tag) {
	for _, inner := range tags {
		tag := inner
		if i := strings.LastIndex(string(inner), "†"); i >= 0 && l.tag(inner[:i]) == inner {
			tag = inner[:i]
		}
		if l.tag(tag) == inner {
			known = append(known, tag)
		}
	}
	return known
}

func (l *losses) key(key string) string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return key + suffix(l.restarts, 0)
}

func (l *losses) tag(tag driver.Tag) driver.Tag {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return tag + driver.Tag(suffix(l.restarts, l.tags[tag]))
}

func (l *losses) tagsOf(tags []driver.Tag) []driver.Tag { return each(tags, l.tag) }

func (l *losses) keysOf(keys []string) []string { return each(keys, l.key) }

func (l *losses) claimsOf(claims []driver.Claim) []driver.Claim {
	return each(claims, func(c driver.Claim) driver.Claim {
		c.Key = l.key(c.Key)
		return c
	})
}

func (l *losses) fillsOf(fills []driver.Fill) []driver.Fill {
	return each(fills, func(f driver.Fill) driver.Fill {
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

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

// lostData is what the handles on the same data have lost together. No Store can lose data on
// request. So lost names are replaced by new names, under which the inner store has nothing.
type lostData struct {
	incarnation atomic.Int64 // of the data's identity

	mu       sync.RWMutex
	restarts int64                    // guarded by mu
	tags     map[driver.Tag]int       // how often each was lost since the restart; guarded by mu
	watches  map[*faultyListener]bool // of all handles; guarded by mu
}

// suffix is what the new name of lost data ends with. It is empty if nothing was lost.
func suffix(restarts int64, lost int) string {
	if restarts == 0 && lost == 0 {
		return ""
	}
	return fmt.Sprintf("†%d.%d", restarts, lost)
}

func (l *lostData) loseAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restarts++
	clear(l.tags)
}

func (l *lostData) loseTags(tags []driver.Tag) {
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

func (l *lostData) watch(r *faultyListener, on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watches[r] = on; !on {
		delete(l.watches, r)
	}
}

// listening returns the listeners that hear through f.
func (l *lostData) listening(f *Faulty) (rs []*faultyListener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := range l.watches {
		if r.faulty == f {
			rs = append(rs, r)
		}
	}
	return rs
}

// namesOfCallers returns the names by which callers know tags of the inner store, without those
// that were lost.
func (l *lostData) namesOfCallers(tags []driver.Tag) (known []driver.Tag) {
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

func (l *lostData) key(key string) string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return key + suffix(l.restarts, 0)
}

func (l *lostData) tag(tag driver.Tag) driver.Tag {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return tag + driver.Tag(suffix(l.restarts, l.tags[tag]))
}

func (l *lostData) tagsOf(tags []driver.Tag) []driver.Tag { return each(tags, l.tag) }

func (l *lostData) keysOf(keys []string) []string { return each(keys, l.key) }

func (l *lostData) claimsOf(claims []driver.Claim) []driver.Claim {
	return each(claims, func(c driver.Claim) driver.Claim {
		c.Key = l.key(c.Key)
		return c
	})
}

func (l *lostData) fillsOf(fills []driver.Fill) []driver.Fill {
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

// patternFor returns the pattern that comes closest to matching key alone.
func patternFor(key string) string { return strings.ReplaceAll(key, "*", "?") }

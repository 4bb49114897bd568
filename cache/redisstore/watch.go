package redisstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Watch implements driver.Watcher, by client tracking. It fails at once where a server
// refuses that, and says what is missing; a server that is lost is looked for until ctx
// ends. Each call has a connection of its own to each master.
//
// What Proven says is the least of what the masters proved. While one of them is silent,
// nothing is proven.
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
	a := &audience{store: s, refuse: end, watcher: w}
	defer a.leave()
	for watching.Err() == nil {
		v, renewed := s.current()
		if v != nil {
			a.follow(watching, v)
		}
		select {
		case <-renewed:
		case <-watching.Done():
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("redisstore: watch: %w", context.Cause(watching))
}

// audience is one call of Watch: the ears of a Watcher, one at each master.
type audience struct {
	store  *Store
	refuse context.CancelCauseFunc // ends the call with an error

	// All reports are made under mu, so that none comes after Watch has returned, and none
	// under a view that is not the present one.
	mu      sync.Mutex
	watcher driver.Listener // nil when Watch has returned; guarded by mu
	view    *view           // that ears belong to; guarded by mu
	ears    map[place]*ear  // changed by follow alone, under mu
	proven  time.Time       // what watcher was told last; guarded by mu
}

// place is where an ear listens: another incarnation of a server is another place.
type place struct {
	addr     string
	identity identity
}

// follow sends ears to the masters in v, and ends those elsewhere.
func (a *audience) follow(ctx context.Context, v *view) {
	places := make(map[place]string, len(v.shards)) // → key to probe it with
	for i := range v.shards {
		sh := &v.shards[i]
		places[place{sh.addr, sh.info.identity}] = v.probe(a.store.names, sh)
	}
	ears := make(map[place]*ear, len(places))
	var gone, begun []*ear
	for p, e := range a.ears {
		if _, stays := places[p]; stays {
			ears[p] = e
		} else {
			e.stop()
			gone = append(gone, e)
		}
	}
	for p := range places {
		if ears[p] == nil {
			ears[p] = newEar(ctx, a, p)
			begun = append(begun, ears[p])
		}
	}

	a.mu.Lock()
	prev := a.view
	a.view, a.ears = v, ears
	for p, e := range ears {
		e.probe = places[p]
	}
	if prev != nil && !prev.sameMasters(v) {
		a.watcher.Missed()
	}
	a.mu.Unlock()

	for _, e := range gone {
		<-e.done
	}
	for _, e := range begun {
		go e.listen()
	}
}

// leave ends the ears. Nothing is reported after it.
func (a *audience) leave() {
	a.mu.Lock()
	a.watcher = nil
	a.mu.Unlock()
	for _, e := range a.ears {
		e.stop()
	}
	for _, e := range a.ears {
		<-e.done
	}
}

// changed reports what a server has pushed: the names of keys.
func (a *audience) changed(keys []string) {
	tags := make([]driver.Tag, 0, len(keys))
	for _, key := range keys {
		if tag, ok := strings.CutPrefix(key, a.store.names.tag("")); ok {
			tags = append(tags, driver.Tag(tag))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.watcher != nil && len(tags) > 0 {
		a.watcher.Changed(tags...)
	}
}

// missed reports a gap.
func (a *audience) missed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.watcher != nil {
		a.watcher.Missed()
	}
}

// proved notes that e has reported everything before at, after a gap if it is the first
// time on a connection. It returns false if that counts for nothing, because the masters
// have changed and e may listen to one that nobody writes to any more.
func (a *audience) proved(e *ear, at time.Time, first bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.watcher == nil || a.store.view.Load() != a.view {
		return false
	}
	if first {
		a.watcher.Missed()
	}
	e.proven = at
	oldest := slices.MinFunc(slices.Collect(maps.Values(a.ears)), func(x, y *ear) int { return x.proven.Compare(y.proven) })
	if oldest.proven.After(a.proven) {
		a.proven = oldest.proven
		a.watcher.Proven(a.proven)
	}
	return true
}

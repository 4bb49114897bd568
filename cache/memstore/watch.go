package memstore

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// always is how far ahead of now everything is proven: a change is reported before the
// call that makes it returns, so none can be acknowledged and not reported.
const always = 100 * 365 * 24 * time.Hour

// Watch implements driver.Watcher. Changes are reported within the calls that make them,
// before they return, so w hears of a write no later than the writer. It returns an error
// when the store is closed.
func (s *Store) Watch(ctx context.Context, w driver.Listener) error {
	if s.closed.Load() {
		return errClosed
	}
	defer s.watchers.add(w)()
	w.Missed()
	w.Proven(time.Now().Add(always))
	select {
	case <-ctx.Done():
		return nil
	case <-s.done:
		return errClosed
	}
}

// watchers are told of changes. Reads, and changes while nobody watches, pay one load of
// a pointer at most.
type watchers struct {
	mu   sync.Mutex
	list atomic.Pointer[[]*watching] // replaced as a whole under mu; nil when empty
}

// watching is one call of Watch, of which several may report to the same Watcher.
type watching struct{ driver.Listener }

func (s *watchers) add(w driver.Listener) (remove func()) {
	one := &watching{w}
	s.change(func(list []*watching) []*watching { return append(list, one) })
	return func() {
		s.change(func(list []*watching) []*watching {
			return slices.DeleteFunc(list, func(w *watching) bool { return w == one })
		})
	}
}

func (s *watchers) change(next func(list []*watching) []*watching) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*watching
	if old := s.list.Load(); old != nil {
		list = slices.Clone(*old)
	}
	if list = next(list); len(list) == 0 {
		s.list.Store(nil)
		return
	}
	s.list.Store(&list)
}

// changed reports tags. Call it after the change: a watcher that comes too late to be in
// the list is then told Missed after the change, and reads what it relies on later yet.
func (s *watchers) changed(tags ...driver.Tag) {
	if list := s.list.Load(); list != nil && len(tags) > 0 {
		for _, w := range *list {
			w.Changed(tags...)
		}
	}
}

package memstore

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// provenAhead is how far ahead of now everything is proven. A change is reported before the
// call that makes it returns, so no change is acknowledged that was not reported.
const provenAhead = 100 * 365 * 24 * time.Hour

// ReportsAtOnce implements driver.ExactWatcher.
func (s *Store) ReportsAtOnce() bool { return true }

// Watch implements driver.Watcher. Changes are reported within the calls that make them,
// before they return, so w receives the report of a write before the writer receives its
// acknowledgement. Watch returns an error when the store is closed.
func (s *Store) Watch(ctx context.Context, w driver.Listener) error {
	if s.closed.Load() {
		return errClosed
	}
	defer s.watchers.add(w)()
	w.Missed()
	w.Proven(time.Now().Add(provenAhead))
	select {
	case <-ctx.Done():
		return nil
	case <-s.done:
		return errClosed
	}
}

// watchers are the listeners to which changes are reported. Reads, and changes while there are no
// listeners, load one pointer at most.
type watchers struct {
	mu   sync.Mutex
	list atomic.Pointer[[]*registration] // replaced as a whole under mu; nil when empty
}

// registration is one call of Watch. Several calls may have the same Listener.
type registration struct{ driver.Listener }

func (s *watchers) add(w driver.Listener) (remove func()) {
	one := &registration{w}
	s.update(func(list []*registration) []*registration { return append(list, one) })
	return func() {
		s.update(func(list []*registration) []*registration {
			return slices.DeleteFunc(list, func(w *registration) bool { return w == one })
		})
	}
}

func (s *watchers) update(next func(list []*registration) []*registration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*registration
	if old := s.list.Load(); old != nil {
		list = slices.Clone(*old)
	}
	if list = next(list); len(list) == 0 {
		s.list.Store(nil)
		return
	}
	s.list.Store(&list)
}

// changed reports tags. It is called after the change. A listener that is added too late to be in
// the list is then told Missed after the change, and reads what it relies on after that.
func (s *watchers) changed(tags ...driver.Tag) {
	if list := s.list.Load(); list != nil && len(tags) > 0 {
		for _, w := range *list {
			w.Changed(tags...)
		}
	}
}

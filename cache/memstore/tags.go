package memstore

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// maxMarks bounds the marks of writers in flight, over all tags.
const maxMarks = 1 << 16

// errTooManyMarks is returned by Fence. Its caller then does without a fence, as when a store is
// unavailable. Leaving out a mark silently would let readers past it.
var errTooManyMarks = errors.New("memstore: 65536 writers are in flight: fence refused")

// tagTable holds the state of the tags. A state is an immutable value, replaced as a whole
// under the lock of its slot in the hash table, and read without a lock: a reader sees the
// version and the marks of one moment, and after a bump has returned it sees no older one.
type tagTable struct {
	states   *otter.Cache[driver.Tag, tagState]
	marks    atomic.Int64 // in states and spilled, expired ones included
	watchers *watchers
	evicted  atomic.Bool // some tag was evicted: a tag without a version may have had one

	// spilled keeps the marks of tags that were evicted, because a lost mark would let
	// readers past the fence. It is written under the lock of the tag's slot, so that marks
	// are always in states or in spilled. (otter can exempt fenced tags from eviction, but
	// would then step over each of them on every eviction.)
	spillMu    sync.Mutex
	spilled    map[driver.Tag][]mark // guarded by spillMu
	hasSpilled atomic.Bool           // spilled is not empty

	sweepMu sync.Mutex
	swept   time.Time // when the last sweep began; guarded by sweepMu
}

type tagState struct {
	version driver.Version
	marks   []mark // never modified
}

// mark says that the writer id is in flight. It expires at until, unless the writer renews it.
type mark struct {
	id    driver.Mark
	until time.Time
}

func newTagTable(maxTags int, watchers *watchers) *tagTable {
	t := &tagTable{watchers: watchers, spilled: make(map[driver.Tag][]mark)}
	t.states = otter.Must(&otter.Options[driver.Tag, tagState]{
		MaximumSize: maxTags,
		OnAtomicDeletion: func(e otter.DeletionEvent[driver.Tag, tagState]) {
			if !e.WasEvicted() {
				return
			}
			if !t.evicted.Load() {
				t.evicted.Store(true)
			}
			if len(e.Value.marks) > 0 {
				t.spill(e.Key, e.Value.marks)
			}
		},
		Executor: inline,
	})
	return t
}

// state returns the present state of tag, giving it a version first if it has none.
func (t *tagTable) state(tag driver.Tag) driver.TagState {
	s, ok := t.states.GetIfPresent(tag)
	if !ok {
		created := false
		s, _ = t.states.ComputeIfAbsent(tag, func() (tagState, bool) {
			created = true
			return tagState{driver.NewVersion(), t.unspill(tag)}, false
		})
		// The first version of a tag is not reported: nothing depends on the tag yet. An
		// evicted tag may have had another version, on which answers depend.
		if created && t.evicted.Load() {
			t.watchers.changed(tag)
		}
	}
	return driver.TagState{Version: s.version, Fenced: fenced(s.marks)}
}

func fenced(marks []mark) bool {
	if len(marks) == 0 {
		return false // the usual case, without reading the clock
	}
	now := time.Now()
	for _, m := range marks {
		if now.Before(m.until) {
			return true
		}
	}
	return false
}

// without returns marks except id and those that expired before now, with room for one more.
func without(marks []mark, id driver.Mark, now time.Time) []mark {
	if len(marks) == 0 {
		return nil
	}
	rest := make([]mark, 0, len(marks)+1)
	for _, m := range marks {
		if m.id != id && now.Before(m.until) {
			rest = append(rest, m)
		}
	}
	return rest
}

// addMark gives tag a new version and the mark id.
func (t *tagTable) addMark(tag driver.Tag, id driver.Mark, lease time.Duration) error {
	if t.marks.Load() >= maxMarks && !t.sweep() {
		return errTooManyMarks
	}
	t.update(tag, func(marks []mark, now time.Time) []mark {
		return append(without(marks, id, now), mark{id, now.Add(lease)})
	})
	return nil
}

// removeMark gives tag a new version without the mark id.
func (t *tagTable) removeMark(tag driver.Tag, id driver.Mark) {
	t.update(tag, func(marks []mark, now time.Time) []mark {
		return without(marks, id, now)
	})
}

// update gives tag a new version and the marks that next returns.
func (t *tagTable) update(tag driver.Tag, next func(marks []mark, now time.Time) []mark) {
	t.states.Compute(tag, func(s tagState, known bool) (tagState, otter.ComputeOp) {
		if !known {
			s.marks = t.unspill(tag)
		}
		marks := next(s.marks, time.Now())
		t.marks.Add(int64(len(marks) - len(s.marks)))
		return tagState{driver.NewVersion(), marks}, otter.WriteOp
	})
}

// spill keeps the marks of a tag that is being evicted.
// Decision 17.
func (t *tagTable) spill(tag driver.Tag, marks []mark) {
	t.spillMu.Lock()
	defer t.spillMu.Unlock()
	t.spilled[tag] = marks
	t.hasSpilled.Store(true)
}

// unspill returns the marks of a tag that comes back, and removes them from spilled. The caller
// holds the lock of the tag's slot, so a spill of this tag has ended or has not begun.
func (t *tagTable) unspill(tag driver.Tag) []mark {
	if !t.hasSpilled.Load() {
		return nil
	}
	t.spillMu.Lock()
	defer t.spillMu.Unlock()
	marks := t.spilled[tag]
	delete(t.spilled, tag)
	t.hasSpilled.Store(len(t.spilled) > 0)
	return marks
}

// sweep removes expired marks, and reports whether there is room again. An expired mark is also
// removed when its tag is next written. So only a program that fences always new tags and never
// bumps them gets here.
func (t *tagTable) sweep() bool {
	t.sweepMu.Lock()
	defer t.sweepMu.Unlock()
	// The scan is long and may find nothing, so it does not run on each fence while the table
	// is full.
	if t.marks.Load() >= maxMarks && time.Since(t.swept) > time.Second {
		t.swept = time.Now()
		for tag, s := range t.states.All() {
			if len(s.marks) > 0 && !fenced(s.marks) {
				t.removeMark(tag, driver.NoMark)
				t.watchers.changed(tag)
			}
		}
		t.sweepSpilled()
	}
	return t.marks.Load() < maxMarks
}

func (t *tagTable) sweepSpilled() {
	t.spillMu.Lock()
	defer t.spillMu.Unlock()
	for tag, marks := range t.spilled {
		if !fenced(marks) {
			delete(t.spilled, tag)
			t.marks.Add(-int64(len(marks)))
		}
	}
}

func (t *tagTable) size() int { return t.states.EstimatedSize() }

func (t *tagTable) clear() { t.states.InvalidateAll() }

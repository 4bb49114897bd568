package memstore

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/chainlearn/chainlearn/cache"
)

// maxMarks bounds the marks of writers in flight, over all tags. It bounds also the tags
// that are kept beyond Config.MaxTags because they are fenced.
const maxMarks = 1 << 16

// errTooManyMarks is returned by Fence, whose caller then does without a fence as it does
// when a store is out of reach: leaving a mark out silently would let readers past it.
var errTooManyMarks = errors.New("memstore: 65536 writers are in flight: fence refused")

// tagTable holds the state of the tags. A state is an immutable value, replaced as a whole
// under the lock of its slot in the hash table, and read without a lock: a reader sees the
// version and the marks of one moment, and after a bump has returned it sees no older one.
type tagTable struct {
	states *otter.Cache[cache.Tag, tagState]
	marks  atomic.Int64 // in states, expired ones included

	sweepMu sync.Mutex
	swept   time.Time // when expired marks were last looked for; guarded by sweepMu
}

type tagState struct {
	version cache.Version
	marks   []mark // never modified
}

// mark says that the writer id is in flight until then, unless it renews.
type mark struct {
	id    cache.Mark
	until time.Time
}

func newTagTable(maxTags int) *tagTable {
	return &tagTable{
		states: otter.Must(&otter.Options[cache.Tag, tagState]{
			MaximumWeight: uint64(maxTags),
			// What weighs nothing is not evicted. An evicted mark would be a fence that
			// readers cannot see.
			Weigher: func(_ cache.Tag, s tagState) uint32 {
				if len(s.marks) > 0 {
					return 0
				}
				return 1
			},
			Executor: inline,
		}),
	}
}

// state returns the present state of tag, giving it a version first if it has none.
func (t *tagTable) state(tag cache.Tag) cache.TagState {
	s, ok := t.states.GetIfPresent(tag)
	if !ok {
		s, ok = t.states.ComputeIfAbsent(tag, newTagState)
		if !ok { // cannot happen: newTagState never cancels
			s, _ = newTagState()
		}
	}
	return cache.TagState{Version: s.version, Fenced: s.fenced()}
}

func newTagState() (s tagState, cancel bool) {
	return tagState{version: cache.NewVersion()}, false
}

func (s tagState) fenced() bool {
	if len(s.marks) == 0 {
		return false // nearly always, and without asking for the time
	}
	now := time.Now()
	for _, m := range s.marks {
		if now.Before(m.until) {
			return true
		}
	}
	return false
}

// without returns the marks of s but for id and those that expired before now, with room
// for one more.
func (s tagState) without(id cache.Mark, now time.Time) []mark {
	if len(s.marks) == 0 {
		return nil
	}
	rest := make([]mark, 0, len(s.marks)+1)
	for _, m := range s.marks {
		if m.id != id && now.Before(m.until) {
			rest = append(rest, m)
		}
	}
	return rest
}

func (t *tagTable) fence(tag cache.Tag, id cache.Mark, lease time.Duration) error {
	if t.marks.Load() >= maxMarks && !t.sweep() {
		return errTooManyMarks
	}
	t.update(tag, func(s tagState, now time.Time) []mark {
		return append(s.without(id, now), mark{id, now.Add(lease)})
	})
	return nil
}

func (t *tagTable) bump(tag cache.Tag, id cache.Mark) {
	t.update(tag, func(s tagState, now time.Time) []mark {
		return s.without(id, now)
	})
}

// update gives tag a new version and the marks that next returns.
func (t *tagTable) update(tag cache.Tag, next func(s tagState, now time.Time) []mark) {
	t.states.Compute(tag, func(s tagState, _ bool) (tagState, otter.ComputeOp) {
		marks := next(s, time.Now())
		t.marks.Add(int64(len(marks) - len(s.marks)))
		return tagState{cache.NewVersion(), marks}, otter.WriteOp
	})
}

// sweep forgets the marks of writers that died, and reports whether there is room again.
// A mark that nobody removes goes when its tag is next written; only a program that fences
// ever new tags and never bumps them comes this far.
func (t *tagTable) sweep() bool {
	t.sweepMu.Lock()
	defer t.sweepMu.Unlock()
	now := time.Now()
	// The walk is long and may find nothing: not on each fence, while the table is full.
	if t.marks.Load() >= maxMarks && now.Sub(t.swept) > time.Second {
		t.swept = now
		for tag, s := range t.states.All() {
			if len(s.marks) > 0 && !s.fenced() {
				t.bump(tag, cache.NoMark)
			}
		}
	}
	return t.marks.Load() < maxMarks
}

func (t *tagTable) size() int { return t.states.EstimatedSize() }

func (t *tagTable) close() { t.states.InvalidateAll() }

package memstore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// recorder is a driver.Listener that records changes.
type recorder struct {
	mu      sync.Mutex
	changed []driver.Tag
	proven  chan time.Time
	then    func() // if not nil, called with each change
}

func (r *recorder) Changed(tags ...driver.Tag) {
	if r.then != nil {
		r.then()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed = append(r.changed, tags...)
}
func (r *recorder) Missed()             {}
func (r *recorder) Proven(at time.Time) { r.proven <- at }

// take returns what was reported since the last time.
func (r *recorder) take() []driver.Tag {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.changed = nil }()
	return r.changed
}

// watch watches s until the test ends, and returns when it has begun.
func watch(t testing.TB, s *Store) (r *recorder, ended <-chan error) {
	t.Helper()
	r = &recorder{proven: make(chan time.Time, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { done <- s.Watch(ctx, r) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	if at := <-r.proven; time.Until(at) < 24*time.Hour {
		t.Fatalf("everything until %v is proven, want the far future: reports are never late", at)
	}
	return r, done
}

func wantReported(t *testing.T, r *recorder, after string, want ...driver.Tag) {
	t.Helper()
	if got := r.take(); !slices.Equal(got, want) {
		t.Errorf("%s reported %q, want %q", after, got, want)
	}
}

// A change is reported before the call returns: after an acknowledged write, no caller in the
// process gets the old answer from memory.
func TestChangesAreReportedWithinTheCall(t *testing.T) {
	s := newStore(t, Config{})
	r, _ := watch(t, s)
	tags := []driver.Tag{"course:1", "course:2"}
	state(t, s, "course:1")
	wantReported(t, r, "reading a new tag")
	must(t, s.Fence(t.Context(), tags, driver.Mark{1}, time.Hour))
	wantReported(t, r, "a fence", tags...)
	must(t, s.Bump(t.Context(), tags, driver.Mark{1}))
	wantReported(t, r, "a bump", tags...)
	state(t, s, "course:1")
	must(t, s.Bump(t.Context(), nil, driver.NoMark))
	wantReported(t, r, "a read and a bump of nothing")
}

// After a report that comes too early, a listener reads the old version, and keeps what depends
// on it forever.
func TestWhatIsReportedCanBeRead(t *testing.T) {
	s := newStore(t, Config{})
	r, _ := watch(t, s)
	const tag = "course:1"
	for what, change := range map[string]func() error{
		"fence": func() error { return s.Fence(t.Context(), []driver.Tag{tag}, driver.Mark{1}, time.Hour) },
		"bump":  func() error { return s.Bump(t.Context(), []driver.Tag{tag}, driver.Mark{1}) },
	} {
		before := state(t, s, tag)
		r.then = func() {
			if state(t, s, tag).Version == before.Version {
				t.Errorf("a %s of %s is reported, and its version is the old one still", what, tag)
			}
		}
		must(t, change())
		r.then = nil
		wantReported(t, r, "a "+what, tag)
	}
}

// A tag that comes back has another version, so it must be reported as a bump is. The store does
// not remember which tags it has evicted.
func TestVersionsOfEvictedTagsAreReported(t *testing.T) {
	s := newStore(t, Config{MaxTags: 100})
	r, _ := watch(t, s)
	versions := make(map[driver.Tag]driver.Version)
	recreated := 0
	for round := range 2 {
		for i := range 1000 {
			tag := driver.Tag(fmt.Sprint("course:", i))
			v := state(t, s, tag).Version
			got := r.take()
			if known := versions[tag]; round > 0 && known != v {
				recreated++
				if !slices.Equal(got, []driver.Tag{tag}) {
					t.Fatalf("%s came back with another version; reported was %q", tag, got)
				}
			}
			versions[tag] = v
		}
	}
	if recreated == 0 {
		t.Error("of 1000 tags none was evicted: the test shows nothing")
	}
}

// A fence that fails has fenced the tags before the one it failed at.
func TestFenceThatFailsIsReportedForTheTagsItFenced(t *testing.T) {
	s := newStore(t, Config{})
	s.tags.marks.Store(maxMarks - 1) // as if that many writers were in flight
	r, _ := watch(t, s)
	if err := s.Fence(t.Context(), []driver.Tag{"course:1", "course:2"}, driver.Mark{1}, time.Hour); err != errTooManyMarks {
		t.Fatalf("a fence beyond the bound returned %v", err)
	}
	wantReported(t, r, "a fence that failed at its second tag", "course:1")
}

func TestCloseEndsWatch(t *testing.T) {
	s := New(Config{})
	_, ended := watch(t, s)
	must(t, s.Close())
	if err := <-ended; err != errClosed {
		t.Errorf("Watch returned %v when the store was closed", err)
	}
	if err := s.Watch(t.Context(), &recorder{}); err != errClosed {
		t.Errorf("Watch of a closed store returned %v", err)
	}
}

func TestWatchingCostsReadersNothing(t *testing.T) {
	s := newStore(t, Config{})
	tags := []driver.Tag{"course:1", "catalog"}
	read := func() float64 {
		return testing.AllocsPerRun(1000, func() { _, _ = s.Read(context.Background(), tags, nil) })
	}
	state(t, s, "course:1")
	state(t, s, "catalog")
	unwatched := read()
	watch(t, s)
	if watched := read(); watched != unwatched {
		t.Errorf("a read allocates %v times while changes are watched, and %v times otherwise", watched, unwatched)
	}
}

package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// The rules of driver.Watcher, for stores that are.
var watchRules = []rule{
	{"watching begins with a miss, and proofs come after it and advance", checkWatchBegins},
	{"fences and bumps by any handle are reported to every watcher", checkWatchReports},
	{"only the tags that changed are reported", checkWatchIsExact},
	{"reading, loading and storing change no tag", checkWatchIgnoresEntries},
	{"a proof comes after everything it covers", checkProofsConcurrently},
	{"a proof that is asked for covers everything before the call", checkProofsOnDemand},
	{"watching ends with its context, and for one watcher alone", checkWatchEnds},
}

// report is one call of a Listener.
type report struct {
	tags   []driver.Tag
	missed bool
	proven time.Time // zero when it is none
}

// recorder is a driver.Listener that records everything.
type recorder struct {
	h      *helpers
	name   string
	cancel context.CancelFunc
	ended  chan error // receives what Watch returned

	mu      sync.Mutex
	reports []report // guarded by mu
}

func (w *recorder) add(r report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, r)
}

func (w *recorder) Changed(tags ...driver.Tag) { w.add(report{tags: slices.Clone(tags)}) }
func (w *recorder) Missed()                    { w.add(report{missed: true}) }
func (w *recorder) Proven(at time.Time)        { w.add(report{proven: at}) }

// from returns the reports from the i-th on.
func (w *recorder) from(i int) []report {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.reports[i:])
}

// count returns how many reports there are: the index of the next one.
func (w *recorder) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.reports)
}

// saw reports whether tag is among the changes from the i-th report on.
func (w *recorder) saw(tag driver.Tag, i int) bool {
	return slices.ContainsFunc(w.from(i), func(r report) bool { return slices.Contains(r.tags, tag) })
}

// watch begins to watch store, and returns when that has begun.
func (h *helpers) watch(store driver.Store, name string) *recorder {
	h.Helper()
	ctx, cancel := context.WithCancel(h.Context())
	w := &recorder{h: h, name: name, cancel: cancel, ended: make(chan error, 1)}
	go func() {
		w.ended <- store.(driver.Watcher).Watch(ctx, w)
		close(w.ended) // a second receive, as in a rule that fails, must not wait
	}()
	h.Cleanup(func() {
		cancel()
		if err := <-w.ended; err != nil {
			h.Log(w.name, "ended:", err)
		}
	})
	w.awaitProof()
	return w
}

// awaitProof waits until everything that changed before is reported.
func (w *recorder) awaitProof() {
	w.h.Helper()
	w.h.sleep(time.Millisecond) // so that what comes now comes later by any clock
	begin := time.Now()
	w.h.eventually(begin, "a proof for "+w.name, func() bool {
		select {
		case err := <-w.ended:
			w.h.Fatalf("Watch for %s returned %v", w.name, err)
		default:
		}
		return slices.ContainsFunc(w.from(0), func(r report) bool { return r.proven.After(begin) })
	})
}

// skipUnlessWatcher ends the rule for stores that do not report changes.
func (h *helpers) skipUnlessWatcher() {
	h.Helper()
	if _, ok := h.store.(driver.Watcher); !ok {
		h.Skip("the store is no driver.Watcher")
	}
}

func checkWatchBegins(h *helpers) {
	h.skipUnlessWatcher()
	for range 2 {
		w := h.watch(h.store, "the watcher")
		w.awaitProof()
		missed, latest := false, time.Time{}
		for i, r := range w.from(0) {
			missed = missed || r.missed
			switch {
			case r.proven.IsZero():
				continue
			case !missed:
				h.Errorf("report %d proves something; the gap before Watch was not reported as missed", i)
			case r.proven.Before(latest):
				h.Errorf("report %d proves less than one before: %v less", i, latest.Sub(r.proven))
			}
			latest = r.proven
		}
	}
}

func checkWatchReports(h *helpers) {
	h.skipUnlessWatcher()
	const tag = "course:1"
	recorders := []*recorder{h.watch(h.store, "one"), h.watch(h.store, "another"), h.watch(h.peer, "one at a peer")}
	for writer, handle := range map[string]*helpers{"the same handle": h, "another handle": h.swapped()} {
		mark := newMark()
		for what, change := range map[string]func(){
			"a fence":   func() { handle.fence(mark, long, tag, "course:2") },
			"a bump":    func() { handle.bump(mark, "course:2", tag) },
			"a re-bump": func() { handle.bump(driver.NoMark, tag) },
		} {
			// A store may report only changes of versions that were read before.
			h.states(tag)
			h.swapped().states(tag)
			begin := make([]int, len(recorders))
			for i, w := range recorders {
				begin[i] = w.count()
			}
			change()
			for i, w := range recorders {
				if h.store == h.peer && i == 2 {
					continue
				}
				h.eventually(time.Now(), fmt.Sprintf("the report of %s by %s to %s", what, writer, w.name), func() bool {
					return w.saw(tag, begin[i])
				})
			}
		}
	}
}

// attempts is how often a rule may see more reports than changes. A store may report too much
// now and then, but a near answer must not depend on luck.
const attempts = 3

// expectNoReport runs change and fails if any of tags is reported in each of the attempts.
func (h *helpers) expectNoReport(w *recorder, what string, tags []driver.Tag, change func()) {
	h.Helper()
	var reported []driver.Tag
	for range attempts {
		w.awaitProof()
		begin := w.count()
		change()
		w.awaitProof()
		reported = nil
		for _, r := range w.from(begin) {
			if r.missed {
				reported = append(reported, "everything")
			}
			for _, tag := range r.tags {
				if slices.Contains(tags, tag) {
					reported = append(reported, tag)
				}
			}
		}
		if reported == nil {
			return
		}
	}
	h.Errorf("%s is reported as a change of %q", what, reported)
}

func checkWatchIsExact(h *helpers) {
	h.skipUnlessWatcher()
	others := []driver.Tag{"course:1", "course:11", "course:", "course:*", "user:2", "other"}
	h.states(append(others, "course:2", "course:3")...)
	w := h.watch(h.store, "the watcher")
	for writer, handle := range map[string]*helpers{"this handle": h, "another handle": h.swapped()} {
		h.expectNoReport(w, "a write of course:2 and course:3 by "+writer, others, func() {
			h.states(append(others, "course:2", "course:3")...)
			begin, mark := w.count(), newMark()
			handle.fence(mark, long, "course:2", "course:3")
			handle.bump(mark, "course:2", "course:3")
			h.eventually(time.Now(), "the report of both", func() bool {
				return w.saw("course:2", begin) && w.saw("course:3", begin)
			})
		})
	}
}

// A store may renew the life of a tag with each entry, or announce loads where it announces
// changes. That must not drop near answers.
func checkWatchIgnoresEntries(h *helpers) {
	h.skipUnlessWatcher()
	tags := []driver.Tag{"course:1", "course:2", "k"}
	h.states(tags...)
	w := h.watch(h.store, "the watcher")
	life := long
	for _, handle := range []*helpers{h, h.swapped()} {
		h.expectNoReport(w, "what is no write", tags, func() {
			token, guard := newToken(), newGuard()
			handle.snapshot(tags, []string{"k"})
			handle.lease("k", token, guard, long)
			handle.renew("k", token, long)
			life += long // each needs its tags for longer than the one before
			handle.settle(driver.Fill{Key: "k", Token: token, Entry: []byte("v"), Life: life, Tags: tags})
			handle.wantEntry("k", []byte("v"))
			handle.fail(fmt.Sprint("fails:", life), "down", long)
			handle.purge("k")
			handle.identify(handle.store)
		})
	}
}

// ackedBump is one bump of a tag: how many reports there were when it began and when it had
// returned, and the time of its return.
type ackedBump struct {
	tag          driver.Tag
	begin, ended int
	at           time.Time
}

func checkProofsConcurrently(h *helpers) {
	h.skipUnlessWatcher()
	w := h.watch(h.store, "the watcher")
	writers := make([][]ackedBump, 6)
	var wg sync.WaitGroup
	until := time.Now().Add(2 * time.Second)
	for i := range writers {
		handle := h
		if i%2 == 1 {
			handle = h.swapped()
		}
		tag := driver.Tag(fmt.Sprintf("course:%d", i))
		wg.Go(func() {
			for n := 0; n < 300 && time.Now().Before(until) && !h.Failed(); n++ {
				h.tryRead(tag)
				b := ackedBump{tag: tag, begin: w.count()}
				handle.tryBump(driver.NoMark, tag)
				b.at, b.ended = time.Now(), w.count()
				writers[i] = append(writers[i], b)
				h.sleep(rand.N(3 * time.Millisecond)) // so that proofs come in between
			}
		})
	}
	wg.Wait()
	w.awaitProof()
	reports, covered := w.from(0), 0
	for _, bumps := range writers {
		for _, b := range bumps {
			// The first proof that covers the bump. A proof from before the bump proved the
			// future, and holds from the moment the bump is acknowledged.
			proof := slices.IndexFunc(reports, func(r report) bool { return r.proven.After(b.at) })
			if proof < 0 {
				h.Fatalf("the last proof is older than a bump of %s", b.tag)
			}
			deadline := max(proof, b.ended)
			if !slices.ContainsFunc(reports[b.begin:deadline], func(r report) bool { return r.missed || slices.Contains(r.tags, b.tag) }) {
				h.Fatalf("a bump of %s is proven to be reported, %v after it was acknowledged; it was not",
					b.tag, reports[proof].proven.Sub(b.at))
			}
			covered++
		}
	}
	h.Logf("%d bumps, each reported before it was proven", covered)
}

func checkWatchEnds(h *helpers) {
	h.skipUnlessWatcher()
	const tag = "course:1"
	staying, ending := h.watch(h.peer, "the one that stays"), h.watch(h.store, "the one that ends")
	h.states(tag)
	ending.cancel()
	select {
	case err := <-ending.ended:
		if err != nil {
			h.Errorf("Watch returned %v when its context ended, want nil", err)
		}
	case <-time.After(waitLimit):
		h.Fatalf("Watch did not return in %v after its context ended", waitLimit)
	}
	begin, end := staying.count(), ending.count()
	h.bump(driver.NoMark, tag)
	h.eventually(time.Now(), "the report to the one that stays", func() bool { return staying.saw(tag, begin) })
	staying.awaitProof()
	if late := ending.from(end); len(late) > 0 {
		h.Errorf("after Watch had returned its listener received %+v", late[0])
	}
}

func checkProofsOnDemand(h *helpers) {
	h.skipUnlessWatcher()
	prover, ok := h.store.(driver.Prover)
	if !ok {
		h.Skip("the store is no driver.Prover")
	}
	w := h.watch(h.store, "the watcher")
	for i := range 50 {
		tag := driver.Tag(fmt.Sprint("course:", i%5))
		writer := []*helpers{h, h.swapped()}[i%2]
		writer.states(tag)
		begin := w.count()
		writer.bump(driver.NoMark, tag)
		asked := time.Now()
		h.eventually(asked, "a proof that was asked for", func() bool {
			ctx, cancel := context.WithTimeout(h.Context(), time.Second)
			defer cancel()
			return prover.Prove(ctx) == nil // it may not report at present
		})
		if !w.saw(tag, begin) {
			h.Fatalf("bump %d was proven to be reported, and was not", i)
		}
		if !slices.ContainsFunc(w.from(begin), func(r report) bool { return r.proven.After(asked) }) {
			h.Fatalf("Prove returned nil, and proof %d was not reported", i)
		}
	}
}

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
	{"every watcher hears of fences and bumps, whoever makes them", checkWatchHears},
	{"only the tags that changed are reported", checkWatchIsExact},
	{"reading, loading and storing change no tag", checkWatchIgnoresEntries},
	{"a proof comes after everything it covers", checkProofsConcurrently},
	{"watching ends with its context, and for one watcher alone", checkWatchEnds},
}

// report is one call of a Watcher.
type report struct {
	tags   []driver.Tag
	missed bool
	proven time.Time // zero when it is none
}

// watcher is a driver.Listener that writes everything down.
type watcher struct {
	k     *kit
	name  string
	end   context.CancelFunc
	ended chan error // receives what Watch returned

	mu      sync.Mutex
	reports []report // guarded by mu
}

func (w *watcher) add(r report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, r)
}

func (w *watcher) Changed(tags ...driver.Tag) { w.add(report{tags: slices.Clone(tags)}) }
func (w *watcher) Missed()                    { w.add(report{missed: true}) }
func (w *watcher) Proven(at time.Time)        { w.add(report{proven: at}) }

// from returns the reports from the i-th on.
func (w *watcher) from(i int) []report {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.reports[i:])
}

// now returns the index of the next report.
func (w *watcher) now() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.reports)
}

// saw reports whether tag is among the changes from the i-th report on.
func (w *watcher) saw(tag driver.Tag, i int) bool {
	return slices.ContainsFunc(w.from(i), func(r report) bool { return slices.Contains(r.tags, tag) })
}

// watch begins to watch store, and returns when that has begun.
func (k *kit) watch(store driver.Store, name string) *watcher {
	k.Helper()
	ctx, cancel := context.WithCancel(k.Context())
	w := &watcher{k: k, name: name, end: cancel, ended: make(chan error, 1)}
	go func() {
		w.ended <- store.(driver.Watcher).Watch(ctx, w)
		close(w.ended) // who reads it twice, as a rule that fails does, must not wait
	}()
	k.Cleanup(func() {
		cancel()
		if err := <-w.ended; err != nil {
			k.Log(w.name, "ended:", err)
		}
	})
	w.settle()
	return w
}

// settle waits until everything that changed before is reported.
func (w *watcher) settle() {
	w.k.Helper()
	w.k.pass(time.Millisecond) // so that what comes now comes later by any clock
	begin := time.Now()
	w.k.until(begin, "a proof for "+w.name, func() bool {
		select {
		case err := <-w.ended:
			w.k.Fatalf("Watch for %s returned %v", w.name, err)
		default:
		}
		return slices.ContainsFunc(w.from(0), func(r report) bool { return r.proven.After(begin) })
	})
}

// skipUnlessWatchable ends the rule for stores that do not tell of changes.
func (k *kit) skipUnlessWatchable() {
	k.Helper()
	if _, ok := k.store.(driver.Watcher); !ok {
		k.Skip("the store is not Watchable")
	}
}

func checkWatchBegins(k *kit) {
	k.skipUnlessWatchable()
	for range 2 {
		w := k.watch(k.store, "the watcher")
		w.settle()
		missed, latest := false, time.Time{}
		for i, r := range w.from(0) {
			missed = missed || r.missed
			switch {
			case r.proven.IsZero():
				continue
			case !missed:
				k.Errorf("report %d proves something; what came before the watching was not reported as missed", i)
			case r.proven.Before(latest):
				k.Errorf("report %d proves less than one before: %v less", i, latest.Sub(r.proven))
			}
			latest = r.proven
		}
	}
}

func checkWatchHears(k *kit) {
	k.skipUnlessWatchable()
	const tag = "course:1"
	watchers := []*watcher{k.watch(k.store, "one"), k.watch(k.store, "another"), k.watch(k.peer, "one at a peer")}
	for writer, h := range map[string]*kit{"the same handle": k, "another handle": k.swapped()} {
		mark := newMark()
		for what, change := range map[string]func(){
			"a fence":   func() { h.fence(mark, long, tag, "course:2") },
			"a bump":    func() { h.bump(mark, "course:2", tag) },
			"a re-bump": func() { h.bump(driver.NoMark, tag) },
		} {
			// A store may report a version once to who has seen it; see it.
			k.states(tag)
			k.swapped().states(tag)
			begin := make([]int, len(watchers))
			for i, w := range watchers {
				begin[i] = w.now()
			}
			change()
			for i, w := range watchers {
				if k.store == k.peer && i == 2 {
					continue
				}
				k.until(time.Now(), fmt.Sprintf("the report of %s by %s to %s", what, writer, w.name), func() bool {
					return w.saw(tag, begin[i])
				})
			}
		}
	}
}

// attempts is how often a rule may see more reported than changed: a store may have
// reasons of its own for that now and then, but near answers must not live by luck.
const attempts = 3

// quietly runs change and fails if in each of the attempts any of tags was reported.
func (k *kit) quietly(w *watcher, what string, tags []driver.Tag, change func()) {
	k.Helper()
	var heard []driver.Tag
	for range attempts {
		w.settle()
		begin := w.now()
		change()
		w.settle()
		heard = nil
		for _, r := range w.from(begin) {
			if r.missed {
				heard = append(heard, "everything")
			}
			for _, tag := range r.tags {
				if slices.Contains(tags, tag) {
					heard = append(heard, tag)
				}
			}
		}
		if heard == nil {
			return
		}
	}
	k.Errorf("%s is reported as a change of %q", what, heard)
}

func checkWatchIsExact(k *kit) {
	k.skipUnlessWatchable()
	others := []driver.Tag{"course:1", "course:11", "course:", "course:*", "user:2", "other"}
	k.states(append(others, "course:2", "course:3")...)
	w := k.watch(k.store, "the watcher")
	for writer, h := range map[string]*kit{"this handle": k, "another handle": k.swapped()} {
		k.quietly(w, "a write of course:2 and course:3 by "+writer, others, func() {
			k.states(append(others, "course:2", "course:3")...)
			begin, mark := w.now(), newMark()
			h.fence(mark, long, "course:2", "course:3")
			h.bump(mark, "course:2", "course:3")
			k.until(time.Now(), "the report of both", func() bool {
				return w.saw("course:2", begin) && w.saw("course:3", begin)
			})
		})
	}
}

// A store that renews a tag's life with each entry, or announces loads where it announces
// changes, must not have near answers die of that.
func checkWatchIgnoresEntries(k *kit) {
	k.skipUnlessWatchable()
	tags := []driver.Tag{"course:1", "course:2", "k"}
	k.states(tags...)
	w := k.watch(k.store, "the watcher")
	life := long
	for _, h := range []*kit{k, k.swapped()} {
		k.quietly(w, "what is no write", tags, func() {
			token, guard := newToken(), newGuard()
			h.snapshot(tags, []string{"k"})
			h.lease("k", token, guard, long)
			h.renew("k", token, long)
			life += long // each needs its tags for longer than the one before
			h.settle(driver.Fill{Key: "k", Token: token, Entry: []byte("v"), Life: life, Tags: tags})
			h.wantEntry("k", []byte("v"))
			h.fail(fmt.Sprint("fails:", life), "down", long)
			h.purge("k")
			h.identify(h.store)
		})
	}
}

// acked is one bump of a tag: the reports there were when it began and when it had
// returned, and the time then.
type acked struct {
	tag          driver.Tag
	begin, ended int
	at           time.Time
}

func checkProofsConcurrently(k *kit) {
	k.skipUnlessWatchable()
	w := k.watch(k.store, "the watcher")
	writers := make([][]acked, 6)
	var wg sync.WaitGroup
	until := time.Now().Add(2 * time.Second)
	for i := range writers {
		h := k
		if i%2 == 1 {
			h = k.swapped()
		}
		tag := driver.Tag(fmt.Sprintf("course:%d", i))
		wg.Go(func() {
			for n := 0; n < 300 && time.Now().Before(until) && !k.Failed(); n++ {
				k.hammerRead(tag)
				b := acked{tag: tag, begin: w.now()}
				h.hammerBump(driver.NoMark, tag)
				b.at, b.ended = time.Now(), w.now()
				writers[i] = append(writers[i], b)
				k.pass(rand.N(3 * time.Millisecond)) // so that proofs come in between
			}
		})
	}
	wg.Wait()
	w.settle()
	reports, covered := w.from(0), 0
	for _, bumps := range writers {
		for _, b := range bumps {
			// The first proof that covers the bump; one that came before it spoke of the
			// future, and holds from the moment the bump is acknowledged.
			proof := slices.IndexFunc(reports, func(r report) bool { return r.proven.After(b.at) })
			if proof < 0 {
				k.Fatalf("the last proof is older than a bump of %s", b.tag)
			}
			deadline := max(proof, b.ended)
			if !slices.ContainsFunc(reports[b.begin:deadline], func(r report) bool { return r.missed || slices.Contains(r.tags, b.tag) }) {
				k.Fatalf("a bump of %s is proven to be reported, %v after it was acknowledged; it was not",
					b.tag, reports[proof].proven.Sub(b.at))
			}
			covered++
		}
	}
	k.Logf("%d bumps, each reported before it was proven", covered)
}

func checkWatchEnds(k *kit) {
	k.skipUnlessWatchable()
	const tag = "course:1"
	stays, leaves := k.watch(k.peer, "the one who stays"), k.watch(k.store, "the one who leaves")
	k.states(tag)
	leaves.end()
	select {
	case err := <-leaves.ended:
		if err != nil {
			k.Errorf("Watch returned %v when its context ended, want nil", err)
		}
	case <-time.After(patience):
		k.Fatalf("Watch did not return in %v after its context ended", patience)
	}
	begin, end := stays.now(), leaves.now()
	k.bump(driver.NoMark, tag)
	k.until(time.Now(), "the report to who stays", func() bool { return stays.saw(tag, begin) })
	stays.settle()
	if late := leaves.from(end); len(late) > 0 {
		k.Errorf("after Watch had returned its watcher was told %+v", late[0])
	}
}

package storetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var concurrencyRules = []rule{
	{"once a bump has returned, no read shows a version from before it", checkBumpsConcurrently},
	{"from the return of a fence to its bump, every read shows it", checkFencesConcurrently},
	{"readers of a new tag agree on its version", checkNewTagsConcurrently},
	{"of many claims of a key one holds the lease", checkClaimsConcurrently},
}

// history knows which versions of one tag are invalid: those that a reader saw before a bump
// began are invalid from the moment the bump returned.
type history struct {
	mu      sync.Mutex
	valid   map[driver.Version]bool
	invalid map[driver.Version]int // version → how many changes had returned when it became invalid
	changes int                    // fences and bumps that returned
}

// read runs a read and reports whether it returned a version that was invalid before it began.
func (h *history) read(read func() driver.TagState) (driver.TagState, bool) {
	h.mu.Lock()
	before := h.changes
	h.mu.Unlock()
	s := read()
	h.mu.Lock()
	defer h.mu.Unlock()
	since, invalid := h.invalid[s.Version]
	if !invalid {
		h.valid[s.Version] = true
	}
	return s, invalid && since <= before
}

// change runs a fence or a bump.
func (h *history) change(bump func()) {
	h.mu.Lock()
	var before []driver.Version
	for v := range h.valid {
		before = append(before, v)
	}
	h.mu.Unlock()
	bump()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	for _, v := range before {
		delete(h.valid, v)
		if _, already := h.invalid[v]; !already {
			h.invalid[v] = h.changes
		}
	}
}

func checkBumpsConcurrently(h *helpers) {
	tags := []driver.Tag{"course:1", "course:2", "course:3"}
	histories := make([]*history, len(tags))
	for i := range histories {
		histories[i] = &history{valid: make(map[driver.Version]bool), invalid: make(map[driver.Version]int)}
	}
	var wg sync.WaitGroup
	for worker := range 16 {
		handle := h
		if worker%2 == 1 {
			handle = h.swapped()
		}
		wg.Go(func() {
			mark := newMark()
			for range 120 {
				i := rand.IntN(len(tags))
				tag, past := tags[i], histories[i]
				switch rand.IntN(6) {
				case 0:
					past.change(func() { handle.tryBump(driver.NoMark, tag) })
				case 1:
					past.change(func() { handle.tryFence(mark, tag) })
					past.change(func() { handle.tryBump(mark, tag) })
				default:
					if s, invalid := past.read(func() driver.TagState { return handle.tryRead(tag) }); invalid {
						handle.Errorf("%s shows version %.4x, which was invalid before the read began", tag, s.Version)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	for i, s := range h.states(tags...) {
		if s.Fenced {
			h.Errorf("%s is fenced after each of its marks was bumped", tags[i])
		}
	}
}

// Goroutines must not end a test: these report, and return what they have.

func (h *helpers) tryRead(tag driver.Tag) driver.TagState {
	snap, err := h.store.Read(h.Context(), []driver.Tag{tag}, nil)
	if err != nil || len(snap.States) != 1 {
		h.Errorf("Read of one tag returned %d states and %v", len(snap.States), err)
		return driver.TagState{Version: driver.NewVersion()}
	}
	return snap.States[0]
}

func (h *helpers) tryFence(mark driver.Mark, tag driver.Tag) {
	if err := h.store.Fence(h.Context(), []driver.Tag{tag}, mark, long); err != nil {
		h.Errorf("Fence failed: %v", err)
	}
}

func (h *helpers) tryBump(mark driver.Mark, tag driver.Tag) {
	if err := h.store.Bump(h.Context(), []driver.Tag{tag}, mark); err != nil {
		h.Errorf("Bump failed: %v", err)
	}
}

func checkFencesConcurrently(h *helpers) {
	const tag = "course:1"
	// Odd while the first writer's fence is known to stand.
	var standing atomic.Int64
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		mark := newMark()
		for range 150 {
			h.tryFence(mark, tag)
			standing.Add(1)
			h.tryRead(tag)
			standing.Add(1)
			h.tryBump(mark, tag)
		}
	})
	for worker := range 6 {
		handle := h
		if worker%2 == 1 {
			handle = h.swapped()
		}
		wg.Go(func() {
			mark := newMark()
			for {
				select {
				case <-done:
					return
				default:
				}
				if worker < 3 { // other writers, whose marks come and go beside it
					handle.tryFence(mark, tag)
					handle.tryBump(mark, tag)
					continue
				}
				before := standing.Load()
				s := handle.tryRead(tag)
				if stood := before%2 == 1 && standing.Load() == before; stood && !s.Fenced {
					handle.Errorf("%s does not show a fence that stood from before the read until after it", tag)
					return
				}
			}
		})
	}
	wg.Wait()
	h.wantFenced(tag, false, "all writers have finished")
}

func checkNewTagsConcurrently(h *helpers) {
	for round := range 10 {
		// All in one call: readers of a long list overtake each other somewhere in it.
		var tags []driver.Tag
		for i := range 200 {
			tags = append(tags, driver.Tag(fmt.Sprintf("course:%d:%d", round, i)))
		}
		snaps := make([]driver.Snapshot, 8)
		var ready, wg sync.WaitGroup
		ready.Add(len(snaps))
		for reader := range snaps {
			handle := h
			if reader%2 == 1 {
				handle = h.swapped()
			}
			wg.Go(func() {
				ready.Done()
				ready.Wait()
				var err error
				if snaps[reader], err = handle.store.Read(handle.Context(), tags, nil); err != nil {
					handle.Errorf("Read failed: %v", err)
				}
			})
		}
		wg.Wait()
		if h.Failed() {
			return
		}
		states := h.states(tags...)
		for reader, snap := range snaps {
			for i, tag := range tags {
				if got, want := snap.States[i].Version, states[i].Version; got != want {
					h.Fatalf("reader %d of 8 saw %s new as %.4x, and now it is %.4x, without a bump", reader, tag, got, want)
				}
			}
		}
	}
}

func checkClaimsConcurrently(h *helpers) {
	const key, rounds = "k", 10
	guard := newGuard()
	var inside, granted atomic.Int64
	var wg sync.WaitGroup
	for worker := range 12 {
		handle := h
		if worker%2 == 1 {
			handle = h.swapped()
		}
		wg.Go(func() {
			for range rounds {
				if !handle.claimAndRelease(key, guard, &inside) {
					return
				}
				granted.Add(1)
			}
		})
	}
	wg.Wait()
	if n := granted.Load(); n != 12*rounds && !h.Failed() {
		h.Errorf("%d of %d loads got the lease", n, 12*rounds)
	}
}

// claimAndRelease claims key until it is granted, holds it for a moment and gives it back.
func (h *helpers) claimAndRelease(key string, guard driver.Guard, inside *atomic.Int64) bool {
	token := newToken()
	announced, cancel := h.store.Announced(key)
	defer cancel()
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); {
		answers, err := h.store.Claim(h.Context(), []driver.Claim{{Key: key, Token: token, Guard: guard, TTL: long}})
		if err != nil || len(answers) != 1 {
			h.Errorf("Claim of one key returned %d answers and %v", len(answers), err)
			return false
		}
		if answers[0].State == driver.Granted {
			if n := inside.Add(1); n != 1 {
				h.Errorf("%d loads hold the lease of %s at once", n, key)
			}
			h.sleep(time.Millisecond)
			inside.Add(-1)
			if err := h.store.Settle(h.Context(), []driver.Fill{{Key: key, Token: token}}); err != nil {
				h.Errorf("Settle failed: %v", err)
				return false
			}
			return true
		}
		select {
		case <-announced:
		case <-time.After(50 * time.Millisecond): // an announcement may be lost
		}
	}
	h.Errorf("a claim of %s was not granted in %v", key, waitLimit)
	return false
}

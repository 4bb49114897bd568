package storetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var hammerRules = []rule{
	{"once a bump has returned, no read shows a version from before it", checkBumpsConcurrently},
	{"from the return of a fence to its bump, every read shows it", checkFencesConcurrently},
	{"readers of a new tag agree on its version", checkNewTagsConcurrently},
	{"of many claims of a key one holds the lease", checkClaimsConcurrently},
}

// history knows of one tag which versions are dead: those that somebody saw before a bump
// began are, from the moment it returned.
type history struct {
	mu   sync.Mutex
	live map[driver.Version]bool
	dead map[driver.Version]int // version → how many bumps had returned when it died
	past int                    // bumps that returned
}

// reading runs a read and reports whether it returned a version that was dead before it began.
func (h *history) reading(read func() driver.TagState) (driver.TagState, bool) {
	h.mu.Lock()
	before := h.past
	h.mu.Unlock()
	s := read()
	h.mu.Lock()
	defer h.mu.Unlock()
	died, dead := h.dead[s.Version]
	if !dead {
		h.live[s.Version] = true
	}
	return s, dead && died <= before
}

// bumping runs a fence or a bump.
func (h *history) bumping(bump func()) {
	h.mu.Lock()
	var before []driver.Version
	for v := range h.live {
		before = append(before, v)
	}
	h.mu.Unlock()
	bump()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.past++
	for _, v := range before {
		delete(h.live, v)
		if _, dead := h.dead[v]; !dead {
			h.dead[v] = h.past
		}
	}
}

func checkBumpsConcurrently(k *kit) {
	tags := []driver.Tag{"course:1", "course:2", "course:3"}
	histories := make([]*history, len(tags))
	for i := range histories {
		histories[i] = &history{live: make(map[driver.Version]bool), dead: make(map[driver.Version]int)}
	}
	var wg sync.WaitGroup
	for worker := range 16 {
		h := k
		if worker%2 == 1 {
			h = k.swapped()
		}
		wg.Go(func() {
			mark := newMark()
			for range 120 {
				i := rand.IntN(len(tags))
				tag, past := tags[i], histories[i]
				switch rand.IntN(6) {
				case 0:
					past.bumping(func() { h.hammerBump(driver.NoMark, tag) })
				case 1:
					past.bumping(func() { h.hammerFence(mark, tag) })
					past.bumping(func() { h.hammerBump(mark, tag) })
				default:
					if s, revived := past.reading(func() driver.TagState { return h.hammerRead(tag) }); revived {
						h.Errorf("%s shows version %.4x, which was bumped away before the read began", tag, s.Version)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	for i, s := range k.states(tags...) {
		if s.Fenced {
			k.Errorf("%s is fenced after each of its marks was bumped", tags[i])
		}
	}
}

// Goroutines must not end a test: these report, and return what they have.

func (k *kit) hammerRead(tag driver.Tag) driver.TagState {
	snap, err := k.store.Read(k.Context(), []driver.Tag{tag}, nil)
	if err != nil || len(snap.States) != 1 {
		k.Errorf("Read of one tag returned %d states and %v", len(snap.States), err)
		return driver.TagState{Version: driver.NewVersion()}
	}
	return snap.States[0]
}

func (k *kit) hammerFence(mark driver.Mark, tag driver.Tag) {
	if err := k.store.Fence(k.Context(), []driver.Tag{tag}, mark, long); err != nil {
		k.Errorf("Fence failed: %v", err)
	}
}

func (k *kit) hammerBump(mark driver.Mark, tag driver.Tag) {
	if err := k.store.Bump(k.Context(), []driver.Tag{tag}, mark); err != nil {
		k.Errorf("Bump failed: %v", err)
	}
}

func checkFencesConcurrently(k *kit) {
	const tag = "course:1"
	// Odd while the first writer's fence is known to stand.
	var standing atomic.Int64
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		mark := newMark()
		for range 150 {
			k.hammerFence(mark, tag)
			standing.Add(1)
			k.hammerRead(tag)
			standing.Add(1)
			k.hammerBump(mark, tag)
		}
	})
	for worker := range 6 {
		h := k
		if worker%2 == 1 {
			h = k.swapped()
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
					h.hammerFence(mark, tag)
					h.hammerBump(mark, tag)
					continue
				}
				before := standing.Load()
				s := h.hammerRead(tag)
				if stood := before%2 == 1 && standing.Load() == before; stood && !s.Fenced {
					h.Errorf("%s does not show a fence that stood from before the read until after it", tag)
					return
				}
			}
		})
	}
	wg.Wait()
	k.wantFenced(tag, false, "all writers have gone")
}

func checkNewTagsConcurrently(k *kit) {
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
			h := k
			if reader%2 == 1 {
				h = k.swapped()
			}
			wg.Go(func() {
				ready.Done()
				ready.Wait()
				var err error
				if snaps[reader], err = h.store.Read(h.Context(), tags, nil); err != nil {
					h.Errorf("Read failed: %v", err)
				}
			})
		}
		wg.Wait()
		if k.Failed() {
			return
		}
		states := k.states(tags...)
		for reader, snap := range snaps {
			for i, tag := range tags {
				if got, want := snap.States[i].Version, states[i].Version; got != want {
					k.Fatalf("reader %d of 8 saw %s new as %.4x, and now it is %.4x; nobody bumped it", reader, tag, got, want)
				}
			}
		}
	}
}

func checkClaimsConcurrently(k *kit) {
	const key, rounds = "k", 10
	guard := newGuard()
	var inside, granted atomic.Int64
	var wg sync.WaitGroup
	for worker := range 12 {
		h := k
		if worker%2 == 1 {
			h = k.swapped()
		}
		wg.Go(func() {
			for range rounds {
				if !h.hammerLoad(key, guard, &inside) {
					return
				}
				granted.Add(1)
			}
		})
	}
	wg.Wait()
	if n := granted.Load(); n != 12*rounds && !k.Failed() {
		k.Errorf("%d of %d loads got the lease", n, 12*rounds)
	}
}

// hammerLoad claims key until it is granted, holds it for a moment and gives it back.
func (k *kit) hammerLoad(key string, guard driver.Guard, inside *atomic.Int64) bool {
	token := newToken()
	announced, cancel := k.store.Announced(key)
	defer cancel()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		answers, err := k.store.Claim(k.Context(), []driver.Claim{{Key: key, Token: token, Guard: guard, TTL: long}})
		if err != nil || len(answers) != 1 {
			k.Errorf("Claim of one key returned %d answers and %v", len(answers), err)
			return false
		}
		if answers[0].State == driver.Granted {
			if n := inside.Add(1); n != 1 {
				k.Errorf("%d loads hold the lease of %s at once", n, key)
			}
			k.pass(time.Millisecond)
			inside.Add(-1)
			if err := k.store.Settle(k.Context(), []driver.Fill{{Key: key, Token: token}}); err != nil {
				k.Errorf("Settle failed: %v", err)
				return false
			}
			return true
		}
		select {
		case <-announced:
		case <-time.After(50 * time.Millisecond): // an announcement may be lost
		}
	}
	k.Errorf("a claim of %s was not granted in %v", key, patience)
	return false
}

package storetest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

const (
	// long is a life or a lease that does not end while a rule runs.
	long = time.Hour
	// short is one whose end a rule waits for. What must be seen before the end is seen
	// by other means where it can be: on a busy machine, short may be over at once.
	short = 400 * time.Millisecond
	// waitLimit is how long a rule waits for what must happen.
	waitLimit = 20 * time.Second
	// rounding is what a store's clock may round a duration by, and drift from ours.
	rounding = 5 * time.Millisecond
)

// helpers is what a rule works with. Its methods end the rule when the store returns an error,
// and say what the store did.
type helpers struct {
	*testing.T
	store       driver.Store
	peer        driver.Store // another handle on the same data, or store itself
	virtualTime bool
	suite       Suite
}

func (s Suite) newHelpers(t *testing.T) *helpers {
	h := &helpers{T: t, store: s.Open(t), virtualTime: s.Virtual, suite: s}
	t.Cleanup(func() { h.close(h.store) })
	h.identify(h.store)
	h.peer = h.store
	if s.Peer != nil {
		h.peer = s.Peer(t, h.store)
		t.Cleanup(func() { h.close(h.peer) })
		h.identify(h.peer)
	}
	return h
}

// another returns a store that shares nothing with the others.
func (h *helpers) another() driver.Store {
	other := h.suite.Open(h.T)
	h.Cleanup(func() { h.close(other) })
	h.identify(other)
	return other
}

func (h *helpers) close(s driver.Store) {
	if err := s.Close(); err != nil {
		h.Errorf("Close failed: %v", err)
	}
}

func (h *helpers) identify(s driver.Store) string {
	h.Helper()
	id, err := s.Identity(h.Context())
	if err != nil {
		h.Fatalf("Identity failed: %v", err)
	}
	return id
}

// swapped returns h with the roles of store and peer exchanged.
func (h *helpers) swapped() *helpers {
	swapped := *h
	swapped.store, swapped.peer = h.peer, h.store
	return &swapped
}

// snapshot reads, proving the identity first where the store asks for that.
func (h *helpers) snapshot(tags []driver.Tag, keys []string) driver.Snapshot {
	h.Helper()
	snap, err := h.store.Read(h.Context(), tags, keys)
	for range 10 {
		if !errors.Is(err, driver.ErrUnproven) {
			break
		}
		h.identify(h.store)
		snap, err = h.store.Read(h.Context(), tags, keys)
	}
	if err != nil {
		h.Fatalf("Read failed: %v", err)
	}
	if len(snap.States) != len(tags) || len(snap.Entries) != len(keys) {
		h.Fatalf("Read of %d tags and %d keys returned %d states and %d entries",
			len(tags), len(keys), len(snap.States), len(snap.Entries))
	}
	for i, s := range snap.States {
		if s.Version == (driver.Version{}) {
			h.Fatalf("%s has the zero version, which belongs to no tag", tags[i])
		}
	}
	return snap
}

func (h *helpers) states(tags ...driver.Tag) []driver.TagState {
	h.Helper()
	return h.snapshot(tags, nil).States
}

func (h *helpers) state(tag driver.Tag) driver.TagState {
	h.Helper()
	return h.states(tag)[0]
}

func (h *helpers) entry(key string) []byte {
	h.Helper()
	return h.snapshot(nil, []string{key}).Entries[0]
}

func (h *helpers) fence(mark driver.Mark, lease time.Duration, tags ...driver.Tag) {
	h.Helper()
	if err := h.store.Fence(h.Context(), tags, mark, lease); err != nil {
		h.Fatalf("Fence of %q failed: %v", tags, err)
	}
}

func (h *helpers) bump(mark driver.Mark, tags ...driver.Tag) {
	h.Helper()
	if err := h.store.Bump(h.Context(), tags, mark); err != nil {
		h.Fatalf("Bump of %q failed: %v", tags, err)
	}
}

func (h *helpers) claims(claims ...driver.Claim) []driver.Claimed {
	h.Helper()
	answers, err := h.store.Claim(h.Context(), claims)
	if err != nil {
		h.Fatalf("Claim failed: %v", err)
	}
	if len(answers) != len(claims) {
		h.Fatalf("%d claims got %d answers", len(claims), len(answers))
	}
	return answers
}

func (h *helpers) claim(key string, token driver.Token, guard driver.Guard, ttl time.Duration) driver.Claimed {
	h.Helper()
	return h.claims(driver.Claim{Key: key, Token: token, Guard: guard, TTL: ttl})[0]
}

// lease claims key and is to be granted it.
func (h *helpers) lease(key string, token driver.Token, guard driver.Guard, ttl time.Duration) driver.Claimed {
	h.Helper()
	answer := h.claim(key, token, guard, ttl)
	h.wantState(answer, driver.Granted, "a claim of a free key")
	return answer
}

func (h *helpers) settle(fills ...driver.Fill) {
	h.Helper()
	if err := h.store.Settle(h.Context(), fills); err != nil {
		h.Fatalf("Settle failed: %v", err)
	}
}

// put stores an entry as a load that holds no lease does.
func (h *helpers) put(key, entry string, life time.Duration) {
	h.Helper()
	h.settle(driver.Fill{Key: key, Token: newToken(), Entry: []byte(entry), Life: life})
}

func (h *helpers) renew(key string, token driver.Token, ttl time.Duration) {
	h.Helper()
	if err := h.store.Renew(h.Context(), key, token, ttl); err != nil {
		h.Fatalf("Renew by the holder of %s failed: %v", key, err)
	}
}

func (h *helpers) purge(pattern string) int {
	h.Helper()
	n, err := h.store.Purge(h.Context(), pattern)
	if err != nil {
		h.Fatalf("Purge of %q failed: %v", pattern, err)
	}
	return n
}

func (h *helpers) wantState(got driver.Claimed, want driver.ClaimState, what string) {
	h.Helper()
	if got.State != want {
		h.Fatalf("%s was %s, want %s", what, claimState(got.State), claimState(want))
	}
}

func (h *helpers) wantEntry(key string, want []byte) {
	h.Helper()
	got := h.entry(key)
	if (got == nil) != (want == nil) || !bytes.Equal(got, want) {
		h.Errorf("entry of %s is %s, want %s", key, show(got), show(want))
	}
}

func (h *helpers) wantFenced(tag driver.Tag, want bool, after string) {
	h.Helper()
	if got := h.state(tag).Fenced; got != want {
		h.Errorf("%s after %s: fenced is %t, want %t", tag, after, got, want)
	}
}

func (h *helpers) wantChanged(tag driver.Tag, from, to driver.Version, by string) {
	h.Helper()
	if from == to {
		h.Errorf("%s kept its version %.4x through %s", tag, from, by)
	}
}

func (h *helpers) wantUnchanged(tag driver.Tag, from, to driver.Version) {
	h.Helper()
	if from != to {
		h.Errorf("%s moved from %.4x to %.4x without a bump", tag, from, to)
	}
}

func (h *helpers) wantLeaseLost(key string, token driver.Token, why string) {
	h.Helper()
	err := h.store.Renew(h.Context(), key, token, long)
	if !errors.Is(err, driver.ErrLeaseLost) {
		h.Errorf("Renew of %s %s returned %v, want ErrLeaseLost", key, why, err)
	}
}

// eventually waits for cond, checking every few milliseconds, and returns the time since since.
func (h *helpers) eventually(since time.Time, what string, cond func() bool) time.Duration {
	h.Helper()
	deadline := time.Now().Add(waitLimit)
	for !cond() {
		if time.Now().After(deadline) {
			h.Fatalf("%s did not happen in %v", what, waitLimit)
		}
		h.sleep(2 * time.Millisecond)
	}
	return time.Since(since)
}

// expectAfter waits for cond, which must become true when d has passed since start, and no
// sooner. start is a time before the call of the store. Only in virtual time, in which a machine
// is never busy, cond must not become true later either.
func (h *helpers) expectAfter(start time.Time, d time.Duration, what string, cond func() bool) {
	h.Helper()
	took := h.eventually(start, what, cond)
	if took < d-rounding || h.virtualTime && took > d+rounding {
		h.Errorf("%s came after %v, want %v", what, took, d)
	}
}

// sleep lets time pass, for rules about what must not change meanwhile.
func (h *helpers) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-h.Context().Done():
	}
}

// awaitAnnouncement waits for an announcement.
func (h *helpers) awaitAnnouncement(announced <-chan struct{}, what string) {
	h.Helper()
	select {
	case <-announced:
	case <-time.After(waitLimit):
		h.Fatalf("%s received no announcement in %v", what, waitLimit)
	}
}

func newMark() (m driver.Mark)   { rand.Read(m[:]); return m }
func newToken() (t driver.Token) { rand.Read(t[:]); return t }
func newGuard() (g driver.Guard) { rand.Read(g[:]); return g }

// show prints payloads of any size.
func show(b []byte) string {
	switch {
	case b == nil:
		return "absent"
	case len(b) > 40:
		return fmt.Sprintf("%q... (%d bytes)", b[:40], len(b))
	}
	return fmt.Sprintf("%q", b)
}

func claimState(s driver.ClaimState) string {
	switch s {
	case driver.Granted:
		return "granted"
	case driver.Held:
		return "held off"
	case driver.Failed:
		return "failed"
	}
	return fmt.Sprintf("answered with unknown state %d", s)
}

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
	// patience is how long a rule waits for what must happen.
	patience = 20 * time.Second
	// rounding is what a store's clock may round a duration by, and drift from ours.
	rounding = 5 * time.Millisecond
)

// kit is what a rule works with. Its methods end the rule when the store returns an error,
// and say what the store did.
type kit struct {
	*testing.T
	store   driver.Store
	peer    driver.Store // another handle on the same data, or store itself
	virtual bool
}

func (s Suite) open(t *testing.T) *kit {
	k := &kit{T: t, store: s.Open(t), virtual: s.Virtual}
	t.Cleanup(func() { k.close(k.store) })
	k.identify(k.store)
	k.peer = k.store
	if s.Peer != nil {
		k.peer = s.Peer(t, k.store)
		t.Cleanup(func() { k.close(k.peer) })
		k.identify(k.peer)
	}
	return k
}

func (k *kit) close(s driver.Store) {
	if err := s.Close(); err != nil {
		k.Errorf("Close failed: %v", err)
	}
}

func (k *kit) identify(s driver.Store) string {
	k.Helper()
	id, err := s.Identity(k.Context())
	if err != nil {
		k.Fatalf("Identity failed: %v", err)
	}
	return id
}

// swapped returns k with the roles of store and peer exchanged.
func (k *kit) swapped() *kit {
	o := *k
	o.store, o.peer = k.peer, k.store
	return &o
}

// snapshot reads, proving the identity first where the store asks for that.
func (k *kit) snapshot(tags []driver.Tag, keys []string) driver.Snapshot {
	k.Helper()
	snap, err := k.store.Read(k.Context(), tags, keys)
	for range 10 {
		if !errors.Is(err, driver.ErrUnproven) {
			break
		}
		k.identify(k.store)
		snap, err = k.store.Read(k.Context(), tags, keys)
	}
	if err != nil {
		k.Fatalf("Read failed: %v", err)
	}
	if len(snap.States) != len(tags) || len(snap.Entries) != len(keys) {
		k.Fatalf("Read of %d tags and %d keys returned %d states and %d entries",
			len(tags), len(keys), len(snap.States), len(snap.Entries))
	}
	for i, s := range snap.States {
		if s.Version == (driver.Version{}) {
			k.Fatalf("%s has the zero version, which belongs to no tag", tags[i])
		}
	}
	return snap
}

func (k *kit) states(tags ...driver.Tag) []driver.TagState {
	k.Helper()
	return k.snapshot(tags, nil).States
}

func (k *kit) state(tag driver.Tag) driver.TagState {
	k.Helper()
	return k.states(tag)[0]
}

func (k *kit) entry(key string) []byte {
	k.Helper()
	return k.snapshot(nil, []string{key}).Entries[0]
}

func (k *kit) fence(mark driver.Mark, lease time.Duration, tags ...driver.Tag) {
	k.Helper()
	if err := k.store.Fence(k.Context(), tags, mark, lease); err != nil {
		k.Fatalf("Fence of %q failed: %v", tags, err)
	}
}

func (k *kit) bump(mark driver.Mark, tags ...driver.Tag) {
	k.Helper()
	if err := k.store.Bump(k.Context(), tags, mark); err != nil {
		k.Fatalf("Bump of %q failed: %v", tags, err)
	}
}

func (k *kit) claims(claims ...driver.Claim) []driver.Claimed {
	k.Helper()
	answers, err := k.store.Claim(k.Context(), claims)
	if err != nil {
		k.Fatalf("Claim failed: %v", err)
	}
	if len(answers) != len(claims) {
		k.Fatalf("%d claims got %d answers", len(claims), len(answers))
	}
	return answers
}

func (k *kit) claim(key string, token driver.Token, guard driver.Guard, ttl time.Duration) driver.Claimed {
	k.Helper()
	return k.claims(driver.Claim{Key: key, Token: token, Guard: guard, TTL: ttl})[0]
}

// lease claims key and is to be granted it.
func (k *kit) lease(key string, token driver.Token, guard driver.Guard, ttl time.Duration) driver.Claimed {
	k.Helper()
	answer := k.claim(key, token, guard, ttl)
	k.wantState(answer, driver.Granted, "a claim that nothing stands against")
	return answer
}

func (k *kit) settle(fills ...driver.Fill) {
	k.Helper()
	if err := k.store.Settle(k.Context(), fills); err != nil {
		k.Fatalf("Settle failed: %v", err)
	}
}

// put stores an entry as a load that holds no lease does.
func (k *kit) put(key, entry string, life time.Duration) {
	k.Helper()
	k.settle(driver.Fill{Key: key, Token: newToken(), Entry: []byte(entry), Life: life})
}

func (k *kit) renew(key string, token driver.Token, ttl time.Duration) {
	k.Helper()
	if err := k.store.Renew(k.Context(), key, token, ttl); err != nil {
		k.Fatalf("Renew by the holder of %s failed: %v", key, err)
	}
}

func (k *kit) purge(pattern string) int {
	k.Helper()
	n, err := k.store.Purge(k.Context(), pattern)
	if err != nil {
		k.Fatalf("Purge of %q failed: %v", pattern, err)
	}
	return n
}

func (k *kit) wantState(got driver.Claimed, want driver.ClaimState, who string) {
	k.Helper()
	if got.State != want {
		k.Fatalf("%s was %s, want %s", who, claimState(got.State), claimState(want))
	}
}

func (k *kit) wantEntry(key string, want []byte) {
	k.Helper()
	got := k.entry(key)
	if (got == nil) != (want == nil) || !bytes.Equal(got, want) {
		k.Errorf("entry of %s is %s, want %s", key, show(got), show(want))
	}
}

func (k *kit) wantFenced(tag driver.Tag, want bool, after string) {
	k.Helper()
	if got := k.state(tag).Fenced; got != want {
		k.Errorf("%s after %s: fenced is %t, want %t", tag, after, got, want)
	}
}

func (k *kit) wantMoved(tag driver.Tag, from, to driver.Version, by string) {
	k.Helper()
	if from == to {
		k.Errorf("%s kept its version %.4x through %s", tag, from, by)
	}
}

func (k *kit) wantStill(tag driver.Tag, from, to driver.Version) {
	k.Helper()
	if from != to {
		k.Errorf("%s moved from %.4x to %.4x; nobody bumped it", tag, from, to)
	}
}

func (k *kit) wantLost(key string, token driver.Token, why string) {
	k.Helper()
	err := k.store.Renew(k.Context(), key, token, long)
	if !errors.Is(err, driver.ErrLeaseLost) {
		k.Errorf("Renew of %s %s returned %v, want ErrLeaseLost", key, why, err)
	}
}

// until waits for cond, asking every few milliseconds, and returns how long ago since was.
func (k *kit) until(since time.Time, what string, cond func() bool) time.Duration {
	k.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			k.Fatalf("%s did not happen in %v", what, patience)
		}
		k.pass(2 * time.Millisecond)
	}
	return time.Since(since)
}

// ends waits for cond, which is to become true when d has passed since start, and no
// sooner. Start is a time before the store was asked. How much later it may be can be said
// in virtual time only, in which a machine is never busy.
func (k *kit) ends(start time.Time, d time.Duration, what string, cond func() bool) {
	k.Helper()
	took := k.until(start, what, cond)
	if took < d-rounding || k.virtual && took > d+rounding {
		k.Errorf("%s came after %v, want %v", what, took, d)
	}
}

// pass lets time pass, for rules about what must not change meanwhile.
func (k *kit) pass(d time.Duration) {
	select {
	case <-time.After(d):
	case <-k.Context().Done():
	}
}

// hears waits for an announcement.
func (k *kit) hears(announced <-chan struct{}, who string) {
	k.Helper()
	select {
	case <-announced:
	case <-time.After(patience):
		k.Fatalf("%s heard nothing in %v", who, patience)
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
		return "told of a failure"
	}
	return fmt.Sprintf("answered with unknown state %d", s)
}

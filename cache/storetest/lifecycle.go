package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var conductRules = []rule{
	{"purge removes the entries that match, and counts them", checkPurge},
	{"purge takes only * and ? for patterns", checkPurgeLiterals},
	{"purge leaves tags, leases and failures", checkPurgeLeavesState},
	{"purge walks a large store", checkPurgeMany},
	{"identity is one, and not empty", checkIdentity},
	{"a context that ended ends every call, with its error", checkContexts},
	{"closing twice is harmless", checkCloseTwice},
}

func checkPurge(k *kit) {
	keys := []string{"courses:list:1", "courses:list:2", "courses:list:10", "courses:detail:1", "users:list:1", "courses:list"}
	for pattern, want := range map[string][]string{
		"courses:list:*":      {"courses:list:1", "courses:list:2", "courses:list:10"},
		"courses:list:?":      {"courses:list:1", "courses:list:2"},
		"courses:list:??":     {"courses:list:10"},
		"*":                   keys,
		"*:list:*":            {"courses:list:1", "courses:list:2", "courses:list:10", "users:list:1"},
		"*1":                  {"courses:list:1", "courses:detail:1", "users:list:1"},
		"courses:list":        {"courses:list"},
		"c*s:*t:1":            {"courses:list:1"},
		"course":              nil,
		"courses:list:1?*":    {"courses:list:10"},
		"none:*":              nil,
		"**courses:**detail*": {"courses:detail:1"},
		"":                    nil,
	} {
		for _, key := range keys {
			k.put(key, "v", long)
		}
		if n := k.swapped().purge(pattern); n != len(want) {
			k.Errorf("purge of %q removed %d entries, want %d", pattern, n, len(want))
		}
		for _, key := range keys {
			if gone := k.entry(key) == nil; gone != slices.Contains(want, key) {
				k.Errorf("purge of %q: %s is gone: %t", pattern, key, gone)
			}
		}
	}
}

func checkPurgeLiterals(k *kit) {
	keys := []string{"a[12]", "a1", `a\1`, "a{1}", "a^1", "a*", "aÿ", "a|1", "a.1", "A1", "[^a]", "a[^1]", "[a-b]1"}
	for _, pattern := range keys {
		for _, key := range keys {
			k.put(key, "v", long)
		}
		want := 1
		if pattern == "a*" {
			want = 10
		}
		if n := k.purge(pattern); n != want {
			k.Errorf("purge of %q removed %d entries, want %d", pattern, n, want)
		}
		k.wantEntry(pattern, nil)
	}
}

func checkPurgeLeavesState(k *kit) {
	const tag = "course:1"
	mark, token, guard := newMark(), newToken(), newGuard()
	k.fence(mark, long, tag)
	before := k.state(tag)
	k.lease("held", token, guard, long)
	k.fail("failed", "down", long)
	k.put("k", "v", long)
	if n := k.purge("*"); n != 1 {
		k.Errorf("purge of the only entry removed %d", n)
	}
	if k.state(tag) != before {
		k.Errorf("purge changed tag %s", tag)
	}
	k.wantState(k.claim("held", newToken(), guard, long), driver.Held, "a claim of a key that is loading, after a purge")
	k.wantState(k.claim("failed", newToken(), guard, long), driver.Failed, "a claim of a key that failed, after a purge")
	k.renew("held", token, long)
}

func checkPurgeMany(k *kit) {
	const n = 3000
	var fills []driver.Fill
	for i := range n {
		fills = append(fills, driver.Fill{Key: fmt.Sprintf("many:%d", i), Token: newToken(), Entry: []byte("v"), Life: long})
	}
	for batch := range slices.Chunk(fills, 500) {
		k.settle(batch...)
	}
	k.put("other", "v", long)
	if got := k.purge("many:*"); got != n {
		k.Errorf("purge of %d entries removed %d", n, got)
	}
	k.wantEntry("other", []byte("v"))
	k.wantEntry("many:1", nil)
}

func checkIdentity(k *kit) {
	id := k.identify(k.store)
	if id == "" {
		k.Error("the identity is empty")
	}
	k.bump(driver.NoMark, "course:1")
	k.put("k", "v", long)
	for _, h := range []*kit{k, k.swapped()} {
		if again := h.identify(h.store); again != id {
			h.Errorf("the identity went from %q to %q; nothing restarted", id, again)
		}
	}
}

func checkContexts(k *kit) {
	s := k.store
	tags, token := []driver.Tag{"course:1"}, newToken()
	calls := map[string]func(ctx context.Context) error{
		"Read": func(ctx context.Context) error { _, err := s.Read(ctx, tags, []string{"k"}); return err },
		"Fence": func(ctx context.Context) error {
			return s.Fence(ctx, tags, newMark(), long)
		},
		"Bump": func(ctx context.Context) error { return s.Bump(ctx, tags, driver.NoMark) },
		"Claim": func(ctx context.Context) error {
			_, err := s.Claim(ctx, []driver.Claim{{Key: "k", Token: token, TTL: long}})
			return err
		},
		"Renew":    func(ctx context.Context) error { return s.Renew(ctx, "k", token, long) },
		"Settle":   func(ctx context.Context) error { return s.Settle(ctx, []driver.Fill{{Key: "k", Token: token}}) },
		"Identity": func(ctx context.Context) error { _, err := s.Identity(ctx); return err },
		"Purge":    func(ctx context.Context) error { _, err := s.Purge(ctx, "*"); return err },
	}
	k.lease("k", token, newGuard(), long) // so that Renew has no other reason to fail
	cancelled, cancel := context.WithCancel(k.Context())
	cancel()
	late, cancel := context.WithDeadline(k.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for name, call := range calls {
		start := time.Now()
		if err := call(cancelled); !errors.Is(err, context.Canceled) {
			k.Errorf("%s under a cancelled context returned %v", name, err)
		}
		if err := call(late); !errors.Is(err, context.DeadlineExceeded) {
			k.Errorf("%s after its deadline returned %v", name, err)
		}
		if took := time.Since(start); took > patience/4 {
			k.Errorf("%s took %v to notice that its context had ended", name, took)
		}
		// The next call is not the worse for it.
		if err := call(k.Context()); err != nil {
			k.Errorf("%s failed after a call whose context had ended: %v", name, err)
		}
		if name == "Settle" {
			k.lease("k", token, newGuard(), long)
		}
	}
}

func checkCloseTwice(k *kit) {
	k.put("k", "v", long)
	k.states("course:1")
	_, cancel := k.store.Announced("k")
	for range 2 {
		k.close(k.store)
	}
	cancel() // also after Close
}

package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var lifecycleRules = []rule{
	{"identity is one, and not empty", checkIdentity},
	{"the check of writes changes no tag and no entry", checkCheckWrites},
	{"the name is that of the data, for every handle", checkName},
	{"every call under an ended context fails with the error of the context", checkContexts},
	{"closing twice is harmless", checkCloseTwice},
}

func checkName(h *helpers) {
	name, err := h.store.Name(h.Context())
	if err != nil || name == "" {
		h.Fatalf("the name is %q (error %v)", name, err)
	}
	h.bump(driver.NoMark, "course:1")
	for _, store := range []driver.Store{h.store, h.peer} {
		if again, err := store.Name(h.Context()); err != nil || again != name {
			h.Errorf("the name is %q (error %v) after it was %q", again, err, name)
		}
	}
	other := h.another()
	if theirs, err := other.Name(h.Context()); err != nil || theirs == name {
		h.Errorf("another store has the name %q too (error %v)", theirs, err)
	}
}

func checkCheckWrites(h *helpers) {
	h.bump(driver.NoMark, "course:1")
	before := h.state("course:1")
	h.put("k", "v", long)
	for _, store := range []driver.Store{h.store, h.peer} {
		if err := store.CheckWrites(h.Context()); err != nil {
			h.Errorf("a store that takes writes says: %v", err)
		}
	}
	if h.state("course:1") != before {
		h.Error("a tag was changed")
	}
	h.wantEntry("k", []byte("v"))
}

func checkIdentity(h *helpers) {
	id := h.identify(h.store)
	if id == "" {
		h.Error("the identity is empty")
	}
	h.bump(driver.NoMark, "course:1")
	h.put("k", "v", long)
	for _, handle := range []*helpers{h, h.swapped()} {
		if again := handle.identify(handle.store); again != id {
			handle.Errorf("the identity went from %q to %q; nothing restarted", id, again)
		}
	}
}

func checkContexts(h *helpers) {
	s := h.store
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
		"Renew":       func(ctx context.Context) error { return s.Renew(ctx, "k", token, long) },
		"Settle":      func(ctx context.Context) error { return s.Settle(ctx, []driver.Fill{{Key: "k", Token: token}}) },
		"CheckWrites": s.CheckWrites,
		"Identity":    func(ctx context.Context) error { _, err := s.Identity(ctx); return err },
		"Purge":       func(ctx context.Context) error { _, err := s.Purge(ctx, "*"); return err },
	}
	h.lease("k", token, newGuard(), long) // so that Renew has no other reason to fail
	cancelled, cancel := context.WithCancel(h.Context())
	cancel()
	late, cancel := context.WithDeadline(h.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for name, call := range calls {
		start := time.Now()
		if err := call(cancelled); !errors.Is(err, context.Canceled) {
			h.Errorf("%s under a cancelled context returned %v", name, err)
		}
		if err := call(late); !errors.Is(err, context.DeadlineExceeded) {
			h.Errorf("%s after its deadline returned %v", name, err)
		}
		if took := time.Since(start); took > waitLimit/4 {
			h.Errorf("%s took %v to notice that its context had ended", name, took)
		}
		// The next call works.
		if err := call(h.Context()); err != nil {
			h.Errorf("%s failed after a call whose context had ended: %v", name, err)
		}
		if name == "Settle" {
			h.lease("k", token, newGuard(), long)
		}
	}
}

func checkCloseTwice(h *helpers) {
	h.put("k", "v", long)
	h.states("course:1")
	_, cancel := h.store.Announced("k")
	for range 2 {
		h.close(h.store)
	}
	cancel() // also after Close
}

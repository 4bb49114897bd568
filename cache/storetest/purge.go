package storetest

import (
	"fmt"
	"slices"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var purgeRules = []rule{
	{"purge removes the entries that match, and counts them", checkPurge},
	{"purge takes only * and ? for patterns", checkPurgeLiterals},
	{"purge leaves tags, leases and failures", checkPurgeLeavesState},
	{"purge walks a large store", checkPurgeMany},
}

func checkPurge(h *helpers) {
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
			h.put(key, "v", long)
		}
		if n := h.swapped().purge(pattern); n != len(want) {
			h.Errorf("purge of %q removed %d entries, want %d", pattern, n, len(want))
		}
		for _, key := range keys {
			if gone := h.entry(key) == nil; gone != slices.Contains(want, key) {
				h.Errorf("purge of %q: %s is gone: %t", pattern, key, gone)
			}
		}
	}
}

func checkPurgeLiterals(h *helpers) {
	keys := []string{"a[12]", "a1", `a\1`, "a{1}", "a^1", "a*", "aÿ", "a|1", "a.1", "A1", "[^a]", "a[^1]", "[a-b]1"}
	for _, pattern := range keys {
		for _, key := range keys {
			h.put(key, "v", long)
		}
		want := 1
		if pattern == "a*" {
			want = 10
		}
		if n := h.purge(pattern); n != want {
			h.Errorf("purge of %q removed %d entries, want %d", pattern, n, want)
		}
		h.wantEntry(pattern, nil)
	}
}

func checkPurgeLeavesState(h *helpers) {
	const tag = "course:1"
	mark, token, guard := newMark(), newToken(), newGuard()
	h.fence(mark, long, tag)
	before := h.state(tag)
	h.lease("held", token, guard, long)
	h.fail("failed", "down", long)
	h.put("k", "v", long)
	if n := h.purge("*"); n != 1 {
		h.Errorf("purge of the only entry removed %d", n)
	}
	if h.state(tag) != before {
		h.Errorf("purge changed tag %s", tag)
	}
	h.wantState(h.claim("held", newToken(), guard, long), driver.Held, "a claim of a key that is loading, after a purge")
	h.wantState(h.claim("failed", newToken(), failing, long), driver.Failed, "a claim of a key that failed, after a purge")
	h.renew("held", token, long)
}

func checkPurgeMany(h *helpers) {
	const n = 3000
	var fills []driver.Fill
	for i := range n {
		fills = append(fills, driver.Fill{Key: fmt.Sprintf("many:%d", i), Token: newToken(), Entry: []byte("v"), Life: long})
	}
	for batch := range slices.Chunk(fills, 500) {
		h.settle(batch...)
	}
	h.put("other", "v", long)
	if got := h.purge("many:*"); got != n {
		h.Errorf("purge of %d entries removed %d", n, got)
	}
	h.wantEntry("other", []byte("v"))
	h.wantEntry("many:1", nil)
}

package storetest

import (
	"crypto/rand"
	"fmt"
	"math"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var entryRules = []rule{
	{"an entry that was not stored is nil", func(h *helpers) { h.wantEntry("k", nil) }},
	{"an entry is stored and read through every handle, byte by byte", checkEntry},
	{"an entry replaces the one before, and its life with it", checkOverwrite},
	{"an entry ends when its life has passed, and not before", checkEntryEnds},
	{"an entry may live for as long as a duration can say", checkLongestLife},
	{"an empty entry is an entry", checkEmptyEntry},
	{"an entry may be large", checkLargeEntry},
	{"several entries are stored in one call", checkManyEntries},
	{"a call takes as much as driver.MaxItems", checkMaxItems},
	{"an entry outlives bumps of its tags", checkEntryOutlivesBump},
}

func checkEntry(h *helpers) {
	var all [256]byte
	for i := range all {
		all[i] = byte(i)
	}
	h.put("k", string(all[:]), long)
	h.wantEntry("k", all[:])
	h.swapped().wantEntry("k", all[:])
	h.wantEntry("k2", nil)
}

func checkOverwrite(h *helpers) {
	h.put("k", "one", long)
	h.put("k", "two", long)
	h.wantEntry("k", []byte("two"))

	h.put("k", "brief", short)
	h.put("k", "lasting", long)
	h.sleep(short + 50*time.Millisecond)
	h.wantEntry("k", []byte("lasting"))

	start := time.Now()
	h.put("k", "brief", short)
	h.expectAfter(start, short, "the end of an entry that replaced a lasting one", func() bool { return h.entry("k") == nil })
}

func checkEntryEnds(h *helpers) {
	start := time.Now()
	h.put("k", "v", short)
	h.expectAfter(start, short, "the end of the entry", func() bool { return h.entry("k") == nil })
	h.put("k", "again", long)
	h.wantEntry("k", []byte("again"))
}

// checkLongestLife: a program that wants an answer for ever says math.MaxInt64. Arithmetic on it
// must not end in the past.
func checkLongestLife(h *helpers) {
	tag := driver.Tag("long:life")
	before := h.state(tag).Version
	h.settle(driver.Fill{Key: "k", Token: newToken(), Entry: []byte("v"), Life: math.MaxInt64, Tags: []driver.Tag{tag}})
	h.sleep(50 * time.Millisecond)
	h.wantEntry("k", []byte("v"))
	h.wantUnchanged(tag, before, h.state(tag).Version)
}

func checkEmptyEntry(h *helpers) {
	h.settle(driver.Fill{Key: "k", Token: newToken(), Entry: []byte{}, Life: long})
	if h.entry("k") == nil {
		h.Error("an empty entry reads as absent")
	}
	if h.claim("k", newToken(), newGuard(), long).Entry == nil {
		h.Error("an empty entry is absent from a claim")
	}
}

func checkLargeEntry(h *helpers) {
	large := make([]byte, 1<<20)
	rand.Read(large)
	h.put("k", string(large), long)
	h.wantEntry("k", large)
	if got := h.lease("k", newToken(), newGuard(), long).Entry; string(got) != string(large) {
		h.Errorf("a claim shows the large entry as %s", show(got))
	}
}

func checkManyEntries(h *helpers) {
	const n = 100
	var fills []driver.Fill
	var keys []string
	for i := range n {
		key := fmt.Sprint("course:", i)
		keys = append(keys, key, "absent:"+key)
		fills = append(fills, driver.Fill{Key: key, Token: newToken(), Entry: []byte("entry of " + key), Life: long})
	}
	h.settle(fills...)
	entries := h.snapshot(nil, keys).Entries
	for i := range n {
		if want := "entry of " + keys[2*i]; string(entries[2*i]) != want {
			h.Errorf("entry of %s is %s, want %q", keys[2*i], show(entries[2*i]), want)
		}
		if entries[2*i+1] != nil {
			h.Errorf("entry of %s is %s, want absent", keys[2*i+1], show(entries[2*i+1]))
		}
	}
}

// Invalidation costs the same however many entries depend on a tag: it leaves them to
// their guards.
func checkEntryOutlivesBump(h *helpers) {
	h.settle(driver.Fill{Key: "k", Token: newToken(), Entry: []byte("v"), Life: long, Tags: []driver.Tag{"course:1"}})
	mark := newMark()
	h.fence(mark, long, "course:1")
	h.bump(mark, "course:1")
	h.wantEntry("k", []byte("v"))
}

func checkMaxItems(h *helpers) {
	const n = driver.MaxItems
	tags, keys := make([]driver.Tag, n), make([]string, n)
	claims, fills := make([]driver.Claim, n), make([]driver.Fill, n)
	for i := range n {
		tags[i], keys[i] = driver.Tag(fmt.Sprintf("course:%d", i)), fmt.Sprintf("courses:detail:%d", i)
		claims[i] = driver.Claim{Key: keys[i], Token: newToken(), Guard: newGuard(), TTL: long}
		fills[i] = driver.Fill{Key: keys[i], Token: claims[i].Token, Entry: []byte(keys[i]), Life: long, Tags: tags[i : i+1]}
	}
	mark := newMark()
	h.fence(mark, long, tags...)
	fenced := h.states(tags...)
	h.bump(mark, tags...)
	bumped := h.states(tags...)
	for i, claimed := range h.claims(claims...) {
		if claimed.State != driver.Granted || !fenced[i].Fenced || bumped[i].Fenced || fenced[i].Version == bumped[i].Version {
			h.Fatalf("of %d, number %d is claimed %+v, fenced %+v and bumped %+v", n, i, claimed, fenced[i], bumped[i])
		}
	}
	h.settle(fills...)
	p := h.swapped()
	for i, entry := range p.snapshot(nil, keys).Entries {
		if string(entry) != keys[i] {
			h.Fatalf("of %d entries, number %d is %s", n, i, show(entry))
		}
	}
	for i, state := range p.states(tags...) {
		h.wantUnchanged(tags[i], bumped[i].Version, state.Version)
	}
	// Most of what an entry may have, and incompressible.
	large := make([]byte, driver.MaxEntry)
	rand.Read(large)
	h.put("large", string(large), long)
	p.wantEntry("large", large)
}

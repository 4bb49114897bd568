package storetest

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var entryRules = []rule{
	{"an entry that nobody stored is nil", func(k *kit) { k.wantEntry("k", nil) }},
	{"an entry is stored and read through every handle, byte by byte", checkEntry},
	{"an entry replaces the one before, and its life with it", checkOverwrite},
	{"an entry ends when its life has passed, and not before", checkEntryEnds},
	{"an empty entry is an entry", checkEmptyEntry},
	{"an entry may be large", checkLargeEntry},
	{"several entries are stored in one call", checkManyEntries},
	{"an entry outlives bumps of its tags", checkEntryOutlivesBump},
}

func checkEntry(k *kit) {
	var all [256]byte
	for i := range all {
		all[i] = byte(i)
	}
	k.put("k", string(all[:]), long)
	k.wantEntry("k", all[:])
	k.swapped().wantEntry("k", all[:])
	k.wantEntry("k2", nil)
}

func checkOverwrite(k *kit) {
	k.put("k", "one", long)
	k.put("k", "two", long)
	k.wantEntry("k", []byte("two"))

	k.put("k", "brief", short)
	k.put("k", "lasting", long)
	k.pass(short + 50*time.Millisecond)
	k.wantEntry("k", []byte("lasting"))

	start := time.Now()
	k.put("k", "brief", short)
	k.ends(start, short, "the end of an entry that replaced a lasting one", func() bool { return k.entry("k") == nil })
}

func checkEntryEnds(k *kit) {
	start := time.Now()
	k.put("k", "v", short)
	k.ends(start, short, "the end of the entry", func() bool { return k.entry("k") == nil })
	k.put("k", "again", long)
	k.wantEntry("k", []byte("again"))
}

func checkEmptyEntry(k *kit) {
	k.settle(driver.Fill{Key: "k", Token: newToken(), Entry: []byte{}, Life: long})
	if k.entry("k") == nil {
		k.Error("an empty entry reads as absent")
	}
	if k.claim("k", newToken(), newGuard(), long).Entry == nil {
		k.Error("an empty entry is absent from a claim")
	}
}

func checkLargeEntry(k *kit) {
	large := make([]byte, 1<<20)
	rand.Read(large)
	k.put("k", string(large), long)
	k.wantEntry("k", large)
	if got := k.lease("k", newToken(), newGuard(), long).Entry; string(got) != string(large) {
		k.Errorf("a claim shows the large entry as %s", show(got))
	}
}

func checkManyEntries(k *kit) {
	const n = 100
	var fills []driver.Fill
	var keys []string
	for i := range n {
		key := fmt.Sprint("course:", i)
		keys = append(keys, key, "absent:"+key)
		fills = append(fills, driver.Fill{Key: key, Token: newToken(), Entry: []byte("entry of " + key), Life: long})
	}
	k.settle(fills...)
	entries := k.snapshot(nil, keys).Entries
	for i := range n {
		if want := "entry of " + keys[2*i]; string(entries[2*i]) != want {
			k.Errorf("entry of %s is %s, want %q", keys[2*i], show(entries[2*i]), want)
		}
		if entries[2*i+1] != nil {
			k.Errorf("entry of %s is %s, want absent", keys[2*i+1], show(entries[2*i+1]))
		}
	}
}

// Invalidation costs the same however many entries depend on a tag: it leaves them to
// their guards.
func checkEntryOutlivesBump(k *kit) {
	k.settle(driver.Fill{Key: "k", Token: newToken(), Entry: []byte("v"), Life: long, Tags: []driver.Tag{"course:1"}})
	mark := newMark()
	k.fence(mark, long, "course:1")
	k.bump(mark, "course:1")
	k.wantEntry("k", []byte("v"))
}

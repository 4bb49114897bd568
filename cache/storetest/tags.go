package storetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var tagRules = []rule{
	{"a tag without a version gets one, which stays", checkVersionStays},
	{"versions are random in every byte", checkVersionsAreRandom},
	{"a version never comes back", checkVersionsNeverRepeat},
	{"versions are kept as long as the entries stored under them", checkVersionsOutliveEntries},
	{"bump is exact", checkBumpIsExact},
	{"a bump is seen through every handle", checkBumpIsShared},
	{"states come in the order of the tags, a repeated tag each time", checkStateOrder},
	{"no tag, no key, no claim and no fill is a call that does nothing", checkNothing},
	{"names of any characters are distinct", checkNames},
	{"entries, tags and leases of one name do not meet", checkNamespaces},
}

func checkVersionStays(h *helpers) {
	first := h.states("course:1", "course:2")
	if first[0].Fenced || first[1].Fenced {
		h.Error("a tag without a fence is fenced")
	}
	for range 5 {
		h.sleep(10 * time.Millisecond)
		again := h.states("course:1", "course:2")
		h.wantUnchanged("course:1", first[0].Version, again[0].Version)
		h.wantUnchanged("course:2", first[1].Version, again[1].Version)
	}
}

func checkVersionsAreRandom(h *helpers) {
	tags := make([]driver.Tag, 256)
	for i := range tags {
		tags[i] = driver.Tag(fmt.Sprintf("course:%d", i))
	}
	created := h.states(tags...)
	h.bump(driver.NoMark, tags...)
	bumped := h.states(tags...)
	for what, states := range map[string][]driver.TagState{"created": created, "bumped": bumped} {
		for i := range len(driver.Version{}) {
			values := make(map[byte]bool)
			for _, s := range states {
				values[s.Version[i]] = true
			}
			// 256 random bytes take some 162 values; fewer than 100 is out of reach.
			if len(values) < 100 {
				h.Errorf("byte %d of 256 %s versions takes %d values: they can be guessed", i, what, len(values))
			}
		}
	}
}

func checkVersionsNeverRepeat(h *helpers) {
	const tag = "course:1"
	seen := make(map[driver.Version]int)
	for i := range 300 {
		v := h.state(tag).Version
		if at, ok := seen[v]; ok {
			h.Fatalf("%s has version %.4x after change %d and again after change %d", tag, v, at, i)
		}
		seen[v] = i
		if i%3 == 0 {
			h.fence(newMark(), long, tag)
		} else {
			h.bump(newMark(), tag)
		}
	}
}

func checkVersionsOutliveEntries(h *helpers) {
	const life = 72 * time.Hour
	tags := []driver.Tag{"course:1", "course:2"}
	before := h.states(tags...)
	h.settle(driver.Fill{Key: "k", Token: newToken(), Entry: []byte("v"), Life: life, Tags: tags})
	// A mark that ends takes nothing with it but itself.
	h.fence(newMark(), short, "course:2")
	before[1] = h.state("course:2")
	wait := 2 * short
	if h.virtualTime {
		wait = life - time.Minute
	}
	h.sleep(wait)
	after := h.states(tags...)
	h.wantUnchanged("course:1", before[0].Version, after[0].Version)
	h.wantUnchanged("course:2", before[1].Version, after[1].Version)
	h.wantEntry("k", []byte("v"))
}

func checkBumpIsExact(h *helpers) {
	// Names that share a beginning, and one that is a pattern of the others.
	others := []driver.Tag{"course:1", "course:11", "course:", "course:*", "user:2"}
	before := h.states(others...)
	h.fence(newMark(), long, "course:2")
	h.bump(newMark(), "course:2", "course:3")
	for i, after := range h.states(others...) {
		h.wantUnchanged(others[i], before[i].Version, after.Version)
		if after.Fenced {
			h.Errorf("%s is fenced; only course:2 was", others[i])
		}
	}
}

func checkBumpIsShared(h *helpers) {
	const tag = "course:1"
	p := h.swapped()
	v := h.state(tag).Version
	p.wantUnchanged(tag, v, p.state(tag).Version)
	mark := newMark()
	p.fence(mark, long, tag)
	fenced := h.state(tag)
	h.wantChanged(tag, v, fenced.Version, "a fence through another handle")
	if !fenced.Fenced {
		h.Error("a fence does not show through another handle")
	}
	h.bump(mark, tag)
	after := p.state(tag)
	p.wantChanged(tag, fenced.Version, after.Version, "a bump through another handle")
	if after.Fenced {
		p.Error("a bump leaves the mark that another handle set")
	}
}

func checkStateOrder(h *helpers) {
	h.fence(newMark(), long, "b")
	h.put("y", "entry of y", long)
	h.put("x", "entry of x", long)
	a, b := h.state("a"), h.state("b")
	snap := h.snapshot([]driver.Tag{"b", "a", "b", "b"}, []string{"y", "none", "x", "y"})
	for i, want := range []driver.TagState{b, a, b, b} {
		if snap.States[i] != want {
			h.Errorf("state %d of b, a, b, b is that of another tag", i)
		}
	}
	for i, want := range []string{"entry of y", "", "entry of x", "entry of y"} {
		if string(snap.Entries[i]) != want {
			h.Errorf("entry %d of y, none, x, y is %s, want %q", i, show(snap.Entries[i]), want)
		}
	}

	// New tags that are repeated get one version, not one for each place.
	fresh := h.states("new", "new")
	h.wantUnchanged("new", fresh[0].Version, fresh[1].Version)

	mark := newMark()
	h.fence(mark, long, "twice", "twice")
	h.wantFenced("twice", true, "a fence that names it twice")
	h.bump(mark, "twice", "twice")
	h.wantFenced("twice", false, "a bump that names it twice")
}

func checkNothing(h *helpers) {
	h.snapshot(nil, nil)
	h.fence(newMark(), long)
	h.bump(newMark())
	h.claims()
	h.settle()
}

// oddNames are free of control characters and of nothing else.
var oddNames = []string{
	"a", "A", "a:", ":a", "a:b", "a b", " a", "a*", "a?", "*", "[a]", "[^a]", `a\`, `\a`, `"a"`, "'a'",
	"{a}", "{a}b", "{b}a", "{}a", "a}{", "%61", "a/b", "../a", "über", "ключ", "鍵", "\xff\xfe",
	strings.Repeat("long", 200),
}

func checkNames(h *helpers) {
	var tags []driver.Tag
	for _, name := range oddNames {
		tags = append(tags, driver.Tag(name))
		h.put(name, "entry of "+name, long)
	}
	before := h.states(tags...)
	for _, name := range oddNames {
		h.wantEntry(name, []byte("entry of "+name))
	}
	for i, tag := range tags {
		h.bump(driver.NoMark, tag)
		after := h.states(tags...)
		for j := range tags {
			if i == j {
				h.wantChanged(tag, before[j].Version, after[j].Version, "a bump")
			} else {
				h.wantUnchanged(tags[j], before[j].Version, after[j].Version)
			}
		}
		before = after
	}
}

func checkNamespaces(h *helpers) {
	// A store that keeps all three in one space distinguishes them by what it puts before
	// or behind their names; these are likely guesses.
	names := []string{"x", "tag:x", "t:x", "lease:x", "l:x", "x:lease", "entry:x", "e:x", "fail:x", "mark:x"}
	mark, token, guard := newMark(), newToken(), newGuard()
	fenced := make(map[string]driver.TagState)
	for _, name := range names {
		h.lease(name, token, guard, long)
		h.fence(mark, long, driver.Tag(name))
		fenced[name] = h.state(driver.Tag(name))
		h.put(name, "entry of "+name, long)
	}
	for _, name := range names {
		h.wantEntry(name, []byte("entry of "+name))
		h.wantState(h.claim(name, newToken(), guard, long), driver.Held, "a second claim of "+name)
		h.renew(name, token, long)
		if h.state(driver.Tag(name)) != fenced[name] {
			h.Errorf("tag %s changed when only leases and entries did", name)
		}
	}
}

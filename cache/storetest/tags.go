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
	{"names of any characters are told apart", checkNames},
	{"entries, tags and leases of one name do not meet", checkNamespaces},
}

func checkVersionStays(k *kit) {
	first := k.states("course:1", "course:2")
	if first[0].Fenced || first[1].Fenced {
		k.Error("a tag that nobody fenced is fenced")
	}
	for range 5 {
		k.pass(10 * time.Millisecond)
		again := k.states("course:1", "course:2")
		k.wantStill("course:1", first[0].Version, again[0].Version)
		k.wantStill("course:2", first[1].Version, again[1].Version)
	}
}

func checkVersionsAreRandom(k *kit) {
	tags := make([]driver.Tag, 256)
	for i := range tags {
		tags[i] = driver.Tag(fmt.Sprintf("course:%d", i))
	}
	created := k.states(tags...)
	k.bump(driver.NoMark, tags...)
	bumped := k.states(tags...)
	for what, states := range map[string][]driver.TagState{"created": created, "bumped": bumped} {
		for i := range len(driver.Version{}) {
			values := make(map[byte]bool)
			for _, s := range states {
				values[s.Version[i]] = true
			}
			// 256 random bytes take some 162 values; fewer than 100 is out of reach.
			if len(values) < 100 {
				k.Errorf("byte %d of 256 %s versions takes %d values: they can be guessed", i, what, len(values))
			}
		}
	}
}

func checkVersionsNeverRepeat(k *kit) {
	const tag = "course:1"
	seen := make(map[driver.Version]int)
	for i := range 300 {
		v := k.state(tag).Version
		if at, ok := seen[v]; ok {
			k.Fatalf("%s has version %.4x after change %d and again after change %d", tag, v, at, i)
		}
		seen[v] = i
		if i%3 == 0 {
			k.fence(newMark(), long, tag)
		} else {
			k.bump(newMark(), tag)
		}
	}
}

func checkVersionsOutliveEntries(k *kit) {
	const life = 72 * time.Hour
	tags := []driver.Tag{"course:1", "course:2"}
	before := k.states(tags...)
	k.settle(driver.Fill{Key: "k", Token: newToken(), Entry: []byte("v"), Life: life, Tags: tags})
	// A mark that ends takes nothing with it but itself.
	k.fence(newMark(), short, "course:2")
	before[1] = k.state("course:2")
	wait := 2 * short
	if k.virtual {
		wait = life - time.Minute
	}
	k.pass(wait)
	after := k.states(tags...)
	k.wantStill("course:1", before[0].Version, after[0].Version)
	k.wantStill("course:2", before[1].Version, after[1].Version)
	k.wantEntry("k", []byte("v"))
}

func checkBumpIsExact(k *kit) {
	// Names that share a beginning, and one that is a pattern of the others.
	others := []driver.Tag{"course:1", "course:11", "course:", "course:*", "user:2"}
	before := k.states(others...)
	k.fence(newMark(), long, "course:2")
	k.bump(newMark(), "course:2", "course:3")
	for i, after := range k.states(others...) {
		k.wantStill(others[i], before[i].Version, after.Version)
		if after.Fenced {
			k.Errorf("%s is fenced; only course:2 was", others[i])
		}
	}
}

func checkBumpIsShared(k *kit) {
	const tag = "course:1"
	p := k.swapped()
	v := k.state(tag).Version
	p.wantStill(tag, v, p.state(tag).Version)
	mark := newMark()
	p.fence(mark, long, tag)
	fenced := k.state(tag)
	k.wantMoved(tag, v, fenced.Version, "a fence through another handle")
	if !fenced.Fenced {
		k.Error("a fence does not show through another handle")
	}
	k.bump(mark, tag)
	after := p.state(tag)
	p.wantMoved(tag, fenced.Version, after.Version, "a bump through another handle")
	if after.Fenced {
		p.Error("a bump leaves the mark that another handle set")
	}
}

func checkStateOrder(k *kit) {
	k.fence(newMark(), long, "b")
	k.put("y", "entry of y", long)
	k.put("x", "entry of x", long)
	a, b := k.state("a"), k.state("b")
	snap := k.snapshot([]driver.Tag{"b", "a", "b", "b"}, []string{"y", "none", "x", "y"})
	for i, want := range []driver.TagState{b, a, b, b} {
		if snap.States[i] != want {
			k.Errorf("state %d of b, a, b, b is that of another tag", i)
		}
	}
	for i, want := range []string{"entry of y", "", "entry of x", "entry of y"} {
		if string(snap.Entries[i]) != want {
			k.Errorf("entry %d of y, none, x, y is %s, want %q", i, show(snap.Entries[i]), want)
		}
	}

	// New tags that are repeated get one version, not one for each place.
	fresh := k.states("new", "new")
	k.wantStill("new", fresh[0].Version, fresh[1].Version)

	mark := newMark()
	k.fence(mark, long, "twice", "twice")
	k.wantFenced("twice", true, "a fence that names it twice")
	k.bump(mark, "twice", "twice")
	k.wantFenced("twice", false, "a bump that names it twice")
}

func checkNothing(k *kit) {
	k.snapshot(nil, nil)
	k.fence(newMark(), long)
	k.bump(newMark())
	k.claims()
	k.settle()
}

// oddNames are free of control characters and of nothing else.
var oddNames = []string{
	"a", "A", "a:", ":a", "a:b", "a b", " a", "a*", "a?", "*", "[a]", "[^a]", `a\`, `\a`, `"a"`, "'a'",
	"{a}", "{a}b", "{b}a", "{}a", "a}{", "%61", "a/b", "../a", "über", "ключ", "鍵", "\xff\xfe",
	strings.Repeat("long", 200),
}

func checkNames(k *kit) {
	var tags []driver.Tag
	for _, name := range oddNames {
		tags = append(tags, driver.Tag(name))
		k.put(name, "entry of "+name, long)
	}
	before := k.states(tags...)
	for _, name := range oddNames {
		k.wantEntry(name, []byte("entry of "+name))
	}
	for i, tag := range tags {
		k.bump(driver.NoMark, tag)
		after := k.states(tags...)
		for j := range tags {
			if i == j {
				k.wantMoved(tag, before[j].Version, after[j].Version, "a bump")
			} else {
				k.wantStill(tags[j], before[j].Version, after[j].Version)
			}
		}
		before = after
	}
}

func checkNamespaces(k *kit) {
	// A store that keeps all three in one space tells them apart by what it puts before
	// or behind their names; these are likely guesses.
	names := []string{"x", "tag:x", "t:x", "lease:x", "l:x", "x:lease", "entry:x", "e:x", "fail:x", "mark:x"}
	mark, token, guard := newMark(), newToken(), newGuard()
	fenced := make(map[string]driver.TagState)
	for _, name := range names {
		k.lease(name, token, guard, long)
		k.fence(mark, long, driver.Tag(name))
		fenced[name] = k.state(driver.Tag(name))
		k.put(name, "entry of "+name, long)
	}
	for _, name := range names {
		k.wantEntry(name, []byte("entry of "+name))
		k.wantState(k.claim(name, newToken(), guard, long), driver.Held, "a second claim of "+name)
		k.renew(name, token, long)
		if k.state(driver.Tag(name)) != fenced[name] {
			k.Errorf("tag %s changed when only leases and entries did", name)
		}
	}
}

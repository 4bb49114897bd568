package storetest

import (
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var fenceRules = []rule{
	{"a fence changes the version and shows until its bump, which changes it again", checkFence},
	{"a mark ends when its lease has passed, and not before", checkMarkEnds},
	{"a tag bears several marks and is fenced until the last is gone", checkSeveralMarks},
	{"a mark ends without those set before and after it", checkMarksEndApart},
	{"a bump without a mark, or with one unknown, leaves all marks", checkBumpWithoutMark},
	{"a fence under the same mark renews its lease", checkFenceRenews},
	{"a fence covers every tag of the call", checkFenceOfMany},
}

func checkFence(k *kit) {
	const tag = "course:1"
	before := k.state(tag)
	mark := newMark()
	k.fence(mark, long, tag)
	fenced := k.state(tag)
	if !fenced.Fenced {
		k.Fatalf("%s does not show its fence", tag)
	}
	k.wantMoved(tag, before.Version, fenced.Version, "a fence")
	if again := k.state(tag); again != fenced {
		k.Errorf("%s changes while it is fenced", tag)
	}
	k.bump(mark, tag)
	after := k.state(tag)
	if after.Fenced {
		k.Errorf("%s is fenced after the bump of its only mark", tag)
	}
	k.wantMoved(tag, fenced.Version, after.Version, "a bump")
	k.wantMoved(tag, before.Version, after.Version, "a fence and a bump")
}

func checkMarkEnds(k *kit) {
	const tag = "course:1"
	start := time.Now()
	k.fence(newMark(), short, tag)
	k.ends(start, short, "the end of the mark", func() bool { return !k.state(tag).Fenced })
}

func checkSeveralMarks(k *kit) {
	const tag = "course:1"
	one, two, three := newMark(), newMark(), newMark()
	for _, mark := range []driver.Mark{one, two, three} {
		before := k.state(tag).Version
		k.fence(mark, long, tag)
		k.wantMoved(tag, before, k.state(tag).Version, "a further fence")
	}
	k.bump(two, tag)
	k.wantFenced(tag, true, "the bump of one of three marks")
	k.bump(one, tag)
	k.wantFenced(tag, true, "the bump of two of three marks")
	k.bump(one, tag)
	k.wantFenced(tag, true, "the repeated bump of a mark that is gone")
	k.bump(three, tag)
	k.wantFenced(tag, false, "the bump of all three marks")
}

func checkMarksEndApart(k *kit) {
	const tag = "course:1"
	before, brief, after := newMark(), newMark(), newMark()
	k.fence(before, long, tag)
	k.fence(brief, short, tag) // must not shorten the one before
	k.fence(after, long, tag)  // must not lengthen this one
	k.pass(short + 50*time.Millisecond)
	k.wantFenced(tag, true, "the end of one of three marks")
	k.bump(after, tag)
	k.wantFenced(tag, true, "the end of one mark and the bump of another")
	k.bump(before, tag)
	k.wantFenced(tag, false, "the end of one mark and the bump of two")
}

func checkBumpWithoutMark(k *kit) {
	const tag = "course:1"
	mark := newMark()
	k.fence(mark, long, tag)
	for name, other := range map[string]driver.Mark{"no mark": driver.NoMark, "an unknown mark": newMark()} {
		before := k.state(tag).Version
		k.bump(other, tag)
		k.wantMoved(tag, before, k.state(tag).Version, "a bump with "+name)
		k.wantFenced(tag, true, "a bump with "+name)
	}
	k.bump(mark, tag)
	k.wantFenced(tag, false, "the bump of its mark")
}

func checkFenceRenews(k *kit) {
	const tag = "course:1"
	mark := newMark()
	k.fence(mark, short, tag)
	before := k.state(tag).Version
	k.fence(mark, long, tag)
	k.wantMoved(tag, before, k.state(tag).Version, "the second fence")
	k.pass(short + 50*time.Millisecond)
	k.wantFenced(tag, true, "the end of the lease that was renewed")
	k.bump(mark, tag)
	k.wantFenced(tag, false, "one bump of a mark that was set twice")
}

func checkFenceOfMany(k *kit) {
	tags := make([]driver.Tag, 300) // more than a store is likely to send at once
	for i := range tags {
		tags[i] = driver.Tag(fmt.Sprintf("course:%d", i))
	}
	mark := newMark()
	before := k.states(tags...)
	k.fence(mark, long, tags...)
	fenced := k.states(tags...)
	last := len(tags) - 1
	k.bump(mark, tags[:last]...)
	after := k.states(tags...)
	for i, tag := range tags {
		k.wantMoved(tag, before[i].Version, fenced[i].Version, "a fence")
		if !fenced[i].Fenced {
			k.Errorf("%s, tag %d of a fence, does not show it", tag, i)
		}
		bumped := i < last
		if after[i].Fenced == bumped {
			k.Errorf("%s after a bump of all but the last: fenced is %t", tag, after[i].Fenced)
		}
		if bumped {
			k.wantMoved(tag, fenced[i].Version, after[i].Version, "a bump")
		}
	}
}

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

func checkFence(h *helpers) {
	const tag = "course:1"
	before := h.state(tag)
	mark := newMark()
	h.fence(mark, long, tag)
	fenced := h.state(tag)
	if !fenced.Fenced {
		h.Fatalf("%s does not show its fence", tag)
	}
	h.wantChanged(tag, before.Version, fenced.Version, "a fence")
	if again := h.state(tag); again != fenced {
		h.Errorf("%s changes while it is fenced", tag)
	}
	h.bump(mark, tag)
	after := h.state(tag)
	if after.Fenced {
		h.Errorf("%s is fenced after the bump of its only mark", tag)
	}
	h.wantChanged(tag, fenced.Version, after.Version, "a bump")
	h.wantChanged(tag, before.Version, after.Version, "a fence and a bump")
}

func checkMarkEnds(h *helpers) {
	const tag = "course:1"
	start := time.Now()
	h.fence(newMark(), short, tag)
	h.expectAfter(start, short, "the end of the mark", func() bool { return !h.state(tag).Fenced })
}

func checkSeveralMarks(h *helpers) {
	const tag = "course:1"
	one, two, three := newMark(), newMark(), newMark()
	for _, mark := range []driver.Mark{one, two, three} {
		before := h.state(tag).Version
		h.fence(mark, long, tag)
		h.wantChanged(tag, before, h.state(tag).Version, "a further fence")
	}
	h.bump(two, tag)
	h.wantFenced(tag, true, "the bump of one of three marks")
	h.bump(one, tag)
	h.wantFenced(tag, true, "the bump of two of three marks")
	h.bump(one, tag)
	h.wantFenced(tag, true, "the repeated bump of a mark that is gone")
	h.bump(three, tag)
	h.wantFenced(tag, false, "the bump of all three marks")
}

func checkMarksEndApart(h *helpers) {
	const tag = "course:1"
	before, brief, after := newMark(), newMark(), newMark()
	h.fence(before, long, tag)
	h.fence(brief, short, tag) // must not shorten the one before
	h.fence(after, long, tag)  // must not lengthen this one
	h.sleep(short + 50*time.Millisecond)
	h.wantFenced(tag, true, "the end of one of three marks")
	h.bump(after, tag)
	h.wantFenced(tag, true, "the end of one mark and the bump of another")
	h.bump(before, tag)
	h.wantFenced(tag, false, "the end of one mark and the bump of two")
}

func checkBumpWithoutMark(h *helpers) {
	const tag = "course:1"
	mark := newMark()
	h.fence(mark, long, tag)
	for name, other := range map[string]driver.Mark{"no mark": driver.NoMark, "an unknown mark": newMark()} {
		before := h.state(tag).Version
		h.bump(other, tag)
		h.wantChanged(tag, before, h.state(tag).Version, "a bump with "+name)
		h.wantFenced(tag, true, "a bump with "+name)
	}
	h.bump(mark, tag)
	h.wantFenced(tag, false, "the bump of its mark")
}

func checkFenceRenews(h *helpers) {
	const tag = "course:1"
	mark := newMark()
	h.fence(mark, short, tag)
	before := h.state(tag).Version
	h.fence(mark, long, tag)
	h.wantChanged(tag, before, h.state(tag).Version, "the second fence")
	h.sleep(short + 50*time.Millisecond)
	h.wantFenced(tag, true, "the end of the lease that was renewed")
	h.bump(mark, tag)
	h.wantFenced(tag, false, "one bump of a mark that was set twice")
}

func checkFenceOfMany(h *helpers) {
	tags := make([]driver.Tag, 300) // more than a store is likely to send at once
	for i := range tags {
		tags[i] = driver.Tag(fmt.Sprintf("course:%d", i))
	}
	mark := newMark()
	before := h.states(tags...)
	h.fence(mark, long, tags...)
	fenced := h.states(tags...)
	last := len(tags) - 1
	h.bump(mark, tags[:last]...)
	after := h.states(tags...)
	for i, tag := range tags {
		h.wantChanged(tag, before[i].Version, fenced[i].Version, "a fence")
		if !fenced[i].Fenced {
			h.Errorf("%s, tag %d of a fence, does not show it", tag, i)
		}
		bumped := i < last
		if after[i].Fenced == bumped {
			h.Errorf("%s after a bump of all but the last: fenced is %t", tag, after[i].Fenced)
		}
		if bumped {
			h.wantChanged(tag, fenced[i].Version, after[i].Version, "a bump")
		}
	}
}

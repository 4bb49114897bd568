package driver

import (
	"crypto/rand"
	"strings"
)

// Tag names something answers depend on, such as "course:7f…". A write bumps the
// tags of what it changed; every answer that carries one of them is dead from then on.
//
// Make each tag by one function, next to the type that it names, so that the read
// and the write cannot spell it differently.
type Tag string

// Family returns the tag that stands for every tag that differs from t only after its last
// colon: "course:*" for "course:7f…". A write that touches more tags than it can name
// bumps the family instead, so an answer that carries a tag of a large
// family carries the family too. A tag without a colon is its own family.
func (t Tag) Family() Tag {
	if i := strings.LastIndexByte(string(t), ':'); i >= 0 {
		return t[:i+1] + "*"
	}
	return t
}

// Version is the state of a tag at one moment: random, unguessable, and compared for
// equality only. Nothing orders versions and no clock takes part in them. The zero
// Version belongs to no tag.
type Version [16]byte

// NewVersion returns a fresh random version. Safe for concurrent use.
func NewVersion() Version {
	var v Version
	_, _ = rand.Read(v[:]) // never fails: crypto/rand ends the program instead
	return v
}

// Mark identifies one writer in flight, and Token one load. Both are random, so that
// nobody removes a mark or a lease that is not theirs.
type (
	Mark  [16]byte
	Token [16]byte
)

// NoMark is the mark of a bump that follows no fence.
var NoMark Mark

// TagState is what a store knows of a tag.
type TagState struct {
	Version Version
	// Fenced says that a writer is in flight: it has announced a change to what the
	// tag names, and neither finished nor let its lease run out.
	Fenced bool
}

// Guard is a digest of the tags of an answer and of their versions, taken before the
// answer was loaded. An entry is valid while its guard equals the guard of the present
// versions: whatever was bumped since, and whatever version was lost, makes them differ.
type Guard [16]byte

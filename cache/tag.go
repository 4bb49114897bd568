package cache

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Tag names something answers depend on, such as "course:7f…". A write bumps the
// tags of what it changed; every answer that carries one of them is invalid from then on.
//
// Make each tag by one function, next to the type that it names, so that the read
// and the write cannot spell it differently.
type Tag = driver.Tag

// guardOf digests tags with their states' versions. Names are length-prefixed, so that
// no two lists digest alike; SHA-256 is cut to 128 bits, the size of a version.
func guardOf(tags []Tag, states []driver.TagState) driver.Guard {
	var room [256]byte // most answers have a few short tags: no allocation
	b := room[:0]
	for i, tag := range tags {
		b = binary.AppendUvarint(b, uint64(len(tag)))
		b = append(b, tag...)
		b = append(b, states[i].Version[:]...)
	}
	sum := sha256.Sum256(b)
	return driver.Guard(sum[:16])
}

func anyFenced(states []driver.TagState) bool {
	for _, s := range states {
		if s.Fenced {
			return true
		}
	}
	return false
}

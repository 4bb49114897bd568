package cache

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// An entry in a store is an envelope: what the library must know of an answer, and then
// the answer as the query's Codec wrote it. All integers are big-endian.
//
//	offset  size
//	0       1     format
//	1       1     1 found, 0 not found, 2 found, and the payload says where the real one is (size.go)
//	2       16    guard
//	18      16    ETag of the payload
//	34      8     when loaded, Unix milliseconds
//	42      8     fresh for, milliseconds
//	50      8     stale for, milliseconds after that
//	58      4     CRC-32C of all the above and the payload
//	62      …     in format 2, the tags that the load named: how many, then the length and the
//	              text of each, numbers as varints
//	…       …     payload
//
// The wall clock of "when loaded" only ages an answer; whether it is valid depends
// on the guard alone.
const (
	formatOne      = 1
	formatTwo      = 2 // with named tags
	envelopeHeader = 62
	checksumOffset = 58
	inParts        = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ETag identifies the bytes of an answer: the first half of their SHA-256. The zero ETag
// is that of none.
type ETag [16]byte

func etagOf(payload []byte) ETag {
	sum := sha256.Sum256(payload)
	return ETag(sum[:16])
}

// String returns 22 characters fit for a strong HTTP entity tag, without its quotes; empty
// for the zero ETag.
func (t ETag) String() string {
	if t == (ETag{}) {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(t[:])
}

type envelope struct {
	found    bool
	parted   bool // payload says where the real one is; see partsOf
	guard    driver.Guard
	etag     ETag
	loadedAt time.Time
	fresh    time.Duration
	stale    time.Duration
	named    []Tag // by the load
	payload  []byte
}

func (e *envelope) encode() []byte {
	size := envelopeHeader + len(e.payload)
	if len(e.named) > 0 {
		size += binary.MaxVarintLen16
		for _, t := range e.named {
			size += binary.MaxVarintLen16 + len(t)
		}
	}
	b := make([]byte, envelopeHeader, size)
	b[0] = formatOne
	if len(e.named) > 0 {
		b[0] = formatTwo
		b = binary.AppendUvarint(b, uint64(len(e.named)))
		for _, t := range e.named {
			b = append(binary.AppendUvarint(b, uint64(len(t))), t...)
		}
	}
	switch {
	case e.parted:
		b[1] = inParts
	case e.found:
		b[1] = 1
	}
	copy(b[2:], e.guard[:])
	copy(b[18:], e.etag[:])
	binary.BigEndian.PutUint64(b[34:], uint64(e.loadedAt.UnixMilli()))
	binary.BigEndian.PutUint64(b[42:], uint64(e.fresh.Milliseconds()))
	binary.BigEndian.PutUint64(b[50:], uint64(e.stale.Milliseconds()))
	b = append(b, e.payload...)
	binary.BigEndian.PutUint32(b[checksumOffset:], checksum(b))
	return b
}

// decode reads an envelope. ok is false for whatever this format did not write: another
// release's format, a truncated or altered value, a stranger's bytes. The payload shares b.
func (e *envelope) decode(b []byte) (ok bool) {
	if len(b) < envelopeHeader || b[0] != formatOne && b[0] != formatTwo || b[1] > inParts {
		return false
	}
	if binary.BigEndian.Uint32(b[checksumOffset:]) != checksum(b) {
		return false
	}
	e.found, e.parted = b[1] != 0, b[1] == inParts
	e.guard = driver.Guard(b[2:18])
	e.etag = ETag(b[18:34])
	e.loadedAt = time.UnixMilli(int64(binary.BigEndian.Uint64(b[34:])))
	e.fresh = milliseconds(b[42:])
	e.stale = milliseconds(b[50:])
	e.payload = b[envelopeHeader:]
	if b[0] == formatTwo && !e.decodeNamed() {
		return false
	}
	return e.fresh >= 0 && e.stale >= 0
}

// decodeNamed takes the named tags from before the payload.
func (e *envelope) decodeNamed() bool {
	count, n := shortUvarint(e.payload)
	if n <= 0 || count == 0 || count > mostTags {
		return false
	}
	b := e.payload[n:]
	e.named = make([]Tag, count)
	for i := range e.named {
		length, n := shortUvarint(b)
		if n <= 0 || length > uint64(len(b)-n) {
			return false
		}
		e.named[i], b = Tag(b[n:n+int(length)]), b[n+int(length):]
		if e.named[i].Check() != nil || i > 0 && e.named[i-1] >= e.named[i] {
			return false
		}
	}
	e.payload = b
	return true
}

// shortUvarint is binary.Uvarint of what AppendUvarint writes; n is 0 for a longer spelling of it.
func shortUvarint(b []byte) (v uint64, n int) {
	if v, n = binary.Uvarint(b); n > 1 && b[n-1] == 0 {
		return 0, 0
	}
	return v, n
}

func checksum(b []byte) uint32 {
	sum := crc32.Update(0, castagnoli, b[:checksumOffset])
	return crc32.Update(sum, castagnoli, b[envelopeHeader:])
}

// milliseconds returns a negative duration for a number that fits none.
func milliseconds(b []byte) time.Duration {
	n := binary.BigEndian.Uint64(b)
	if n > uint64(1<<63-1)/uint64(time.Millisecond) {
		return -1
	}
	return time.Duration(n) * time.Millisecond
}

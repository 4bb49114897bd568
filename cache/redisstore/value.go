package redisstore

import (
	"unsafe"

	"github.com/klauspost/compress/s2"
)

// The first byte of a stored entry says how the rest is packed. A reader may not know the
// packing, as in the middle of a rollout, or fail to unpack it. Then it returns an entry without
// bytes, which the cache counts as undecodable and treats as a miss. An absent entry would be a
// miss that no counter shows.
//
// Two releases that each write what the other cannot read would replace each other's entries,
// and load again each time, until the rollout ends. So a new packing is read by one release and
// written by the next.
const (
	packedPlain byte = 1
	packedS2    byte = 2
)

// maxUnpacked bounds what an entry may become when it is unpacked, so that a stored value
// cannot make every reader allocate at will.
const maxUnpacked = 8 << 20

// S2 rather than zstd, because an entry is packed once and unpacked at every hit. Lists of
// courses as JSON, one core, BenchmarkPack; zstd at its fastest level:
//
//	size      S2: smaller to   pack   unpack    zstd: smaller to   pack   unpack
//	1 KiB               66 %   1 µs   0.7 µs                51 %   8 µs     3 µs
//	2 KiB               54 %   3 µs   1.5 µs                42 %   9 µs     5 µs
//	10 KiB              43 %  14 µs     6 µs                30 %  34 µs    16 µs
//	32 KiB              40 %  38 µs    21 µs                27 % 123 µs    38 µs
//	100 KiB             38 % 166 µs    51 µs                26 % 314 µs   105 µs
//
// Below 4 KiB an entry is a few packets anyway.
const defaultCompressAbove = 4 << 10

// pack returns entry as it is stored.
// Decision 15.
func (s *Store) pack(entry []byte) string {
	if above := s.cfg.CompressAbove; above >= 0 && len(entry) >= above && len(entry) <= maxUnpacked {
		packed := make([]byte, 1+s2.MaxEncodedLen(len(entry)))
		packed[0] = packedS2
		packed = packed[:1+len(s2.Encode(packed[1:], entry))]
		if len(packed) < len(entry)-len(entry)/8 { // a smaller gain costs more to unpack than it saves
			return unsafe.String(&packed[0], len(packed))
		}
	}
	plain := make([]byte, 1+len(entry))
	plain[0] = packedPlain
	copy(plain[1:], entry)
	return unsafe.String(&plain[0], len(plain))
}

// unreadable stands for an entry that is present and cannot be unpacked by this release.
var unreadable = []byte{}

// decodeEntry reads a stored value. It returns nil if there is no entry, and unreadable if the
// value cannot be unpacked. A plain entry shares the memory of the reply.
func (s *Store) decodeEntry(key string, reply interface{ ToString() (string, error) }) []byte {
	stored, err := reply.ToString()
	switch {
	case isWrongType(err):
		s.log.Debug("value of another type in place of an entry", "key", key)
		return unreadable
	case err != nil:
		return nil
	}
	entry, ok := unpack(stored)
	if !ok {
		s.log.Debug("entry cannot be unpacked", "key", key, "bytes", len(stored))
		return unreadable
	}
	return entry
}

func unpack(stored string) (entry []byte, ok bool) {
	if stored == "" {
		return nil, false
	}
	b := unsafe.Slice(unsafe.StringData(stored), len(stored)) // read only, as entries are
	switch b[0] {
	case packedPlain:
		return b[1:], true
	case packedS2:
		n, err := s2.DecodedLen(b[1:])
		if err != nil || n > maxUnpacked {
			return nil, false
		}
		if entry, err = s2.Decode(make([]byte, n), b[1:]); err != nil {
			return nil, false
		}
		return entry, true
	}
	return nil, false
}

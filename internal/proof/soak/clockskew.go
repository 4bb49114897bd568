package soak

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
)

// A process cannot be given a wall clock of its own. But the wall clock enters the protocol at
// one place only, the moment in an entry at which its answer was loaded (see cache/envelope.go):
// a process whose clock is ahead by d writes it d too late, and takes what others write for
// older by d. All else goes by durations, or by the clock of the store.
const (
	loadedAt = 34 // eight bytes, Unix milliseconds
	sumAt    = 58 // CRC-32C of all before it, and of what follows its four bytes
	header   = sumAt + 4
)

// shifted returns a copy of an entry that was loaded by later.
func shifted(entry []byte, by time.Duration) []byte {
	if by == 0 || len(entry) < header {
		return entry
	}
	e := bytes.Clone(entry)
	at := int64(binary.BigEndian.Uint64(e[loadedAt:])) + by.Milliseconds()
	binary.BigEndian.PutUint64(e[loadedAt:], uint64(at))
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Checksum(e[:sumAt], table), table, e[header:])
	binary.BigEndian.PutUint32(e[sumAt:], sum)
	return e
}

func (s injectedStore) skew() time.Duration { return time.Duration(s.clockSkew.Load()) }

func (s injectedStore) Read(ctx context.Context, tags []cache.Tag, keys []string) (driver.Snapshot, error) {
	end := s.calls.begin(ctx, keys)
	snapshot, err := s.Store.Read(ctx, tags, keys)
	end(err)
	for i, e := range snapshot.Entries {
		snapshot.Entries[i] = shifted(e, -s.skew())
	}
	return snapshot, err
}

func (s injectedStore) Claim(ctx context.Context, claims []driver.Claim) ([]driver.Claimed, error) {
	keys := make([]string, len(claims))
	for i, c := range claims {
		keys[i] = c.Key
	}
	end := s.calls.begin(ctx, keys)
	claimed, err := s.Store.Claim(ctx, claims)
	end(err)
	for i, c := range claimed {
		claimed[i].Entry = shifted(c.Entry, -s.skew())
	}
	return claimed, err
}

func (s injectedStore) Settle(ctx context.Context, fills []driver.Fill) error {
	late := make([]driver.Fill, len(fills))
	for i, f := range fills {
		f.Entry = shifted(f.Entry, s.skew())
		late[i] = f
	}
	return s.Store.Settle(ctx, late)
}

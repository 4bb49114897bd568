package memstore

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// What a hit costs: the states of two tags and one entry of 2 KiB, out of 10,000.
func BenchmarkRead(b *testing.B) {
	s := newStore(b, Config{})
	tags, keys := filled(b, s, 10_000, 2048)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := rand.IntN(len(keys)); pb.Next(); i++ {
			i %= len(keys)
			snap, err := s.Read(b.Context(), tags[i], keys[i:i+1])
			if err != nil || snap.Entries[0] == nil {
				b.Errorf("Read of %s returned %v, %v", keys[i], snap.Entries, err)
				return
			}
		}
	})
}

// What a tag with writers in flight adds: the clock must be read.
func BenchmarkReadFenced(b *testing.B) {
	s := newStore(b, Config{})
	tags, keys := filled(b, s, 1, 2048)
	must(b, s.Fence(b.Context(), tags[0], driver.Mark{1}, time.Hour))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Read(b.Context(), tags[0], keys); err != nil {
			b.Fatal(err)
		}
	}
}

// What a miss costs the store: a claim and a fill.
func BenchmarkClaimAndSettle(b *testing.B) {
	s := newStore(b, Config{})
	_, keys := filled(b, s, 10_000, 2048)
	payload := make([]byte, 2048)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		token := driver.Token(driver.NewVersion())
		for i := rand.IntN(len(keys)); pb.Next(); i++ {
			i %= len(keys)
			_, err := s.Claim(b.Context(), []driver.Claim{{Key: keys[i], Token: token, TTL: time.Second}})
			must(b, err)
			must(b, s.Settle(b.Context(), []driver.Fill{{Key: keys[i], Token: token, Entry: payload, Life: time.Hour}}))
		}
	})
}

// What a write costs: the fence and the bump of one tag.
func BenchmarkFenceAndBump(b *testing.B) {
	s := newStore(b, Config{})
	tags, _ := filled(b, s, 10_000, 2048)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		mark := driver.Mark(driver.NewVersion())
		for i := rand.IntN(len(tags)); pb.Next(); i++ {
			written := tags[i%len(tags)][1:]
			must(b, s.Fence(b.Context(), written, mark, time.Second))
			must(b, s.Bump(b.Context(), written, mark))
		}
	})
}

// filled stores n entries. Entry i depends on a tag that all share and on one of its own.
func filled(b *testing.B, s *Store, n, size int) (tags [][]driver.Tag, keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprint("courses:detail:", i))
		tags = append(tags, []driver.Tag{"catalog", driver.Tag(fmt.Sprint("course:", i))})
		put(b, s, keys[i], make([]byte, size))
		for _, tag := range tags[i] {
			state(b, s, tag)
		}
	}
	return tags, keys
}

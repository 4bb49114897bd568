package cache

import (
	"fmt"
	"sync"
	"testing"
)

func TestSeenKindsAreSafeForConcurrentUse(t *testing.T) {
	var s seenKinds
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				s.note([]Tag{T(fmt.Sprintf("kind%d", (g+i)%40), i), "kind"})
				s.list()
			}
		})
	}
	wg.Wait()
	if n := len(s.list()); n != 41 || s.more.Load() || s.none.Load() {
		t.Errorf("%d kinds, want 41", n)
	}
}

// BenchmarkSeenKinds is what remembering kinds adds to a request with three tags.
func BenchmarkSeenKinds(b *testing.B) {
	var s seenKinds
	tags := []Tag{"course:7f1c3a52-1f0e-4d0b-8f0e-2f1c3a521f0e", "catalog:beginner", "titles"}
	b.ReportAllocs()
	for b.Loop() {
		s.note(tags)
	}
}

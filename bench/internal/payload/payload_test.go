package payload_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/chainlearn/chainlearn/bench/internal/payload"
)

func TestKeysAreDistinctAndAgree(t *testing.T) {
	keys := payload.Keys("p:", 1000)
	seen := map[string]bool{}
	for i, k := range keys {
		if seen[k.Text] {
			t.Fatalf("key %d appears twice: %s", i, k.Text)
		}
		seen[k.Text] = true
		if id, err := payload.TextID(k.Text); err != nil || id != k.ID {
			t.Fatalf("the text %s names %v (%v), want %v", k.Text, id, err, k.ID)
		}
	}
}

func TestZipfIsSkewedAndUniformIsNot(t *testing.T) {
	const n, length = 1000, 1 << 17
	share := func(d payload.Distribution) float64 { // of the ten most wanted
		counts := make([]int, n)
		for _, i := range payload.Sequence(d, n, length) {
			counts[i]++
		}
		slices.Sort(counts)
		sum := 0
		for _, c := range counts[n-10:] {
			sum += c
		}
		return float64(sum) / length
	}
	// With exponent 0.99 the first ten of a thousand take 38.6 %.
	if got := share(payload.Zipf); got < 0.37 || got > 0.41 {
		t.Errorf("Zipf: the ten hottest keys take %.3f of the requests, want about 0.39", got)
	}
	if got := share(payload.Uniform); got < 0.01 || got > 0.02 {
		t.Errorf("uniform: the ten hottest keys take %.3f of the requests, want little more than 0.01", got)
	}
}

func TestSequenceIsTheSameForAll(t *testing.T) {
	if !slices.Equal(payload.Sequence(payload.Zipf, 50, 100), payload.Sequence(payload.Zipf, 50, 100)) {
		t.Error("two sequences of one kind differ")
	}
}

func TestSizes(t *testing.T) {
	var c payload.Course
	b := payload.EncodedCourse(payload.IDOf(1))
	if err := json.Unmarshal(b, &c); err != nil || len(c.Modules) != 5 {
		t.Errorf("the course is %s (%v)", b, err)
	}
	if len(b) < 900 || len(b) > 1200 {
		t.Errorf("a course takes %d bytes, want about 1000", len(b))
	}
	if got := len(payload.Bytes(12345)); got != 12345 {
		t.Errorf("12345 bytes are %d", got)
	}
}

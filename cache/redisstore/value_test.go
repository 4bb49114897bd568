package redisstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// courses is a list as the platform caches it: size bytes of JSON or a little more.
func courses(size int) []byte {
	words := strings.Fields(`introduction to distributed systems learn how caches answer queries practical course for
		beginners with exercises security of smart contracts and advanced patterns data modelling consensus protocols explained`)
	r := rand.New(rand.NewPCG(1, 2))
	text := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteString(words[r.IntN(len(words))] + " ")
		}
		return b.String()
	}
	type course struct {
		ID            string    `json:"id"`
		Title         string    `json:"title"`
		Description   string    `json:"description"`
		Difficulty    string    `json:"difficulty"`
		Active        bool      `json:"isActive"`
		EnrolledCount int       `json:"enrolledCount"`
		ContentHash   string    `json:"contentHash"`
		CreatedAt     time.Time `json:"createdAt"`
	}
	var list []course
	for {
		list = append(list, course{
			ID:    fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", r.Uint32(), r.Uint32N(1<<16), r.Uint32N(1<<12), r.Uint32N(1<<12), r.Uint64N(1<<48)),
			Title: text(5), Description: text(30), Difficulty: []string{"beginner", "intermediate", "advanced"}[r.IntN(3)],
			Active: true, EnrolledCount: r.IntN(5000), CreatedAt: time.UnixMilli(1.75e12 + r.Int64N(1e10)).UTC(),
			ContentHash: fmt.Sprintf("%016x%016x%016x%016x", r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64()),
		})
		if b, err := json.Marshal(list); err != nil {
			panic(err)
		} else if len(b) >= size {
			return b
		}
	}
}

func packer(above int) *Store { return &Store{cfg: Config{CompressAbove: above}.withDefaults()} }

func TestPack(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 10_000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for _, test := range []struct {
		name   string
		above  int
		entry  []byte
		packed byte
	}{
		{"empty", 0, []byte{}, packedPlain},
		{"small", 0, courses(1000)[:1000], packedPlain},
		{"large", 0, courses(10_000), packedS2},
		{"large, but never to be compressed", -1, courses(10_000), packedPlain},
		{"small, above a small bound", 100, courses(1000)[:1000], packedS2},
		{"incompressible", 0, noise, packedPlain},
		{"larger than what readers unpack", 0, make([]byte, maxUnpacked+1), packedPlain},
	} {
		stored := packer(test.above).pack(test.entry)
		if stored[0] != test.packed {
			t.Errorf("%s: packed as %d, want %d", test.name, stored[0], test.packed)
		}
		if test.packed == packedS2 && len(stored) > len(test.entry)*7/8 {
			t.Errorf("%s: %d bytes became %d", test.name, len(test.entry), len(stored))
		}
		if got, ok := unpack(stored); !ok || got == nil || !bytes.Equal(got, test.entry) {
			t.Errorf("%s: unpacked to something else", test.name)
		}
	}
}

func TestWhatCannotBeUnpacked(t *testing.T) {
	t.Parallel()
	good := packer(0).pack(courses(10_000))
	bomb := string(packedS2) + string(s2.Encode(nil, make([]byte, maxUnpacked+1)))
	for name, stored := range map[string]string{
		"nothing":                 "",
		"of a release to come":    "\x03whatever",
		"an unknown format":       "{}",
		"truncated":               good[:len(good)/2],
		"no length":               good[:1],
		"another's bytes":         string(packedS2) + strings.Repeat("x", 100),
		"more than it may become": bomb,
	} {
		if entry, ok := unpack(stored); ok || entry != nil {
			t.Errorf("%s: unpacked to %d bytes", name, len(entry))
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte(packer(10).pack(courses(600))))
	f.Add([]byte{packedPlain, 1, 2})
	f.Add([]byte{packedS2, 0})
	f.Add([]byte{packedS2, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		if entry, ok := unpack(string(b)); ok != (entry != nil) || len(entry) > maxUnpacked && b[0] == packedS2 {
			t.Errorf("%x unpacked to %d bytes, %t", b, len(entry), ok)
		}
		stored := packer(10).pack(b)
		if entry, ok := unpack(stored); !ok || !bytes.Equal(entry, b) {
			t.Errorf("%x came back as %x", b, entry)
		}
	})
}

// BenchmarkPack is where the numbers beside defaultCompressAbove come from.
func BenchmarkPack(b *testing.B) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	if err != nil {
		b.Fatal(err)
	}
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		b.Fatal(err)
	}
	defer decoder.Close()
	for _, codec := range []struct {
		name         string
		pack, unpack func([]byte) []byte
	}{
		{"s2", func(p []byte) []byte { return s2.Encode(nil, p) }, func(z []byte) []byte { p, _ := s2.Decode(nil, z); return p }},
		{"zstd", func(p []byte) []byte { return encoder.EncodeAll(p, make([]byte, 0, len(p))) },
			func(z []byte) []byte { p, _ := decoder.DecodeAll(z, nil); return p }},
	} {
		for _, kib := range []int{1, 2, 10, 32, 100} {
			plain := courses(kib << 10)
			packed := codec.pack(plain)
			if !slices.Equal(codec.unpack(packed), plain) {
				b.Fatalf("%s does not bring back what it packed", codec.name)
			}
			b.Run(fmt.Sprintf("%s/%dKiB/pack", codec.name, kib), func(b *testing.B) {
				for b.Loop() {
					codec.pack(plain)
				}
				b.ReportMetric(100*float64(len(packed))/float64(len(plain)), "%")
			})
			b.Run(fmt.Sprintf("%s/%dKiB/unpack", codec.name, kib), func(b *testing.B) {
				for b.Loop() {
					codec.unpack(packed)
				}
			})
		}
	}
}

package cache_test

import (
	"context"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
)

// BenchmarkHitInProcess is a hit with a store in process, as a value, and as what the library
// adds to a round trip: the store is asked, and the answer decoded.
func BenchmarkHitInProcess(b *testing.B) {
	store := memstore.New(memstore.Config{})
	defer store.Close()
	c, err := cache.New(cache.Config{Store: store})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	s := newSource()
	s.delay = 0
	query := s.query()
	tags := []cache.Tag{"row:1", "rows:*"}
	query.Tags = func(int) []cache.Tag { return tags }
	query.FreshFor = time.Hour
	query.Codec = textCodec{}
	q := cache.Define(c, query)
	for name, ctx := range map[string]context.Context{"value": b.Context(), "store": cache.WithStrict(b.Context())} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := q.Get(ctx, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type textCodec struct{}

func (textCodec) Encode(s string) ([]byte, error) { return []byte(s), nil }
func (textCodec) Decode(b []byte) (string, error) { return string(b), nil }

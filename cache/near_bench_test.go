package cache_test

import (
	"testing"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
)

// BenchmarkNearHit is a near hit, of a struct with two tags, beside the table that it is
// kept in: what checking and counting add.
func BenchmarkNearHit(b *testing.B) {
	store := memstore.New(memstore.Config{})
	defer store.Close()
	c, err := cache.New(cache.Config{Store: store})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	query := listing(24 * time.Hour)
	q := cache.Define(c, query)
	bare := otter.Must(&otter.Options[page, *course]{MaximumSize: 10_000})
	// Answers have a time to live; so has what a table without us would keep.
	expiring := otter.Must(&otter.Options[page, *course]{
		MaximumSize:      10_000,
		ExpiryCalculator: otter.ExpiryWriting[page, *course](24 * time.Hour),
	})
	defer expiring.StopAllGoroutines()

	pages := make([]page, 1024)
	ctx := b.Context()
	for i := range pages {
		pages[i] = page{i % 3, i, 20}
		for {
			if a, err := q.Lookup(ctx, pages[i]); err != nil {
				b.Fatal(err)
			} else if a.Detail == cache.DetailNear {
				break
			}
		}
		v, _ := query.Load(ctx, pages[i])
		bare.Set(pages[i], &v)
		expiring.Set(pages[i], &v)
	}

	gets := map[string]func(p page) bool{
		"get": func(p page) bool {
			v, err := q.Get(ctx, p)
			return err == nil && v.ID == 1
		},
		"ask": func(p page) bool {
			a, err := q.Lookup(ctx, p)
			return err == nil && a.Value.ID == 1 && a.Detail == cache.DetailNear
		},
		"otter": func(p page) bool {
			v, ok := bare.GetIfPresent(p)
			return ok && v.ID == 1
		},
		"otter-expiring": func(p page) bool {
			v, ok := expiring.GetIfPresent(p)
			return ok && v.ID == 1
		},
	}
	for _, name := range []string{"get", "ask", "otter", "otter-expiring"} {
		get := gets[name]
		b.Run("serial/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if !get(pages[i%len(pages)]) {
					b.Fatal("missed")
				}
			}
		})
	}
	for _, name := range []string{"get", "ask", "otter", "otter-expiring"} {
		get := gets[name]
		b.Run("parallel/"+name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if !get(pages[i%len(pages)]) {
						b.Error("missed")
						return
					}
				}
			})
		})
	}
}

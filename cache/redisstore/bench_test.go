package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// BenchmarkHit compares a hit with two tags with a bare GET of the same entry by the same
// client, and with a GET for each of the three values, for one caller and for many. They take
// turns, in one run, and medians are compared, because a busy machine changes by more than the
// difference.
func BenchmarkHit(b *testing.B) {
	r := testservers.StartRedis(b, testservers.RedisConfig{})
	s := open(b, redisstore.Config{URL: r.URL()})
	tags, keys := []driver.Tag{"catalog", "course:4711"}, []string{"courses:list:all:1:20"}
	read(b, s, tags, keys)
	put(b, s, keys[0], string(make([]byte, 1000)), tags...)
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour) // as the cache has it: a deadline
	defer cancel()
	hit := func() {
		if snap, err := s.Read(ctx, tags, keys); err != nil || snap.Entries[0] == nil {
			b.Errorf("no hit: %v", err)
		}
	}
	option, err := redisstore.ParseURL(r.URL())
	if err != nil {
		b.Fatal(err)
	}
	option.DisableCache = true
	client, err := rueidis.NewClient(option)
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	if err := client.Do(ctx, client.B().Set().Key("bare").Value(string(make([]byte, 1000))).Build()).Error(); err != nil {
		b.Fatal(err)
	}
	get := func() {
		if _, err := client.Do(ctx, client.B().Get().Key("bare").Build()).AsBytes(); err != nil {
			b.Error(err)
		}
	}
	names := []string{"bare:tag:1", "bare:tag:2", "bare"}
	for _, name := range names[:2] {
		if err := client.Do(ctx, client.B().Set().Key(name).Value(string(make([]byte, 16))).Build()).Error(); err != nil {
			b.Fatal(err)
		}
	}
	gets := func() {
		commands := make([]rueidis.Completed, len(names))
		for i, name := range names {
			commands[i] = client.B().Get().Key(name).Build()
		}
		for _, reply := range client.DoMulti(ctx, commands...) {
			if _, err := reply.AsBytes(); err != nil {
				b.Error(err)
			}
		}
	}
	const batch = 200
	measure := func(callers int, call func()) time.Duration {
		start := time.Now()
		var wg sync.WaitGroup
		for range callers - 1 {
			wg.Go(func() {
				for range batch {
					call()
				}
			})
		}
		for range batch {
			call()
		}
		wg.Wait()
		return time.Since(start) / time.Duration(callers*batch)
	}
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			var ours, bare, three []time.Duration
			for b.Loop() {
				ours = append(ours, measure(callers, hit))
				bare = append(bare, measure(callers, get))
				three = append(three, measure(callers, gets))
			}
			slices.Sort(ours)
			slices.Sort(bare)
			slices.Sort(three)
			b.ReportMetric(float64(ours[len(ours)/2].Nanoseconds()), "ns/hit")
			b.ReportMetric(float64(bare[len(bare)/2].Nanoseconds()), "ns/GET")
			b.ReportMetric(float64(three[len(three)/2].Nanoseconds()), "ns/3GETs")
			b.ReportMetric(float64(ours[len(ours)/2])/float64(bare[len(bare)/2]), "×GET")
			b.ReportMetric(float64(ours[len(ours)/2])/float64(three[len(three)/2]), "×3GETs")
		})
	}
}

// BenchmarkNearStrict compares a hit of an answer of 2 KB that is kept near and proven for its caller
// with a hit of the same answer in Redis, for one caller and for many, in turns.
func BenchmarkNearStrict(b *testing.B) {
	r := testservers.StartRedis(b, testservers.RedisConfig{})
	c, err := cache.New(cache.Config{Store: open(b, redisstore.Config{URL: r.URL()}), StoreTimeout: ample})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	type lesson struct{ Title, Text string }
	query := cache.Query[int, []lesson]{
		Name: "bench:strict",
		Tags: func(id int) []cache.Tag { return []cache.Tag{cache.T("course", id), cache.T("catalog", "all")} },
		Load: func(context.Context, int) ([]lesson, error) {
			return slices.Repeat([]lesson{{"Stellar Basics", strings.Repeat("What a block is. ", 5)}}, 20), nil
		},
		FreshFor: time.Hour,
	}
	inRedis := cache.Define(c, query)
	query.Name, query.NearStrict = "bench:near", true
	near := cache.Define(c, query)
	const answers, batch = 64, 200
	measure := func(q *cache.Cached[int, []lesson], callers int) time.Duration {
		start := time.Now()
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				for n := range batch {
					if a, err := q.Lookup(b.Context(), (i+n)%answers); err != nil || len(a.Value) != 20 {
						b.Errorf("%v %s: %v", a.Status, a.Detail, err)
					}
				}
			})
		}
		wg.Wait()
		return time.Since(start) / time.Duration(callers*batch)
	}
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			measure(inRedis, answers)
			measure(near, answers)
			var theirs, ours []time.Duration
			for b.Loop() {
				theirs = append(theirs, measure(inRedis, callers))
				ours = append(ours, measure(near, callers))
			}
			slices.Sort(theirs)
			slices.Sort(ours)
			b.ReportMetric(float64(ours[len(ours)/2].Nanoseconds()), "ns/near")
			b.ReportMetric(float64(theirs[len(theirs)/2].Nanoseconds()), "ns/Redis")
			b.ReportMetric(float64(ours[len(ours)/2])/float64(theirs[len(theirs)/2]), "×Redis")
		})
	}
}

// TestHitAllocates holds what a hit costs beside the bytes that it returns.
func TestHitAllocates(t *testing.T) {
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	s := open(t, redisstore.Config{URL: r.URL()})
	tags, keys := []driver.Tag{"catalog", "course:4711"}, []string{"courses:list:all:1:20"}
	read(t, s, tags, keys)
	put(t, s, keys[0], "v", tags...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	n := testing.AllocsPerRun(500, func() {
		if snap, err := s.Read(ctx, tags, keys); err != nil || snap.Entries[0] == nil {
			t.Fatalf("no hit: %v, %v", snap, err)
		}
	})
	if n > 9 {
		t.Errorf("a hit with two tags allocates %v times, want 7 and now and then one of the client's pools", n)
	}
}

// BenchmarkBump shows that an invalidation costs the same however many entries depend on
// the tag.
func BenchmarkBump(b *testing.B) {
	for _, dependent := range []int{10, 100_000} {
		b.Run(fmt.Sprint(dependent), func(b *testing.B) {
			r := testservers.StartRedis(b, testservers.RedisConfig{})
			s := open(b, redisstore.Config{URL: r.URL()})
			const batch = 1000
			for n := 0; n < dependent; n += batch {
				fills := make([]driver.Fill, min(batch, dependent-n))
				for i := range fills {
					fills[i] = driver.Fill{Key: fmt.Sprint("k", n+i), Entry: []byte("v"), Life: time.Hour, Tags: []driver.Tag{"catalog"}}
				}
				if err := s.Settle(b.Context(), fills); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if err := s.Bump(b.Context(), []driver.Tag{"catalog"}, driver.NoMark); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestGetAllocates holds what the cache adds to that: the parameter's key and tags, their families,
// and the value. Families that each request spelled for itself went unnoticed once.
func TestGetAllocates(t *testing.T) {
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	c, err := cache.New(cache.Config{Store: open(t, redisstore.Config{URL: r.URL()})})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	courses := cache.Define(c, cache.Query[int, string]{
		Name: "test:course", FreshFor: time.Hour,
		Load: func(context.Context, int) (string, error) { return "a course", nil },
		Tags: func(id int) []cache.Tag { return []cache.Tag{"catalog", cache.T("course", id)} },
	})
	if err := c.WaitServing(t.Context()); err != nil {
		t.Fatal(err)
	}
	for { // until it is stored
		a, err := courses.Lookup(t.Context(), 4711)
		if err != nil {
			t.Fatal(err)
		}
		if a.Status == cache.Hit {
			break
		}
	}
	n := testing.AllocsPerRun(500, func() {
		if _, err := courses.Get(t.Context(), 4711); err != nil {
			t.Fatal(err)
		}
	})
	// 25; the race detector's pools, which forget a quarter of what they are given, add one, now
	// a bit more and now a bit less.
	if n > 27 {
		t.Errorf("a hit with two tags allocates %v times, want 25, or 27 at most with the race detector", n)
	}
}

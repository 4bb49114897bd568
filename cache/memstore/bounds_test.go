package memstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

func newStore(t testing.TB, cfg Config) *Store {
	s := New(cfg)
	t.Cleanup(func() { s.Close() })
	return s
}

// must turns an error of a store that has no reason to fail into a failed test.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func state(t testing.TB, s *Store, tag driver.Tag) driver.TagState {
	t.Helper()
	snap, err := s.Read(t.Context(), []driver.Tag{tag}, nil)
	must(t, err)
	return snap.States[0]
}

func put(t testing.TB, s *Store, key string, payload []byte) {
	t.Helper()
	must(t, s.Settle(t.Context(), []driver.Fill{{Key: key, Entry: payload, Life: time.Hour}}))
}

// heap returns the bytes that live objects take.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // the first one may only finish an earlier sweep
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestEntriesStayWithinMaxBytes(t *testing.T) {
	const maxBytes = 1 << 20
	s := newStore(t, Config{MaxBytes: maxBytes})
	payload := make([]byte, 200)
	for i := range 20_000 {
		put(t, s, fmt.Sprint("course:", i), payload)
		if i%1000 == 0 {
			if got := s.Stats().Bytes; got > maxBytes {
				t.Fatalf("after %d entries the store holds %d bytes, want at most %d", i, got, maxBytes)
			}
		}
	}
	s.entries.CleanUp()
	stats := s.Stats()
	if stats.Bytes > maxBytes || stats.Bytes < maxBytes*9/10 {
		t.Errorf("a store that is full holds %d bytes, want about %d", stats.Bytes, maxBytes)
	}
	if fit := maxBytes / (len("course:10000") + len(payload) + entryOverhead); stats.Entries > fit+100 {
		t.Errorf("the store holds %d entries, and %d fit", stats.Entries, fit)
	}

	put(t, s, "too large", make([]byte, maxBytes))
	s.entries.CleanUp()
	if s.entry("too large") != nil || s.Stats().Bytes > maxBytes {
		t.Error("an entry that is larger than the store was kept")
	}
}

func TestHotEntriesOutliveAFloodOfColdOnes(t *testing.T) {
	s := newStore(t, Config{MaxBytes: 1 << 20})
	payload := make([]byte, 200)
	for range 20 {
		for i := range 100 {
			if key := fmt.Sprint("hot:", i); s.entry(key) == nil {
				put(t, s, key, payload)
			}
		}
	}
	for i := range 20_000 {
		put(t, s, fmt.Sprint("cold:", i), payload)
		s.entry(fmt.Sprint("hot:", i%100))
	}
	kept := 0
	for i := range 100 {
		if s.entry(fmt.Sprint("hot:", i)) != nil {
			kept++
		}
	}
	if kept < 90 {
		t.Errorf("%d of 100 hot entries are left after 20,000 that were not read", kept)
	}
}

func TestExpiredEntriesAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Config{})
		for i := range 10_000 {
			life := time.Duration(i%60+1) * time.Second
			must(t, s.Settle(t.Context(), []driver.Fill{{Key: fmt.Sprint(i), Entry: []byte("v"), Life: life}}))
			claim := driver.Claim{Key: fmt.Sprint(i), Token: driver.Token{1}, TTL: life}
			if _, err := s.Claim(t.Context(), []driver.Claim{claim}); err != nil {
				t.Fatal(err)
			}
		}
		if stats := s.Stats(); stats.Entries != 10_000 || stats.Leases != 10_000 {
			t.Fatalf("the store holds %d entries and %d leases, want 10,000", stats.Entries, stats.Leases)
		}
		// Without reads and writes, the goroutines of the store remove them. Their wheel turns in
		// steps of some seconds up to a minute.
		<-time.After(3 * time.Minute)
		if stats := s.Stats(); stats.Entries != 0 || stats.Bytes != 0 || stats.Leases != 0 {
			t.Errorf("minutes after everything expired the store holds %+v", stats)
		}
	})
}

func TestTagsStayWithinMaxTags(t *testing.T) {
	const maxTags = 1000
	s := newStore(t, Config{MaxTags: maxTags})
	name := func(i int) driver.Tag { return driver.Tag(fmt.Sprint("course:", i)) }
	fenced := make(map[driver.Tag]driver.TagState)
	for i := range 500 {
		tag := name(i)
		state(t, s, tag)
		if i%10 == 0 {
			must(t, s.Fence(t.Context(), []driver.Tag{tag}, driver.Mark{1}, time.Hour))
			fenced[tag] = state(t, s, tag)
		}
	}
	for i := 500; i < 20_000; i++ {
		state(t, s, name(i))
		must(t, s.Bump(t.Context(), []driver.Tag{name(i)}, driver.NoMark))
	}
	s.tags.states.CleanUp()
	if got := s.Stats().Tags; got > maxTags {
		t.Errorf("the store remembers %d tags, want at most %d", got, maxTags)
	}

	// A version that is lost is replaced, so that what depends on it is invalid. A fence that is
	// lost would let readers past it.
	evicted := 0
	for range 3 { // reading the tags evicts others in turn
		for tag, was := range fenced {
			is := state(t, s, tag)
			if !is.Fenced {
				t.Errorf("%s lost its fence to other tags", tag)
			}
			if is.Version != was.Version {
				evicted++
			}
		}
		for i := range 5000 {
			state(t, s, name(i))
		}
	}
	if evicted == 0 {
		t.Error("of 20,000 tags no fenced one was evicted: the test shows nothing")
	}
	for tag := range fenced {
		must(t, s.Fence(t.Context(), []driver.Tag{tag}, driver.Mark{2}, time.Hour))
		must(t, s.Bump(t.Context(), []driver.Tag{tag}, driver.Mark{1}))
		if !state(t, s, tag).Fenced {
			t.Errorf("%s lost its second mark with its first", tag)
		}
		must(t, s.Bump(t.Context(), []driver.Tag{tag}, driver.Mark{2}))
	}
	for tag := range fenced {
		if state(t, s, tag).Fenced {
			t.Errorf("%s is fenced after the bump of its marks", tag)
		}
	}
	if got := s.Stats().Marks; got != 0 || len(s.tags.spilled) != 0 {
		t.Errorf("after all fences ended %d marks are kept, and those of %d evicted tags", got, len(s.tags.spilled))
	}
}

func TestMarksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Config{MaxTags: maxMarks / 4}) // most marks are those of evicted tags
		fence := func(i int, lease time.Duration) error {
			return s.Fence(t.Context(), []driver.Tag{driver.Tag(fmt.Sprint("course:", i))}, driver.Mark{1}, lease)
		}
		for range 100 {
			must(t, fence(0, time.Hour))
		}
		if got := s.Stats().Marks; got != 1 {
			t.Fatalf("one mark set 100 times is kept %d times", got)
		}
		for i := range maxMarks {
			must(t, fence(i, time.Duration(1+i%2)*time.Minute))
		}
		if err := fence(maxMarks, time.Minute); err != errTooManyMarks {
			t.Fatalf("a fence beyond %d writers in flight returned %v", maxMarks, err)
		}
		// Half of the writers have crashed.
		<-time.After(time.Minute)
		must(t, fence(maxMarks, time.Minute))
		if got := s.Stats().Marks; got != maxMarks/2+1 {
			t.Errorf("%d marks are left, want the %d that did not end and a new one", got, maxMarks/2)
		}
		if !state(t, s, "course:1").Fenced {
			t.Error("a mark that did not end was forgotten with the others")
		}
	})
}

func TestLeasesAreBounded(t *testing.T) {
	s := newStore(t, Config{})
	for i := range 60_000 {
		claim := driver.Claim{Key: fmt.Sprint("course:", i), Token: driver.Token{1}, TTL: time.Hour}
		if _, err := s.Claim(t.Context(), []driver.Claim{claim}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.leases.leases.WeightedSize(); got > maxLeaseBytes {
		t.Errorf("leases take %d bytes, want at most %d", got, maxLeaseBytes)
	}
	if got := s.Stats().Leases; got > 2*maxLeaseBytes/leaseOverhead {
		t.Errorf("the store holds %d leases", got)
	}
}

// The heap must agree with what Config says an entry, a tag and a lease take, or the bounds
// bound something else.
func TestWeightsMatchTheHeap(t *testing.T) {
	const n = 20_000
	s := newStore(t, Config{})
	check := func(what string, payload, documented int, add func(i int)) {
		before := heap()
		for i := range n {
			add(i)
		}
		took := float64(heap()-before)/n - float64(payload)
		t.Logf("a %s takes %.0f bytes beside its name and payload", what, took)
		if took > float64(documented) || took < float64(documented)/2 {
			t.Errorf("a %s takes %.0f bytes beside its name and payload, documented are %d", what, took, documented)
		}
	}
	check("entry", len("courses:detail:00000")+512, entryOverhead, func(i int) {
		put(t, s, fmt.Sprintf("courses:detail:%05d", i), make([]byte, 512))
	})
	check("tag", len("course:00000"), 160, func(i int) {
		must(t, s.Bump(t.Context(), []driver.Tag{driver.Tag(fmt.Sprintf("course:%05d", i))}, driver.NoMark))
		must(t, s.Bump(t.Context(), []driver.Tag{driver.Tag(fmt.Sprintf("course:%05d", i))}, driver.NoMark))
	})
	check("lease", len("courses:detail:00000"), leaseOverhead, func(i int) {
		claim := driver.Claim{Key: fmt.Sprintf("courses:detail:%05d", i), Token: driver.Token{1}, TTL: time.Hour}
		for range 2 { // as a load that is renewed
			if _, err := s.Claim(t.Context(), []driver.Claim{claim}); err != nil {
				t.Fatal(err)
			}
		}
	})
	runtime.KeepAlive(s)
}

func TestCloseDropsEverything(t *testing.T) {
	s := New(Config{})
	put(t, s, "k", []byte("v"))
	must(t, s.Fence(t.Context(), []driver.Tag{"course:1"}, driver.Mark{1}, time.Hour))
	_, cancel := s.Announced("k")
	must(t, s.Close())
	if stats := s.Stats(); stats.Entries != 0 || stats.Tags != 0 {
		t.Errorf("a closed store holds %+v", stats)
	}
	if _, err := s.Read(t.Context(), nil, nil); err != errClosed {
		t.Errorf("Read of a closed store returned %v", err)
	}
	if name, err := s.Name(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("Name of a closed store returned %q, %v", name, err)
	}
	cancel()
	for i := range s.waiters.shards {
		if n := len(s.waiters.shards[i].byKey); n != 0 {
			t.Errorf("%d keys are waited for after the last subscription ended", n)
		}
	}
}

// With room for a handful of tags, each access evicts another. Every read must show the fence,
// while its marks move between the table and spilled.
func TestFencesSurviveEvictionUnderway(t *testing.T) {
	s := newStore(t, Config{MaxTags: 8})
	const tag = "course:1"
	var standing atomic.Int64 // odd while the fence is known to stand
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		for i := range 3000 {
			mark := driver.Mark{1, byte(i), byte(i >> 8)}
			must := func(err error) {
				if err != nil {
					t.Error(err)
				}
			}
			must(s.Fence(t.Context(), []driver.Tag{tag}, mark, time.Hour))
			standing.Add(1)
			for j := range 10 { // push it out
				s.tags.state(driver.Tag(fmt.Sprint("other:", i, j)))
			}
			standing.Add(1)
			must(s.Bump(t.Context(), []driver.Tag{tag}, mark))
		}
	})
	for reader := range 3 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				before := standing.Load()
				is := s.tags.state(tag)
				if before%2 == 1 && standing.Load() == before && !is.Fenced {
					t.Errorf("%s does not show a fence that stands", tag)
					return
				}
				s.tags.state(driver.Tag(fmt.Sprint("more:", reader, i%100)))
			}
		})
	}
	wg.Wait()
	if got := s.Stats().Marks; state(t, s, tag).Fenced || got != 0 {
		t.Errorf("after every bump %d marks are left", got)
	}
}

// A failure is forgotten in its time, also while a load has the lease.
func TestFailureIsForgottenUnderALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Config{})
		claim := func(token, guard byte) driver.Claimed {
			claimed, err := s.Claim(t.Context(), []driver.Claim{{Key: "k", Token: driver.Token{token}, Guard: driver.Guard{guard}, TTL: time.Hour}})
			must(t, err)
			return claimed[0]
		}
		claim(1, 1)
		must(t, s.Settle(t.Context(), []driver.Fill{{Key: "k", Token: driver.Token{1}, Failure: []byte("down"), Hold: time.Second}}))
		if c := claim(2, 2); c.State != driver.Granted || string(c.Failure) != "down" {
			t.Fatalf("a claim under another guard: %+v", c)
		}
		time.Sleep(2 * time.Second)
		if c := claim(3, 3); c.State != driver.Granted || c.Failure != nil {
			t.Errorf("a claim after twice the hold: %+v", c)
		}
	})
}

// An entry without a life is none, and ends the one before.
func TestEntryWithoutALife(t *testing.T) {
	s := newStore(t, Config{})
	put(t, s, "k", []byte("v"))
	must(t, s.Settle(t.Context(), []driver.Fill{{Key: "k", Entry: []byte("w")}}))
	if snap, err := s.Read(t.Context(), nil, []string{"k"}); err != nil || snap.Entries[0] != nil {
		t.Errorf("it is served: %s, %v", snap.Entries, err)
	}
}

// endsAfter is a context that ends when it has been looked at a few times.
type endsAfter struct {
	context.Context
	looks int
}

func (e *endsAfter) Err() error {
	if e.looks--; e.looks < 0 {
		return context.Canceled
	}
	return nil
}

// A purge of many keys ends with its context, and says how far it came.
func TestPurgeEndsWithItsContext(t *testing.T) {
	s := newStore(t, Config{})
	const keys = 2000
	for i := range keys {
		put(t, s, fmt.Sprint(i), []byte("v"))
	}
	n, err := s.Purge(&endsAfter{t.Context(), 3}, "*")
	if !errors.Is(err, context.Canceled) || n == 0 || n >= keys {
		t.Errorf("%d of %d keys were removed, %v", n, keys, err)
	}
}

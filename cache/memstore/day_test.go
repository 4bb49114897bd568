package memstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
)

// A day of virtual time in which no name comes twice: answers of all kinds, failures, callers
// that cancel, writers that finish and writers that crash. What has expired is gone, what is not
// in use is bounded, and there are no waiters left.
func TestDayOfNewNames(t *testing.T) {
	const (
		maxTags = 2000
		steps   = 24 * 60 * 60 / 10 // one every ten seconds
	)
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{MaxTags: maxTags})
		defer s.Close()
		c, err := cache.New(cache.Config{Store: s, StoreTimeout: time.Minute})
		must(t, err)
		defer c.Close()
		errSource := errors.New("the source is down")
		q := cache.Define(c, cache.Query[int, string]{
			Name: "rows:one",
			Key:  func(id int) string { return cache.Key(id) },
			Tags: func(id int) []driver.Tag { return []driver.Tag{driver.Tag(fmt.Sprint("row:", id))} },
			Load: func(_ context.Context, id int) (string, error) {
				switch id % 4 {
				case 1:
					return "", cache.ErrNotFound
				case 2:
					return "", errSource
				}
				return "value", nil
			},
			FreshFor:             10 * time.Minute,
			NearSize:             100, // values that have expired make room for others, and not before
			StaleWhileRevalidate: 10 * time.Minute,
		})
		ask := func(ctx context.Context, id int) {
			_, err := q.Get(ctx, id)
			if err != nil && !errors.Is(err, cache.ErrNotFound) && !errors.Is(err, errSource) && ctx.Err() == nil {
				t.Error(err)
			}
		}
		var base Stats
		var baseHeap uint64
		var baseGoroutines int
		for step := range steps {
			ask(t.Context(), step)
			ask(t.Context(), max(step-1, 0)) // once more, to be served
			if step%7 == 0 {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				ask(ctx, -step)
			}
			tag := []driver.Tag{driver.Tag(fmt.Sprint("row:", step))}
			mark := driver.Mark{1, byte(step), byte(step >> 8), byte(step >> 16)}
			must(t, s.Fence(t.Context(), tag, mark, 10*time.Second))
			if step%100 != 0 { // else the writer crashes
				must(t, s.Bump(t.Context(), tag, mark))
			}
			claim := driver.Claim{Key: fmt.Sprint("abandoned:", step), Token: driver.Token{1}, TTL: time.Second}
			if _, err := s.Claim(t.Context(), []driver.Claim{claim}); err != nil {
				t.Fatal(err)
			}
			_, end := s.Announced(fmt.Sprint("waited for:", step))
			end()
			<-time.After(10 * time.Second)
			synctest.Wait()
			if step%(steps/24) != 0 {
				continue
			}
			now := s.Stats()
			// A wheel of the expiry turns in steps of up to some minutes.
			if most := int(40*time.Minute/(10*time.Second)) * 2; now.Entries > most || now.Leases > most {
				t.Fatalf("after %v of new names the store holds %+v", time.Duration(step)*10*time.Second, now)
			}
			if now.Tags > maxTags+100 || now.Marks > steps/100+1 {
				t.Fatalf("after %v of new names the store holds %+v", time.Duration(step)*10*time.Second, now)
			}
			if n := waiting(s); n != 0 {
				t.Fatalf("%d keys are waited for after all callers have returned", n)
			}
			if step == steps/2-(steps/2)%(steps/24) { // by now everything is as full as it gets
				base, baseHeap, baseGoroutines = now, heap(), runtime.NumGoroutine()
			}
		}
		now, after := s.Stats(), heap()
		t.Logf("after half a day %+v, %d KiB, %d goroutines; after a day %+v, %d KiB, %d goroutines",
			base, baseHeap>>10, baseGoroutines, now, after>>10, runtime.NumGoroutine())
		if grown := int64(after) - int64(baseHeap); grown > 512<<10 {
			t.Errorf("the second half of the day took %d KiB more", grown>>10)
		}
		if n := runtime.NumGoroutine(); n > baseGoroutines+2 {
			t.Errorf("%d goroutines after half a day, %d after a day", baseGoroutines, n)
		}

		<-time.After(2 * time.Hour) // without callers
		synctest.Wait()
		if now := s.Stats(); now.Entries != 0 || now.Leases != 0 || now.Bytes != 0 {
			t.Errorf("hours after the last caller the store holds %+v", now)
		}
	})
}

// waiting returns for how many keys callers wait.
func waiting(s *Store) (n int) {
	for i := range s.waiters.shards {
		p := &s.waiters.shards[i]
		p.mu.Lock()
		n += len(p.byKey)
		p.mu.Unlock()
	}
	return n
}

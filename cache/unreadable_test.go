package cache_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/event"
)

func TestObserverIsToldWhatHappened(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		for range 3 {
			mustGet(t, q, 1, "one")
		}
		_, _ = q.Get(t.Context(), 99)
		s.fail(errors.New("down"))
		_, _ = q.Get(t.Context(), 2)
		synctest.Wait()
		got := c.counts.Of("rows:one")
		want := cachetest.Tally{Hits: 3, Misses: 3, Loads: 3, Found: 1, NotFound: 1, Failed: 1}
		if got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
		if state := c.counts.StoreState(); !state.Validated || state.Breaker != event.BreakerClosed {
			t.Errorf("the store is said to be %+v", state)
		}
	})
}

func TestUnreadableEntriesAreMissesAndCounted(t *testing.T) {
	for name, entry := range map[string][]byte{
		"a stranger's": []byte("not an envelope"),
		"empty":        {},
		"of format 2":  append([]byte{2}, make([]byte, 100)...),
		"damaged":      nil, // filled in below
		"undecodable":  nil,
		"truncated":    nil,
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newSource(), newCache(t)
				query := s.query()
				broken := false
				query.Codec = codecFunc(func(b []byte) (string, error) {
					if broken {
						panic("what is this?")
					}
					return string(b), nil
				})
				q := cache.Define(c.Cache, query)
				mustGet(t, q, 1, "one")
				synctest.Wait()
				snapshot, err := c.store.Read(t.Context(), nil, []string{"rows:one:1"})
				if err != nil {
					t.Fatal(err)
				}
				good := snapshot.Entries[0]
				bad := entry
				switch name {
				case "damaged":
					bad = append([]byte(nil), good...)
					bad[len(bad)-1] ^= 1
				case "truncated":
					bad = good[:len(good)-1]
				case "undecodable":
					bad, broken = good, true
				}
				if err := c.store.Settle(t.Context(), []driver.Fill{{Key: "rows:one:1", Entry: bad, Life: time.Minute}}); err != nil {
					t.Fatal(err)
				}
				if a := mustLookup(t, q, 1, cache.Miss); a.Value != "one" {
					t.Errorf("got %+v", a)
				}
				if n := c.counts.Total().Undecodable; n == 0 && len(bad) > 0 {
					t.Error("it was not counted")
				}
			})
		})
	}
}

type codecFunc func([]byte) (string, error)

func (f codecFunc) Encode(s string) ([]byte, error) { return []byte(s), nil }
func (f codecFunc) Decode(b []byte) (string, error) { return f(b) }

func TestAnswerThatCannotBeEncodedIsServedAndNotKept(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCache(t)
		loads := 0
		q := cache.Define(c.Cache, cache.Query[int, func()]{
			Name: "rows:func", Key: func(id int) string { return cache.Key(id) },
			Tags:     func(int) []cache.Tag { return []cache.Tag{"rows"} },
			Load:     func(context.Context, int) (func(), error) { loads++; return func() {}, nil },
			Codec:    cache.JSON[func()]{},
			FreshFor: time.Minute,
		})
		for range 2 {
			if f, err := q.Get(t.Context(), 1); err != nil || f == nil {
				t.Fatalf("got error %v", err)
			}
			synctest.Wait()
		}
		if loads != 2 {
			t.Errorf("%d loads, want 2: a function cannot be kept", loads)
		}
	})
}

package cache_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
)

func TestMetricsCountWhatHappened(t *testing.T) {
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
		for name, want := range map[string]float64{
			"cache_hits_total": 3, "cache_misses_total": 3, "cache_loads_total": 3,
			"cache_hit_rate": 0.5, "cache_trusted": 1, "cache_waiters": 0,
		} {
			if got := c.count(t, name); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		families, _ := c.metrics.Gather()
		for _, f := range families {
			if f.GetName() != "cache_loads_total" {
				continue
			}
			for _, m := range f.GetMetric() {
				labels := map[string]string{}
				for _, l := range m.GetLabel() {
					labels[l.GetName()] = l.GetValue()
				}
				if labels["namespace"] != "rows" || labels["query"] != "one" {
					t.Errorf("labels are %v, want namespace rows and query one", labels)
				}
				want := map[string]float64{"found": 1, "not_found": 1, "error": 1}[labels["result"]]
				if got := m.GetCounter().GetValue(); got != want {
					t.Errorf("loads with result %s: %v, want %v", labels["result"], got, want)
				}
			}
		}
	})
}

func TestHitRateIsOfTheLastMinute(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		mustGet(t, q, 1, "one")
		if got := c.count(t, "cache_hit_rate"); got != 0.5 {
			t.Errorf("rate is %v, want 0.5", got)
		}
		time.Sleep(30 * time.Second)
		mustGet(t, q, 1, "one")
		mustGet(t, q, 1, "one")
		if got := c.count(t, "cache_hit_rate"); got != 0.75 {
			t.Errorf("rate is %v, want 0.75", got)
		}
		time.Sleep(31 * time.Second)
		if got := c.count(t, "cache_hit_rate"); got != 1 {
			t.Errorf("rate is %v after the first half left the window, want 1", got)
		}
		time.Sleep(time.Minute)
		families, _ := c.metrics.Gather()
		for _, f := range families {
			if f.GetName() == "cache_hit_rate" {
				t.Error("a rate of nothing is reported")
			}
		}
	})
}

func TestTwoCachesOnOneRegistererAreRefused(t *testing.T) {
	store := memstore.New(memstore.Config{})
	defer store.Close()
	registry := prometheus.NewRegistry()
	first, err := cache.New(cache.Config{Store: store, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cache.New(cache.Config{Store: store, Registerer: registry}); err == nil || !strings.Contains(err.Error(), "Registerer") {
		t.Errorf("error is %v, want one that says what to do", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := cache.New(cache.Config{Store: store, Registerer: registry})
	if err != nil {
		t.Fatalf("after Close the names are free, but: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
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
				if a := mustAsk(t, q, 1, cache.Miss); a.Value != "one" {
					t.Errorf("got %+v", a)
				}
				if n := c.count(t, "cache_undecodable_total"); n == 0 && len(bad) > 0 {
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
			Tags:  func(int) []cache.Tag { return []cache.Tag{"rows"} },
			Load:  func(context.Context, int) (func(), error) { loads++; return func() {}, nil },
			Fresh: time.Minute,
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

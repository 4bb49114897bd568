package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/event"
)

// hollow is an error whose nil pointer cannot be asked anything.
type hollow struct{ text string }

func (h *hollow) Error() string { return h.text }
func (h *hollow) Unwrap() error { return errors.New(h.text) }

func noError() error { var none *hollow; return none } // which is not nil

// wantPanicError checks an error that its reader must be able to print and to compare.
func wantPanicError(t *testing.T, what string, err error) {
	t.Helper()
	var p *cache.PanicError
	if !errors.As(err, &p) || p.Func == "" || len(p.Stack) == 0 || err.Error() == "" || errors.Is(err, cache.ErrNotFound) {
		t.Errorf("%s: error is %v, want a PanicError with a stack", what, err)
	}
}

// Whatever a loader does, its callers get an error, and its one slot is free again.
func TestLoaderWhoseErrorIsANilPointer(t *testing.T) {
	type loaded = cache.Loaded[string]
	for name, many := range map[string]func(context.Context, []int) ([]loaded, error){
		"Load":                     nil,
		"LoadMany":                 func(context.Context, []int) ([]loaded, error) { return nil, noError() },
		"LoadMany, of one":         func(context.Context, []int) ([]loaded, error) { return []loaded{{Err: noError()}, {Value: "two"}}, nil },
		"LoadMany that panics":     func(context.Context, []int) ([]loaded, error) { panic(noError()) },
		"LoadMany that never ends": func(context.Context, []int) ([]loaded, error) { runtime.Goexit(); return nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newSource(), newCache(t)
				query := s.query()
				var bad atomic.Bool
				bad.Store(true)
				query.Load = func(ctx context.Context, id int) (string, error) {
					if bad.Load() {
						return "", noError()
					}
					return s.load(ctx, id)
				}
				query.LoadMany, query.MaxLoads = many, 1
				q := cache.Define(c.Cache, query)
				if many == nil {
					for range 2 { // the second time it is remembered
						_, err := q.Get(t.Context(), 1)
						wantPanicError(t, "Get", err)
					}
				}
				results, err := q.GetMany(t.Context(), []int{1, 2})
				if err != nil {
					t.Fatal(err)
				}
				wantPanicError(t, "GetMany", results[0].Err)
				if name == "LoadMany, of one" && results[1].Value != "two" {
					t.Errorf("the answer beside it is %+v", results[1])
				}
				bad.Store(false)
				time.Sleep(time.Second)
				mustGet(t, q, 3, "three")
				mustGet(t, q, 1, "one")
			})
		})
	}
}

func TestPanicsOfKeyTagsAndOwnerAreTheCallersError(t *testing.T) {
	for name, spoil := range map[string]func(*cache.Query[int, string]){
		"Key": func(q *cache.Query[int, string]) { key := q.Key; q.Key = func(p int) string { return key(odd(p)) } },
		"Tags": func(q *cache.Query[int, string]) {
			tags := q.Tags
			q.Tags = func(p int) []cache.Tag { return tags(odd(p)) }
		},
		"Owner": func(q *cache.Query[int, string]) { q.Owner = func(p int) string { return fmt.Sprint(odd(p)) } },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newSource(), newCache(t)
				query := s.query()
				spoil(&query)
				query.Warm = func(context.Context) ([]int, error) { return []int{2}, nil }
				query.WarmEvery = time.Second
				q := cache.Define(c.Cache, query)
				_, err := q.Get(t.Context(), 2)
				wantPanicError(t, "Get", err)
				_, err = q.Inspect(t.Context(), 2)
				wantPanicError(t, "Inspect", err)
				wantPanicError(t, "Warm", c.Warm(t.Context()))
				results, err := q.GetMany(t.Context(), []int{1, 2, 3})
				if err != nil || results[0].Err != nil || results[2].Err != nil {
					t.Fatalf("GetMany: %+v, error %v", results, err)
				}
				wantPanicError(t, "GetMany", results[1].Err)
				time.Sleep(5 * time.Second) // the warmer, where no caller waits
				if n := c.counts.Total().Panics; n == 0 {
					t.Error("the panics of the warmer were not counted")
				}
				mustGet(t, q, 1, "one")
			})
		})
	}
}

func odd(p int) int {
	if p%2 == 0 {
		panic("even")
	}
	return p
}

// badCodec panics while it is told to.
type badCodec struct {
	cache.JSON[string]
	encode, decode *atomic.Bool
}

func (b badCodec) Encode(v string) ([]byte, error) {
	if b.encode.Load() {
		panic(noError())
	}
	return b.JSON.Encode(v)
}

func (b badCodec) Decode(raw []byte) (string, error) {
	if b.decode.Load() {
		panic("decode")
	}
	return b.JSON.Decode(raw)
}

func TestPanicsOfACodecCostTheStoredAnswerOnly(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newSource()
		c := newProcess(t, newFleet(t, 1)[0].store.Peer(), cache.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		codec := badCodec{encode: &atomic.Bool{}, decode: &atomic.Bool{}}
		query := s.query()
		query.Codec = codec
		query.LoadMany = func(ctx context.Context, ids []int) ([]cache.Loaded[string], error) {
			return make([]cache.Loaded[string], len(ids)), nil
		}
		q := cache.Define(c.Cache, query)
		codec.encode.Store(true)
		mustGet(t, q, 1, "one")
		if results, err := q.GetMany(t.Context(), []int{2, 3}); err != nil || results[0].Err != nil || results[1].Err != nil {
			t.Errorf("GetMany: %+v, error %v", results, err)
		}
		codec.encode.Store(false)
		synctest.Wait() // until then one may join the answer that could not be stored
		mustLookup(t, q, 1, cache.Miss)
		synctest.Wait()
		codec.decode.Store(true)
		mustLookup(t, q, 1, cache.Miss)
		codec.decode.Store(false)
		mustLookup(t, q, 1, cache.Hit)
		if n := c.counts.Total().Panics; n < 4 {
			t.Errorf("%d panics counted, want at least 4", n)
		}
		if text := log.String(); strings.Count(text, "a function of the program panicked") != 1 || !strings.Contains(text, "badCodec") {
			t.Errorf("the log has\n%s\nwant one message with a stack", text)
		}
	})
}

func TestWarmThatEndsBadly(t *testing.T) {
	for name, end := range badEnds {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newSource(), newCache(t)
				query := s.query()
				var bad atomic.Bool
				bad.Store(true)
				query.Warm = func(context.Context) ([]int, error) {
					if bad.Load() {
						return nil, end()
					}
					return []int{1}, nil
				}
				query.WarmEvery = time.Second
				q := cache.Define(c.Cache, query)
				wantPanicError(t, "Warm", c.Warm(t.Context()))
				_, err := c.Check(t.Context())
				wantPanicError(t, "Check", err)
				time.Sleep(5 * time.Second)
				bad.Store(false)
				time.Sleep(5 * time.Second)
				mustLookup(t, q, 1, cache.Hit)
			})
		})
	}
}

var badEnds = map[string]func() error{
	"panics":              func() error { panic("boom") },
	"panics with nothing": func() error { panic(noError()) },
	"calls Goexit":        func() error { runtime.Goexit(); return nil },
	"returns a nil error": noError,
}

func TestRecoveryGoesOnAfterAFunctionThatEndedBadly(t *testing.T) {
	for name, end := range badEnds {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newSource(), newCache(t)
				q := cache.Define(c.Cache, s.query())
				mustGet(t, q, 1, "one")
				var bad atomic.Bool
				bad.Store(true)
				defer c.OnRecovery(func(context.Context) error {
					if bad.Load() {
						return end()
					}
					return nil
				})()
				c.Suspect(errDown)
				time.Sleep(10 * time.Second)
				mustLookup(t, q, 1, cache.Bypass)
				if h := c.Health(); h.State == "ok" || h.Err == nil || h.Err.Error() == "" {
					t.Errorf("health is %+v while what was written cannot be delivered", h)
				}
				if c.counts.Total().Panics == 0 {
					t.Error("not counted")
				}
				bad.Store(false)
				time.Sleep(time.Second)
				mustLookup(t, q, 1, cache.Hit)
			})
		})
	}
}

// A function of OnRecovery that ignores its context is called once, not once in 30 s for ever.
func TestRecoveryDoesNotPileUp(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCache(t)
		var running, most atomic.Int64
		release := make(chan struct{})
		defer c.OnRecovery(func(context.Context) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			<-release
			return nil
		})()
		c.Suspect(errDown)
		time.Sleep(5 * time.Minute)
		if most.Load() != 1 {
			t.Errorf("%d calls ran at the same time", most.Load())
		}
		if h := c.Health(); h.State == "ok" {
			t.Errorf("health is %+v", h)
		}
		close(release)
		time.Sleep(time.Second)
		if h := c.Health(); h.State != "ok" {
			t.Errorf("health is %+v", h)
		}
	})
}

// badObserver panics in each of its methods, as a nil pointer does.
type badObserver struct{ calls *atomic.Int64 }

func (b *badObserver) Query(string) cache.QueryObserver          { b.calls.Add(1); return (*badObserver)(nil) }
func (b *badObserver) Served(context.Context, cache.Served)      { b.calls.Add(1) }
func (b *badObserver) Observe(context.Context, cache.Event)      { b.calls.Add(1) }
func (b *badObserver) Enabled(context.Context, slog.Level) bool  { panic("enabled") }
func (b *badObserver) Handle(context.Context, slog.Record) error { panic("handle") }
func (b *badObserver) WithAttrs([]slog.Attr) slog.Handler        { return b }
func (b *badObserver) WithGroup(string) slog.Handler             { return b }

func TestObserversAndLoggersThatPanicHarmNobody(t *testing.T) {
	virtual(t, func(t *testing.T) {
		for _, observer := range []*badObserver{nil, {new(atomic.Int64)}} {
			s, store := newSource(), newFleet(t, 1)[0].store.Peer()
			c, err := cache.New(cache.Config{Store: store, Observer: observer, Logger: slog.New(observer)})
			if err != nil {
				t.Fatal(err)
			}
			q := cache.Define(c, s.query())
			mustGet(t, q, 1, "one")
			mustLookup(t, q, 1, cache.Hit)
			if results, err := q.GetMany(t.Context(), []int{2, 3}); err != nil || results[0].Value != "two" {
				t.Errorf("GetMany: %+v, error %v", results, err)
			}
			store.Fail(errDown)
			trip(t, q)
			mustGet(t, q, 1, "one")
			store.Heal()
			time.Sleep(5 * time.Second)
			mustLookup(t, q, 1, cache.Hit)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			store.Close()
		}
	})
}

// leaver ends the goroutine that tells it of what was not stored.
type leaver struct{ leaves *atomic.Bool }

func (l leaver) Query(string) cache.QueryObserver     { return l }
func (l leaver) Served(context.Context, cache.Served) {}
func (l leaver) Observe(_ context.Context, e cache.Event) {
	if _, ok := e.(event.NotStored); ok && l.leaves.Load() {
		runtime.Goexit()
	}
}

// Whatever ends the goroutine of a load, those that wait for it do not wait for ever.
func TestLoadWhoseGoroutineEndsIsAnErrorForItsWaiters(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, store := newSource(), newFleet(t, 1)[0].store.Peer()
		l := leaver{new(atomic.Bool)}
		c, err := cache.New(cache.Config{Store: store, Observer: l})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(); store.Close() })
		q := cache.Define(c, s.query())
		store.Fail(errDown)
		l.leaves.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := q.Get(ctx, 1); !errors.As(err, new(*cache.LoadError)) {
			t.Errorf("got %v, want a LoadError", err)
		}
		l.leaves.Store(false)
		mustGet(t, q, 1, "one")
	})
}

// A refresh has no caller: its panic is counted, and logged with its stack.
func TestPanicOfARefreshIsLogged(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newSource()
		c := newProcess(t, newFleet(t, 1)[0].store.Peer(), cache.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		query := s.query()
		query.StaleWhileRevalidate = time.Hour
		var bad atomic.Bool
		query.Load = func(ctx context.Context, id int) (string, error) {
			if bad.Load() {
				panic("boom")
			}
			return s.load(ctx, id)
		}
		q := cache.Define(c.Cache, query)
		mustGet(t, q, 1, "one")
		time.Sleep(2 * time.Minute)
		bad.Store(true)
		mustLookup(t, q, 1, cache.Stale)
		synctest.Wait()
		if n := c.counts.Total().Panics; n != 1 {
			t.Errorf("%d panics counted", n)
		}
		if text := log.String(); !strings.Contains(text, "function=Load") || !strings.Contains(text, "panics_test.go") {
			t.Errorf("the log has\n%s\nwant the panic and its stack", text)
		}
	})
}

// badStore panics where it is read.
type badStore struct{ driver.Store }

func (badStore) Read(context.Context, []driver.Tag, []string) (driver.Snapshot, error) { panic("read") }

func TestStoreThatPanicsIsAFailingStore(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, store := newSource(), newFleet(t, 1)[0].store.Peer()
		c, err := cache.New(cache.Config{Store: badStore{store}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(); store.Close() })
		q := cache.Define(c, s.query())
		for range 20 {
			mustGet(t, q, 1, "one")
		}
	})
}

func TestContextKeysThatCannotBeComparedAreRefused(t *testing.T) {
	query := newSource().query()
	query.ContextKeys = []any{"user", []byte("user")}
	message := panicOf(func() { cache.Define(newCache(t).Cache, query) })
	if want := "ContextKeys[1] is of type []uint8"; !strings.Contains(message, want) {
		t.Errorf("panic says %q, want it to say %q", message, want)
	}
}

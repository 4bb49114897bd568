package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errInjected = errors.New("injected")

func TestRelayConfigIsChecked(t *testing.T) {
	_, err := outbox.NewRelay(nil, nil, outbox.RelayConfig{Grace: -1, Poll: -2, Batch: -3, MaxTags: -4})
	if want := "outbox: relay: Grace is negative: -1\nPoll is negative: -2\nBatch is negative: -3\nMaxTags is negative: -4"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// fakeLog is a Log whose every answer a test decides, for what is about time alone.
type fakeLog struct {
	deliver func(ctx context.Context, grace time.Duration, most int, bump func(context.Context, []outbox.Row) error) (int, error)
	backlog func() (int, time.Duration, error)
	wait    func(ctx context.Context) error
	come    func(consumer, what string) // nil: nothing
}

func (l *fakeLog) Leave(_ context.Context, consumer string) error {
	l.comes(consumer, "leaves")
	return nil
}
func (l *fakeLog) Join(_ context.Context, consumer string) (bool, []string, error) {
	l.comes(consumer, "joins")
	return false, nil, nil
}
func (l *fakeLog) comes(consumer, what string) {
	if l.come != nil {
		l.come(consumer, what)
	}
}
func (l *fakeLog) Deliver(ctx context.Context, _ string, grace time.Duration, most int, bump func(context.Context, []outbox.Row) error) (int, error) {
	return l.deliver(ctx, grace, most, bump)
}
func (l *fakeLog) Done(context.Context, string, []int64) error { return nil }
func (l *fakeLog) Wait(ctx context.Context) error              { return l.wait(ctx) }
func (l *fakeLog) Backlog(context.Context, string) (int, time.Duration, error) {
	if l.backlog == nil {
		return 0, 0, nil
	}
	return l.backlog()
}

// virtual runs a test on virtual time, with a cache on a store in memory.
func virtual(t *testing.T, f func(t *testing.T, c *cache.Cache, store *storetest.Faulty)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewFaulty(memstore.New(memstore.Config{MaxBytes: 1 << 20, MaxTags: 1000}))
		defer store.Close()
		c, err := cache.New(cache.Config{Store: store})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f(t, c, store)
	})
}

func TestRelayNeverSpins(t *testing.T) {
	always := func(context.Context) error { return nil }
	unable := func(context.Context) error { return errInjected }
	silent := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	nothing := func(context.Context, time.Duration, int, func(context.Context, []outbox.Row) error) (int, error) {
		return 0, nil
	}
	failing := func(context.Context, time.Duration, int, func(context.Context, []outbox.Row) error) (int, error) {
		return 1, errInjected
	}
	for _, c := range []struct {
		name        string
		wait        func(context.Context) error
		deliver     func(context.Context, time.Duration, int, func(context.Context, []outbox.Row) error) (int, error)
		least, most int64 // looks at the outbox in a minute
	}{
		{"quiet", silent, nothing, 290, 310},           // every 200 ms
		{"cannot wait", unable, nothing, 290, 310},     // polls instead
		{"cries wolf", always, nothing, 5_000, 6_010},  // every 10 ms
		{"cannot deliver", always, failing, 900, 1200}, // every 113 to 150 ms, and every 100 ms by the recovery
		{"cannot do either", unable, failing, 900, 1200},
	} {
		t.Run(c.name, func(t *testing.T) {
			virtual(t, func(t *testing.T, ch *cache.Cache, _ *storetest.Faulty) {
				var looks atomic.Int64
				r, err := outbox.NewRelay(ch, &fakeLog{wait: c.wait, deliver: func(ctx context.Context, grace time.Duration, most int, bump func(context.Context, []outbox.Row) error) (int, error) {
					looks.Add(1)
					return c.deliver(ctx, grace, most, bump)
				}}, outbox.RelayConfig{})
				if err != nil {
					t.Fatal(err)
				}
				r.Start()
				<-time.After(time.Minute)
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				if n := looks.Load(); n < c.least || n > c.most {
					t.Errorf("%d looks at the outbox in a minute, want %d to %d", n, c.least, c.most)
				}
			})
		})
	}
}

func TestRelayGoesOnAfterTrouble(t *testing.T) {
	virtual(t, func(t *testing.T, c *cache.Cache, store *storetest.Faulty) {
		rows := []outbox.Row{{ID: 1, Tag: "a:1", Mark: driver.Mark{1}}, {ID: 2, Tag: "a:2"}}
		var mu sync.Mutex
		log := &fakeLog{
			wait:    func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			backlog: func() (int, time.Duration, error) { mu.Lock(); defer mu.Unlock(); return len(rows), 0, nil },
			deliver: func(ctx context.Context, _ time.Duration, _ int, bump func(context.Context, []outbox.Row) error) (int, error) {
				mu.Lock()
				defer mu.Unlock()
				n := len(rows)
				if err := bump(ctx, rows); err != nil {
					return n, err
				}
				rows = nil
				return n, nil
			},
		}
		r, err := outbox.NewRelay(c, log, outbox.RelayConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		store.Fail(errInjected)
		r.Start()
		<-time.After(time.Minute)
		mu.Lock()
		if len(rows) != 2 {
			t.Error("delivered without a store")
		}
		mu.Unlock()
		store.Heal()
		<-time.After(2 * time.Second) // by the cache's recovery, long before the next retry
		mu.Lock()
		defer mu.Unlock()
		if len(rows) != 0 {
			t.Error("not delivered after the store came back")
		}
	})
}

func TestDrainWaitsForWhatOthersHold(t *testing.T) {
	virtual(t, func(t *testing.T, c *cache.Cache, _ *storetest.Faulty) {
		start := time.Now()
		var held atomic.Pointer[time.Time] // until when another relay holds a row
		hold := func(d time.Duration) { until := time.Now().Add(d); held.Store(&until) }
		hold(10 * time.Second)
		log := &fakeLog{
			wait: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			deliver: func(_ context.Context, grace time.Duration, _ int, _ func(context.Context, []outbox.Row) error) (int, error) {
				if grace != 0 {
					t.Errorf("a grace of %v", grace)
				}
				return 0, nil
			},
			backlog: func() (int, time.Duration, error) {
				if time.Now().Before(*held.Load()) {
					return 2, time.Since(start) + time.Second, nil
				}
				return 1, time.Millisecond, nil // there is always something new
			},
		}
		r, err := outbox.NewRelay(c, log, outbox.RelayConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := r.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("Drain took %v, want a little more than the 10 s another relay took", took)
		}
		hold(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := r.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the end of the context", err)
		}
	})
}

// After an outage each write of it has left a mark of its own. They are not worth a call each.
func TestManyMarksAreBumpedTogether(t *testing.T) {
	for _, c := range []struct{ marks, calls int }{{10, 10}, {500, 1}} {
		virtual(t, func(t *testing.T, ch *cache.Cache, store *storetest.Faulty) {
			rows := make([]outbox.Row, c.marks)
			for i := range rows {
				rows[i] = outbox.Row{ID: int64(i), Tag: cache.Tag(fmt.Sprintf("a:%d", i%100)), Mark: driver.Mark{byte(i), byte(i >> 8), 1}}
			}
			log := &fakeLog{
				wait:    func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
				backlog: func() (int, time.Duration, error) { return 0, 0, nil },
				deliver: func(ctx context.Context, _ time.Duration, _ int, bump func(context.Context, []outbox.Row) error) (int, error) {
					return 0, bump(ctx, rows)
				},
			}
			r, err := outbox.NewRelay(ch, log, outbox.RelayConfig{})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			synctest.Wait() // for the drain at birth
			before := store.Calls(storetest.OpBump)
			if err := r.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := store.Calls(storetest.OpBump) - before; n != c.calls {
				t.Errorf("%d marks took %d bumps, want %d", c.marks, n, c.calls)
			}
		})
	}
}

func versionOf(t *testing.T, store driver.Store, tag cache.Tag) driver.Version {
	t.Helper()
	snapshot, err := store.Read(t.Context(), []cache.Tag{tag}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot.States[0].Version
}

// asides are the rows that were set aside.
type asides struct {
	mu   sync.Mutex
	seen []outbox.SetAside
}

func (a *asides) Query(string) cache.QueryObserver { return nil }
func (a *asides) Observe(_ context.Context, e cache.Event) {
	if e, ok := e.(outbox.SetAside); ok {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.seen = append(a.seen, e)
	}
}

func TestRowThatCannotBeDeliveredHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := storetest.NewFaulty(memstore.New(memstore.Config{}))
		defer faulty.Close()
		var events asides
		c, err := cache.New(cache.Config{Store: faulty, Observer: &events})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		rows := []outbox.Row{{ID: 1, Tag: "a:1"}, {ID: 2, Tag: "poison:2", Mark: driver.Mark{2}}, {ID: 3, Tag: "a:3"}, {ID: 4, Tag: cache.Tag(strings.Repeat("x", 201))}}
		var mu sync.Mutex
		log := &fakeLog{
			wait:    func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			backlog: func() (int, time.Duration, error) { mu.Lock(); defer mu.Unlock(); return len(rows), 0, nil },
			deliver: func(ctx context.Context, _ time.Duration, most int, bump func(context.Context, []outbox.Row) error) (int, error) {
				mu.Lock()
				some := rows[:min(most, len(rows))]
				mu.Unlock()
				if len(some) == 0 {
					return 0, nil
				}
				if err := bump(ctx, some); err != nil {
					return len(some), err
				}
				mu.Lock()
				defer mu.Unlock()
				rows = nil
				return len(some), nil
			},
		}
		before := map[cache.Tag]driver.Version{}
		for _, tag := range []cache.Tag{cache.Everything, "poison:*"} {
			before[tag] = versionOf(t, faulty, tag)
		}
		faulty.Fail(errInjected, storetest.OpBump) // a failing store sets nothing aside
		r, err := outbox.NewRelay(c, log, outbox.RelayConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		r.Start()
		time.Sleep(time.Minute)
		if mu.Lock(); len(rows) != 4 || len(events.seen) != 0 {
			t.Errorf("a failing store: %d rows are left, %+v", len(rows), events.seen)
		}
		mu.Unlock()
		faulty.Heal()
		faulty.RefuseTag("poison:2", errInjected)
		time.Sleep(3 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if len(rows) != 0 {
			t.Error("the rows were not delivered")
		}
		if h := c.Health(); h.State != "ok" {
			t.Errorf("the store is %s: %v", h.State, h.Err)
		}
		for tag, was := range before {
			if now := versionOf(t, faulty, tag); now == was {
				t.Errorf("%s was not bumped", tag)
			}
		}
		ids := map[int64]cache.Tag{}
		for _, e := range events.seen {
			ids[e.Row] = e.Instead
		}
		if len(ids) != 2 || ids[2] != "poison:*" || ids[4] != cache.Everything {
			t.Errorf("set aside: %+v", events.seen)
		}
	})
}

// A store that has lost its name takes part under its new one, and the old one leaves: else every row
// would be kept for it. While the store is away its name stays registered.
func TestStoreThatLostItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &renamed{Faulty: storetest.NewFaulty(memstore.New(memstore.Config{}))}
		defer store.Close()
		store.set("a")
		c, err := cache.New(cache.Config{Store: store})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var mu sync.Mutex
		var came []string
		r, err := outbox.NewRelay(c, &fakeLog{
			wait: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			deliver: func(context.Context, time.Duration, int, func(context.Context, []outbox.Row) error) (int, error) {
				return 0, nil
			},
			come: func(consumer, what string) {
				mu.Lock()
				defer mu.Unlock()
				if now := consumer + " " + what; len(came) == 0 || came[len(came)-1] != now {
					came = append(came, now)
				}
			},
		}, outbox.RelayConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		r.Start()
		time.Sleep(30 * time.Second)
		store.Fail(errInjected)
		time.Sleep(30 * time.Second)
		store.Heal()
		store.set("b")
		time.Sleep(30 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if got := strings.Join(came, ", "); got != "a joins, b joins, a leaves, b joins" {
			t.Errorf("what happened: %s", got)
		}
	})
}

// A recovery does not wait for a registration to be renewed, also while the background does that.
func TestRecoveryDoesNotWaitForARegistrationToBeRenewed(t *testing.T) {
	virtual(t, func(t *testing.T, c *cache.Cache, _ *storetest.Faulty) {
		var slow atomic.Bool
		r, err := outbox.NewRelay(c, &fakeLog{
			wait: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			deliver: func(context.Context, time.Duration, int, func(context.Context, []outbox.Row) error) (int, error) {
				return 0, nil
			},
			come: func(string, string) {
				if slow.Load() { // the database has a lot to do
					time.Sleep(20 * time.Second)
				}
			},
		}, outbox.RelayConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		r.Start()
		if err := c.WaitServing(t.Context()); err != nil {
			t.Fatal(err)
		}
		slow.Store(true)
		for range 12 { // at every moment of a renewal
			time.Sleep(3 * time.Second)
			c.Suspect(errInjected)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := c.WaitServing(ctx); err != nil {
				t.Errorf("health is %+v a second later", c.Health())
			}
			cancel()
		}
	})
}

// renamed is a store whose name a test decides.
type renamed struct {
	*storetest.Faulty
	name atomic.Pointer[string]
}

func (s *renamed) set(name string) { s.name.Store(&name) }
func (s *renamed) Name(ctx context.Context) (string, error) {
	if _, err := s.Faulty.Name(ctx); err != nil {
		return "", err
	}
	return *s.name.Load(), nil
}

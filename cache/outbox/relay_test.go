package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

func TestStrangersWritesAreSeenSoon(t *testing.T) {
	w := newWorld(t)
	p := w.process(nil)
	p.relay(outbox.RelayConfig{})
	p.warm(0, 1, 2)
	began := time.Now()
	for _, c := range []struct {
		statement string
		value     int
	}{
		{`UPDATE items SET value = 1 WHERE id = 1`, 1},
		{`INSERT OR REPLACE INTO items VALUES (1, 2)`, 2},
		{`INSERT OR IGNORE INTO items VALUES (1, 99), (4, 0)`, 2}, // of which only the second is new
		{`UPDATE OR IGNORE items SET value = 3 WHERE id = 1`, 3},
	} {
		w.stranger(c.statement)
		p.settles(c.value, 1)
	}
	if took := time.Since(began); took > repairTime/2 {
		t.Errorf("four writes took %v", took)
	}
	p.wantAs(2, 0, cache.Hit, "")
	w.stranger(`DELETE FROM items WHERE id = 1`)
	eventually(t, func() error {
		value, err := p.items.Get(t.Context(), 1)
		switch {
		case errors.Is(err, cache.ErrNotFound):
			return nil
		case err != nil:
			return err
		}
		return fmt.Errorf("a deleted item is still %d", value)
	})
}

func TestTwoRelaysLoseNothing(t *testing.T) {
	w := newWorld(t)
	ps := []*process{w.process(nil), w.process(nil)}
	for _, p := range ps {
		p.relay(outbox.RelayConfig{Batch: 2, Grace: 20 * time.Millisecond})
	}
	const writes = 60
	var writers sync.WaitGroup
	writers.Go(func() {
		for value := 1; value <= writes; value++ {
			w.stranger(`UPDATE items SET value = ?`, value)
		}
	})
	db := ps[0].db(outbox.Options{}) // without a Relay: leaves its rows behind
	writers.Go(func() {
		for value := 1; value <= writes; value++ {
			if err := db.Write(t.Context(), set(value, 2)); err != nil {
				t.Error(err)
			}
		}
	})
	for _, p := range ps {
		writers.Go(func() {
			for range 50 {
				if _, err := p.items.Get(t.Context(), 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	for _, p := range ps {
		p.settles(writes, 1, 3)
	}
	value, err := ps[0].load(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		p.settles(value, 2)
	}
}

func TestRowsOfALivingWriterAreLeftToIt(t *testing.T) {
	w := newWorld(t)
	p := w.process(nil)
	tx := p.begin(set(1, 1))
	if rows, err := tx.Touched(t.Context()); err != nil || len(rows) != 1 || rows[0].Mark != tx.Mark() || rows[0].Tag != itemTag(1) {
		t.Fatalf("rows %+v, error %v", rows, err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := p.relay(outbox.RelayConfig{Grace: time.Hour, Poll: 10 * time.Millisecond})
	p.warm(0, 2)
	w.stranger(`UPDATE items SET value = 2 WHERE id = 2`)
	eventually(t, func() error { // the stranger's row is delivered
		if n := w.rows(); n != 1 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	p.want(2, 2)
	if err := r.Drain(t.Context()); err != nil { // a recovery does not wait for anybody
		t.Fatal(err)
	}
	if n := w.rows(); n != 0 {
		t.Errorf("%d rows after Drain", n)
	}
}

func TestDeliveredRowsAreForgotten(t *testing.T) {
	w := newWorld(t)
	p := w.process(nil)
	r := p.relay(outbox.RelayConfig{Grace: time.Hour}) // so that the relay delivers none of them
	db := p.db(outbox.Options{Relay: r})
	for value := range 10 {
		if err := db.Write(t.Context(), set(value, 1, 2)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() error {
		if n := w.rows(); n != 0 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	if n := p.count("cache_outbox_delivered_total", "writer"); n != 20 {
		t.Errorf("%v tags delivered by their writer, want 20", n)
	}
	if n := p.count("cache_outbox_delivered_total", "relay"); n != 0 {
		t.Errorf("%v tags delivered by the relay, want none", n)
	}
	if n := p.count("cache_invalidation_delay_seconds", "writer"); n != 10 {
		t.Errorf("%v delays observed, want 10", n)
	}
}

// Rows still to be forgotten go when the relay is closed: the next process need not deliver
// them again.
func TestCloseForgets(t *testing.T) {
	w := newWorld(t)
	p := w.process(nil)
	for value := range 10 {
		r := p.relay(outbox.RelayConfig{Grace: time.Hour})
		if err := p.db(outbox.Options{Relay: r}).Write(t.Context(), set(value, 1)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.Close(), r.Close()); err != nil {
			t.Fatal(err)
		}
		if n := w.rows(); n != 0 {
			t.Fatalf("%d rows are left", n)
		}
		r.Start() // does nothing any more
		if err := r.Drain(t.Context()); err == nil {
			t.Error("a closed relay drained")
		}
	}
}

func TestBacklogIsDeliveredInFamilies(t *testing.T) {
	w := newWorld(t)
	var calls, tags, most atomic.Int64
	p := w.process(func(cfg *cache.Config) {
		cfg.Store = &watched{Store: cfg.Store, bump: func(list []cache.Tag, _ driver.Mark) {
			calls.Add(1)
			tags.Add(int64(len(list)))
			most.Store(max(most.Load(), int64(len(list))))
		}}
	})
	p.warm(0, 1)
	const many = 30_000
	w.stranger(fmt.Sprintf(`
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
INSERT INTO items SELECT i, 5 FROM n WHERE true ON CONFLICT (id) DO UPDATE SET value = 5`, many))
	if n := w.rows(); n != many {
		t.Fatalf("%d rows, want %d", n, many)
	}
	p.relay(outbox.RelayConfig{Batch: 100, MaxTags: 150})
	p.settles(5, 1)
	// Batches of 100, 200 … 2,000: all but the first are more than may be named.
	if calls.Load() > 25 || tags.Load() > 500 || most.Load() > 256 {
		t.Errorf("%d rows took %d bumps of %d tags, at most %d at once", many, calls.Load(), tags.Load(), most.Load())
	}
	if n := p.count("cache_outbox_delivered_total", "relay"); n != many {
		t.Errorf("%v rows delivered, want %d", n, many)
	}
}

func TestWhatIsNoTagStandsInNobodysWay(t *testing.T) {
	w := newWorld(t)
	p := w.process(func(cfg *cache.Config) {
		cfg.Store = &watched{Store: cfg.Store, bump: func(tags []cache.Tag, _ driver.Mark) {
			if !slices.Equal(tags, []cache.Tag{itemTag(1)}) {
				t.Errorf("bumped %q", tags)
			}
		}}
	})
	p.warm(0, 1)
	w.stranger(`INSERT INTO cache_touch VALUES ('a' || char(10) || 'b'), (''), (CAST(x'ff' AS TEXT)), (NULL)`)
	p.relay(outbox.RelayConfig{})
	w.stranger(`UPDATE items SET value = 1 WHERE id = 1`)
	p.settles(1, 1)
}

// What was written during an outage is delivered before anything is served from the cache
// again.
func TestRecoveryDrainsTheOutbox(t *testing.T) {
	w := newWorld(t)
	p := w.process(nil)
	r, err := outbox.NewRelay(p.Cache, p.log, outbox.RelayConfig{Grace: time.Hour}) // not started
	if err != nil {
		t.Fatal(err)
	}
	p.warm(0, 1, 2)
	p.store.Fail(errInjected)
	db := p.db(outbox.Options{Relay: r})
	for value := 1; value <= 5; value++ {
		if err := db.Write(t.Context(), set(value, 1)); err != nil {
			t.Fatal(err)
		}
		p.want(1, value)
	}
	w.stranger(`UPDATE items SET value = 7 WHERE id = 2`)
	p.store.Heal()
	eventually(t, func() error {
		a, err := p.items.Ask(t.Context(), 2)
		if err != nil {
			return err
		}
		if a.Status != cache.Hit {
			return fmt.Errorf("came as %v %s", a.Status, a.Detail)
		}
		if a.Value != 7 {
			t.Fatalf("the first hit after the outage is %d, want what a stranger wrote meanwhile", a.Value)
		}
		return nil
	})
	p.want(1, 5)
	if n := w.rows(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func TestRelayMetrics(t *testing.T) {
	w := newWorld(t)
	p := w.process(nil)
	r, err := outbox.NewRelay(p.Cache, p.log, outbox.RelayConfig{Registerer: p.metrics})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := outbox.NewRelay(p.Cache, p.log, outbox.RelayConfig{Registerer: p.metrics}); err == nil {
		t.Error("two relays share their metrics")
	}
	w.stranger(`UPDATE items SET value = 1`)
	if n := p.count("cache_outbox_rows"); n != 3 {
		t.Errorf("%v rows, want 3", n)
	}
	eventually(t, func() error {
		if age := p.count("cache_outbox_oldest_age_seconds"); age <= 0 || age > repairTime.Seconds() {
			return fmt.Errorf("the oldest row is %v s old", age)
		}
		return nil
	})
	r.Start()
	p.settles(1, 1, 2, 3)
	for name, want := range map[string]float64{"cache_outbox_rows": 0, "cache_outbox_oldest_age_seconds": 0, "cache_invalidation_delay_seconds": 3} {
		if n := p.count(name); n != want {
			t.Errorf("%s is %v, want %v", name, n, want)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if n := p.count("cache_outbox_delivered_total"); n != 0 {
		t.Error("the metrics outlive the relay")
	}
}

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
}

func (l *fakeLog) Deliver(ctx context.Context, grace time.Duration, most int, bump func(context.Context, []outbox.Row) error) (int, error) {
	return l.deliver(ctx, grace, most, bump)
}
func (l *fakeLog) Forget(context.Context, []int64) error { return nil }
func (l *fakeLog) Wait(ctx context.Context) error        { return l.wait(ctx) }
func (l *fakeLog) Backlog(context.Context) (int, time.Duration, error) {
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
		{"quiet", silent, nothing, 290, 310},          // every 200 ms
		{"cannot wait", unable, nothing, 290, 310},    // polls instead
		{"cries wolf", always, nothing, 5_000, 6_010}, // every 10 ms
		{"cannot deliver", always, failing, 14, 20},   // 0.1, 0.2, 0.4 … 5 s
		{"cannot do either", unable, failing, 14, 20},
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
		held := start.Add(10 * time.Second) // until when another relay holds a row
		log := &fakeLog{
			wait: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			deliver: func(_ context.Context, grace time.Duration, _ int, _ func(context.Context, []outbox.Row) error) (int, error) {
				if grace != 0 {
					t.Errorf("a grace of %v", grace)
				}
				return 0, nil
			},
			backlog: func() (int, time.Duration, error) {
				if time.Now().Before(held) {
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
		held = time.Now().Add(time.Hour)
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
			if err := r.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := store.Calls(storetest.OpBump); n != c.calls {
				t.Errorf("%d marks took %d bumps, want %d", c.marks, n, c.calls)
			}
		})
	}
}

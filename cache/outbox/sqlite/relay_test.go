package sqlite_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
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
	r := p.relay(outbox.RelayConfig{Grace: time.Hour, Poll: 10 * time.Millisecond})
	p.warm(0, 2) // the drain at the start, which leaves nothing to a writer, is over
	tx := p.begin(set(1, 1))
	if rows, err := tx.Touched(t.Context()); err != nil || len(rows) != 1 || rows[0].Mark != tx.Mark() || rows[0].Tag != itemTag(1) {
		t.Fatalf("rows %+v, error %v", rows, err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
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
	if err := p.WaitServing(t.Context()); err != nil { // the first drain leaves no process a grace
		t.Fatal(err)
	}
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
	if n := p.counts.rows("writer"); n != 20 {
		t.Errorf("%v tags delivered by their writer, want 20", n)
	}
	if n := p.counts.rows("relay"); n != 0 {
		t.Errorf("%v tags delivered by the relay, want none", n)
	}
	if n := p.counts.deliveries("writer"); n != 10 {
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
	// Batches of 100, 200 … 2,000, by the relay and by the drain at its start at once: all but
	// the first are more than may be named.
	if calls.Load() > 50 || tags.Load() > 500 || most.Load() > 256 {
		t.Errorf("%d rows took %d bumps of %d tags, at most %d at once", many, calls.Load(), tags.Load(), most.Load())
	}
	if n := p.counts.rows("relay"); n < many || n > 2*many {
		t.Errorf("%v rows delivered, want %d", n, many)
	}
}

func TestWhatIsNoTagStandsInNobodysWay(t *testing.T) {
	w := newWorld(t)
	p := w.process(func(cfg *cache.Config) {
		cfg.Store = &watched{Store: cfg.Store, bump: func(tags []cache.Tag, _ driver.Mark) {
			for _, tag := range tags {
				if tag != itemTag(1) && tag != cache.Everything {
					t.Errorf("bumped %q", tags)
				}
			}
		}}
	})
	p.warm(0, 1)
	w.stranger(`INSERT INTO cache_outbox (tag) VALUES ('a' || char(10) || 'b'), (''), (CAST(x'ff' AS TEXT))`)
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
		a, err := p.items.Lookup(t.Context(), 2)
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

func TestBacklogOfARelay(t *testing.T) {
	w := newWorld(t)
	p := w.process(nil)
	r, err := outbox.NewRelay(p.Cache, p.log, outbox.RelayConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitServing(t.Context()); err != nil { // it drains at first
		t.Fatal(err)
	}
	w.stranger(`UPDATE items SET value = 1`)
	eventually(t, func() error {
		rows, age, err := r.Backlog(t.Context())
		if err != nil || rows != 3 || age <= 0 || age > repairTime {
			return fmt.Errorf("%d rows, the oldest of %v (error %w), want 3", rows, age, err)
		}
		return nil
	})
	r.Start()
	p.settles(1, 1, 2, 3)
	eventually(t, func() error {
		if rows, age, err := r.Backlog(t.Context()); err != nil || rows != 0 || age != 0 {
			return fmt.Errorf("%d rows, the oldest of %v (error %w), want none", rows, age, err)
		}
		return nil
	})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

package outboxtest

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

func TestStrangersWritesAreSeenSoon(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	p.Relay(outbox.RelayConfig{})
	p.Warm(0, 1, 2)
	began := time.Now()
	for _, c := range []struct {
		statement string
		value     int
	}{
		{`UPDATE items SET value = 1 WHERE id = 1`, 1},
		{`REPLACE INTO items VALUES (1, 2)`, 2},
		{"INSERT " + a.Ignore + " INTO items VALUES (1, 99), (4, 0)", 2}, // of which only the second is new
		{"UPDATE " + a.Ignore + " items SET value = 3 WHERE id = 1", 3},
	} {
		w.Stranger(c.statement)
		p.Settles(c.value, 1)
	}
	if took := time.Since(began); took > RepairTime/2 {
		t.Errorf("four writes took %v", took)
	}
	p.WantAs(2, 0, cache.Hit, "")
	w.Stranger(`DELETE FROM items WHERE id = 1`)
	Eventually(t, func() error {
		value, err := p.Items.Get(t.Context(), 1)
		switch {
		case errors.Is(err, cache.ErrNotFound):
			return nil
		case err != nil:
			return err
		}
		return fmt.Errorf("a deleted item is still %d", value)
	})
}

func TestTwoRelaysLoseNothing(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	ps := []*Process{w.Process(nil), w.Process(nil)}
	for _, p := range ps {
		p.Relay(outbox.RelayConfig{Batch: 2, Grace: 20 * time.Millisecond})
	}
	const writes = 60
	var writers sync.WaitGroup
	writers.Go(func() {
		for value := 1; value <= writes; value++ {
			w.Stranger(`UPDATE items SET value = ?`, value)
		}
	})
	db := ps[0].DB(outbox.Options{}) // without a Relay: leaves its rows behind
	writers.Go(func() {
		for value := 1; value <= writes; value++ {
			if err := db.Write(t.Context(), Set(value, 2)); err != nil {
				t.Error(err)
			}
		}
	})
	for _, p := range ps {
		writers.Go(func() {
			for range 50 {
				if _, err := p.Items.Get(t.Context(), 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	for _, p := range ps {
		p.Settles(writes, 1, 3)
	}
	value, err := ps[0].Load(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		p.Settles(value, 2)
	}
}

func TestRowsOfALivingWriterAreLeftToIt(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	r := p.Relay(outbox.RelayConfig{Grace: time.Hour, Poll: 10 * time.Millisecond})
	p.Warm(0, 2) // the drain at the start, which leaves nothing to a writer, is over
	tx := p.Begin(Set(1, 1))
	if rows, err := tx.Touched(t.Context()); err != nil || len(rows) != 1 || rows[0].Mark != tx.Mark() || rows[0].Tag != ItemTag(1) {
		t.Fatalf("rows %+v, error %v", rows, err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Stranger(`UPDATE items SET value = 2 WHERE id = 2`)
	Eventually(t, func() error { // the stranger's row is delivered
		if n := w.Rows(); n != 1 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	p.Want(2, 2)
	if err := r.Drain(t.Context()); err != nil { // a recovery does not wait for anybody
		t.Fatal(err)
	}
	if n := w.Rows(); n != 0 {
		t.Errorf("%d rows after Drain", n)
	}
}

func TestDeliveredRowsAreForgotten(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	r := p.Relay(outbox.RelayConfig{Grace: time.Hour}) // so that the relay delivers none of them
	if err := p.WaitServing(t.Context()); err != nil { // the first drain leaves no process a grace
		t.Fatal(err)
	}
	db := p.DB(outbox.Options{Relay: r})
	for value := range 10 {
		if err := db.Write(t.Context(), Set(value, 1, 2)); err != nil {
			t.Fatal(err)
		}
	}
	Eventually(t, func() error {
		if n := w.Rows(); n != 0 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	if n := p.Counts.Rows("writer"); n != 20 {
		t.Errorf("%v tags delivered by their writer, want 20", n)
	}
	if n := p.Counts.Rows("relay"); n != 0 {
		t.Errorf("%v tags delivered by the relay, want none", n)
	}
	if n := p.Counts.Deliveries("writer"); n != 10 {
		t.Errorf("%v delays observed, want 10", n)
	}
}

// Rows still to be forgotten go when the relay is closed: the next process need not deliver
// them again.
func TestCloseForgets(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	for value := range 10 {
		r := p.Relay(outbox.RelayConfig{Grace: time.Hour})
		if err := p.DB(outbox.Options{Relay: r}).Write(t.Context(), Set(value, 1)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.Close(), r.Close()); err != nil {
			t.Fatal(err)
		}
		if n := w.Rows(); n != 0 {
			t.Fatalf("%d rows are left", n)
		}
		r.Start() // does nothing any more
		if err := r.Drain(t.Context()); err == nil {
			t.Error("a closed relay drained")
		}
	}
}

func TestBacklogIsDeliveredInFamilies(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	var calls, tags, most atomic.Int64
	p := w.Process(func(cfg *cache.Config) {
		cfg.Store = &WatchedStore{Store: cfg.Store, OnBump: func(list []cache.Tag, _ driver.Mark) {
			calls.Add(1)
			tags.Add(int64(len(list)))
			most.Store(max(most.Load(), int64(len(list))))
		}}
	})
	p.Warm(0, 1)
	const many = 30_000
	w.Stranger(`UPDATE items SET value = 5`)
	w.Stranger(`DELETE FROM cache_outbox`)
	w.Stranger(rowsOf(`INSERT INTO cache_outbox (tag) VALUES `, "('item:%d')", many))
	if n := w.Rows(); n != many {
		t.Fatalf("%d rows, want %d", n, many)
	}
	p.Relay(outbox.RelayConfig{Batch: 100, MaxTags: 150})
	p.Settles(5, 1)
	// Batches of 100, 200 … 2,000, by the relay and by the drain at its start at once: all but
	// the first are more than may be named.
	if calls.Load() > 50 || tags.Load() > 500 || most.Load() > 256 {
		t.Errorf("%d rows took %d bumps of %d tags, at most %d at once", many, calls.Load(), tags.Load(), most.Load())
	}
	if n := p.Counts.Rows("relay"); n < many || n > 2*many {
		t.Errorf("%v rows delivered, want %d", n, many)
	}
}

func TestWhatIsNoTagStandsInNobodysWay(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(func(cfg *cache.Config) {
		cfg.Store = &WatchedStore{Store: cfg.Store, OnBump: func(tags []cache.Tag, _ driver.Mark) {
			for _, tag := range tags {
				if tag != ItemTag(1) && tag != cache.Everything {
					t.Errorf("bumped %q", tags)
				}
			}
		}}
	})
	p.Warm(0, 1)
	w.Stranger(a.NoTags)
	p.Relay(outbox.RelayConfig{})
	w.Stranger(`UPDATE items SET value = 1 WHERE id = 1`)
	p.Settles(1, 1)
}

// What was written during an outage is delivered before anything is served from the cache
// again.
func TestRecoveryDrainsTheOutbox(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	r, err := outbox.NewRelay(p.Cache, p.Log, outbox.RelayConfig{Grace: time.Hour}) // not started
	if err != nil {
		t.Fatal(err)
	}
	p.Warm(0, 1, 2)
	p.Faults.Fail(ErrInjected)
	db := p.DB(outbox.Options{Relay: r})
	for value := 1; value <= 5; value++ {
		if err := db.Write(t.Context(), Set(value, 1)); err != nil {
			t.Fatal(err)
		}
		p.Want(1, value)
	}
	w.Stranger(`UPDATE items SET value = 7 WHERE id = 2`)
	p.Faults.Heal()
	Eventually(t, func() error {
		a, err := p.Items.Lookup(t.Context(), 2)
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
	p.Want(1, 5)
	if n := w.Rows(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func TestBacklogOfARelay(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	r, err := outbox.NewRelay(p.Cache, p.Log, outbox.RelayConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitServing(t.Context()); err != nil { // it drains at first
		t.Fatal(err)
	}
	w.Stranger(`UPDATE items SET value = 1`)
	Eventually(t, func() error {
		rows, age, err := r.Backlog(t.Context())
		if err != nil || rows != 3 || age <= 0 || age > RepairTime {
			return fmt.Errorf("%d rows, the oldest of %v (error %w), want 3", rows, age, err)
		}
		return nil
	})
	r.Start()
	p.Settles(1, 1, 2, 3)
	Eventually(t, func() error {
		if rows, age, err := r.Backlog(t.Context()); err != nil || rows != 0 || age != 0 {
			return fmt.Errorf("%d rows, the oldest of %v (error %w), want none", rows, age, err)
		}
		return nil
	})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// A cache whose relay was forgotten is an error of the first write.
func TestWriteWithoutRelay(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	w.Stranger(`DELETE FROM cache_consumers`)
	db := p.DB(outbox.Options{})
	err := db.Write(t.Context(), Set(1, 1))
	if !errors.Is(err, a.ErrNoRelay) || !strings.Contains(err.Error(), "outbox.NewRelay") {
		t.Fatalf("error %v, want ErrNoRelay", err)
	}
	p.Want(1, 0)
	p.Relay(outbox.RelayConfig{})
	if err := db.Write(t.Context(), Set(1, 1)); err != nil {
		t.Fatal(err)
	}
	w.Stranger(`DELETE FROM cache_consumers`)
	if err := db.Write(t.Context(), Set(2, 1)); err != nil { // asked once
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.DB(outbox.Options{}).Write(ended, Set(1, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has left: %v", err)
	}
}

// twoStores returns two processes in one database, each with a store of its own in memory.
func twoStores(t *testing.T, a Adapter) (w *World, ps []*Process) {
	t.Helper()
	w = NewWorld(t, a)
	for range 2 {
		store := storetest.NewFaulty(memstore.New(memstore.Config{MaxBytes: 16 << 20, MaxTags: 100_000}))
		t.Cleanup(func() { store.Close() })
		ps = append(ps, w.Process(func(cfg *cache.Config) { cfg.Store = store }))
	}
	return w, ps
}

// Of two stores in one database, each sees what an external writer and what the other wrote.
func TestTwoStores(t *testing.T, a Adapter) {
	w, ps := twoStores(t, a)
	var dbs []DB
	for _, p := range ps {
		dbs = append(dbs, p.DB(outbox.Options{Relay: p.Relay(outbox.RelayConfig{})}))
	}
	for value := 1; value <= 10; value++ {
		if value%2 == 0 {
			w.Stranger(`UPDATE items SET value = ?`, value)
		} else if err := dbs[value/2%2].Write(t.Context(), Set(value, 1, 2, 3)); err != nil {
			t.Fatal(err)
		}
		for _, p := range ps {
			p.Settles(value, 1, 2, 3)
		}
	}
}

// B: an answer carries the tag of its row alone, and is invalidated by writes that widen to the
// family: by external writers, and by Write.
func TestBulkWritesReachAnswersOfOneTag(t *testing.T, a Adapter) {
	const many, asked = 1500, 25
	ids := make([]int, asked)
	for i := range ids {
		ids[i] = 1 + i*many/asked
	}
	for _, c := range []struct {
		name, statement string
		own             bool
		gone            bool
	}{
		{name: "update by an external writer", statement: `UPDATE items SET value = 7`},
		{name: "update in Write", statement: `UPDATE items SET value = 7`, own: true},
		{name: "delete by an external writer", statement: `DELETE FROM items`, gone: true},
		{name: "delete in Write", statement: `DELETE FROM items`, own: true, gone: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := NewWorld(t, a)
			w.Stranger(a.items(many, 0))
			p := w.Process(nil)
			db := p.DB(outbox.Options{Relay: p.Relay(outbox.RelayConfig{})})
			p.Settles(0, ids...)
			if c.own {
				err := db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
					_, err := tx.ExecContext(ctx, c.statement)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			} else {
				w.Stranger(c.statement)
				Eventually(t, func() error {
					if n := w.Rows(); n != 0 {
						return fmt.Errorf("%d rows", n)
					}
					return nil
				})
			}
			for _, id := range ids {
				value, err := p.Items.Get(t.Context(), id)
				if c.gone && !errors.Is(err, cache.ErrNotFound) || !c.gone && (err != nil || value != 7) {
					t.Errorf("item %d is %d, %v", id, value, err)
				}
			}
		})
	}
}

// What many small transactions have recorded waits in the outbox, and then a relay starts. One
// transaction records it here, row by row: that leaves the same in the outbox, sooner.
func TestWaitingTransactionsReachAnswersOfOneTag(t *testing.T, a Adapter) {
	const many, asked = 3_000, 60
	w := NewWorld(t, a)
	db := w.Open(t)
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(a.items(many, 0))
	exec(`DELETE FROM cache_outbox`)
	p := w.Process(nil)
	ids := make([]int, asked)
	for i := range ids {
		ids[i] = 1 + i*many/asked
	}
	p.Warm(0, ids...)
	exec(`BEGIN`)
	for id := 1; id <= many; id++ {
		exec(`UPDATE items SET value = 9 WHERE id = ?`, id)
	}
	exec(`COMMIT`)
	p.Relay(outbox.RelayConfig{})
	p.Settles(9, ids...)
}

// No row is too large to be recorded, or to be delivered.
func TestEnormousValuesStandInNothingsWay(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	w.Stranger(a.Pages)
	if err := w.Watch(t.Context(), w.Open(t), "pages", "page:{slug}"); err != nil {
		t.Fatal(err)
	}
	p := w.Process(nil)
	pages := cache.Define(p.Cache, cache.Query[string, int]{
		Name: "pages:count",
		Tags: func(slug string) []cache.Tag { return cache.Tags("page", slug) },
		Load: func(ctx context.Context, slug string) (n int, err error) {
			err = p.Read.QueryRowContext(ctx, `SELECT coalesce((SELECT n FROM pages WHERE slug = ?), 0)`, slug).Scan(&n)
			return n, err
		},
		FreshFor: time.Hour,
	})
	p.Relay(outbox.RelayConfig{})
	slugs := []string{"a\tb", "a\nb", "\x7f", "\u0085", "red wine", strings.Repeat("long ", 100)}
	for round := range 2 {
		for _, slug := range slugs {
			if n, err := pages.Get(t.Context(), slug); err != nil || n != round {
				t.Fatalf("%.20q is %d, %v; want %d", slug, n, err, round)
			}
			w.Stranger(`INSERT INTO pages VALUES (?, 1) `+a.Upsert+` n = n + 1`, slug)
			if slug == slugs[0] {
				w.Stranger(`REPLACE INTO pages VALUES (?, 1)`, strings.Repeat("x", 8<<20))
			}
			Eventually(t, func() error {
				n, err := pages.Get(t.Context(), slug)
				if err == nil && n != round+1 {
					err = fmt.Errorf("%.20q is %d, want %d", slug, n, round+1)
				}
				return err
			})
		}
	}
	p.Settles(0, 1)
}

// A store joins, and the process that registered it dies before it has invalidated anything: the
// next process of the store, which finds it registered, serves nothing of before.
func TestAJoinerThatDiesLeavesNothingStale(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	p.Warm(0, 1)
	// The store is forgotten, and what was left for it is deleted.
	w.Stranger(`DELETE FROM cache_consumers; UPDATE items SET value = 1; DELETE FROM cache_outbox`)
	if _, _, err := p.Log.Join(t.Context(), p.Consumer()); err != nil {
		t.Fatal(err)
	}

	next := w.Process(nil)
	next.Relay(outbox.RelayConfig{})
	serving, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := next.WaitServing(serving); err != nil {
		t.Fatal(err)
	}
	next.Want(1, 1)
}

// A consumer that leaves is waited for no longer.
func TestConsumerThatLeaves(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	if _, _, err := p.Log.Join(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	p.Relay(outbox.RelayConfig{})
	w.Stranger(`UPDATE items SET value = 1`)
	Eventually(t, func() error {
		a, err := p.Items.Lookup(t.Context(), 1)
		if err == nil && (a.Value != 1 || a.Status != cache.Hit) {
			err = fmt.Errorf("item 1 is %d (%v)", a.Value, a.Status)
		}
		return err
	})
	if w.Rows() == 0 {
		t.Fatal("no row is kept for the other store")
	}
	for _, consumer := range []string{"other", "one that never came"} {
		if err := p.Log.Leave(t.Context(), consumer); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := p.Log.Join(t.Context(), p.Consumer()); err != nil {
		t.Fatal(err)
	}
	Eventually(t, func() error {
		if n := w.Rows(); n > 0 {
			return fmt.Errorf("%d rows are kept for a store that has left", n)
		}
		return nil
	})
	if _, err := p.Log.Deliver(t.Context(), "other", 0, 10, nil); !errors.Is(err, outbox.ErrNotJoined) {
		t.Errorf("it is served: error %v", err)
	}
}

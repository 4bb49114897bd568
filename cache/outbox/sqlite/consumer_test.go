package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/sqlite"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// deliver returns the tags that a consumer is handed.
func (f *file) deliver(consumer string, grace time.Duration) (tags []cache.Tag) {
	f.Helper()
	_, err := f.log.Deliver(f.Context(), consumer, grace, 1000, func(_ context.Context, rows []outbox.Row) error {
		for _, row := range rows {
			tags = append(tags, row.Tag)
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	return tags
}

// join registers a consumer that was registered or not. One that was not is handed the row that
// invalidates everything, and no other one is.
func (f *file) join(consumer string, joined bool, gone ...string) {
	f.Helper()
	is, forgotten, err := f.log.Join(f.Context(), consumer)
	if err != nil || is != joined || !slices.Equal(forgotten, gone) {
		f.Errorf("%s joined is %t, gone %q, error %v; want %t, %q", consumer, is, forgotten, err, joined, gone)
	}
	if joined {
		if got := f.deliver(consumer, 0); !slices.Contains(got, cache.Everything) {
			f.Errorf("%s joined, and was handed %q", consumer, got)
		}
	}
}

// Each consumer gets each row, and the last one deletes it.
func TestEveryConsumerGetsEveryRow(t *testing.T) {
	const other = "store B"
	f := newFile(t)
	if _, err := f.log.Deliver(t.Context(), other, 0, 10, nil); !errors.Is(err, outbox.ErrNotJoined) {
		t.Errorf("a consumer that never joined: %v", err)
	}
	f.join(consumer, false)
	f.join(other, true)
	f.join(other, false)
	f.exec(`INSERT INTO lessons VALUES (1, 'a', NULL), (2, 'a', NULL)`)
	want := []cache.Tag{"lesson:1", "lesson:2"}
	for _, c := range []string{consumer, other} {
		f.want("lesson:1", "lesson:2")
		if rows, _, err := f.log.Backlog(t.Context(), c); err != nil || rows != 2 {
			t.Errorf("%s has %d rows to get, %v", c, rows, err)
		}
		if got := f.deliver(c, time.Hour); !slices.Equal(got, want) {
			t.Errorf("%s got %q", c, got)
		}
		if got := f.deliver(c, 0); got != nil {
			t.Errorf("%s got %q again", c, got)
		}
		if rows, oldest, err := f.log.Backlog(t.Context(), c); err != nil || rows != 0 || oldest != 0 {
			t.Errorf("%s has %d rows to get, %v", c, rows, err)
		}
	}
	f.want()

	// A writer of one store is nothing that the other waits for.
	rows := f.commit(f.begin(`UPDATE lessons SET title = 'b' WHERE id = 1`))
	if got := f.deliver(consumer, time.Hour); got != nil {
		t.Errorf("its own writer's %q", got)
	}
	if got := f.deliver(other, time.Hour); !slices.Equal(got, want[:1]) {
		t.Errorf("%s got %q", other, got)
	}
	f.want("lesson:1 marked")
	if err := f.log.Done(t.Context(), consumer, []int64{rows[0].ID}); err != nil {
		t.Fatal(err)
	}
	f.want()

	// What one has got and the other has not is touched again: both get it again.
	f.exec(`UPDATE lessons SET title = 'c' WHERE id = 1`)
	f.deliver(consumer, 0)
	f.exec(`UPDATE lessons SET title = 'd' WHERE id = 1`)
	for _, c := range []string{consumer, other} {
		if got := f.deliver(c, 0); !slices.Equal(got, want[:1]) {
			t.Errorf("%s got %q", c, got)
		}
	}
	f.want()

	// A consumer that is silent is forgotten, and what was left for it goes.
	f.exec(`UPDATE lessons SET title = 'e'`)
	f.deliver(consumer, 0)
	f.want("lesson:1", "lesson:2")
	f.exec(fmt.Sprintf(`UPDATE cache_consumers SET seen_at = seen_at - %d`, outbox.ConsumerLife.Milliseconds()/2))
	f.join(consumer, false)
	f.exec(fmt.Sprintf(`UPDATE cache_consumers SET seen_at = seen_at - %d`, outbox.ConsumerLife.Milliseconds()*3/4))
	f.join(consumer, false, other)
	f.want()
	if _, err := f.log.Deliver(t.Context(), other, 0, 10, nil); !errors.Is(err, outbox.ErrNotJoined) {
		t.Errorf("a forgotten consumer: %v", err)
	}
	f.join(other, true)
	// It has been silent itself.
	f.exec(`UPDATE cache_consumers SET seen_at = 0`)
	f.join(consumer, true, other)
	// A clock that was set back keeps none for ever.
	f.exec(`UPDATE cache_consumers SET seen_at = seen_at + 1000000000; INSERT INTO cache_consumers VALUES ('store C', 9e12)`)
	f.join(consumer, false)
	f.exec(fmt.Sprintf(`UPDATE cache_consumers SET seen_at = seen_at - %d WHERE name = 'store C'`, outbox.ConsumerLife.Milliseconds()+1000))
	f.join(consumer, false, "store C")
	var left int
	if err := f.read.QueryRowContext(t.Context(), `SELECT count(*) FROM cache_delivered`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d deliveries are remembered, %v", left, err)
	}
}

// Consumers come, and relays deliver, while rows are written: a consumer gets each row that was
// recorded after it joined.
func TestNoRowIsLostToAConsumerThatJoins(t *testing.T) {
	f := newFile(t)
	got := map[string]map[cache.Tag]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	const rows = 300
	written := make(chan struct{})
	since := map[string]int{}
	var third [3]chan struct{} // closed as so many thirds of the rows have been written
	for i := range third {
		third[i] = make(chan struct{})
	}
	for i, name := range []string{consumer, "store B", "store C"} {
		got[name] = map[cache.Tag]bool{}
		wg.Go(func() {
			<-third[i]
			if _, _, err := f.log.Join(t.Context(), name); err != nil {
				t.Error(err)
			}
			mu.Lock()
			var last int
			if err := f.read.QueryRowContext(t.Context(), `SELECT coalesce(max(id), 0) FROM lessons`).Scan(&last); err != nil {
				t.Error(err)
			}
			since[name] = last
			mu.Unlock()
			for done := false; ; {
				n, err := f.log.Deliver(t.Context(), name, 0, 7, func(_ context.Context, rows []outbox.Row) error {
					mu.Lock()
					defer mu.Unlock()
					for _, row := range rows {
						got[name][row.Tag] = true
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				if n == 0 && done {
					return
				}
				select {
				case <-written:
					done = true
				default:
				}
			}
		})
	}
	for id := 1; id <= rows; id++ {
		if i := (id - 1) * 3 / rows; (id-1)*3%rows == 0 {
			close(third[i])
		}
		f.exec(fmt.Sprintf(`INSERT INTO lessons (id) VALUES (%d)`, id))
	}
	close(written)
	wg.Wait()
	for name, last := range since {
		for id := last + 1; id <= rows; id++ {
			if !got[name][cache.T("lesson", id)] {
				t.Errorf("%s, which joined when there were %d, never got %d", name, last, id)
			}
		}
	}
	f.want()
}

// Rows of before a clock was set back are delivered.
func TestClockSetBack(t *testing.T) {
	f := newFile(t)
	f.commit(f.begin(`INSERT INTO lessons VALUES (1, 'a', NULL)`))
	f.exec(`INSERT INTO lessons VALUES (2, 'a', NULL); UPDATE cache_outbox SET recorded_at = recorded_at + 7200000`)
	if got := f.deliver(consumer, 24*time.Hour); !slices.Equal(got, []cache.Tag{"lesson:1", "lesson:2"}) {
		t.Errorf("delivered %q", got)
	}

	w := newWorld(t)
	p := w.process(nil)
	r, err := outbox.NewRelay(p.Cache, p.log, outbox.RelayConfig{Batch: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p.warm(0, 1, 2, 3)
	w.stranger(`UPDATE items SET value = 1; UPDATE cache_outbox SET recorded_at = recorded_at + 7200000`)
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.rows(); n != 0 {
		t.Errorf("%d rows are left after a drain", n)
	}
	for id := 1; id <= 3; id++ {
		p.want(id, 1)
	}
}

// A cache whose relay was forgotten is an error of the first write.
func TestWriteWithoutRelay(t *testing.T) {
	w := newWorld(t)
	p := w.process(nil)
	w.stranger(`DELETE FROM cache_consumers`)
	db := p.db(outbox.Options{})
	err := db.Write(t.Context(), set(1, 1))
	if !errors.Is(err, sqlite.ErrNoRelay) || !strings.Contains(err.Error(), "outbox.NewRelay") {
		t.Fatalf("error %v, want ErrNoRelay", err)
	}
	p.want(1, 0)
	p.relay(outbox.RelayConfig{})
	if err := db.Write(t.Context(), set(1, 1)); err != nil {
		t.Fatal(err)
	}
	w.stranger(`DELETE FROM cache_consumers`)
	if err := db.Write(t.Context(), set(2, 1)); err != nil { // asked once
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.db(outbox.Options{}).Write(ended, set(1, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has left: %v", err)
	}
}

// twoStores returns two processes on one file, each with a store of its own in memory.
func twoStores(t *testing.T) (w *world, ps []*process) {
	t.Helper()
	w = newWorld(t)
	for range 2 {
		store := storetest.NewFaulty(memstore.New(memstore.Config{MaxBytes: 16 << 20, MaxTags: 100_000}))
		t.Cleanup(func() { store.Close() })
		ps = append(ps, w.process(func(cfg *cache.Config) { cfg.Store = store }))
	}
	return w, ps
}

// Of two stores on one file, each sees what an external writer and what the other wrote.
func TestTwoStoresOnOneFile(t *testing.T) {
	w, ps := twoStores(t)
	var dbs []*sqlite.DB
	for _, p := range ps {
		dbs = append(dbs, p.db(outbox.Options{Relay: p.relay(outbox.RelayConfig{})}))
	}
	for value := 1; value <= 10; value++ {
		if value%2 == 0 {
			w.stranger(`UPDATE items SET value = ?`, value)
		} else if err := dbs[value/2%2].Write(t.Context(), set(value, 1, 2, 3)); err != nil {
			t.Fatal(err)
		}
		for _, p := range ps {
			p.settles(value, 1, 2, 3)
		}
	}
}

// B: an answer carries the tag of its row alone, and is invalidated by writes that widen to the
// family: by external writers, and by Write.
func TestBulkWritesReachAnswersOfOneTag(t *testing.T) {
	const many, asked = 1500, 25
	fill := fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO items SELECT i, 0 FROM n WHERE true ON CONFLICT DO NOTHING`, many)
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
			w := newWorld(t)
			w.stranger(fill)
			p := w.process(nil)
			db := p.db(outbox.Options{Relay: p.relay(outbox.RelayConfig{})})
			p.settles(0, ids...)
			if c.own {
				err := db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
					_, err := tx.ExecContext(ctx, c.statement)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			} else {
				w.stranger(c.statement)
				eventually(t, func() error {
					if n := w.rows(); n != 0 {
						return fmt.Errorf("%d rows", n)
					}
					return nil
				})
			}
			for _, id := range ids {
				value, err := p.items.Get(t.Context(), id)
				if c.gone && !errors.Is(err, cache.ErrNotFound) || !c.gone && (err != nil || value != 7) {
					t.Errorf("item %d is %d, %v", id, value, err)
				}
			}
		})
	}
}

// What many small transactions have recorded waits in the outbox, and then a relay starts. One
// transaction records it here, row by row: that leaves the same in the outbox, sooner.
func TestWaitingTransactionsReachAnswersOfOneTag(t *testing.T) {
	const many, asked = 3_000, 60
	w := newWorld(t)
	db := w.open(1, "&_synchronous=OFF")
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) INSERT INTO items SELECT i, 0 FROM n WHERE true ON CONFLICT DO NOTHING; DELETE FROM cache_outbox`, many))
	p := w.process(nil)
	ids := make([]int, asked)
	for i := range ids {
		ids[i] = 1 + i*many/asked
	}
	p.warm(0, ids...)
	exec(`BEGIN`)
	for id := 1; id <= many; id++ {
		exec(`UPDATE items SET value = 9 WHERE id = ?`, id)
	}
	exec(`COMMIT`)
	p.relay(outbox.RelayConfig{})
	p.settles(9, ids...)
}

// No row is too large to be recorded, or to be delivered.
func TestEnormousValuesStandInNothingsWay(t *testing.T) {
	w := newWorld(t)
	w.stranger(`CREATE TABLE pages (slug TEXT PRIMARY KEY, n INTEGER)`)
	db := w.open(1, "")
	if err := sqlite.Watch(t.Context(), db, "test", "pages", "page:{slug}"); err != nil {
		t.Fatal(err)
	}
	p := w.process(nil)
	pages := cache.Define(p.Cache, cache.Query[string, int]{
		Name: "pages:count",
		Tags: func(slug string) []cache.Tag { return cache.Tags("page", slug) },
		Load: func(ctx context.Context, slug string) (n int, err error) {
			err = p.read.QueryRowContext(ctx, `SELECT coalesce((SELECT n FROM pages WHERE slug = ?), 0)`, slug).Scan(&n)
			return n, err
		},
		FreshFor: time.Hour,
	})
	p.relay(outbox.RelayConfig{})
	slugs := []string{"a\tb", "a\nb", "\x7f", "\u0085", "red wine", strings.Repeat("long ", 100)}
	for round := range 2 {
		for _, slug := range slugs {
			if n, err := pages.Get(t.Context(), slug); err != nil || n != round {
				t.Fatalf("%.20q is %d, %v; want %d", slug, n, err, round)
			}
			w.stranger(`INSERT INTO pages VALUES (?, 1) ON CONFLICT DO UPDATE SET n = n + 1`, slug)
			if slug == slugs[0] {
				w.stranger(`REPLACE INTO pages VALUES (?, 1)`, strings.Repeat("x", 8<<20))
			}
			eventually(t, func() error {
				n, err := pages.Get(t.Context(), slug)
				if err == nil && n != round+1 {
					err = fmt.Errorf("%.20q is %d, want %d", slug, n, round+1)
				}
				return err
			})
		}
	}
	p.settles(0, 1)
}

// A store joins, and the process that registered it dies before it has invalidated anything: the
// next process of the store, which finds it registered, serves nothing of before.
func TestAJoinerThatDiesLeavesNothingStale(t *testing.T) {
	w := newWorld(t)
	p := w.process(nil)
	p.warm(0, 1)
	// The store is forgotten, and what was left for it is deleted.
	w.stranger(`DELETE FROM cache_consumers; UPDATE items SET value = 1; DELETE FROM cache_outbox`)
	if _, _, err := p.log.Join(t.Context(), p.name()); err != nil {
		t.Fatal(err)
	}

	next := w.process(nil)
	next.relay(outbox.RelayConfig{})
	serving, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := next.WaitServing(serving); err != nil {
		t.Fatal(err)
	}
	next.want(1, 1)
}

package mysql_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
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
		if got := slices.Compact(f.deliver(c, 0)); !slices.Equal(got, want[:1]) {
			t.Errorf("%s got %q", c, got)
		}
	}
	f.want()

	// A consumer that is silent is forgotten, and what was left for it goes.
	f.exec(`UPDATE lessons SET title = 'e'`)
	f.deliver(consumer, 0)
	f.want("lesson:1", "lesson:2")
	f.exec(fmt.Sprintf(`UPDATE cache_consumers SET seen_at = seen_at - INTERVAL %d SECOND`, int(outbox.ConsumerLife.Seconds())/2))
	f.join(consumer, false)
	f.exec(fmt.Sprintf(`UPDATE cache_consumers SET seen_at = seen_at - INTERVAL %d SECOND`, int(outbox.ConsumerLife.Seconds())*3/4))
	f.join(consumer, false, other)
	f.want()
	if _, err := f.log.Deliver(t.Context(), other, 0, 10, nil); !errors.Is(err, outbox.ErrNotJoined) {
		t.Errorf("a forgotten consumer: %v", err)
	}
	f.join(other, true)
	// It has been silent itself.
	f.exec(`UPDATE cache_consumers SET seen_at = '2001-01-01'`)
	f.join(consumer, true, other)
	// A clock that was set back keeps none for ever.
	f.exec(`UPDATE cache_consumers SET seen_at = seen_at + INTERVAL 10 DAY; INSERT INTO cache_consumers VALUES ('store C', '9999-01-01')`)
	f.join(consumer, false)
	f.exec(fmt.Sprintf(`UPDATE cache_consumers SET seen_at = seen_at - INTERVAL %d SECOND WHERE name = 'store C'`, int(outbox.ConsumerLife.Seconds())+1))
	f.join(consumer, false, "store C")
	var left int
	if err := f.pool.QueryRowContext(t.Context(), `SELECT count(*) FROM cache_delivered`).Scan(&left); err != nil || left != 0 {
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
			if err := f.pool.QueryRowContext(t.Context(), `SELECT coalesce(max(id), 0) FROM lessons`).Scan(&last); err != nil {
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
	f.exec(`INSERT INTO lessons VALUES (2, 'a', NULL); UPDATE cache_outbox SET recorded_at = recorded_at + INTERVAL 2 HOUR`)
	if got := f.deliver(consumer, 24*time.Hour); !slices.Equal(got, []cache.Tag{"lesson:1", "lesson:2"}) {
		t.Errorf("delivered %q", got)
	}

	w := newWorld(t)
	p := w.Process(nil)
	r, err := outbox.NewRelay(p.Cache, p.Log, outbox.RelayConfig{Batch: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p.Warm(0, 1, 2, 3)
	w.Stranger(`UPDATE items SET value = 1; UPDATE cache_outbox SET recorded_at = recorded_at + INTERVAL 2 HOUR`)
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.Rows(); n != 0 {
		t.Errorf("%d rows are left after a drain", n)
	}
	for id := 1; id <= 3; id++ {
		p.Want(id, 1)
	}
}

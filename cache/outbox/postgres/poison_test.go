package postgres

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/storetest"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// A row of any size, and one with any time, is handed out like others, and no larger than it
// must be.
func TestStrangeRowsAreHandedOut(t *testing.T) {
	t.Parallel()
	url := database(t)
	conn, l := connect(t, url), openLog(t, pool(t, url), nil)
	for _, consumers := range [][]string{{"a"}, {"a", "b"}} { // alone, rows are claimed; else they are read
		join(t, l, consumers...)
		for _, c := range consumers {
			got(t, l, c)
		}
		run(t, conn,
			`INSERT INTO cache_outbox (tag) SELECT string_agg(md5(i::text), '') FROM generate_series(1, 262144) i`, // 8 MiB
			`INSERT INTO cache_outbox (tag, recorded_at) VALUES ('t:1', 'infinity'), ('t:2', '-infinity')`,
			`SELECT cache_record('t:3')`)
		for _, c := range consumers {
			rows, oldest, err := l.Backlog(t.Context(), c)
			if err != nil || rows != 4 || oldest < 0 {
				t.Errorf("the backlog of %s is %d rows, %v (error %v)", c, rows, oldest, err)
			}
			var tags []cache.Tag
			n, err := l.Deliver(t.Context(), c, 0, 100, func(_ context.Context, rows []outbox.Row) error {
				for _, row := range rows {
					if len(row.Tag) > driver.MaxTag {
						if row.Tag.Check() == nil || len(row.Tag) > driver.MaxTag+1 {
							t.Errorf("a tag of %d bytes was handed out", len(row.Tag))
						}
						row.Tag = "huge"
					}
					tags = append(tags, row.Tag)
				}
				return nil
			})
			if err != nil || n != 4 {
				t.Errorf("%s got %d rows %q (error %v), want 4", c, n, tags, err)
			}
		}
	}
}

type setAside struct {
	mu   sync.Mutex
	rows []outbox.SetAside
}

func (s *setAside) Query(string) cache.QueryObserver { return nil }
func (s *setAside) Observe(_ context.Context, e cache.Event) {
	if e, ok := e.(outbox.SetAside); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rows = append(s.rows, e)
	}
}

func TestPoisonedRowHoldsNothingUp(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	p := pool(t, url)
	store := storetest.NewFaulty(memstore.New(memstore.Config{}))
	t.Cleanup(func() { testservers.Must(t, store.Close()) })
	store.RefuseTag("poison:1", errors.New("refused"))
	var aside setAside
	c, err := cache.New(cache.Config{Store: store, StoreTimeout: time.Second, Observer: &aside})
	testservers.Must(t, err)
	t.Cleanup(func() { testservers.Must(t, c.Close()) })
	log := NewLog(p, nil)
	t.Cleanup(func() { testservers.Must(t, log.Close()) })
	r, err := outbox.NewRelay(c, log, outbox.RelayConfig{})
	testservers.Must(t, err)
	t.Cleanup(func() { testservers.Must(t, r.Close()) })
	r.Start()
	serving, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	testservers.Must(t, c.WaitServing(serving))

	conn := connect(t, url)
	for _, poison := range []string{ // one after the other: everything covers the other one as well
		`SELECT cache_record('poison:1')`, `INSERT INTO cache_outbox (tag) VALUES (repeat('x', 8388608))`,
	} {
		run(t, conn, poison, `UPDATE items SET value = value + 1`)
		testservers.Eventually(t, 30*time.Second, func() (bool, string) {
			if n := ask[int](t, conn, `SELECT count(*) FROM cache_outbox`); n > 0 {
				return false, "rows are left"
			}
			return c.Health().State == "ok", "not recovered"
		})
	}
	aside.mu.Lock()
	defer aside.mu.Unlock()
	var instead []string
	for _, e := range aside.rows {
		instead = append(instead, string(e.Instead))
	}
	if all := strings.Join(instead, " "); !strings.Contains(all, "poison:*") || !strings.Contains(all, "*") {
		t.Errorf("set aside: %+v", aside.rows)
	}
}

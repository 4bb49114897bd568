package sqldbtest

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// What another program writes is seen through the relay, which polls. What that takes is logged, not
// judged: the machine may be busy.
func TestExternalWritesAreSeen(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p := start(t, options{driver: driver, url: database(t, items...)})
		var took []time.Duration
		for value := 1; value <= 10; value++ {
			p.warm(t, 1, value-1)
			run(t, p.plain, `UPDATE items SET value = value + 1 WHERE id = 1`)
			written := time.Now()
			testservers.Eventually(t, 20*time.Second, func() (bool, string) { return p.get(t, 1) == value, "the old value is served" })
			took = append(took, time.Since(written))
		}
		slices.Sort(took)
		t.Logf("shows after %v (median), %v (most)", took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
		testservers.Eventually(t, 20*time.Second, func() (bool, string) {
			return ask[int](t, p.plain, `SELECT count(*) FROM cache_outbox`) == 0, "rows are left in the outbox"
		})
	})
}

// Two stores consume one outbox: each gets every row.
func TestTwoStoresOnOneOutbox(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		url := database(t, items...)
		a := start(t, options{driver: driver, url: url})
		b := start(t, options{driver: driver, url: url})
		for value := 1; value <= 5; value++ {
			a.warm(t, 1, value-1)
			b.warm(t, 1, value-1)
			testservers.Must(t, ways["Exec"](t.Context(), a.db.DB, value))
			if got := a.get(t, 1); got != value {
				t.Errorf("after the write of %d the writer's store says %d", value, got)
			}
			testservers.Eventually(t, 20*time.Second, func() (bool, string) { return b.get(t, 1) == value, "the other store has the old value" })
		}
		testservers.Eventually(t, 20*time.Second, func() (bool, string) {
			return ask[int](t, a.plain, `SELECT count(*) FROM cache_outbox`) == 0, "rows are left in the outbox"
		})
	})
}

// Writers, readers and two caches on one store: no read that begins after a write was acknowledged is
// older. Without the wrapper the same program reads older values, which is logged, not judged.
func TestLoad(t *testing.T) {
	for _, driver := range []string{"pgx", "postgres", "mysql"} {
		t.Run(driver, func(t *testing.T) {
			behind, reads, writes := load(t, driver, true)
			t.Logf("wrapped: %d of %d reads behind their acknowledgement, %d writes", behind, reads, writes)
			if behind > 0 || reads == 0 || writes == 0 {
				t.Errorf("wrapped: %d of %d reads are behind their acknowledgement, %d writes", behind, reads, writes)
			}
			behind, reads, writes = load(t, driver, false)
			t.Logf("not wrapped: %d of %d reads behind their acknowledgement, %d writes", behind, reads, writes)
		})
	}
}

// load runs three writers and four readers for two or three seconds. Each item has one writer, whose values
// grow, in any of the ways to write.
func load(t *testing.T, driver string, wrapped bool) (behind, reads, writes int64) {
	store := memstore.New(memstore.Config{})
	defer store.Close()
	third := `INSERT INTO items (id) VALUES (3)`
	url, write, length := "", write, 2*time.Second
	if driver == "mysql" {
		url, write, length = mariaDatabase(t, third), mariaWrite, 3*time.Second
	} else {
		url = database(t, slices.Concat(items, []string{third})...)
	}
	processes := []*process{
		start(t, options{driver: driver, url: url, store: store}), start(t, options{driver: driver, url: url, store: store}),
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var acknowledged [4]atomic.Int64
	var late, read, wrote atomic.Int64
	var wg sync.WaitGroup
	for id := 1; id <= 3; id++ {
		wg.Go(func() {
			db := processes[id%2].plain
			if wrapped {
				db = processes[id%2].db.DB
			}
			for value := int64(1); ctx.Err() == nil; value++ {
				if err := write(t.Context(), db, id, value); err != nil {
					t.Log(err) // as when the machine is busy for longer than a lease: it is not acknowledged
					continue
				}
				acknowledged[id].Store(value)
				wrote.Add(1)
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				id := rand.N(3) + 1
				floor := acknowledged[id].Load()
				got, err := processes[rand.N(2)].value.Get(t.Context(), id)
				if err != nil {
					t.Error(err)
					return
				}
				read.Add(1)
				if int64(got) < floor {
					late.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return late.Load(), read.Load(), wrote.Load()
}

func write(ctx context.Context, db *sql.DB, id int, value int64) error {
	switch value % 3 {
	case 0:
		_, err := db.ExecContext(ctx, `UPDATE items SET value = $2 WHERE id = $1`, id, value)
		return err
	case 1:
		var got int64
		err := db.QueryRowContext(ctx, `UPDATE items SET value = $2 WHERE id = $1 RETURNING value`, id, value).Scan(&got)
		if err == nil && got != value {
			err = errors.New("RETURNING returned another value")
		}
		return err
	}
	return inTx(ctx, db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE items SET value = $2 WHERE id = $1`, id, value)
		return err
	})
}

package cache_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// ledger is a source of numbered rows whose numbers only grow, and remembers which number
// was acknowledged to whom, and when.
type ledger struct {
	rows [3]struct {
		committed atomic.Int64
		returned  atomic.Int64 // the highest that any reader got

		mu    sync.Mutex
		acked []ack // in order; guarded by mu
	}
}

type ack struct {
	number  int64
	process int
	at      time.Time
}

// due returns the least number that a read by process may return if it begins now: what
// the process itself acknowledged, and what any did at least bound ago.
func (l *ledger) due(id, process int, bound time.Duration) (number int64) {
	r := &l.rows[id]
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, a := range r.acked {
		if a.process == process || now.Sub(a.at) >= bound {
			number = max(number, a.number)
		}
	}
	return number
}

// write is one transaction on process: fenced, committed, bumped, acknowledged.
func (l *ledger) write(ctx context.Context, c process, process, id int) error {
	f, err := c.Fence(ctx, driver.Mark(driver.NewVersion()), []cache.Tag{rowTag(id)})
	if err != nil {
		return err
	}
	r := &l.rows[id]
	number := r.committed.Add(1)
	if err := f.Bump(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.acked) > 1<<10 { // what is older than any bound is covered by what remains
		r.acked = append(r.acked[:0], r.acked[len(r.acked)/2:]...)
	}
	r.acked = append(r.acked, ack{number, process, time.Now()})
	return nil
}

// raise notes that number was returned.
func (l *ledger) raise(id int, number int64) {
	r := &l.rows[id].returned
	for was := r.Load(); number > was && !r.CompareAndSwap(was, number); was = r.Load() {
	}
}

// Readers and writers of two processes, at full speed, in real time. No read may return
// less than was acknowledged: by its own process before it began, and by the other one
// before the bound. A store that reports within its calls leaves nothing to the bound, and
// then no read may return less than an earlier read either.
func TestNearReadersAndWritersOfTwoProcesses(t *testing.T) {
	for name, test := range map[string]struct{ delay, near, bound time.Duration }{
		// A generous Near: a busy machine may not run the goroutine that proves for long.
		"reports take no time": {delay: 0, near: 10 * time.Second, bound: 0},
		"reports are late":     {delay: 5 * time.Millisecond, near: 100 * time.Millisecond, bound: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			shared := storetest.NewFaulty(memstore.New(memstore.Config{}))
			t.Cleanup(func() { shared.Close() })
			l := &ledger{}
			query := cache.Query[int, int64]{
				Name:     "rows:number",
				Key:      func(id int) string { return cache.Key(id) },
				Tags:     func(id int) []cache.Tag { return []cache.Tag{rowTag(id), "rows:*"} },
				Load:     func(_ context.Context, id int) (int64, error) { return l.rows[id].committed.Load(), nil },
				FreshFor: time.Minute,
				Near:     test.near,
			}
			// Readers go on until the writers have done their part, however busy the machine is.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var wg, writing sync.WaitGroup
			var fleet [2]process
			for i := range fleet {
				c := newProcess(t, shared.Peer(), cache.Config{StoreTimeout: 20 * time.Second})
				fleet[i] = c
				if test.delay > 0 {
					c.store.Delay(test.delay, storetest.OpWatch)
				}
				q := cache.Define(c.Cache, query)
				writing.Go(func() {
					for n := 0; n < 300 && ctx.Err() == nil && !t.Failed(); n++ {
						if err := l.write(t.Context(), c, i, n%len(l.rows)); err != nil {
							t.Error(err)
							return
						}
						select { // so that near answers have a life
						case <-time.After(500 * time.Microsecond):
						case <-ctx.Done():
						}
					}
				})
				for reader := range 4 {
					wg.Go(func() {
						for n := reader; ctx.Err() == nil && !t.Failed(); n++ {
							id := n % len(l.rows)
							due, earlier := l.due(id, i, test.bound), l.rows[id].returned.Load()
							a, err := q.Lookup(t.Context(), id)
							switch {
							case err != nil:
								t.Error(err)
							case a.Value < due:
								t.Errorf("process %d read row %d as %d, %v %s; %d was acknowledged before", i, id, a.Value, a.Status, a.Detail, due)
							case a.Value < earlier && test.bound == 0:
								t.Errorf("process %d read row %d as %d, %v %s, after another caller had read %d", i, id, a.Value, a.Status, a.Detail, earlier)
							}
							l.raise(id, a.Value)
							runtime.Gosched() // or the writers hardly get a turn
						}
					})
				}
			}
			writing.Wait()
			if ctx.Err() != nil {
				t.Error("the writers did not come to an end in a minute")
			}
			cancel()
			wg.Wait()
			for i, c := range fleet {
				near := c.counts.Total().NearHits
				if near == 0 {
					t.Errorf("process %d had no near hits: the test shows nothing", i)
				}
				t.Logf("process %d: %v near hits, %v shared", i, near, c.counts.Total().Hits)
			}
		})
	}
}

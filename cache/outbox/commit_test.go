package outbox_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// fakeTx is a transaction that touched one tag, and whose commit a test decides.
type fakeTx struct {
	tag    cache.Tag
	commit func(context.Context) error
}

func (tx *fakeTx) Mark() driver.Mark { return driver.Mark{1} }
func (tx *fakeTx) Touched(context.Context) ([]outbox.Row, error) {
	return []outbox.Row{{ID: 1, Tag: tx.tag, Mark: tx.Mark()}}, nil
}
func (tx *fakeTx) Commit(ctx context.Context) error { return tx.commit(ctx) }
func (tx *fakeTx) Rollback(context.Context) error   { return nil }

// fenced says whether a reader finds tag fenced.
func fenced(t *testing.T, store *storetest.Faulty, tag cache.Tag) bool {
	t.Helper()
	snapshot, err := store.Read(t.Context(), []driver.Tag{tag}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot.States[0].Fenced
}

// A COMMIT may take longer than any lease. Its effect shows at its end, so the fence must stand
// until then, and be gone when it is acknowledged.
func TestFenceStandsUntilTheCommitHasEnded(t *testing.T) {
	const tag = "item:1"
	for _, takes := range []time.Duration{12 * time.Second, 1700 * time.Millisecond} { // the second ends within a renewal
		virtual(t, func(t *testing.T, c *cache.Cache, store *storetest.Faulty) {
			reader := store.Peer()
			defer reader.Close()
			store.Delay(40*time.Millisecond, storetest.OpFence)
			err := outbox.Commit(t.Context(), c, &fakeTx{tag, func(context.Context) error {
				for end := time.Now().Add(takes); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
					if !fenced(t, reader, tag) {
						t.Fatalf("readers serve old answers %v before the commit ends", time.Until(end))
					}
				}
				return nil
			}}, outbox.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if fenced(t, reader, tag) {
				t.Error("the fence stands after the write was acknowledged")
			}
		})
	}
}

// A fence that cannot be renewed lapses, as one that never stood. That is said and counted once.
func TestFenceThatLapsesDuringACommitIsCounted(t *testing.T) {
	virtual(t, func(t *testing.T, _ *cache.Cache, store *storetest.Faulty) {
		var log bytes.Buffer
		counts := &cachetest.Counts{}
		c, err := cache.New(cache.Config{Store: store, Observer: counts, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		err = outbox.Commit(t.Context(), c, &fakeTx{"item:1", func(context.Context) error {
			store.Fail(errInjected, storetest.OpFence)
			time.Sleep(20 * time.Second)
			store.Heal()
			return nil
		}}, outbox.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if n := counts.Total().Unfenced; n != 1 {
			t.Errorf("%d writes are counted as unfenced, want this one", n)
		}
		if n := strings.Count(log.String(), "without a fence"); n != 1 {
			t.Errorf("the log says it %d times:\n%s", n, log.String())
		}
	})
}

// doneLog notes which rows are said to be delivered.
type doneLog struct {
	fakeLog
	done chan []int64
}

func (l *doneLog) Done(_ context.Context, _ string, ids []int64) error {
	l.done <- ids
	return nil
}

// The rows of a write whose bump failed stay in the outbox: they are all that is left of it if its
// process dies.
func TestRowsStayWhenTheBumpFailed(t *testing.T) {
	virtual(t, func(t *testing.T, c *cache.Cache, store *storetest.Faulty) {
		log := &doneLog{done: make(chan []int64, 10)}
		log.deliver = func(context.Context, time.Duration, int, func(context.Context, []outbox.Row) error) (int, error) {
			return 0, nil
		}
		log.wait = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		relay, err := outbox.NewRelay(c, log, outbox.RelayConfig{})
		if err != nil {
			t.Fatal(err)
		}
		relay.Start()
		defer relay.Close()
		time.Sleep(time.Second)
		commits := &fakeTx{"item:1", func(context.Context) error { return nil }}
		for _, fails := range []bool{true, false} {
			if fails {
				store.Fail(errInjected, storetest.OpBump)
			}
			if err := outbox.Commit(t.Context(), c, commits, outbox.Options{Relay: relay}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if deleted := len(log.done) > 0; deleted == fails {
				t.Errorf("the bump failed: %v; the rows were deleted: %v", fails, deleted)
			}
			store.Heal()
			time.Sleep(time.Second)
		}
	})
}

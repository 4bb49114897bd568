package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/mysql"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

var errInjected = errors.New("injected")

// spy is a transaction whose steps a test watches, or changes.
type spy struct {
	*mysql.Tx
	touched func()
	commit  func(ctx context.Context, commit func(context.Context) error) error
}

func (s *spy) Touched(ctx context.Context) ([]outbox.Row, error) {
	rows, err := s.Tx.Touched(ctx)
	if s.touched != nil {
		s.touched()
	}
	return rows, err
}

func (s *spy) Commit(ctx context.Context) error {
	if s.commit != nil {
		return s.commit(ctx, s.Tx.Commit)
	}
	return s.Tx.Commit(ctx)
}

// watched is a store that reports fences and bumps.
type watched struct {
	driver.Store
	fence func(tags []cache.Tag)
	bump  func(tags []cache.Tag, mark driver.Mark)
}

func (s *watched) Fence(ctx context.Context, tags []cache.Tag, mark driver.Mark, lease time.Duration) error {
	if s.fence != nil {
		s.fence(tags)
	}
	return s.Store.Fence(ctx, tags, mark, lease)
}

func (s *watched) Bump(ctx context.Context, tags []cache.Tag, mark driver.Mark) error {
	if s.bump != nil {
		s.bump(tags, mark)
	}
	return s.Store.Bump(ctx, tags, mark)
}

func TestWriteIsSeenByEveryProcessAtOnce(t *testing.T) {
	w := newWorld(t)
	writer, reader := w.process(nil), w.process(nil)
	db := writer.db(outbox.Options{})
	reader.warm(0, 1, 2)
	for value := 1; value <= 20; value++ {
		if err := db.Write(t.Context(), set(value, 1)); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*process{reader, writer} {
			if a := p.want(1, value); a.Status == cache.Bypass {
				t.Fatal("the fence still stands")
			}
		}
	}
	reader.wantAs(2, 0, cache.Hit, "") // was never concerned
}

// No reader, on any process, sees the new value and a later one the old; and none that starts
// after the acknowledgement sees anything older.
func TestReadsAndWritesAreLinearizable(t *testing.T) {
	w := newWorld(t)
	writer := w.process(nil)
	db := writer.db(outbox.Options{})
	var acked, seen atomic.Int64
	done := make(chan struct{})
	var readers sync.WaitGroup
	for _, p := range []*process{writer, w.process(nil)} {
		for range 2 {
			readers.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					least := max(acked.Load(), seen.Load()) // before the read begins
					got, err := p.items.Get(t.Context(), 1)
					if err != nil {
						t.Error(err)
						return
					}
					if int64(got) < least {
						t.Errorf("read %d after %d was acknowledged or read", got, least)
						return
					}
					for old := seen.Load(); int64(got) > old && !seen.CompareAndSwap(old, int64(got)); old = seen.Load() {
					}
				}
			})
		}
	}
	for value := 1; value <= 150 && !t.Failed(); value++ {
		if err := db.Write(t.Context(), set(value, 1)); err != nil {
			t.Error(err)
			break
		}
		acked.Store(int64(value))
	}
	close(done)
	readers.Wait()
}

func TestOrderOfSteps(t *testing.T) {
	w := newWorld(t)
	var steps []string
	p := w.process(func(cfg *cache.Config) {
		cfg.Store = &watched{
			Store: cfg.Store,
			fence: func(tags []cache.Tag) { steps = append(steps, fmt.Sprint("fence ", tags)) },
			bump:  func(tags []cache.Tag, _ driver.Mark) { steps = append(steps, fmt.Sprint("bump ", tags)) },
		}
	})
	tx := &spy{
		Tx:      p.begin(set(1, 2, 1, 2)),
		touched: func() { steps = append(steps, "touched") },
		commit: func(ctx context.Context, commit func(context.Context) error) error {
			steps = append(steps, "commit")
			return commit(ctx)
		},
	}
	if err := outbox.Commit(t.Context(), p.Cache, tx, outbox.Options{}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"touched", "fence [item:1 item:2]", "commit", "bump [item:1 item:2]"}; !slices.Equal(steps, want) {
		t.Errorf("got %q, want %q", steps, want)
	}
}

func TestTransactionThatTouchesNothingTellsNobody(t *testing.T) {
	w := newWorld(t)
	p := w.process(nil)
	err := p.db(outbox.Options{RequireFence: true}).Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DO 1`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := p.store.Calls(storetest.OpFence) + p.store.Calls(storetest.OpBump); n != 0 {
		t.Errorf("the store was called %d times", n)
	}
}

func TestFailedCommitRemovesTheFence(t *testing.T) {
	w := newWorld(t)
	p := w.process(nil)
	p.warm(0, 1)
	tx := &spy{Tx: p.begin(set(1, 1)), commit: func(ctx context.Context, _ func(context.Context) error) error {
		p.wantAs(1, 0, cache.Bypass, cache.DetailFenced)
		return errInjected
	}}
	if err := outbox.Commit(t.Context(), p.Cache, tx, outbox.Options{}); !errors.Is(err, errInjected) || errors.Is(err, outbox.ErrUnknownOutcome) {
		t.Fatalf("error %v", err)
	}
	ends(t, tx)
	p.wantAs(1, 0, cache.Miss, "")
	if n := w.rows(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func TestFailedTouchedRollsBack(t *testing.T) {
	w := newWorld(t)
	p := w.process(nil)
	p.warm(0, 1)
	tx := p.begin(set(1, 1))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := outbox.Commit(ended, p.Cache, tx, outbox.Options{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	p.wantAs(1, 0, cache.Hit, "")
	w.stranger(`UPDATE items SET value = 2 WHERE id = 2`) // no lock is left
}

func TestUnknownOutcomeKeepsFenceAndRows(t *testing.T) {
	for _, committed := range []bool{true, false} {
		t.Run(fmt.Sprintf("committed %t", committed), func(t *testing.T) {
			w := newWorld(t)
			reader, writer := w.process(nil), w.process(func(cfg *cache.Config) { cfg.FenceLease = 3 * time.Second })
			reader.warm(0, 1)
			tx := &spy{Tx: writer.begin(set(1, 1)), commit: func(ctx context.Context, commit func(context.Context) error) error {
				if committed {
					if err := commit(ctx); err != nil {
						t.Error(err)
					}
				}
				return fmt.Errorf("%w: %w", outbox.ErrUnknownOutcome, errInjected)
			}}
			if err := outbox.Commit(t.Context(), writer.Cache, tx, outbox.Options{RequireFence: true}); !errors.Is(err, outbox.ErrUnknownOutcome) {
				t.Fatalf("error %v", err)
			}
			if !committed {
				ends(t, tx)
			}
			value, rows := 0, 0
			if committed {
				value, rows = 1, 1
			}
			reader.wantAs(1, value, cache.Bypass, cache.DetailFenced)
			if n := w.rows(); n != rows {
				t.Errorf("%d rows are left, want %d", n, rows)
			}
			reader.relay(outbox.RelayConfig{})
			reader.settles(value, 1)
		})
	}
}

func TestRequireFence(t *testing.T) {
	w := newWorld(t)
	p := w.process(nil)
	p.warm(0, 1)
	p.store.Fail(errInjected)
	err := p.db(outbox.Options{RequireFence: true}).Write(t.Context(), set(1, 1))
	if !errors.Is(err, outbox.ErrNoFence) || !errors.Is(err, errInjected) {
		t.Fatalf("error %v, want ErrNoFence and its cause", err)
	}
	p.store.Heal()
	p.want(1, 0)
	if n := w.rows(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if err := p.db(outbox.Options{RequireFence: true}).Write(t.Context(), set(1, 1)); err != nil {
		t.Fatal(err)
	}
	p.want(1, 1)
}

// Without a shared tier a write succeeds all the same; the writer's process reads it at
// once, and others as soon as anybody has delivered it.
func TestWriteWithoutSharedTier(t *testing.T) {
	w := newWorld(t)
	writer, reader := w.process(nil), w.process(nil)
	writer.warm(0, 1)
	writer.store.Fail(errInjected)
	if err := writer.db(outbox.Options{}).Write(t.Context(), set(1, 1)); err != nil {
		t.Fatal(err)
	}
	writer.want(1, 1)
	if n := w.rows(); n != 1 {
		t.Fatalf("%d rows are left for the relay, want 1", n)
	}
	if n := writer.counts.Total().Unfenced; n != 1 {
		t.Errorf("%v downgrades counted, want 1", n)
	}
	reader.relay(outbox.RelayConfig{}) // of a process that does reach it
	reader.settles(1, 1)
}

// The store forgets a single call: the bump is what makes up for the fence.
func TestLostFenceIsMadeUpForByTheBump(t *testing.T) {
	w := newWorld(t)
	writer, reader := w.process(nil), w.process(nil)
	reader.warm(0, 1)
	writer.store.Fail(errInjected, storetest.OpFence)
	if err := writer.db(outbox.Options{}).Write(t.Context(), set(1, 1)); err != nil {
		t.Fatal(err)
	}
	reader.wantAs(1, 1, cache.Miss, "")
	writer.want(1, 1)
}

// The fence protects readers for as long as it stands, and the row makes sure that a relay
// bumps before or after it lapses.
func TestFailedBumpIsDeliveredByARelay(t *testing.T) {
	w := newWorld(t)
	writer, reader := w.process(nil), w.process(nil)
	reader.warm(0, 1)
	r := writer.relay(outbox.RelayConfig{Grace: time.Hour})
	writer.store.Fail(errInjected, storetest.OpBump)
	if err := writer.db(outbox.Options{Relay: r}).Write(t.Context(), set(1, 1)); err != nil {
		t.Fatalf("a committed write was not acknowledged: %v", err)
	}
	writer.want(1, 1)
	reader.wantAs(1, 1, cache.Bypass, cache.DetailFenced)
	if n := w.rows(); n != 1 {
		t.Fatalf("%d rows are left for a relay, want 1", n)
	}
	reader.relay(outbox.RelayConfig{})
	reader.settles(1, 1)
}

func TestLateFence(t *testing.T) {
	const lease = 10 * time.Second // of which the server ends a session that is silent for 4 s
	for _, c := range []struct {
		name  string
		slow  int // fences that take a quarter of the lease
		value int // in the end
		want  error
	}{{"renewed", 1, 1, nil}, {"late again", 2, 0, outbox.ErrLateFence}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			fences := 0
			var p *process
			p = w.process(func(cfg *cache.Config) {
				cfg.FenceLease, cfg.StoreTimeout = lease, 2*lease
				cfg.Store = &watched{Store: cfg.Store, fence: func([]cache.Tag) {
					if fences++; fences > c.slow {
						p.store.Heal(storetest.OpFence)
					}
				}}
			})
			p.warm(0, 1)
			p.store.Delay(lease/4, storetest.OpFence)
			err := p.db(outbox.Options{CommitTime: lease * 8 / 10}).Write(t.Context(), set(1, 1))
			if !errors.Is(err, c.want) || fences != 2 {
				t.Fatalf("error %v after %d fences, want %v after 2", err, fences, c.want)
			}
			p.wantAs(1, c.value, cache.Miss, "")
		})
	}
}

func TestCallerLeaves(t *testing.T) {
	t.Run("before the commit", func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		p := w.process(func(cfg *cache.Config) {
			cfg.Store = &watched{Store: cfg.Store, fence: func([]cache.Tag) { cancel() }}
		})
		p.warm(0, 1)
		if err := p.db(outbox.Options{}).Write(ctx, set(1, 1)); !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v, want context.Canceled", err)
		}
		if value, err := p.load(t.Context(), 1); value != 0 || err != nil {
			t.Errorf("the item is %d, %v", value, err)
		}
		w.stranger(`UPDATE items SET value = 2 WHERE id = 2`) // no lock is left
	})
	t.Run("during the commit", func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		p := w.process(nil)
		p.warm(0, 1)
		tx := &spy{Tx: p.begin(set(1, 1)), commit: func(ctx context.Context, commit func(context.Context) error) error {
			cancel()
			if ctx.Err() != nil {
				t.Error("the commit's context ended with the caller's")
			}
			return commit(ctx)
		}}
		if err := outbox.Commit(ctx, p.Cache, tx, outbox.Options{}); err != nil {
			t.Fatalf("a commit that had begun: %v", err)
		}
		p.wantAs(1, 1, cache.Miss, "")
	})
}

func TestLargeTransactionFencesFamilies(t *testing.T) {
	w := newWorld(t)
	var fenced, bumped []cache.Tag
	p := w.process(func(cfg *cache.Config) {
		cfg.Store = &watched{
			Store: cfg.Store,
			fence: func(tags []cache.Tag) { fenced = tags },
			bump:  func(tags []cache.Tag, _ driver.Mark) { bumped = tags },
		}
	})
	p.warm(0, 1)
	err := p.db(outbox.Options{}).Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `SET max_recursive_iterations = 10000`); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `
INSERT INTO items WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT i, 7 FROM n ON DUPLICATE KEY UPDATE value = 7`)
		if err == nil {
			err = mysql.Record(ctx, tx, "titles:all", "alone")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []cache.Tag{"alone", "item:*", "titles:all"}; !slices.Equal(fenced, want) || !slices.Equal(bumped, want) {
		t.Errorf("fenced %v and bumped %v, want %v", fenced, bumped, want)
	}
	p.wantAs(1, 7, cache.Miss, "")
}

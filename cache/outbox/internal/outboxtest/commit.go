package outboxtest

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
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// ErrInjected is the failure that tests bring about.
var ErrInjected = errors.New("injected")

// Spy is a transaction whose steps a test watches, or changes.
type Spy struct {
	Tx
	OnTouched func()
	OnCommit  func(ctx context.Context, commit func(context.Context) error) error
}

func (s *Spy) Touched(ctx context.Context) ([]outbox.Row, error) {
	rows, err := s.Tx.Touched(ctx)
	if s.OnTouched != nil {
		s.OnTouched()
	}
	return rows, err
}

func (s *Spy) Commit(ctx context.Context) error {
	if s.OnCommit != nil {
		return s.OnCommit(ctx, s.Tx.Commit)
	}
	return s.Tx.Commit(ctx)
}

// WatchedStore is a store that reports fences and bumps.
type WatchedStore struct {
	driver.Store
	OnFence func(tags []cache.Tag)
	OnBump  func(tags []cache.Tag, mark driver.Mark)
}

func (s *WatchedStore) Fence(ctx context.Context, tags []cache.Tag, mark driver.Mark, lease time.Duration) error {
	if s.OnFence != nil {
		s.OnFence(tags)
	}
	return s.Store.Fence(ctx, tags, mark, lease)
}

func (s *WatchedStore) Bump(ctx context.Context, tags []cache.Tag, mark driver.Mark) error {
	if s.OnBump != nil {
		s.OnBump(tags, mark)
	}
	return s.Store.Bump(ctx, tags, mark)
}

func TestWriteIsSeenByEveryProcessAtOnce(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	writer, reader := w.Process(nil), w.Process(nil)
	db := writer.DB(outbox.Options{})
	reader.Warm(0, 1, 2)
	for value := 1; value <= 20; value++ {
		if err := db.Write(t.Context(), Set(value, 1)); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*Process{reader, writer} {
			if a := p.Want(1, value); a.Status == cache.Bypass {
				t.Fatal("the fence still stands")
			}
		}
	}
	reader.WantAs(2, 0, cache.Hit, "") // was never concerned
}

// No reader, on any process, sees the new value and a later one the old; and none that starts
// after the acknowledgement sees anything older.
func TestReadsAndWritesAreLinearizable(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	writer := w.Process(nil)
	db := writer.DB(outbox.Options{})
	var acked, seen atomic.Int64
	done := make(chan struct{})
	var readers sync.WaitGroup
	for _, p := range []*Process{writer, w.Process(nil)} {
		for range 2 {
			readers.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					least := max(acked.Load(), seen.Load()) // before the read begins
					got, err := p.Items.Get(t.Context(), 1)
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
		if err := db.Write(t.Context(), Set(value, 1)); err != nil {
			t.Error(err)
			break
		}
		acked.Store(int64(value))
	}
	close(done)
	readers.Wait()
}

func TestOrderOfSteps(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	var steps []string
	p := w.Process(func(cfg *cache.Config) {
		cfg.Store = &WatchedStore{
			Store:   cfg.Store,
			OnFence: func(tags []cache.Tag) { steps = append(steps, fmt.Sprint("fence ", tags)) },
			OnBump:  func(tags []cache.Tag, _ driver.Mark) { steps = append(steps, fmt.Sprint("bump ", tags)) },
		}
	})
	tx := &Spy{
		Tx:        p.Begin(Set(1, 2, 1, 2)),
		OnTouched: func() { steps = append(steps, "touched") },
		OnCommit: func(ctx context.Context, commit func(context.Context) error) error {
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

func TestTransactionThatTouchesNothingTellsNobody(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	err := p.DB(outbox.Options{RequireFence: true}).Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE items SET value = 1 WHERE id = 100`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := p.Faults.Calls(storetest.OpFence) + p.Faults.Calls(storetest.OpBump); n != 0 {
		t.Errorf("the store was called %d times", n)
	}
}

func TestFailedCommitRemovesTheFence(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	p.Warm(0, 1)
	tx := &Spy{Tx: p.Begin(Set(1, 1)), OnCommit: func(ctx context.Context, _ func(context.Context) error) error {
		p.WantAs(1, 0, cache.Bypass, cache.DetailFenced)
		return ErrInjected
	}}
	if err := outbox.Commit(t.Context(), p.Cache, tx, outbox.Options{}); !errors.Is(err, ErrInjected) || errors.Is(err, outbox.ErrUnknownOutcome) {
		t.Fatalf("error %v", err)
	}
	ends(t, tx)
	p.WantAs(1, 0, cache.Miss, "")
	if n := w.Rows(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func TestFailedTouchedRollsBack(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	p.Warm(0, 1)
	tx := p.Begin(Set(1, 1))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := outbox.Commit(ended, p.Cache, tx, outbox.Options{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	p.WantAs(1, 0, cache.Hit, "")
	w.Stranger(`UPDATE items SET value = 2 WHERE id = 2`) // no lock is left
}

func TestUnknownOutcomeKeepsFenceAndRows(t *testing.T, a Adapter) {
	for _, committed := range []bool{true, false} {
		t.Run(fmt.Sprintf("committed %t", committed), func(t *testing.T) {
			w := NewWorld(t, a)
			reader, writer := w.Process(nil), w.Process(func(cfg *cache.Config) { cfg.FenceLease = 3 * time.Second })
			reader.Warm(0, 1)
			tx := &Spy{Tx: writer.Begin(Set(1, 1)), OnCommit: func(ctx context.Context, commit func(context.Context) error) error {
				if committed {
					if err := commit(ctx); err != nil {
						t.Error(err)
					}
				}
				return fmt.Errorf("%w: %w", outbox.ErrUnknownOutcome, ErrInjected)
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
			reader.WantAs(1, value, cache.Bypass, cache.DetailFenced)
			if n := w.Rows(); n != rows {
				t.Errorf("%d rows are left, want %d", n, rows)
			}
			reader.Relay(outbox.RelayConfig{})
			reader.Settles(value, 1)
		})
	}
}

func TestRequireFence(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	p := w.Process(nil)
	p.Warm(0, 1)
	p.Faults.Fail(ErrInjected)
	err := p.DB(outbox.Options{RequireFence: true}).Write(t.Context(), Set(1, 1))
	if !errors.Is(err, outbox.ErrNoFence) || !errors.Is(err, ErrInjected) {
		t.Fatalf("error %v, want ErrNoFence and its cause", err)
	}
	p.Faults.Heal()
	p.Want(1, 0)
	if n := w.Rows(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if err := p.DB(outbox.Options{RequireFence: true}).Write(t.Context(), Set(1, 1)); err != nil {
		t.Fatal(err)
	}
	p.Want(1, 1)
}

// Without a shared tier a write succeeds all the same; the writer's process reads it at
// once, and others as soon as anybody has delivered it.
func TestWriteWithoutSharedTier(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	writer, reader := w.Process(nil), w.Process(nil)
	writer.Warm(0, 1)
	writer.Faults.Fail(ErrInjected)
	if err := writer.DB(outbox.Options{}).Write(t.Context(), Set(1, 1)); err != nil {
		t.Fatal(err)
	}
	writer.Want(1, 1)
	if n := w.Rows(); n != 1 {
		t.Fatalf("%d rows are left for the relay, want 1", n)
	}
	if n := writer.Counts.Total().Unfenced; n != 1 {
		t.Errorf("%v downgrades counted, want 1", n)
	}
	reader.Relay(outbox.RelayConfig{}) // of a process that does reach it
	reader.Settles(1, 1)
}

// The store forgets a single call: the bump is what makes up for the fence.
func TestLostFenceIsMadeUpForByTheBump(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	writer, reader := w.Process(nil), w.Process(nil)
	reader.Warm(0, 1)
	writer.Faults.Fail(ErrInjected, storetest.OpFence)
	if err := writer.DB(outbox.Options{}).Write(t.Context(), Set(1, 1)); err != nil {
		t.Fatal(err)
	}
	reader.WantAs(1, 1, cache.Miss, "")
	writer.Want(1, 1)
}

// The fence protects readers for as long as it stands, and the row makes sure that a relay
// bumps before or after it lapses.
func TestFailedBumpIsDeliveredByARelay(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	writer, reader := w.Process(nil), w.Process(nil)
	reader.Warm(0, 1)
	r := writer.Relay(outbox.RelayConfig{Grace: time.Hour})
	writer.Faults.Fail(ErrInjected, storetest.OpBump)
	if err := writer.DB(outbox.Options{Relay: r}).Write(t.Context(), Set(1, 1)); err != nil {
		t.Fatalf("a committed write was not acknowledged: %v", err)
	}
	writer.Want(1, 1)
	reader.WantAs(1, 1, cache.Bypass, cache.DetailFenced)
	if n := w.Rows(); n != 1 {
		t.Fatalf("%d rows are left for a relay, want 1", n)
	}
	reader.Relay(outbox.RelayConfig{})
	reader.Settles(1, 1)
}

func TestLateFence(t *testing.T, a Adapter) {
	lease := a.LateFence.Lease
	for _, c := range []struct {
		name  string
		slow  int // fences that are slow
		value int // in the end
		want  error
	}{{"renewed", 1, 1, nil}, {"late again", 2, 0, outbox.ErrLateFence}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := NewWorld(t, a)
			fences := 0
			var p *Process
			p = w.Process(func(cfg *cache.Config) {
				cfg.FenceLease, cfg.StoreTimeout = lease, 2*lease
				cfg.Store = &WatchedStore{Store: cfg.Store, OnFence: func([]cache.Tag) {
					if fences++; fences > c.slow {
						p.Faults.Heal(storetest.OpFence)
					}
				}}
			})
			p.Warm(0, 1)
			p.Faults.Delay(a.LateFence.Delay, storetest.OpFence)
			err := p.DB(outbox.Options{CommitTime: a.LateFence.CommitTime}).Write(t.Context(), Set(1, 1))
			if !errors.Is(err, c.want) || fences != 2 {
				t.Fatalf("error %v after %d fences, want %v after 2", err, fences, c.want)
			}
			p.WantAs(1, c.value, cache.Miss, "")
		})
	}
}

func TestCallerLeaves(t *testing.T, a Adapter) {
	t.Run("before the commit", func(t *testing.T) {
		w := NewWorld(t, a)
		ctx, cancel := context.WithCancel(t.Context())
		p := w.Process(func(cfg *cache.Config) {
			cfg.Store = &WatchedStore{Store: cfg.Store, OnFence: func([]cache.Tag) { cancel() }}
		})
		p.Warm(0, 1)
		if err := p.DB(outbox.Options{}).Write(ctx, Set(1, 1)); !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v, want context.Canceled", err)
		}
		if value, err := p.Load(t.Context(), 1); value != 0 || err != nil {
			t.Errorf("the item is %d, %v", value, err)
		}
		w.Stranger(`UPDATE items SET value = 2 WHERE id = 2`) // no lock is left
	})
	t.Run("during the commit", func(t *testing.T) {
		w := NewWorld(t, a)
		ctx, cancel := context.WithCancel(t.Context())
		p := w.Process(nil)
		p.Warm(0, 1)
		tx := &Spy{Tx: p.Begin(Set(1, 1)), OnCommit: func(ctx context.Context, commit func(context.Context) error) error {
			cancel()
			if ctx.Err() != nil {
				t.Error("the commit's context ended with the caller's")
			}
			return commit(ctx)
		}}
		if err := outbox.Commit(ctx, p.Cache, tx, outbox.Options{}); err != nil {
			t.Fatalf("a commit that had begun: %v", err)
		}
		p.WantAs(1, 1, cache.Miss, "")
	})
}

func TestLargeTransactionFencesFamilies(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	var fenced, bumped []cache.Tag
	p := w.Process(func(cfg *cache.Config) {
		cfg.Store = &WatchedStore{
			Store:   cfg.Store,
			OnFence: func(tags []cache.Tag) { fenced = tags },
			OnBump:  func(tags []cache.Tag, _ driver.Mark) { bumped = tags },
		}
	})
	p.Warm(0, 1)
	err := p.DB(outbox.Options{}).Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		for _, tag := range []string{"titles:all", "alone"} {
			if _, err := tx.ExecContext(ctx, fmt.Sprintf(a.Record, tag)); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, a.items(3000, 7))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []cache.Tag{"alone", "item:*", "titles:all"}; !slices.Equal(fenced, want) || !slices.Equal(bumped, want) {
		t.Errorf("fenced %v and bumped %v, want %v", fenced, bumped, want)
	}
	p.WantAs(1, 7, cache.Miss, "")
}

package outboxtest

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// A process that dies executes nothing more: not even what was deferred. So the crash ends the
// goroutine in the middle of Commit, which has nothing deferred that tells anybody, followed by
// the database's rollback of what was open.
func crashed(f func()) bool {
	ended, done := false, make(chan struct{})
	go func() {
		defer close(done)
		f()
		ended = true
	}()
	<-done
	return !ended
}

func TestWriterCrashes(t *testing.T, a Adapter) {
	const lease = 3 * time.Second
	die := runtime.Goexit
	for _, c := range []struct {
		name    string
		touched func()
		commit  func(ctx context.Context, commit func(context.Context) error) error
		bump    func(s driver.Store, tags []cache.Tag, mark driver.Mark)
		value   int // that the database has in the end
		fenced  bool
		rows    int
	}{
		{name: "after its statements", touched: die},
		{
			name:   "after the fence",
			commit: func(context.Context, func(context.Context) error) error { runtime.Goexit(); return nil },
			fenced: true,
		},
		{
			name: "after the commit",
			commit: func(ctx context.Context, commit func(context.Context) error) error {
				if err := commit(ctx); err != nil {
					return err
				}
				runtime.Goexit()
				return nil
			},
			value: 1, fenced: true, rows: 3,
		},
		{
			name: "after half of the bumps",
			bump: func(s driver.Store, tags []cache.Tag, mark driver.Mark) {
				if err := s.Bump(context.Background(), tags[:1], mark); err != nil {
					panic(err)
				}
				runtime.Goexit()
			},
			value: 1, rows: 3,
		},
		{name: "before it forgets", value: 1, rows: 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := NewWorld(t, a)
			reader := w.Process(nil)
			writer := w.Process(func(cfg *cache.Config) {
				cfg.FenceLease = lease
				if c.bump != nil {
					inner := cfg.Store
					cfg.Store = &WatchedStore{Store: inner, OnBump: func(tags []cache.Tag, mark driver.Mark) { c.bump(inner, tags, mark) }}
				}
			})
			reader.Warm(0, 1, 2, 3)
			tx := &Spy{Tx: writer.Begin(Set(1, 1, 2, 3)), OnTouched: c.touched, OnCommit: c.commit}
			died := crashed(func() {
				if err := outbox.Commit(t.Context(), writer.Cache, tx, outbox.Options{}); err != nil {
					t.Error(err)
				}
			})
			if want := c.touched != nil || c.commit != nil || c.bump != nil; died != want {
				t.Fatalf("died is %t, want %t", died, want)
			}
			ends(t, tx)

			// No caller reads anything but what the database has, from the first moment on.
			for id := 1; id <= 3; id++ {
				if a := reader.Want(id, c.value); c.fenced && a.Status != cache.Bypass {
					t.Errorf("item %d came as %v, want a bypass", id, a.Status)
				}
			}
			if n := w.Rows(); n != c.rows {
				t.Errorf("%d rows are left, want %d", n, c.rows)
			}
			// And soon the cache serves it again.
			reader.Relay(outbox.RelayConfig{})
			began := time.Now()
			Eventually(t, func() error {
				for id := 1; id <= 3; id++ {
					if a := reader.Want(id, c.value); a.Status != cache.Hit {
						return fmt.Errorf("item %d comes as %v %s", id, a.Status, a.Detail)
					}
				}
				return nil
			})
			if took := time.Since(began); c.rows > 0 && took >= lease {
				t.Errorf("it took %v: the fence lapsed, no relay removed it", took)
			}
			reader.Settles(c.value, 1, 2, 3)
		})
	}
}

// The one case that only the relay can mend: the fence lapses before the commit, so that a
// reader keeps the old answer under the version of the fence, and then the writer dies.
func TestWriterCrashesAfterALateCommit(t *testing.T, a Adapter) {
	w := NewWorld(t, a)
	reader, writer := w.Process(nil), w.Process(func(cfg *cache.Config) { cfg.FenceLease = 100 * time.Millisecond })
	reader.Warm(0, 1)
	tx := writer.Begin(Set(1, 1))
	if _, err := tx.Touched(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Fence(t.Context(), tx.Mark(), []cache.Tag{ItemTag(1)}); err != nil {
		t.Fatal(err)
	}
	Eventually(t, func() error {
		if a := reader.Want(1, 0); a.Status != cache.Hit {
			return fmt.Errorf("the fence still stands: %v", a.Status)
		}
		return nil
	})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	reader.WantAs(1, 0, cache.Hit, "") // the damage, which is what the next line is about
	reader.Relay(outbox.RelayConfig{})
	reader.Settles(1, 1)
}

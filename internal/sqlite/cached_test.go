package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/seed"
)

// cachedStorage is a storage with a cache before it, as the service has it.
type cachedStorage struct {
	*Storage
	store   *storetest.Faulty
	profile *cache.Cached[learning.UserID, learning.Profile]
}

func newCachedStorage(t *testing.T, path string, store *storetest.Faulty) *cachedStorage {
	t.Helper()
	c, err := cache.New(cache.Config{Store: store, StoreTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), path, Config{Cache: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), c.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	return &cachedStorage{s, store, cache.Define(c, cache.Query[learning.UserID, learning.Profile]{
		Name:     "users:profile",
		Key:      func(id learning.UserID) string { return cache.Key(id) },
		Tags:     func(id learning.UserID) []cache.Tag { return []cache.Tag{learning.UserTag(id)} },
		Load:     s.Profile,
		FreshFor: time.Hour,
	})}
}

// credits of a user, as the cache has them.
func (c *cachedStorage) credits(t *testing.T, id learning.UserID) int {
	t.Helper()
	p, err := c.profile.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return p.Credits
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	late := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for err := check(); err != nil; err = check() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal(err)
		}
	}
}

func TestCacheNeverLagsBehindWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	shared := storetest.NewFaulty(memstore.New(memstore.Config{}))
	t.Cleanup(func() { shared.Close() })
	a, b := newCachedStorage(t, path, shared.Peer()), newCachedStorage(t, path, shared.Peer())
	insertUser(t, a.Storage)
	for n := range 10 {
		for i, p := range []*cachedStorage{a, b} {
			if got := p.credits(t, anyUser); got != n {
				t.Fatalf("process %d reads %d credits after %d were acknowledged", i, got, n)
			}
		}
		err := a.Write(t.Context(), func(ctx context.Context, tx learning.Tx) error { return tx.AddCredits(ctx, anyUser, 1, time.Now()) })
		if err != nil {
			t.Fatal(err)
		}
	}

	// A tool that caches nothing, while both run.
	tool, err := Open(t.Context(), path, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer tool.Close()
	err = tool.Write(t.Context(), func(ctx context.Context, tx learning.Tx) error { return tx.AddCredits(ctx, anyUser, 90, time.Now()) })
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*cachedStorage{a, b} {
		eventually(t, func() error {
			if got := p.credits(t, anyUser); got != 100 {
				return fmt.Errorf("%d credits, want 100", got)
			}
			return nil
		})
	}
}

// What was written while no server ran is delivered before the first answer, for the shared
// tier may have outlived the servers.
func TestOpenDrainsTheOutbox(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	shared := storetest.NewFaulty(memstore.New(memstore.Config{}))
	t.Cleanup(func() { shared.Close() })
	first := newCachedStorage(t, path, shared.Peer())
	insertUser(t, first.Storage)
	if got := first.credits(t, anyUser); got != 0 {
		t.Fatalf("%d credits", got)
	}
	if err := first.Storage.Close(); err != nil {
		t.Fatal(err)
	}
	tool, err := Open(t.Context(), path, Config{})
	if err != nil {
		t.Fatal(err)
	}
	err = tool.Write(t.Context(), func(ctx context.Context, tx learning.Tx) error { return tx.AddCredits(ctx, anyUser, 7, time.Now()) })
	if err := errors.Join(err, tool.Close()); err != nil {
		t.Fatal(err)
	}
	if got := newCachedStorage(t, path, shared.Peer()).credits(t, anyUser); got != 7 {
		t.Errorf("the first answer after the start has %d credits, want 7", got)
	}
}

func TestOpenWithoutSharedTier(t *testing.T) {
	store := storetest.NewFaulty(memstore.New(memstore.Config{}))
	store.Fail(errors.New("down"))
	c := newCachedStorage(t, filepath.Join(t.TempDir(), "test.db"), store)
	insertUser(t, c.Storage)
	if got := c.credits(t, anyUser); got != 0 {
		t.Errorf("%d credits", got)
	}
}

// Seeding a file that a server serves keeps neither the server's writers waiting for long nor
// its readers in the dark.
func TestSeedingBesideAServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	server := newCachedStorage(t, path, storetest.NewFaulty(memstore.New(memstore.Config{})))
	insertUser(t, server.Storage)
	tool, err := Open(t.Context(), path, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer tool.Close()
	done := make(chan error, 1)
	go func() {
		_, err := seed.Generate(t.Context(), tool, seed.Spec{Courses: 10, Users: 1000, Enrollments: 8000, Submissions: 500})
		done <- err
	}()
	writes := 0
	for running := true; running; {
		err := server.Write(t.Context(), func(ctx context.Context, tx learning.Tx) error { return tx.AddCredits(ctx, anyUser, 1, time.Now()) })
		if err != nil {
			t.Fatal(err)
		}
		if writes++; server.credits(t, anyUser) != writes {
			t.Fatalf("read %d credits after %d writes", server.credits(t, anyUser), writes)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
	}
	eventually(t, func() error {
		var rows int
		err := tool.readPool.QueryRowContext(t.Context(), `SELECT count(*) FROM cache_outbox`).Scan(&rows)
		if err == nil && rows > 0 {
			err = fmt.Errorf("%d rows are left", rows)
		}
		return err
	})
}

func insertUser(t *testing.T, s *Storage) {
	t.Helper()
	err := s.db.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO users (id, stellar_address) VALUES (?, 'G')`, anyUser)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

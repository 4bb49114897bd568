package sqlite

import (
	"net/url"
	"path/filepath"
	"slices"
	"testing"

	"github.com/chainlearn/chainlearn/cache"
	outboxsqlite "github.com/chainlearn/chainlearn/cache/outbox/sqlite"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// Migrations lead to the outbox of this release of its package, and to the watches above.
func TestOutboxIsUpToDate(t *testing.T) {
	s := storage(t, Config{})
	checkOutbox(t, s)
	for _, w := range watches {
		var templates int
		err := s.readPool.QueryRowContext(t.Context(), `SELECT json_array_length(templates) FROM cache_watches WHERE watch = 'chainlearn' AND watched = ?`, w.table).Scan(&templates)
		if err != nil || templates != len(w.templates) {
			t.Errorf("%s has %d templates, %v: add a migration that calls declareWatches", w.table, templates, err)
		}
	}
}

func checkOutbox(t *testing.T, s *Storage) {
	t.Helper()
	findings, err := outboxsqlite.Check(t.Context(), s.readPool)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Errorf("%v: add a migration that calls declareWatches", f)
	}
}

// A database of the release before is brought up to date where it is, with what waits in it.
func TestTriggersByHandBecomeWatches(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	db, err := openPool(path, Config{}, url.Values{"_txlock": {"immediate"}, "_journal_mode": {"WAL"}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	p, err := migrationProvider(db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `INSERT INTO users (id, stellar_address) VALUES (?, 'G')`, anyUser); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), path, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	checkOutbox(t, s)
	var byHand int
	if err := s.readPool.QueryRowContext(t.Context(), `SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name NOT GLOB 'cache_*'`).Scan(&byHand); err != nil || byHand != 0 {
		t.Errorf("%d triggers by hand are left, %v", byHand, err)
	}
	for _, statement := range []string{``, `UPDATE users SET credits = 1`} {
		if _, err := s.writePool.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
		if tags, err := s.touched(t.Context()); err != nil || !slices.Equal(tags, []cache.Tag{learning.UserTag(anyUser)}) {
			t.Errorf("%s left %v, %v", statement, tags, err)
		}
	}
}

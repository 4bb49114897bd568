package sqlite

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// After a write that was refused for want of room, the storage takes none until one has been written: a
// transaction that succeeds because it changes nothing says nothing.
func TestWriteThatChangesNothingProvesNothing(t *testing.T) {
	s := storage(t, Config{})
	exec := func(statement string) {
		t.Helper()
		if _, err := s.writePool.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	var pages int
	if err := s.writePool.QueryRowContext(t.Context(), `PRAGMA page_count`).Scan(&pages); err != nil {
		t.Fatal(err)
	}
	exec(fmt.Sprintf(`PRAGMA max_page_count = %d`, pages)) // the disk is full
	write := func(fn func(ctx context.Context, tx learning.Tx) error) error { return s.Write(t.Context(), fn) }
	if err := write(func(ctx context.Context, tx learning.Tx) error {
		for i := range 2000 {
			if _, _, err := tx.EnsureUser(ctx, fmt.Sprintf("G%055d", i), time.Now()); err != nil {
				return err
			}
		}
		return nil
	}); !errors.Is(err, learning.ErrUnavailable) {
		t.Fatalf("a write without room: %v", err)
	}
	if err := write(func(ctx context.Context, tx learning.Tx) error {
		_, err := tx.CourseActive(ctx, anyCourse)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); !errors.Is(err, learning.ErrReadOnly) {
		t.Errorf("without room, Ping returns %v", err)
	}
	exec(`PRAGMA max_page_count = 1000000`)
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("with room again, Ping returns %v", err)
	}
}

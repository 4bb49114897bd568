package sqlite

import (
	"context"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
	outboxsqlite "github.com/chainlearn/chainlearn/cache/outbox/sqlite"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// Errors are classified here, once, as they leave the package: what may pass matches
// learning.ErrUnavailable. What is not known to pass does not.

// unavailable marks an error that may pass. A caller who has left caused what came of it.
func unavailable(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, learning.ErrUnavailable) || errors.Is(ctx.Err(), context.Canceled) || !mayPass(err) {
		return err
	}
	return fmt.Errorf("%w: %w", learning.ErrUnavailable, err)
}

func mayPass(err error) bool {
	for _, passing := range []error{
		context.DeadlineExceeded, context.Canceled, // of ours: the caller's leaving is looked at before
		outbox.ErrUnknownOutcome, outbox.ErrNoFence, outbox.ErrLateFence, outboxsqlite.ErrNoRelay, cache.ErrUnavailable,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return refusesWrites(err) || codeOf(err,
		sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, // another program writes
		sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT)
}

// refusesWrites says whether the file cannot take this write, nor probably the next one.
func refusesWrites(err error) bool {
	return codeOf(err, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
}

// codeOf says whether err is SQLite's, with one of those primary codes.
func codeOf(err error, codes ...int) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	for _, code := range codes {
		if e.Code()&0xff == code {
			return true
		}
	}
	return false
}

// probeWrite is a write that needs room on the disk. It is taken back by the next statement.
const (
	probeWrite = `DROP TABLE IF EXISTS chainlearn_probe; CREATE TABLE chainlearn_probe AS SELECT zeroblob(262144) AS filler`
	probeUndo  = `DROP TABLE IF EXISTS chainlearn_probe`
)

// Ping says whether the file may be read and written.
func (s *Storage) Ping(ctx context.Context) error {
	var n int
	if err := s.readPool.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&n); err != nil {
		return fmt.Errorf("ping: %w", unavailable(ctx, err))
	}
	if !s.refused.Load() {
		return nil
	}
	// A write was refused. As soon as one is not, all is well; and none may come while this
	// process reports that it takes none.
	_, err := s.writePool.ExecContext(ctx, probeWrite)
	if err == nil {
		_, err = s.writePool.ExecContext(ctx, probeUndo)
	}
	if refusesWrites(err) {
		return fmt.Errorf("ping: %w: %w", learning.ErrReadOnly, err)
	}
	s.refused.Store(false) // it was written, or is refused for another reason, which says nothing
	return unavailable(ctx, err)
}

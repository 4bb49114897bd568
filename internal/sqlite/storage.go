package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/chainlearn/chainlearn/cache/outbox"
	outboxsqlite "github.com/chainlearn/chainlearn/cache/outbox/sqlite"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// Storage keeps the platform's data in a file. It implements learning.Storage.
type Storage struct {
	readPool, writePool *sql.DB
	statements          readStatements
	db                  *outboxsqlite.DB
	relay               *outbox.Relay // nil without a cache, or with NoRelay
	log                 *outboxsqlite.Log
	lock                *os.File
	writeTimeout        time.Duration
	refused             atomic.Bool // a write was, since Ping last wrote: for want of room, or as the file may not be written
}

var _ learning.Storage = (*Storage)(nil)

// Source is the database as the check of the cache sees it.
func (s *Storage) Source() cache.Source { return s.db }

// Backlog returns how many touched tags are in the outbox, counted up to a bound, and the age
// of the oldest.
func (s *Storage) Backlog(ctx context.Context) (rows int, oldest time.Duration, err error) {
	if s.relay == nil { // nothing is cached
		return 0, 0, nil
	}
	return s.relay.Backlog(ctx)
}

// Close waits for what is running and closes the file. Close it before the cache it was
// opened with. It may be called again.
func (s *Storage) Close() error {
	var errs []error
	if s.relay != nil {
		errs = append(errs, s.relay.Close())
	}
	if s.readPool != nil {
		errs = append(errs, s.readPool.Close())
	}
	if s.writePool != nil { // last, so that it empties the write-ahead log into the file
		errs = append(errs, s.writePool.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// Write runs fn in a transaction that excludes every other writer. Do not call Write in fn:
// it would wait for itself.
func (s *Storage) Write(ctx context.Context, fn func(ctx context.Context, tx learning.Tx) error) error {
	// Writes wait in line for the one connection that writes, which waits for other programs: the line
	// may take no longer than the first in it.
	limited, cancel := context.WithTimeout(ctx, s.writeTimeout)
	defer cancel()
	err := s.db.Write(limited, func(ctx context.Context, t *sql.Tx) error { return fn(ctx, &tx{t}) })
	if refusesWrites(err) { // one that succeeds may have written nothing: Ping finds out
		s.refused.Store(true)
	}
	return unavailable(ctx, err)
}

// tx implements learning.Tx. Its reads need no locks: there is one writer at a time.
type tx struct{ *sql.Tx }

// rowError gives the driver's errors the names the domain knows.
func rowError(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return learning.ErrNoRow
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() {
		case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
			return fmt.Errorf("%w: %w", learning.ErrExists, err)
		case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
			return fmt.Errorf("%w: %w", learning.ErrNoRow, err)
		}
	}
	return err
}

// timeFormat is how times are written: see the first migration.
const timeFormat = "2006-01-02T15:04:05.000Z"

func formatTime(t time.Time) string { return t.UTC().Format(timeFormat) }

// utcTime scans a time as isoTime gives it.
type utcTime struct{ *time.Time }

func (u utcTime) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("a time must be text, not %T", v)
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return err
	}
	*u.Time = t.UTC()
	return nil
}

// isoTime is the SQL that normalises a time, whichever program wrote it.
func isoTime(column string) string { return `strftime('%Y-%m-%dT%H:%M:%fZ', ` + column + `)` }

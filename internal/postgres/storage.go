package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chainlearn/chainlearn/cache/outbox"
	outboxpostgres "github.com/chainlearn/chainlearn/cache/outbox/postgres"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// Storage keeps the platform's data in a database. It implements learning.Storage.
type Storage struct {
	pool             *pgxpool.Pool
	replica          *replica // nil: none
	enrolmentBatcher *enrolmentBatcher
	goroutines       *goroutineGroup
	log              *outboxpostgres.Log
	db               *outboxpostgres.DB
	relay            *outbox.Relay // nil without a cache, or with NoRelay
	readTimeout      time.Duration // of a question
	refused          atomic.Bool   // a write was, since Ping last wrote: for want of room, or as the server is read-only
}

var _ learning.Storage = (*Storage)(nil)

// Source is the database as the check of the cache sees it.
func (s *Storage) Source() cache.Source { return s.db }

// Backlog returns how many touched tags wait in the outbox for this process's store, counted up
// to a bound, and the age of the oldest; without a cache, of all that are in the outbox.
func (s *Storage) Backlog(ctx context.Context) (rows int, oldest time.Duration, err error) {
	if s.relay == nil {
		return s.log.Backlog(ctx, "") // which has got none
	}
	return s.relay.Backlog(ctx)
}

// Close waits for what is running and closes all connections. Close it before the cache it
// was opened with. It may be called again.
func (s *Storage) Close() error {
	var errs []error
	if s.relay != nil {
		errs = append(errs, s.relay.Close())
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	if s.replica != nil {
		s.replica.close()
	}
	s.goroutines.close()
	if s.pool != nil {
		s.pool.Close()
	}
	return errors.Join(errs...)
}

// Write runs fn in a transaction. Do not call Write in fn: the transactions would wait for
// each other's locks.
func (s *Storage) Write(ctx context.Context, fn func(ctx context.Context, tx learning.Tx) error) error {
	err := repeated(ctx, func(ctx context.Context) error { // nothing was committed, unless the outcome is unknown
		return s.db.Write(ctx, func(ctx context.Context, t pgx.Tx) error { return fn(ctx, &tx{t}) })
	})
	if refusesWrites(err) { // one that succeeds may have written nothing: Ping finds out
		s.refused.Store(true)
	}
	return unavailable(ctx, err)
}

// load asks a question whose answer is one row, of the replica if it has caught up.
func (s *Storage) load(ctx context.Context, query string, args []any, fields ...any) error {
	if s.replica != nil {
		ok, err := s.replica.load(ctx, query, args, fields)
		if ok {
			return unavailable(ctx, rowError(err))
		}
	}
	return s.readRow(ctx, query, args, fields...)
}

// rowError gives the database's errors the names the domain knows.
func rowError(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return learning.ErrNoRow
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch e.Code {
		case "23505": // unique violation
			return fmt.Errorf("%w: %w", learning.ErrExists, err)
		case "23503": // foreign key violation
			return fmt.Errorf("%w: %w", learning.ErrNoRow, err)
		}
	}
	return err
}

// utcTime scans a time, in the time zone that the domain uses.
type utcTime struct{ *time.Time }

func (u utcTime) Scan(v any) error {
	t, ok := v.(time.Time)
	if !ok {
		return fmt.Errorf("want a time, not %T", v)
	}
	*u.Time = t.UTC()
	return nil
}

// nullableUserID scans the ID of a user, or NULL.
type nullableUserID struct{ id **learning.UserID }

func (o nullableUserID) Scan(v any) error {
	if v == nil {
		*o.id = nil
		return nil
	}
	var id uuid.UUID
	if err := id.Scan(v); err != nil {
		return err
	}
	*o.id = &learning.UserID{UUID: id}
	return nil
}

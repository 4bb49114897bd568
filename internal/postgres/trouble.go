package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
	outboxpostgres "github.com/chainlearn/chainlearn/cache/outbox/postgres"
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
		context.DeadlineExceeded, context.Canceled, errClosed, // of ours: the caller's leaving is looked at before
		outbox.ErrUnknownOutcome, outbox.ErrNoFence, outbox.ErrLateFence, outboxpostgres.ErrNoRelay, cache.ErrUnavailable,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return isBroken(err) || codeIn(err,
		"08",             // connection exception
		"53",             // insufficient resources: disk full, out of memory, too many connections
		"57",             // operator intervention: shutting down, starting up, a statement that took too long
		"58",             // system error: I/O
		"25006",          // read-only transaction: a standby, or a server that was set so
		"25P03",          // the session was idle in a transaction for too long
		"25P04",          // the transaction took too long
		"40",             // given up for another transaction, after all attempts
		"55P03",          // a lock was not to be had in time
		"XX001", "XX002", // damaged: the server may be repaired, the request is not to blame
	)
}

// codeIn says whether err is the server's, with a code that begins with one of prefixes.
func codeIn(err error, prefixes ...string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	for _, prefix := range prefixes {
		if strings.HasPrefix(e.Code, prefix) {
			return true
		}
	}
	return false
}

// isBroken says whether a connection was found broken, so that another one may serve. A server
// that ends its sessions (57P01, 57P02) says so to each as its last word.
func isBroken(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok || err == nil {
		return false // there is no other
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && !e.Timeout() {
		return true
	}
	return pgconn.SafeToRetry(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		codeIn(err, "08", "57P01", "57P02", "57P05")
}

// refusesWrites says whether the server cannot take this write, nor probably the next one.
func refusesWrites(err error) bool { return codeIn(err, "53100", "58", "25006") }

// onLiveConn returns a context with which the pool gives connections that have just answered. When a
// server has restarted, all that are idle are dead, and the pool believes in those that it has
// used within a second.
func onLiveConn(ctx context.Context) context.Context {
	return context.WithValue(ctx, onLiveConnKey{}, true)
}

type onLiveConnKey struct{}

// prepareConn is asked before the pool gives a connection away; it closes those that are refused.
func prepareConn(ctx context.Context, conn *pgx.Conn) (bool, error) {
	return ctx.Value(onLiveConnKey{}) == nil || conn.Ping(ctx) == nil, nil
}

// repeated runs do, and again if the connection was found broken: on another one that is not. do
// must be of no effect then, as a question is that was not answered.
func repeated(ctx context.Context, do func(context.Context) error) error {
	err := do(ctx)
	if isBroken(err) && ctx.Err() == nil && !errors.Is(err, outbox.ErrUnknownOutcome) {
		err = do(onLiveConn(ctx))
	}
	return err
}

// readRow asks the primary a question whose answer is one row.
func (s *Storage) readRow(ctx context.Context, query string, args []any, fields ...any) error {
	limited, cancel := context.WithTimeout(ctx, s.readTimeout)
	defer cancel()
	err := repeated(limited, func(ctx context.Context) error { return s.pool.QueryRow(ctx, query, args...).Scan(fields...) })
	return unavailable(ctx, rowError(err))
}

// probeWrite is a write that needs room on the disk, and leaves nothing.
const probeWrite = `CREATE TEMPORARY TABLE chainlearn_probe ON COMMIT DROP AS SELECT md5(i::text) FROM generate_series(1, 8192) i`

// Ping says whether the database may be read and written.
func (s *Storage) Ping(ctx context.Context) error {
	var readOnly bool
	if err := s.readRow(ctx, `SELECT current_setting('transaction_read_only')::boolean`, nil, &readOnly); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	if readOnly {
		return fmt.Errorf("ping: %w", learning.ErrReadOnly)
	}
	if !s.refused.Load() {
		return nil
	}
	// A write was refused. As soon as one is not, all is well; and none may come while this
	// process reports that it takes none.
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, probeWrite)
		return err
	})
	if refusesWrites(err) {
		return fmt.Errorf("ping: %w: %w", learning.ErrReadOnly, err)
	}
	s.refused.Store(false) // it was written, or is refused for another reason, which says nothing
	return unavailable(ctx, err)
}

package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// Config of a DB. Its zero value is good.
type Config struct {
	outbox.Options

	// Limits of every transaction, which must fit into the FenceLease of the cache. Default
	// LimitsFor(FenceLease); without a cache, that of a cache's default.
	Limits Limits

	// Isolation of transactions. Default read committed.
	Isolation pgx.TxIsoLevel

	// Attempts is how often a transaction is tried that the database gives up for the sake
	// of another: a serialization failure, a deadlock. Default 5.
	Attempts int
}

// DB writes to a database whose changes invalidate what a cache holds. It is safe for
// concurrent use.
type DB struct {
	log   *Log
	cache *cache.Cache
	cfg   Config
	mode  pgx.QueryExecMode // of the pool's connections

	relayed atomic.Bool // a relay is known to deliver to the cache's store
}

// ErrNoRelay is returned by DB.Write when no relay delivers the outbox to the cache's store:
// what other programs write would never be seen, nor what this one writes while the store
// cannot be reached. The remedy is outbox.NewRelay, and its Start, in this process or in another
// that shares the store.
var ErrNoRelay = errors.New("outbox/postgres: no relay delivers the outbox to the store of this cache: call outbox.NewRelay, and Start it, in this process or in another that shares the store")

const leaseWithoutCache = 5 * time.Second

// NewDB returns a DB that fences and bumps in c what its transactions touch. Without a cache
// (nil), as in a program that only writes, they are an external writer's: a relay of a program
// that has one is woken and delivers. The error says what is wrong with cfg.
func NewDB(log *Log, c *cache.Cache, cfg Config) (*DB, error) {
	lease := leaseWithoutCache
	if c != nil {
		lease = c.FenceLease()
	}
	cfg.Limits = cmp.Or(cfg.Limits, LimitsFor(lease))
	cfg.Isolation = cmp.Or(cfg.Isolation, pgx.ReadCommitted)
	cfg.Attempts = cmp.Or(cfg.Attempts, 5)
	errs := []error{cfg.Limits.check(lease)}
	if commit := cmp.Or(cfg.CommitTime, outbox.DefaultCommitTime); commit < 0 || commit >= lease {
		errs = append(errs, fmt.Errorf("CommitTime is %v: must be positive and less than the cache's FenceLease, which is %v", commit, lease))
	}
	if cfg.Attempts < 0 {
		errs = append(errs, fmt.Errorf("Attempts is negative: %d", cfg.Attempts))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("outbox/postgres: %w", err)
	}
	return &DB{log: log, cache: c, cfg: cfg, mode: log.pool.Config().ConnConfig.DefaultQueryExecMode}, nil
}

// Limits that the server enforces on each transaction.
func (db *DB) Limits() Limits { return db.cfg.Limits }

// Write runs fn in a transaction and commits it through outbox.Commit, unless fn fails: then
// everything is undone and Write returns the error of fn. When Write returns nil, the
// change is committed and no cached answer is older. An error that matches
// outbox.ErrUnknownOutcome leaves open whether it is; any other means that it is not.
//
// fn runs again when the database asks for it, so it changes nothing outside of tx. It must
// not commit tx. The transaction begins with the first statement of fn, in the same round trip
// if that has arguments; the option Last saves another one at its end.
func (db *DB) Write(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := db.try(ctx, fn)
		if err == nil || attempt >= db.cfg.Attempts || !retryable(err) || errors.Is(err, outbox.ErrUnknownOutcome) {
			return err
		}
		// Those that got into each other's way would do so again if all came at once.
		timer := time.NewTimer(rand.N(time.Duration(attempt) * 10 * time.Millisecond))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

func (db *DB) try(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	mark, err := db.newMark(ctx)
	if err != nil {
		return err
	}
	tx, err := begin(ctx, db.log.pool, db.cfg.Limits, db.cfg.Isolation, db.mode, mark)
	if err != nil {
		return err
	}
	// Also when fn panics; nothing is left to undo after a commit. If it fails, the
	// connection is closed, which undoes as much.
	defer tx.Rollback(context.WithoutCancel(ctx))
	if err := fn(ctx, uncommitted{tx.tx, tx}); err != nil {
		return err
	}
	if db.cache == nil {
		return tx.Commit(ctx)
	}
	return outbox.Commit(ctx, db.cache, tx, db.cfg.Options)
}

// newMark returns the mark of a transaction, which tells other consumers of the outbox not to
// wait for this writer.
func (db *DB) newMark(ctx context.Context) (driver.Mark, error) {
	if db.cache == nil {
		return driver.NoMark, nil
	}
	store, err := db.cache.StoreName(ctx)
	if err != nil {
		// The store cannot be reached, and what is written is for a relay to deliver: no
		// consumer takes this mark for one of its own writers'.
		return driver.Mark(driver.NewVersion()), nil
	}
	// This process's own relay joins before the cache serves anything, and may still be about to.
	if db.cfg.Relay == nil && !db.relayed.Load() {
		joined, err := db.log.joined(ctx, store)
		switch {
		case err != nil:
			return driver.NoMark, err
		case !joined:
			return driver.NoMark, ErrNoRelay
		}
		db.relayed.Store(true)
	}
	return outbox.NewMark(store), nil
}

// uncommitted is the transaction as fn sees it. fn may roll it back, and Write then fails.
type uncommitted struct {
	pgx.Tx
	t *Tx
}

var errCommitInside = errors.New("outbox/postgres: the transaction is committed by Write, after fn has returned")

func (uncommitted) Commit(context.Context) error { return errCommitInside }

func (u uncommitted) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if len(args) > 0 && args[0] == any(Last) {
		return u.t.execLast(ctx, sql, args[1:])
	}
	return u.Tx.Exec(ctx, sql, args...)
}

func (u uncommitted) Rollback(ctx context.Context) error { return u.t.Rollback(ctx) }

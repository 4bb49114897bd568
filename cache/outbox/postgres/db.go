package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// Config of a DB. Its zero value is good for a cache whose FenceLease is the default.
type Config struct {
	outbox.Options

	// FenceLease is the cache's; the limits must fit into it. Default 5 s, as the cache's.
	FenceLease time.Duration

	// Limits of every transaction. Default LimitsFor(FenceLease).
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
}

// NewDB returns a DB that fences and bumps in c what its transactions touch. Without a cache
// (nil), as in a program that only writes, they are like anybody's: a relay of a program
// that has one is woken and delivers. The error says what is wrong with cfg.
func NewDB(log *Log, c *cache.Cache, cfg Config) (*DB, error) {
	cfg.FenceLease = cmp.Or(cfg.FenceLease, 5*time.Second)
	cfg.Limits = cmp.Or(cfg.Limits, LimitsFor(cfg.FenceLease))
	cfg.Isolation = cmp.Or(cfg.Isolation, pgx.ReadCommitted)
	cfg.Attempts = cmp.Or(cfg.Attempts, 5)
	errs := []error{cfg.Limits.check(cfg.FenceLease)}
	if commit := cmp.Or(cfg.CommitTime, outbox.DefaultCommitTime); commit < 0 || commit >= cfg.FenceLease {
		errs = append(errs, fmt.Errorf("CommitTime is %v: must be positive and less than FenceLease, which is %v", commit, cfg.FenceLease))
	}
	if cfg.Attempts < 0 {
		errs = append(errs, fmt.Errorf("Attempts is negative: %d", cfg.Attempts))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("outbox/postgres: %w", err)
	}
	return &DB{log, c, cfg, log.pool.Config().ConnConfig.DefaultQueryExecMode}, nil
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
	var mark driver.Mark
	if db.cache != nil {
		mark = driver.Mark(driver.NewVersion())
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

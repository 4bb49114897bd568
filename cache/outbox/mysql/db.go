package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// ErrNoRelay is matched by the error of a Write whose cache has no relay: what other
// programs write, and what this one could not deliver, would never reach the cache.
var ErrNoRelay = errors.New("outbox: no relay delivers to this cache's store: make one with outbox.NewRelay, Start it, and name it in outbox.Options")

// DB writes to a database so that no cached answer is older than an acknowledged write. It is
// safe for concurrent use.
type DB struct {
	log     *Log
	cache   *cache.Cache
	opts    outbox.Options
	relayed atomic.Bool // a relay was seen to have joined
}

// NewDB returns a DB whose writes invalidate answers of c. Without a cache (nil), as in a
// program that only writes, what its writes touch stays in the outbox for the relay
// of a program that has one.
func NewDB(log *Log, c *cache.Cache, opts outbox.Options) *DB {
	return &DB{log: log, cache: c, opts: opts}
}

// Write runs fn in a transaction of the server's isolation level, and takes it through outbox.Commit,
// whose promises are Write's. An error of fn is returned as it is, and nothing has happened; unless a
// statement of fn has committed by itself, when the error matches ErrImplicitCommit, too. A deadlock
// with another transaction is such an error: InnoDB has undone everything, and the caller may try again.
//
// The first Write makes sure that a relay has joined the outbox for the cache's store, for which
// it waits a moment, and fails with ErrNoRelay if none has.
func (db *DB) Write(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	mark, err := db.mark(ctx)
	if err != nil {
		return err
	}
	var lease time.Duration
	if db.cache != nil {
		lease = db.cache.FenceLease()
	}
	tx, err := db.log.Begin(ctx, mark, lease, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) // also when fn panics; nothing is left to undo after a commit
	if err := fn(ctx, tx.SQL()); err != nil {
		if isCode(err, deadlock) {
			return err // the server has ended the transaction, and undone it
		}
		if _, ended := tx.SQL().ExecContext(context.WithoutCancel(ctx), "RELEASE "+BegunSQL); isCode(ended, noSavepoint) {
			return fmt.Errorf("%w: %w: %w", err, ErrImplicitCommit, outbox.ErrUnknownOutcome)
		}
		return err
	}
	if db.cache == nil {
		err := tx.commitAlone(ctx)
		db.log.wake()
		return err
	}
	return outbox.Commit(ctx, db.cache, tx, db.opts)
}

const (
	joinWait  = 2 * time.Second // for a relay that has just been started
	joinEvery = 10 * time.Millisecond
)

// mark returns a fresh mark for a transaction. It is that of the store's own writers if the store
// tells its name. If it does not, because it cannot be reached, every relay takes the
// transaction's rows for another's, and delivers them at once.
func (db *DB) mark(ctx context.Context) (driver.Mark, error) {
	if db.cache == nil {
		return driver.NoMark, nil
	}
	name, err := db.cache.StoreName(ctx)
	if err != nil {
		return driver.Mark(driver.NewVersion()), nil
	}
	if !db.relayed.Load() {
		late := time.After(joinWait)
		tick := time.NewTicker(joinEvery)
		defer tick.Stop()
		for {
			is, err := db.log.registered(ctx, name)
			if is {
				db.relayed.Store(true)
				break
			}
			if err != nil {
				return driver.NoMark, err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return driver.NoMark, context.Cause(ctx)
			case <-late:
				return driver.NoMark, fmt.Errorf("%w (store %q)", ErrNoRelay, name)
			}
		}
	}
	return outbox.NewMark(name), nil
}

package sqlite

import (
	"context"
	"database/sql"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// DB writes to a database so that no cached answer is older than an acknowledged write. It is
// safe for concurrent use.
type DB struct {
	log   *Log
	cache *cache.Cache
	opts  outbox.Options
}

// NewDB returns a DB whose writes invalidate answers of c. Without a cache (nil), as in a
// program that only writes, what its writes touch stays in the outbox for the relay
// of a program that has one.
func NewDB(log *Log, c *cache.Cache, opts outbox.Options) *DB { return &DB{log, c, opts} }

// Write runs fn in a transaction, and takes it through outbox.Commit, whose promises are
// Write's. An error of fn is returned as it is, and nothing has happened. Writes of one
// process follow one another; a Write within fn would wait for itself.
func (db *DB) Write(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	tx, err := db.log.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) // also when fn panics; nothing is left to undo after a commit
	if err := fn(ctx, tx.SQL()); err != nil {
		return err
	}
	if db.cache == nil {
		return tx.Commit(ctx)
	}
	return outbox.Commit(ctx, db.cache, tx, db.opts)
}

package mysql

import (
	"context"
	"fmt"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

var _ cache.Source = (*DB)(nil)

// Kinds implements cache.Source: the kinds of the tags that the watches of the database record.
func (db *DB) Kinds(ctx context.Context) (kinds []string, err error) {
	err = declarations(ctx, db.log.db, func(d declaration) error {
		for _, template := range d.templates {
			kinds = append(kinds, outbox.KindOf(template))
		}
		return d.broken
	})
	if err != nil {
		return nil, fmt.Errorf("list watches: %w", err)
	}
	return kinds, nil
}

// Check implements cache.Source: what the function Check finds, and whether a relay delivers to
// the store of the cache.
func (db *DB) Check(ctx context.Context) ([]cache.Finding, error) {
	findings, err := Check(ctx, db.log.db)
	if err != nil {
		return nil, err
	}
	relay, err := outbox.CheckRelay(ctx, db.cache, db.opts.Relay, db.log.registered)
	return append(findings, relay...), err
}

package postgres

import (
	"context"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

var _ cache.Source = (*DB)(nil)

// Kinds implements cache.Source: the kinds of the tags that the watches of the database record.
func (db *DB) Kinds(ctx context.Context) ([]string, error) {
	watches, err := Watched(ctx, db.log.pool)
	if err != nil {
		return nil, err
	}
	var kinds []string
	for _, w := range watches {
		for _, template := range w.Templates {
			kinds = append(kinds, outbox.KindOf(template))
		}
	}
	return kinds, nil
}

// Check implements cache.Source: what the function Check finds, and whether a relay delivers to
// the store of the cache.
func (db *DB) Check(ctx context.Context) ([]cache.Finding, error) {
	findings, err := Check(ctx, db.log.pool)
	if err != nil {
		return nil, err
	}
	relay, err := outbox.CheckRelay(ctx, db.cache, db.cfg.Relay, db.log.joined)
	return append(findings, relay...), err
}

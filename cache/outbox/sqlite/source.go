package sqlite

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

var _ cache.Source = (*DB)(nil)

// Kinds implements cache.Source: the kinds of the tags that the watches of the database record.
func (db *DB) Kinds(ctx context.Context) (kinds []string, err error) {
	err = query(ctx, db.log.read, `SELECT templates FROM cache_watches`, nil, func(scan func(...any) error) error {
		var text string
		if err := scan(&text); err != nil {
			return err
		}
		var templates []string
		if err := json.Unmarshal([]byte(text), &templates); err != nil {
			return err
		}
		for _, template := range templates {
			kinds = append(kinds, outbox.KindOf(template))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list watches: %w", err)
	}
	return kinds, nil
}

// Check implements cache.Source: what the function Check finds, and whether a relay delivers to
// the store of the cache.
func (db *DB) Check(ctx context.Context) ([]cache.Finding, error) {
	findings, err := Check(ctx, db.log.read)
	if err != nil {
		return nil, err
	}
	relay, err := outbox.CheckRelay(ctx, db.cache, db.opts.Relay, db.log.registered)
	return append(findings, relay...), err
}

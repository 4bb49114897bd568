package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/chainlearn/chainlearn/cache"
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
			kind, _, _ := strings.Cut(strings.TrimSpace(template), ":")
			kinds = append(kinds, strings.Fields(kind + " ")[0])
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
	found, err := Check(ctx, db.log.read)
	if err != nil {
		return nil, err
	}
	var findings []cache.Finding
	for _, f := range found {
		findings = append(findings, cache.Finding{Subject: f.Subject, Problem: f.Problem, Remedy: f.Remedy})
	}
	if db.cache == nil {
		return findings, nil
	}
	if db.opts.Relay != nil && !db.opts.Relay.Started() {
		return append(findings, cache.Finding{
			Subject: "relay", Problem: "it was made and not started, so what other programs write is not seen", Remedy: "call its Start",
		}), nil
	}
	store, err := db.cache.StoreName(ctx)
	if err != nil {
		return findings, nil // the cache's own check says that the store is out of reach
	}
	var joined bool
	if err := db.log.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM cache_consumers WHERE name = ?1)`, store).Scan(&joined); err != nil {
		return findings, fmt.Errorf("look for a relay: %w", err)
	}
	if !joined {
		findings = append(findings, cache.Finding{
			Subject: "relay", Problem: "none delivers this outbox to the store of the cache",
			Remedy: "call outbox.NewRelay, and Start it, in this process or in another that shares the store",
		})
	}
	return findings, nil
}

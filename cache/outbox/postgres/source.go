package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/chainlearn/chainlearn/cache"
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
			kinds = append(kinds, kindOf(template))
		}
	}
	return kinds, nil
}

// kindOf returns what a template begins with.
func kindOf(template string) string {
	template = strings.TrimSpace(template)
	if end := strings.IndexAny(template, ": \t\n"); end >= 0 {
		return template[:end]
	}
	return template
}

// Check implements cache.Source: what the function Check finds, and whether a relay delivers to
// the store of the cache.
func (db *DB) Check(ctx context.Context) ([]cache.Finding, error) {
	found, err := Check(ctx, db.log.pool)
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
	if db.cfg.Relay != nil && !db.cfg.Relay.Started() {
		return append(findings, cache.Finding{
			Subject: "relay", Problem: "it was made and not started, so what other programs write is not seen", Remedy: "call its Start",
		}), nil
	}
	store, err := db.cache.StoreName(ctx)
	if err != nil {
		return findings, nil // the cache's own check says that the store is out of reach
	}
	joined, err := db.log.joined(ctx, store)
	if err != nil {
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

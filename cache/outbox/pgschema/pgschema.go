// Package pgschema is the outbox in PostgreSQL, as SQL: the migration that creates it, and the
// statements that an adapter asks it with. It imports no driver, so that adapters of several can
// share it: outbox/postgres is one, through pgx, and outbox/sqldb another, through database/sql.
// Programs use those.
package pgschema

import (
	_ "embed"
	"fmt"

	"github.com/chainlearn/chainlearn/cache"
)

//go:embed outbox.sql
var migration string

// Migration returns the SQL that creates the outbox and the functions that watch tables, for
// any migration tool; goose takes it as it is. It may be applied again, also over an
// earlier release's, and is best run in one transaction. It documents what it creates.
func Migration() string { return migration }

// version is that of cache_version in outbox.sql.
const version = 2

// Statements of a watch. Lists of texts are text[].
const (
	Watch   = `SELECT cache_watch($1::text, $2::text::regclass, VARIADIC $3::text[])` // name, table, templates
	Unwatch = `SELECT cache_unwatch($1::text, $2::text::regclass)`                    // name, table
	Record  = `SELECT cache_record(VARIADIC $1::text[])`                              // tags

	// Watched gives the table, the name and the templates of each watch.
	Watched = `SELECT relation::regclass::text AS t, watch, templates FROM cache_watches ORDER BY t, watch`
)

// Statements that look for what is wrong. The first two must come first, and what Finding says of
// them: those that follow would fail, and with them the transaction that they are asked in.
const (
	Exists  = `SELECT to_regclass('cache_outbox') IS NOT NULL, to_regprocedure('cache_version()') IS NOT NULL`
	Version = `SELECT cache_version()`

	// Check gives a subject, a problem and a remedy for each finding.
	Check = `SELECT relation || coalesce(' (watch ' || watch || ')', ''), problem, remedy FROM cache_check()`
)

// Missing returns what Exists has found, or nil if Version may be asked.
func Missing(exists, versioned bool) []cache.Finding {
	switch {
	case !exists:
		return []cache.Finding{{Subject: "outbox", Problem: "it does not exist in the search path", Remedy: "apply Migration()"}}
	case !versioned:
		return earlier()
	}
	return nil
}

// OtherVersion returns what Version has found, or nil if Check may be asked.
func OtherVersion(found int) []cache.Finding {
	switch {
	case found < version:
		return earlier()
	case found > version:
		return []cache.Finding{{
			Subject: "outbox", Problem: fmt.Sprintf("it is of a later release: version %d, and this program knows %d", found, version), Remedy: "run the later release",
		}}
	}
	return nil
}

func earlier() []cache.Finding {
	return []cache.Finding{{Subject: "outbox", Problem: "it is of an earlier release", Remedy: "apply Migration(), and declare the watches again"}}
}

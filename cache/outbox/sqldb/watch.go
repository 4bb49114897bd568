package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/pgschema"
)

// Conn is what statements are sent through: a *sql.DB, a *sql.Tx or a *sql.Conn, wrapped or not.
type Conn interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Migration returns the SQL that creates the outbox and the functions that watch tables, for
// any migration tool; goose takes it as it is. It may be applied again, also over an
// earlier release's, and is best run in one transaction. It documents what it creates, and is that of
// outbox/postgres.
func Migration() string { return pgschema.Migration() }

// Watch makes every change of a table record the tags that the templates give, as the SQL
// function cache_watch does, which documents the templates. watch names what is declared:
// several programs or teams watch one table, each under a name of its own, and declaring again
// replaces only what had that name. It waits for programs that write the table, for 3 seconds
// at most.
func Watch(ctx context.Context, db Conn, watch, table string, templates ...string) error {
	if _, err := db.ExecContext(ctx, pgschema.Watch, watch, table, array(templates)); err != nil {
		return fmt.Errorf("watch table %s: %w", table, err)
	}
	return nil
}

// Unwatch ends a watch of a table. If there is none it does nothing.
func Unwatch(ctx context.Context, db Conn, watch, table string) error {
	if _, err := db.ExecContext(ctx, pgschema.Unwatch, watch, table); err != nil {
		return fmt.Errorf("end the watch of table %s: %w", table, err)
	}
	return nil
}

// Record adds tags to what the transaction touches, for changes that no watched row shows. They
// are fenced and bumped with the rest. A tag that is malformed is an error.
func Record(ctx context.Context, tx Conn, tags ...cache.Tag) error {
	if len(tags) == 0 {
		return nil
	}
	names := make([]string, len(tags))
	for i, tag := range tags {
		names[i] = string(tag)
	}
	if _, err := tx.ExecContext(ctx, pgschema.Record, array(names)); err != nil {
		return fmt.Errorf("record touched tags: %w", err)
	}
	return nil
}

// array returns a text[] as text, which every driver can send.
func array(texts []string) string {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(t) + `"`
	}
	return "{" + strings.Join(quoted, ",") + "}"
}

// Check looks for what keeps changes of watched tables from being recorded: triggers that are
// missing or disabled, partitions that were attached later, tables that were swapped, an
// outbox of another release. It returns nothing when all is well. It reads the
// catalogue only, and is meant for the start of a program and for a monitor.
func Check(ctx context.Context, db Conn) ([]cache.Finding, error) {
	found, err := check(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("check the outbox: %w", err)
	}
	return found, nil
}

func check(ctx context.Context, db Conn) (found []cache.Finding, err error) {
	err = each(ctx, db, pgschema.Exists, nil, func(scan func(...any) error) error {
		var there, versioned bool
		err := scan(&there, &versioned)
		found = pgschema.Missing(there, versioned)
		return err
	})
	if err != nil || found != nil {
		return found, err
	}
	err = each(ctx, db, pgschema.Version, nil, func(scan func(...any) error) error {
		var version int
		err := scan(&version)
		found = pgschema.OtherVersion(version)
		return err
	})
	if err != nil || found != nil {
		return found, err
	}
	err = each(ctx, db, pgschema.Check, nil, func(scan func(...any) error) error {
		var f cache.Finding
		err := scan(&f.Subject, &f.Problem, &f.Remedy)
		found = append(found, f)
		return err
	})
	return found, err
}

// source is the outbox of a PostgreSQL database, with the relay that delivers from it to a cache.
type source struct {
	log   *Log
	cache *cache.Cache
	relay *outbox.Relay
}

// Check implements cache.Source.
func (db *source) Check(ctx context.Context) ([]cache.Finding, error) {
	findings, err := Check(ctx, db.log.db)
	if err != nil {
		return nil, err
	}
	relay, err := outbox.CheckRelay(ctx, db.cache, db.relay, db.log.joined)
	return append(findings, relay...), err
}

// Kinds implements cache.Source.
func (db *source) Kinds(ctx context.Context) (kinds []string, err error) {
	// A text[] is returned as whatever a driver makes of it, so one text at a time.
	err = each(ctx, db.log.db, `SELECT unnest(templates) FROM (`+pgschema.Watched+`) AS w`, nil, func(scan func(...any) error) error {
		var template string
		err := scan(&template)
		kinds = append(kinds, outbox.KindOf(template))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list watches: %w", err)
	}
	return kinds, nil
}

// each calls f with every row of a query.
func each(ctx context.Context, db Conn, query string, args []any, f func(scan func(...any) error) error) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

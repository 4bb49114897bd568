// Package postgres adapts the outbox to PostgreSQL 14 and later, through pgx.
//
// A migration creates the outbox and says, table by table, which tags a changed row touches:
//
//	SELECT cache_watch('shop', 'enrollments', 'course:{course_id}', 'progress:{user_id}');
//
// From then on each transaction, of this program, of another or of a person with psql,
// leaves behind what it touched, also through cascades, COPY, MERGE and TRUNCATE. Triggers
// run once for each statement, whatever the number of its rows, and record each tag once.
// The rows of transactions that know nothing of this package wake a relay through NOTIFY.
//
// DB.Write is for the program's own transactions: it takes them through outbox.Commit, so that
// no reader sees a cached answer that is older than an acknowledged write. They record
// their tags with a mark and do not notify.
//
// Behind a proxy that pools transactions (PgBouncer in transaction mode) LISTEN is of no use,
// which is found out, logged once, and made up for by polling. Give the pool
// default_query_exec_mode=exec there, or prepared statements are met in the wrong session.
//
// Every store that keeps answers from the database is a consumer of the outbox: a row stays until
// a relay of each has delivered it. See outbox.Log.
//
// No trigger sees rows that arrive by logical replication, nor those of a table whose triggers
// are disabled, nor those of a partition that was attached after cache_watch and is written
// directly. Check finds the last two. Record is for what is not in a table of this database.
package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox/pgschema"
)

// Migration returns the SQL that creates the outbox and the functions that watch tables, for
// any migration tool; goose takes it as it is. It may be applied again, also over an
// earlier release's, and is best run in one transaction. It documents what it creates.
func Migration() string { return pgschema.Migration() }

// Execer is what runs a statement: a *pgxpool.Pool, a *pgx.Conn or a pgx.Tx.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Querier is what asks for rows: a *pgxpool.Pool, a *pgx.Conn or a pgx.Tx.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Watch makes every change of a table record the tags that the templates give, as the SQL
// function cache_watch does, which documents the templates. watch names what is declared:
// several programs or teams watch one table, each under a name of its own, and declaring again
// replaces only what had that name. It waits for programs that write the table, for 3 seconds
// at most.
func Watch(ctx context.Context, db Execer, watch, table string, templates ...string) error {
	if _, err := db.Exec(ctx, pgschema.Watch, watch, table, templates); err != nil {
		return fmt.Errorf("watch table %s: %w", table, err)
	}
	return nil
}

// Unwatch ends a watch of a table. If there is none it does nothing.
func Unwatch(ctx context.Context, db Execer, watch, table string) error {
	if _, err := db.Exec(ctx, pgschema.Unwatch, watch, table); err != nil {
		return fmt.Errorf("end the watch of table %s: %w", table, err)
	}
	return nil
}

// Watching is a watch that is declared.
type Watching struct {
	Table     string // with its schema where the search path does not find it
	Watch     string
	Templates []string
}

// Watched returns the watches that are declared, by table and name.
func Watched(ctx context.Context, db Querier) ([]Watching, error) {
	rows, err := db.Query(ctx, pgschema.Watched)
	if err != nil {
		return nil, fmt.Errorf("list watched tables: %w", err)
	}
	watches, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Watching])
	if err != nil {
		return nil, fmt.Errorf("list watched tables: %w", err)
	}
	return watches, nil
}

// Check looks for what keeps changes of watched tables from being recorded: triggers that are
// missing or disabled, partitions that were attached later, tables that were swapped, an
// outbox of another release. It returns nothing when all is well. It reads the
// catalogue only, and is meant for the start of a program and for a monitor.
func Check(ctx context.Context, db Querier) ([]cache.Finding, error) {
	found, err := check(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("check the outbox: %w", err)
	}
	return found, nil
}

func check(ctx context.Context, db Querier) ([]cache.Finding, error) {
	rows, err := db.Query(ctx, pgschema.Exists)
	if err != nil {
		return nil, err
	}
	is, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[struct{ There, Versioned bool }])
	if err != nil {
		return nil, err
	}
	if found := pgschema.Missing(is.There, is.Versioned); found != nil {
		return found, nil
	}
	rows, err = db.Query(ctx, pgschema.Version)
	if err != nil {
		return nil, err
	}
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	if err != nil {
		return nil, err
	}
	if found := pgschema.OtherVersion(v); found != nil {
		return found, nil
	}
	rows, err = db.Query(ctx, pgschema.Check)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (f cache.Finding, err error) {
		err = row.Scan(&f.Subject, &f.Problem, &f.Remedy)
		return f, err
	})
}

// Record adds tags to what the transaction touches, for changes that no watched row shows. In
// a transaction of DB.Write they are fenced and bumped with the rest; outside of one
// they are delivered by a relay. A tag that is malformed is an error.
func Record(ctx context.Context, tx Execer, tags ...cache.Tag) error {
	if len(tags) == 0 {
		return nil
	}
	names := make([]string, len(tags))
	for i, tag := range tags {
		names[i] = string(tag)
	}
	if _, err := tx.Exec(ctx, pgschema.Record, names); err != nil {
		return fmt.Errorf("record touched tags: %w", err)
	}
	return nil
}

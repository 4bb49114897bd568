// Package postgres adapts the outbox to PostgreSQL 14 and later, through pgx.
//
// A migration creates the outbox and says, table by table, which tags a changed row touches:
//
//	SELECT cache_watch('enrollments', 'course:{course_id}', 'progress:{user_id}');
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
// What no trigger sees: rows that arrive by logical replication, a disabled trigger, a
// partition that was attached after cache_watch, and whatever is not in a table of this
// database. Record is for the last.
package postgres

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainlearn/chainlearn/cache"
)

//go:embed outbox.sql
var migration string

// Migration returns the SQL that creates the outbox and the functions that watch tables, for
// any migration tool; goose takes it as it is. It may be applied again, also over an
// earlier release's, and is best run in one transaction. It documents what it creates.
func Migration() string { return migration }

// Execer is what runs a statement: a *pgxpool.Pool, a *pgx.Conn or a pgx.Tx.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Watch makes every change of a table record the tags that the templates give, as the SQL
// function cache_watch does, which documents the templates. It replaces what was watched
// before, and waits for writers of the table: set a lock timeout.
func Watch(ctx context.Context, db Execer, table string, templates ...string) error {
	if _, err := db.Exec(ctx, `SELECT cache_watch($1::text::regclass, VARIADIC $2::text[])`, table, templates); err != nil {
		return fmt.Errorf("watch table %s: %w", table, err)
	}
	return nil
}

// Watched returns the tables that triggers watch, with their schema where the search path
// does not find them, in order.
func Watched(ctx context.Context, db interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}) ([]string, error) {
	rows, err := db.Query(ctx, `SELECT DISTINCT tgrelid::regclass::text AS t FROM pg_trigger
		WHERE tgname LIKE 'cache\_watch\_%' AND NOT tgisinternal AND tgenabled <> 'D' ORDER BY t`)
	if err != nil {
		return nil, fmt.Errorf("list watched tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list watched tables: %w", err)
	}
	return tables, nil
}

// Record adds tags to what the transaction touches, for changes that no watched row shows. In
// a transaction of DB.Write they are fenced and bumped with the rest; outside of one
// they are delivered by a relay.
func Record(ctx context.Context, tx Execer, tags ...cache.Tag) error {
	if len(tags) == 0 {
		return nil
	}
	names := make([]string, len(tags))
	for i, tag := range tags {
		names[i] = string(tag)
	}
	if _, err := tx.Exec(ctx, `SELECT cache_record(VARIADIC $1::text[])`, names); err != nil {
		return fmt.Errorf("record touched tags: %w", err)
	}
	return nil
}

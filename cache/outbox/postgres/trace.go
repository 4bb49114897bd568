package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainlearn/chainlearn/cache"
)

var _ cache.Tracer = (*DB)(nil)

// How Tables sees what a loader reads, by whichever driver, pool, view or function.
//
// A reader locks each table before it reads it, so a transaction that holds every table in ACCESS
// EXCLUSIVE mode stops the reader at the first that it needs. pg_locks names that table.
// The transaction is rolled back, the reader goes on, and is run once more with the other tables
// locked, until it comes to an end without having waited.
//
// What else waits meanwhile looks the same: a loader that warms an answer, another test. So each
// table that was found is locked alone once more, and counts if the reader waits again.

const (
	tracePoll    = 2 * time.Millisecond // how long a reader waits before it is seen to
	traceTries   = 5                    // for the locks, which a program may have taken in another order
	traceLocks   = "3s"                 // for one table; more than autovacuum takes to yield
	traceOthers  = "30s"                // for another trace of the same database
	traceTurn    = 0x6361636865747263   // advisory lock: one trace at a time, or two would stop each other
	waitedForSQL = `SELECT DISTINCT relation::oid::bigint FROM pg_locks
WHERE locktype = 'relation' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND relation = ANY ($1::bigint[]::oid[])`
	// What a loader may read, apart from catalogues and the outbox. The members are those that a
	// reader of the relation locks with it.
	relationsSQL = `SELECT c.oid::bigint AS id, format('%I.%I', nspname, relname) AS name, relkind::text AS kind, quote_ident(pg_get_userbyid(relowner)) AS owner,
    ARRAY(WITH RECURSIVE down (relation) AS (SELECT c.oid UNION SELECT inhrelid FROM pg_inherits JOIN down ON inhparent = relation)
        SELECT relation::bigint FROM down) AS members
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p', 'm', 'f') AND relpersistence <> 't' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
    AND NOT (relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'cache_outbox'::regclass)
        AND relname IN ('cache_outbox', 'cache_consumers', 'cache_delivered', 'cache_watches'))
ORDER BY c.oid`
	// The name that a table goes by: its own if it is watched, or that of the nearest table that
	// it is a part of and that is.
	nameSQL = `WITH RECURSIVE up (relation, depth) AS (
    SELECT $1::bigint::oid, 0 UNION SELECT inhparent, depth + 1 FROM pg_inherits JOIN up ON inhrelid = relation)
SELECT coalesce((SELECT relation FROM up WHERE relation IN (SELECT relation FROM cache_watches) ORDER BY depth, relation LIMIT 1), $1::bigint::oid)::regclass::text`
)

// relation that a loader may read.
type relation struct {
	ID      int64
	Name    string
	Kind    string // as in pg_class
	Owner   string
	Members []int64 // itself, its partitions and children
}

// Watched implements cache.Tracer and cache.DryRunner: the tables that have a watch.
func (db *DB) Watched(ctx context.Context) ([]string, error) {
	watches, err := Watched(ctx, db.log.pool)
	if err != nil {
		return nil, err
	}
	var tables []string
	for _, w := range watches {
		tables = append(tables, w.Table)
	}
	return slices.Compact(tables), nil // they are in order
}

// Tables implements cache.Tracer: the tables, materialized views and foreign tables of this
// database that read asks for, also through views and functions, with whichever driver. A part
// of a table that is watched as a whole goes by the name of the whole. It runs read several times.
//
// It is for test databases: it locks every table there is, for milliseconds at a time, which takes
// a role that may (an owner of the tables, or a superuser). It does not see what is asked of
// another server, such as a replica, nor temporary tables. What read does not ask for under its
// present arguments and rows, such as the other branch of a function, is not seen either.
func (db *DB) Tables(ctx context.Context, read func(context.Context) error) ([]string, error) {
	tables, err := db.tables(ctx, read)
	if err != nil {
		return nil, fmt.Errorf("trace what is read: %w", err)
	}
	return tables, nil
}

func (db *DB) tables(ctx context.Context, read func(context.Context) error) ([]string, error) {
	// A connection of its own: read may need all of the pool.
	conn, err := pgx.ConnectConfig(ctx, db.log.pool.Config().ConnConfig)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, relationsSQL)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[relation])
	if err != nil {
		return nil, err
	}
	var found []int64
	for left := all; ; {
		waited, err := stopped(ctx, conn, left, read)
		if err != nil {
			return nil, err
		}
		if len(waited) == 0 {
			break
		}
		for _, id := range waited {
			r := all[slices.IndexFunc(all, func(r relation) bool { return r.ID == id })]
			again, err := stopped(ctx, conn, []relation{r}, read)
			if err != nil {
				return nil, err
			}
			if len(again) > 0 {
				found = append(found, id)
			}
			left = slices.DeleteFunc(slices.Clone(left), func(other relation) bool { return slices.Contains(r.Members, other.ID) })
		}
	}
	var names []string
	for _, id := range found {
		var name string
		if err := conn.QueryRow(ctx, nameSQL, id).Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// stopped runs read while relations are locked, until it waits for one of them, and returns those
// that were waited for. Then the locks are gone, and read has come to its end.
func stopped(ctx context.Context, conn *pgx.Conn, relations []relation, read func(context.Context) error) (waited []int64, err error) {
	tx, err := lockAll(ctx, conn, relations)
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(relations))
	for i, r := range relations {
		ids[i] = r.ID
	}
	type watch struct {
		found []int64
		err   error
	}
	ended, watched := make(chan struct{}), make(chan watch, 1)
	go func() {
		tick := time.NewTicker(tracePoll)
		defer tick.Stop()
		var err error
		var found []int64
		for over := false; !over && err == nil && len(found) == 0; {
			select {
			case <-tick.C:
				var rows pgx.Rows
				if rows, err = tx.Query(ctx, waitedForSQL, ids); err == nil {
					found, err = pgx.CollectRows(rows, pgx.RowTo[int64])
				}
			case <-ended:
				over = true
			}
		}
		// If that fails, the connection is closed, which gives the locks back as well.
		err = errors.Join(err, tx.Rollback(context.WithoutCancel(ctx)))
		watched <- watch{found, err}
	}()
	defer func() { // also if read panics
		close(ended)
		w := <-watched
		waited, err = w.found, errors.Join(w.err, err)
	}()
	return nil, read(ctx)
}

// lockAll begins a transaction that has relations to itself.
func lockAll(ctx context.Context, conn *pgx.Conn, relations []relation) (pgx.Tx, error) {
	for try := 1; ; try++ {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return nil, err
		}
		if _, err = tx.Exec(ctx, lockSQL(relations)); err == nil {
			return tx, nil
		}
		if undone := tx.Rollback(context.WithoutCancel(ctx)); undone != nil {
			return nil, errors.Join(err, undone)
		}
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "40P01" && refused.Code != "55P03" || try == traceTries {
			return nil, fmt.Errorf("lock the tables, which needs a role that owns them, and a database that no other program uses: %w", err)
		}
	}
}

func lockSQL(relations []relation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "SET LOCAL lock_timeout = '%s'; SELECT pg_advisory_xact_lock(%d); SET LOCAL lock_timeout = '%s'; ", traceOthers, traceTurn, traceLocks)
	b.WriteString("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; ")
	for _, r := range relations {
		switch r.Kind {
		case "m": // which LOCK does not take; a change that changes nothing locks as well
			fmt.Fprintf(&b, "ALTER MATERIALIZED VIEW %s OWNER TO %s; ", r.Name, r.Owner)
		case "f":
			fmt.Fprintf(&b, "ALTER FOREIGN TABLE %s OWNER TO %s; ", r.Name, r.Owner)
		default:
			fmt.Fprintf(&b, "LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE; ", r.Name)
		}
	}
	return b.String()
}

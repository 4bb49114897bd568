package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/cache"
)

var _ cache.DryRunner = (*DB)(nil)

const (
	dryRunRows = 1000
	dryRunTags = 100_000
	// The functions that the triggers use of the templates that concern rows of a table, and the
	// tables that they are for; with a tag instead of a function where it is the same for all rows.
	templatesSQL = `SELECT coalesce(p.constant, ''), format('%s.cache_tags_%s_%s', (SELECT quote_ident(nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = 'cache_outbox'::regclass), w.id, u.number),
    w.relation::regclass::text, w.relation <> $1::text::regclass
FROM cache_watches w, unnest(w.templates) WITH ORDINALITY AS u (template, number), cache_parse(template) AS p
WHERE w.id = ANY (cache_covering($1::text::regclass)) ORDER BY w.id, u.number`
	// The first rows by the primary key, so that each time they are the same.
	keySQL = `SELECT coalesce((SELECT string_agg(quote_ident(attname), ', ' ORDER BY array_position(indkey::int2[], attnum)) FROM pg_index
    JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) WHERE indrelid = $1::text::regclass AND indisprimary), '')`
)

// DryRun implements cache.DryRunner: the tags that the templates of the watches give for the first
// thousand rows of a table, whichever event they are for.
//
// It asks the functions that the triggers ask, and changes no row. A change that is rolled back
// would show less and disturb more: an UPDATE that changes nothing does not concern UPDATE OF, a
// DELETE cascades into other tables, whose tags are then among the rest, a statement of many rows
// records families, and a program's own triggers would run. That the triggers are there and do
// ask these functions is what Check compares.
func (db *DB) DryRun(ctx context.Context, table string) (cache.DryRun, error) {
	p, err := db.dryRun(ctx, table)
	if err != nil {
		return cache.DryRun{}, fmt.Errorf("dry run of table %s: %w", table, err)
	}
	return p, nil
}

func (db *DB) dryRun(ctx context.Context, table string) (p cache.DryRun, err error) {
	// Not read only: a template may lock the row that it reads.
	tx, err := db.log.pool.Begin(ctx)
	if err != nil {
		return p, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	// As in the triggers.
	if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '3s'; SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL TimeZone = 'UTC';
SET LOCAL IntervalStyle = 'postgres'; SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1`); err != nil {
		return p, err
	}
	// The name goes into statements, so it is spelled by the server.
	var order string
	if err := tx.QueryRow(ctx, `SELECT $1::text::regclass::text`, table).Scan(&table); err != nil {
		return p, err
	}
	if err := tx.QueryRow(ctx, keySQL, table).Scan(&order); err != nil {
		return p, err
	}
	if order != "" {
		order = "ORDER BY " + order
	}
	if err := tx.QueryRow(ctx, fmt.Sprintf(`SELECT count(*) FROM (SELECT FROM %s LIMIT %d) AS counted`, table, dryRunRows+1)).Scan(&p.Rows); err != nil {
		return p, err
	}
	if p.More = p.Rows > dryRunRows; p.More {
		p.Rows = dryRunRows
	}
	rows, err := tx.Query(ctx, templatesSQL, table)
	if err != nil {
		return p, err
	}
	var queries []string
	var constant, function, of string
	var parent bool
	_, err = pgx.ForEachRow(rows, []any{&constant, &function, &of, &parent}, func() error {
		row := "rows.r"
		if parent {
			row += "::" + of
		}
		if constant != "" {
			// A constant is a tag: it has no quotes.
			queries = append(queries, fmt.Sprintf(`SELECT '%s' FROM rows`, constant))
		} else {
			queries = append(queries, fmt.Sprintf(`SELECT t.tag FROM rows, %s(%s) AS t (tag)`, function, row))
		}
		return nil
	})
	if err != nil || len(queries) == 0 {
		return p, err
	}
	rows, err = tx.Query(ctx, fmt.Sprintf(`WITH rows AS MATERIALIZED (SELECT r FROM %s AS r %s LIMIT %d)
SELECT DISTINCT t.tag FROM (%s) AS t (tag) WHERE t.tag IS NOT NULL ORDER BY 1 LIMIT %d`,
		table, order, dryRunRows, strings.Join(queries, "\nUNION ALL "), dryRunTags+1))
	if err != nil {
		return p, err
	}
	if p.Tags, err = pgx.CollectRows(rows, pgx.RowTo[cache.Tag]); err != nil {
		return p, err
	}
	if len(p.Tags) > dryRunTags {
		p.Tags, p.More = p.Tags[:dryRunTags], true
	}
	return p, nil
}

package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chainlearn/chainlearn/cache"
)

var _ cache.DryRunner = (*DB)(nil)

const (
	dryRunRows = 1000
	dryRunTags = 100_000
)

// Watched implements cache.DryRunner: the tables that have a watch.
func (db *DB) Watched(ctx context.Context) (tables []string, err error) {
	err = declarations(ctx, db.log.db, func(d declaration) error { tables = append(tables, d.table); return nil })
	if err != nil {
		return nil, fmt.Errorf("list watches: %w", err)
	}
	slices.Sort(tables)
	return slices.Compact(tables), nil
}

// DryRun implements cache.DryRunner: the tags that the templates of the watches give for the first
// thousand rows of a table, whichever event they are for.
//
// It asks what the triggers of the watches ask, and changes no row. A change that is rolled back would
// disturb more: a DELETE cascades into other tables, and a program's own triggers would run.
// That the triggers of the watches are in place is what Check compares.
func (db *DB) DryRun(ctx context.Context, table string) (p cache.DryRun, err error) {
	err = inSession(ctx, db.log.db, func(conn Conn) error {
		if _, err := conn.ExecContext(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"); err != nil {
			return err
		}
		p, err = dryRun(ctx, conn, table)
		_, undone := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return errors.Join(err, undone)
	})
	if err != nil {
		return cache.DryRun{}, fmt.Errorf("dry run of table %s: %w", table, err)
	}
	return p, nil
}

func dryRun(ctx context.Context, db Conn, name string) (p cache.DryRun, err error) {
	t, err := describe(ctx, db, name)
	if err != nil {
		return p, err
	}
	if err := queryRow(ctx, db, fmt.Sprintf(`SELECT COUNT(*) FROM (SELECT 1 FROM %s LIMIT %d) AS counted`, t.ident(), dryRunRows+1), &p.Rows); err != nil {
		return p, err
	}
	if p.More = p.Rows > dryRunRows; p.More {
		p.Rows = dryRunRows
	}
	order, err := scanStrings(db.QueryContext(ctx, `SELECT column_name FROM information_schema.statistics
		WHERE table_schema = DATABASE() AND table_name = `+text(t.name)+` AND index_name = 'PRIMARY' ORDER BY seq_in_index`))
	if err != nil {
		return p, err
	}
	by := ""
	if len(order) > 0 { // the first rows, each time the same
		for i := range order {
			order[i] = ident(order[i])
		}
		by = " ORDER BY " + strings.Join(order, ", ")
	}
	var statements []string
	err = declarations(ctx, db, func(d declaration) error {
		if d.table != t.name || d.broken != nil {
			return d.broken
		}
		w, err := parseWatch(ctx, db, d.watch, d.table, d.templates)
		if err != nil {
			return err
		}
		for _, template := range w.templates {
			for i := range p.Rows {
				limit := fmt.Sprintf("%s LIMIT %d", by, dryRunRows)
				of := func(c *column) string { return ident("cache_row") + "." + ident(c.name) }
				statement := "SELECT DISTINCT " + template.sql(of) + " FROM (SELECT * FROM " + t.ident() + limit + ") AS cache_row"
				if template.many() != nil {
					// One row at a time: what is in WITH sees no other table, so a row is a value here.
					limit = fmt.Sprintf("%s LIMIT 1 OFFSET %d", by, i)
					of = func(c *column) string {
						return "(SELECT " + ident(c.name) + " FROM " + t.ident() + limit + ")"
					}
					statement = template.query(of)
				} else if i > 0 {
					break
				}
				if !slices.Contains(statements, statement) {
					statements = append(statements, statement)
				}
			}
		}
		return nil
	})
	if err != nil {
		return p, err
	}
	tags := map[string]bool{}
	for _, statement := range statements {
		err := query(ctx, db, statement, func(scan func(...any) error) error {
			var tag []byte
			if err := scan(&tag); err != nil || tag == nil {
				return err
			}
			tags[string(tag)] = true
			return nil
		})
		if err != nil {
			return p, err
		}
	}
	for tag := range tags {
		p.Tags = append(p.Tags, cache.Tag(tag))
	}
	slices.Sort(p.Tags)
	if len(p.Tags) > dryRunTags {
		p.Tags, p.More = p.Tags[:dryRunTags], true
	}
	return p, nil
}

// Record records tags that no watched row shows, in a transaction: they are delivered when it has
// committed. Make them with cache.T.
func Record(ctx context.Context, tx Conn, tags ...cache.Tag) error {
	for _, tag := range tags {
		if err := tag.Check(); err != nil {
			return fmt.Errorf("record: %w", err)
		}
		if _, err := tx.ExecContext(ctx, "CALL cache_record("+text(string(tag))+")"); err != nil {
			return fmt.Errorf("record %s: %w", tag, err)
		}
	}
	return nil
}

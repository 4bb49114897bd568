package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
)

var _ cache.DryRunner = (*DB)(nil)

const (
	dryRunRows = 1000
	dryRunTags = 100_000
)

// Watched implements cache.DryRunner: the tables that have a watch.
func (db *DB) Watched(ctx context.Context) ([]string, error) {
	tables, err := scanStrings(db.log.read.QueryContext(ctx, `SELECT DISTINCT watched FROM cache_watches ORDER BY watched`))
	if err != nil {
		return nil, fmt.Errorf("list watches: %w", err)
	}
	return tables, nil
}

// DryRun implements cache.DryRunner: the tags that the templates of the watches give for the first
// thousand rows of a table, whichever event they are for.
//
// It changes no row. In a transaction that is rolled back, the rows are those of a temporary view
// with a trigger that records what the triggers of the watches record. A change of the table
// would show less and disturb more: an UPDATE that changes nothing does not concern UPDATE OF, a
// DELETE cascades into other tables, and a program's own triggers would run. That the triggers
// of the watches are in place is what Check compares.
//
// It has the write lock of the database for the time of some statements.
func (db *DB) DryRun(ctx context.Context, table string) (cache.DryRun, error) {
	p, err := db.dryRun(ctx, table)
	if err != nil {
		return cache.DryRun{}, fmt.Errorf("dry run of table %s: %w", table, err)
	}
	return p, nil
}

func (db *DB) dryRun(ctx context.Context, table string) (p cache.DryRun, err error) {
	tx, err := db.log.Begin(ctx, driver.NoMark)
	if err != nil {
		return p, err
	}
	defer tx.Rollback(ctx)
	type declared struct{ watch, templates string }
	var watches []declared
	err = query(ctx, tx.tx, `SELECT watch, templates FROM cache_watches WHERE watched = ?1`, []any{table}, func(scan func(...any) error) error {
		var d declared
		err := scan(&d.watch, &d.templates)
		watches = append(watches, d)
		return err
	})
	if err != nil {
		return p, err
	}
	var statements []string
	for _, d := range watches {
		var templates []string
		if err := json.Unmarshal([]byte(d.templates), &templates); err != nil {
			return p, err
		}
		w, err := parseWatch(ctx, tx.tx, d.watch, table, templates)
		if err != nil {
			return p, err
		}
		for _, t := range w.templates {
			if s := t.record("new", ""); !slices.Contains(statements, s) {
				statements = append(statements, s)
			}
		}
	}
	t, err := describe(ctx, tx.tx, table)
	if err != nil {
		return p, err
	}
	name := ident(t.name)
	if err := queryRow(ctx, tx.tx, fmt.Sprintf(`SELECT count(*) FROM (SELECT 1 FROM %s LIMIT %d)`, name, dryRunRows+1), nil, &p.Rows); err != nil {
		return p, err
	}
	if p.More = p.Rows > dryRunRows; p.More {
		p.Rows = dryRunRows
	}
	if len(statements) == 0 {
		return p, nil
	}
	var order []string // the first rows, each time the same
	if t.rowid != "" {
		order = []string{t.rowid}
	} else {
		for _, c := range t.primary {
			order = append(order, ident(c))
		}
	}
	by := ""
	if len(order) > 0 {
		by = " ORDER BY " + strings.Join(order, ", ")
	}
	columns := make([]string, len(t.columns)) // * would leave hidden ones out
	for i, c := range t.columns {
		columns[i] = ident(c.name)
	}
	_, err = tx.tx.ExecContext(ctx, fmt.Sprintf(`CREATE TEMP VIEW cache_dry_run AS SELECT %s FROM %s%s LIMIT %d;
CREATE TEMP TRIGGER cache_dry_run_rows INSTEAD OF UPDATE ON cache_dry_run
BEGIN
    %s;
END;
UPDATE cache_dry_run SET %[6]s = %[6]s`, strings.Join(columns, ", "), name, by, dryRunRows, strings.Join(statements, ";\n    "), columns[0]))
	if err != nil {
		return p, err
	}
	tags, err := scanStrings(tx.tx.QueryContext(ctx, `SELECT tag FROM cache_outbox WHERE id > ?1 ORDER BY tag LIMIT ?2`, tx.last, dryRunTags+1))
	if err != nil {
		return p, err
	}
	if len(tags) > dryRunTags {
		tags, p.More = tags[:dryRunTags], true
	}
	for _, tag := range tags {
		p.Tags = append(p.Tags, cache.Tag(tag))
	}
	return p, nil
}

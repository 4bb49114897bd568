package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/chainlearn/chainlearn/cache"
)

// Check compares what was declared with what is in the database: tables that are gone, triggers
// that are missing or differ, a schema that is not that of this release. It returns nothing
// when all is well. It only reads.
func Check(ctx context.Context, db Conn) ([]cache.Finding, error) {
	findings, err := checkSchema(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("check outbox: %w", err)
	}
	if slices.ContainsFunc(findings, func(f cache.Finding) bool { return f.Subject == "cache_watches" }) {
		return findings, nil
	}
	watches, err := checkWatches(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("check outbox: %w", err)
	}
	hidden, err := scanStrings(db.QueryContext(ctx, hiddenSQL))
	if err != nil {
		return nil, fmt.Errorf("check outbox: %w", err)
	}
	for _, table := range hidden {
		from, to := show(table)
		findings = append(findings, cache.Finding{
			Subject: "table " + table, Problem: "is hidden by a trace of what is read, which was killed",
			Remedy: fmt.Sprintf("run the test again, or ALTER TABLE %s RENAME TO %s", ident(from), ident(to)),
		})
	}
	return append(findings, watches...), nil
}

// checkSchema compares the schema with that of an empty database.
func checkSchema(ctx context.Context, db Conn) (findings []cache.Finding, err error) {
	fresh, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	defer fresh.Close()
	fresh.SetMaxOpenConns(1)
	if _, err := fresh.ExecContext(ctx, Schema); err != nil {
		return nil, err
	}
	const all = `SELECT name, coalesce(sql, '') FROM sqlite_schema WHERE name GLOB 'cache_*' ORDER BY rowid`
	found := map[string]string{}
	err = query(ctx, db, all, nil, func(scan func(...any) error) error {
		var name, sql string
		err := scan(&name, &sql)
		found[name] = language.Normal(sql)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = query(ctx, fresh, all, nil, func(scan func(...any) error) error {
		var name, sql string
		if err := scan(&name, &sql); err != nil {
			return err
		}
		have, is := found[name]
		switch {
		case !is:
			findings = append(findings, cache.Finding{Subject: name, Problem: "is missing", Remedy: "apply Schema in a migration"})
		case have != language.Normal(sql):
			findings = append(findings, cache.Finding{Subject: name, Problem: "is that of another release", Remedy: "apply Schema in a migration"})
		}
		return nil
	})
	return findings, err
}

func checkWatches(ctx context.Context, db Conn) (findings []cache.Finding, err error) {
	type declared struct{ watch, table, templates string }
	var list []declared
	err = query(ctx, db, `SELECT watch, watched, templates FROM cache_watches ORDER BY watch, watched`, nil, func(scan func(...any) error) error {
		var d declared
		err := scan(&d.watch, &d.table, &d.templates)
		list = append(list, d)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		subject := fmt.Sprintf("watch %s of %s", d.watch, d.table)
		again := "declare it again with Watch"
		var exists int
		if err := queryRow(ctx, db, `SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE`, []any{d.table}, &exists); err != nil {
			return nil, err
		}
		if exists == 0 {
			findings = append(findings, cache.Finding{Subject: subject, Problem: "the table is gone", Remedy: "declare the watch of the table that took its place with Watch, and end this one with Unwatch"})
			continue
		}
		var templates []string
		if err := json.Unmarshal([]byte(d.templates), &templates); err != nil {
			findings = append(findings, cache.Finding{Subject: subject, Problem: "its templates cannot be read: " + err.Error(), Remedy: again})
			continue
		}
		w, err := parseWatch(ctx, db, d.watch, d.table, templates)
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			findings = append(findings, cache.Finding{Subject: subject, Problem: strings.TrimSpace(err.Error()), Remedy: again + ", with templates for the table as it is now"})
			continue
		}
		problem, err := w.differs(ctx, db)
		if err != nil {
			return nil, err
		}
		if problem != "" {
			findings = append(findings, cache.Finding{Subject: subject, Problem: problem, Remedy: again})
			continue
		}
		if err := w.compile(ctx, db); err != nil {
			findings = append(findings, cache.Finding{Subject: subject, Problem: err.Error(), Remedy: "mend what the statement names, or declare the watch again"})
		}
	}
	return findings, nil
}

package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox/internal/sqltemplate"
)

// Check compares what was declared with what is in the database: tables and columns that are gone or
// others, triggers that are missing or differ, foreign keys that change rows without a trigger,
// TRUNCATE that nothing would see, a schema that is not that of this release. It returns
// nothing when all is well. It only reads.
func Check(ctx context.Context, db Conn) (findings []cache.Finding, err error) {
	err = inSession(ctx, db, func(db Conn) error {
		if findings, err = checkSchema(ctx, db); err != nil {
			return err
		}
		if slices.ContainsFunc(findings, func(f cache.Finding) bool { return f.Subject == "cache_watches" }) {
			return nil
		}
		watches, err := checkWatches(ctx, db)
		findings = append(findings, watches...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("check outbox: %w", err)
	}
	return findings, nil
}

// checkSchema looks for the tables and routines of Schema, and for settings under which it does not work.
func checkSchema(ctx context.Context, db Conn) (findings []cache.Finding, err error) {
	found := map[string]string{}
	err = query(ctx, db, `SELECT routine_name, COALESCE(routine_definition, '') FROM information_schema.routines WHERE routine_schema = DATABASE() AND routine_name LIKE 'cache|_%' ESCAPE '|'
		UNION ALL SELECT table_name, COALESCE(engine, '') FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE 'cache|_%' ESCAPE '|'`, func(scan func(...any) error) error {
		var name, is string
		err := scan(&name, &is)
		found[name] = is
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, statement := range statements(Schema) {
		list, err := language.Tokens(statement)
		if err != nil {
			return nil, err
		}
		list = sqltemplate.Dense(list)
		if !list[0].Is("CREATE") {
			continue
		}
		name, wanted := list[5].Name, "InnoDB" // CREATE TABLE IF NOT EXISTS name
		if !list[1].Is("TABLE") {
			wanted = language.Normal(statement[strings.Index(statement, "BEGIN"):])
		}
		is, there := found[name]
		switch {
		case !there:
			findings = append(findings, cache.Finding{Subject: name, Problem: "is missing, or this account may not see it", Remedy: "apply Schema in a migration, and grant EXECUTE on its routines"})
		case is != "" && language.Normal(is) != wanted: // a body is shown to few
			findings = append(findings, cache.Finding{Subject: name, Problem: "is that of another release", Remedy: "drop it and apply Schema in a migration"})
		}
	}
	var format string
	var logs bool
	if err := queryRow(ctx, db, `SELECT @@GLOBAL.log_bin, @@GLOBAL.binlog_format`, &logs, &format); err == nil && logs && format == "STATEMENT" {
		findings = append(findings, cache.Finding{Subject: "binlog_format", Problem: "is STATEMENT, with which InnoDB refuses what a relay writes", Remedy: "set it to ROW"})
	}
	return findings, nil
}

func checkWatches(ctx context.Context, db Conn) (findings []cache.Finding, err error) {
	ids, truncates := incarnations(ctx, db)
	watched := false
	err = declarations(ctx, db, func(d declaration) error {
		watched = true
		subject := fmt.Sprintf("watch %s of %s", d.watch, d.table)
		again := "declare it again with Watch"
		add := func(problem, remedy string) {
			findings = append(findings, cache.Finding{Subject: subject, Problem: problem, Remedy: remedy})
		}
		var exists bool
		if err := queryRow(ctx, db, `SELECT EXISTS (SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = `+text(d.table)+`)`, &exists); err != nil {
			return err
		}
		if !exists {
			add("the table is gone", "declare the watch of the table that took its place with Watch, and end this one with Unwatch")
			return nil
		}
		if d.broken != nil {
			add("its templates cannot be read: "+d.broken.Error(), again)
			return ctx.Err()
		}
		w, broken := parseWatch(ctx, db, d.watch, d.table, d.templates)
		if broken != nil {
			add(strings.TrimSpace(broken.Error()), "do as it says, or declare the watch again with templates for the table as it is now")
			return ctx.Err()
		}
		problem, err := w.differs(ctx, db)
		if err != nil {
			return err
		}
		if problem != "" {
			add(problem, again)
		}
		if _, known := ids[strings.ToLower(fileName(d.table))]; truncates == nil && !known {
			add("TRUNCATE would not be seen: its name, or that of the database, is spelled otherwise in InnoDB's dictionary", "call Invalidate after TRUNCATE, or use names of ASCII letters, digits and _")
		}
		return nil
	})
	if err == nil && watched && truncates != nil {
		if ctx.Err() != nil {
			return nil, truncates
		}
		findings = append(findings, cache.Finding{Subject: "cache_table_ids", Problem: "fails, so TRUNCATE of a watched table is not seen: " + truncates.Error(),
			Remedy: "drop it and apply Schema with an account that has the privilege PROCESS, and grant EXECUTE on it"})
	}
	return findings, err
}

package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// table is what a watch must know of its table.
type table struct {
	name    string
	columns []*column
	parents []parent
}

type column struct {
	name      string
	dataType  string // in lower case, as "int"
	declared  string // as "int(11) unsigned"
	collation string // of texts; empty for others
}

// parent is a table by whose changes InnoDB changes this one without running a trigger.
type parent struct {
	name           string
	deletes, moves bool
}

func (t *table) column(name string) *column {
	for _, c := range t.columns {
		if strings.EqualFold(c.name, name) {
			return c
		}
	}
	return nil
}

// exact returns the name of a column as the table has it.
func (t *table) exact(name string) (string, error) {
	c := t.column(name)
	if c == nil {
		return "", t.noColumn(name)
	}
	return c.name, nil
}

func (t *table) noColumn(name string) error {
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = c.name
	}
	return fmt.Errorf("%s has no column %s: it has %s", t.name, name, strings.Join(names, ", "))
}

// ErrWatch is matched by the errors of watches that cannot be.
var ErrWatch = errors.New("outbox: cannot be watched")

// describe reads the schema of a table of the current database.
func describe(ctx context.Context, db Conn, name string) (*table, error) {
	t := &table{}
	var kind, engine string
	err := queryRow(ctx, db, `SELECT table_name, table_type, COALESCE(engine, '') FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = `+text(name),
		&t.name, &kind, &engine)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, fmt.Errorf("%w: there is no table %s in this database, or the account may not see it", ErrWatch, name)
	case err != nil:
		return nil, err
	case strings.Contains(kind, "VIEW"):
		return nil, fmt.Errorf("%w: %s is a view, which has no rows of its own: watch the tables that it reads", ErrWatch, t.name)
	case kind != "BASE TABLE":
		return nil, fmt.Errorf("%w: %s is of the kind %s: want a base table", ErrWatch, t.name, kind)
	case strings.HasPrefix(strings.ToLower(t.name), "cache_"):
		return nil, fmt.Errorf("%w: %s belongs to the outbox", ErrWatch, t.name)
	case engine != "InnoDB":
		return nil, fmt.Errorf("%w: the engine of %s is %s, whose rows change outside of the transaction that records it: ALTER TABLE %s ENGINE = InnoDB", ErrWatch, t.name, engine, t.name)
	}
	err = query(ctx, db, `SELECT column_name, data_type, column_type, COALESCE(collation_name, '') FROM information_schema.columns
		WHERE table_schema = DATABASE() AND table_name = `+text(t.name)+` ORDER BY ordinal_position`, func(scan func(...any) error) error {
		c := &column{}
		t.columns = append(t.columns, c)
		return scan(&c.name, &c.dataType, &c.declared, &c.collation)
	})
	if err != nil {
		return nil, err
	}
	const acts = ` NOT IN ('RESTRICT', 'NO ACTION')`
	err = query(ctx, db, `SELECT IF(unique_constraint_schema = DATABASE(), referenced_table_name, CONCAT(unique_constraint_schema, '.', referenced_table_name)), delete_rule`+acts+`, update_rule`+acts+` FROM information_schema.referential_constraints
		WHERE constraint_schema = DATABASE() AND table_name = `+text(t.name)+` AND (delete_rule`+acts+` OR update_rule`+acts+`) ORDER BY constraint_name`, func(scan func(...any) error) error {
		var p parent
		err := scan(&p.name, &p.deletes, &p.moves)
		t.parents = append(t.parents, p)
		return err
	})
	return t, err
}

// spelling returns the SQL that spells a value of the type of a column as a part of a tag, or an error
// that says what to write instead. Every form is the same whatever the settings of the session.
func (t *table) spelling(c *column) (func(string) string, error) {
	cannot := fmt.Errorf("%w: %s.%s is declared %s", ErrWatch, t.name, c.name, c.declared)
	if c.declared == "tinyint(1)" {
		return nil, fmt.Errorf("%w, as BOOLEAN is, and holds 0 and 1 where cache.T spells false and true: write {CASE WHEN %s THEN 'true' ELSE 'false' END}, or {CAST(%s AS SIGNED)} and give cache.T an integer",
			cannot, c.name, c.name)
	}
	if c.collation != "" && !strings.HasSuffix(c.collation, "_bin") {
		return nil, fmt.Errorf("%w with the collation %s, so a reader finds its row under several spellings: give the column a collation that ends in _bin, or write {CONVERT(%s USING utf8mb4)} and give cache.T the text as it is stored",
			cannot, c.collation, c.name)
	}
	switch c.dataType {
	case "json":
		return nil, fmt.Errorf("%w, which has no one text: name a value in it: {JSON_VALUE(%s, '$.id')}", cannot, c.name)
	case "uuid":
		return spellText, nil
	}
	spell, remedy := spellingOf(strings.ToUpper(c.dataType), strings.Contains(c.declared, "unsigned"))
	if spell == nil {
		return nil, fmt.Errorf("%w, which has no one text: %s", cannot, strings.ReplaceAll(remedy, "column", c.name))
	}
	return spell, nil
}

// spellingOf is spelling by the name of a type, and a remedy where it has none.
func spellingOf(name string, unsigned bool) (spell func(string) string, remedy string) {
	if bare, is := strings.CutPrefix(name, "UNSIGNED "); is {
		name, unsigned = bare, true
	}
	switch name {
	case "TINYINT", "SMALLINT", "MEDIUMINT", "INT", "BIGINT", "YEAR":
		as := "SIGNED"
		if unsigned || name == "YEAR" {
			as = "UNSIGNED" // either way without the zeros of ZEROFILL
		}
		return func(v string) string { return "CONCAT(CAST(" + v + " AS " + as + "))" }, ""
	case "CHAR", "VARCHAR", "TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT", "ENUM", "SET":
		return spellText, ""
	case "BINARY", "VARBINARY", "TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB":
		return func(v string) string { return "cache_hex(" + v + ")" }, ""
	case "NULL":
		return func(string) string { return "NULL" }, ""
	case "DATE":
		return spellTime("%Y-%m-%d", func(v string) string { return v }), ""
	case "DATETIME":
		return spellTime(timeFormat, func(v string) string { return v }), ""
	case "TIMESTAMP":
		return spellTimestamp, ""
	case "TIME":
		return nil, "write {TIME_TO_SEC(column)}"
	case "DECIMAL":
		return nil, "write {CAST(column AS SIGNED)}, or DIV instead of / for the quotient of integers, or {CAST(column AS CHAR)} and give cache.T the text with all of its decimals"
	case "FLOAT", "DOUBLE":
		return nil, "write {CAST(column AS SIGNED)}, or tag by another column"
	case "BIT":
		return nil, "write {CAST(column AS UNSIGNED)}"
	}
	return nil, "write {CAST(column AS CHAR)}, and give cache.T the same"
}

// isTemporal says whether the text of a type's value depends on the time zone if a TIMESTAMP is in it.
func isTemporal(name string) bool {
	return slices.Contains([]string{"DATE", "DATETIME", "TIMESTAMP"}, name)
}

func spellText(v string) string { return "cache_part(CONVERT(" + v + " USING utf8mb4))" }

const timeFormat = "%Y-%m-%dT%H%%3A%i%%3A%s.%fZ"

// spellTime spells a time as cache.T does. A date that is none, such as 0000-00-00, is spelled in
// several ways by programs, so it gives the family.
func spellTime(format string, utc func(string) string) func(string) string {
	return func(v string) string {
		return "CASE WHEN " + v + " IS NULL THEN NULL WHEN DAY(" + v + ") BETWEEN 1 AND DAY(LAST_DAY(" + v + ")) THEN COALESCE(DATE_FORMAT(" + utc(v) + ", " + text(format) + "), '*') ELSE '*' END"
	}
}

// spellTimestamp spells an instant, which a trigger reads in the time zone of the session. Where
// the zone has a name, an hour of a year may be two instants, so it gives the family.
func spellTimestamp(v string) string {
	utc := spellTime(timeFormat, func(v string) string { return v })(v)
	moved := spellTime(timeFormat, func(v string) string { return "CONVERT_TZ(" + v + ", @@SESSION.time_zone, '+00:00')" })(v)
	return "CASE WHEN " + v + " IS NULL THEN NULL" +
		" WHEN @@SESSION.time_zone IN ('UTC', '+00:00') OR @@SESSION.time_zone = 'SYSTEM' AND @@system_time_zone = 'UTC' THEN " + utc +
		" WHEN SUBSTRING(@@SESSION.time_zone, 1, 1) IN ('+', '-') THEN " + moved + " ELSE '*' END"
}

// Conn is what a *sql.DB, a *sql.Conn and a *sql.Tx have in common.
type Conn interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// query runs a statement without arguments, in which text and numbers of ours stand: it takes one
// trip, and needs nothing of the options of the driver.
func query(ctx context.Context, db Conn, statement string, each func(scan func(...any) error) error) error {
	rows, err := db.QueryContext(ctx, statement)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func queryRow(ctx context.Context, db Conn, statement string, to ...any) error {
	found := false
	err := query(ctx, db, statement, func(scan func(...any) error) error {
		found = true
		return scan(to...)
	})
	if err == nil && !found {
		return sql.ErrNoRows
	}
	return err
}

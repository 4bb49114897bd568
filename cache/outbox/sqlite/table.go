package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chainlearn/chainlearn/cache/outbox/internal/sqltemplate"
)

// table is what a watch must know of its table.
type table struct {
	name         string
	columns      []*column
	withoutRowID bool
	strict       bool
	rowid        string // a name of it that is no column's; empty if there is none
	primary      []string
	uniques      []unique
}

type column struct {
	name      string
	declared  string // type
	collation string
}

// unique is a key: an INSERT OR REPLACE removes the row that has it already.
type unique struct {
	terms []term
	where string // of a partial index, over the columns of the table; empty if it is none
}

// term of a key: over a row (see expr.over), and how it is compared.
type term struct {
	over      func(row string) string
	collation string
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

// describe reads the schema of a table.
func describe(ctx context.Context, db Conn, name string) (*table, error) {
	t := &table{}
	var kind, definition string
	err := queryRow(ctx, db, `SELECT name, type, coalesce(sql, '') FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view')`,
		[]any{name}, &t.name, &kind, &definition)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, fmt.Errorf("%w: there is no table %s in the main database", ErrWatch, name)
	case err != nil:
		return nil, err
	case kind == "view":
		return nil, fmt.Errorf("%w: %s is a view, which has no rows of its own: watch the tables that it reads", ErrWatch, t.name)
	case strings.HasPrefix(strings.ToLower(t.name), "sqlite_") || strings.HasPrefix(strings.ToLower(t.name), "cache_"):
		return nil, fmt.Errorf("%w: %s belongs to SQLite or to the outbox", ErrWatch, t.name)
	}
	list, err := language.Tokens(definition)
	if err != nil {
		return nil, fmt.Errorf("definition of %s: %w", t.name, err)
	}
	list = sqltemplate.Dense(list)
	if len(list) > 1 && list[1].Is("VIRTUAL") {
		return nil, fmt.Errorf("%w: %s is a virtual table, which can have no triggers: watch the table whose rows it shows", ErrWatch, t.name)
	}
	var encoding string
	if err := queryRow(ctx, db, `PRAGMA encoding`, nil, &encoding); err != nil {
		return nil, err
	}
	if encoding != "UTF-8" {
		return nil, fmt.Errorf("%w: the database keeps text as %s, and tags are escaped as UTF-8: make a new one with PRAGMA encoding = 'UTF-8' and copy", ErrWatch, encoding)
	}

	definitions, options := commas(list)
	for i, option := range options {
		t.strict = t.strict || option.Is("STRICT")
		t.withoutRowID = t.withoutRowID || option.Is("WITHOUT") && i+1 < len(options) && options[i+1].Is("ROWID")
	}
	alias := false
	err = query(ctx, db, `SELECT name, type, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid`, []any{t.name}, func(scan func(...any) error) error {
		c := &column{}
		var pk, hidden int
		if err := scan(&c.name, &c.declared, &pk, &hidden); err != nil {
			return err
		}
		t.columns = append(t.columns, c)
		if pk > 0 {
			t.primary = append(t.primary, c.name)
			alias = strings.EqualFold(c.declared, "INTEGER")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	alias = alias && len(t.primary) == 1
	for _, d := range definitions {
		if len(d) == 0 || !d[0].IsName() {
			continue
		}
		c := t.column(d[0].Name)
		if c == nil || d[0].Is("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN") {
			continue
		}
		depth := 0
		for i, token := range d {
			if token.Kind == '(' {
				depth++
			} else if token.Kind == ')' {
				depth--
			} else if depth == 0 && token.Is("COLLATE") && i+1 < len(d) {
				c.collation = strings.ToUpper(cmp.Or(d[i+1].Name, d[i+1].Text))
			}
		}
	}
	if !t.withoutRowID {
		for _, name := range []string{"rowid", "_rowid_", "oid"} {
			if t.column(name) == nil {
				t.rowid = name
				break
			}
		}
	}
	if t.rowid != "" {
		t.uniques = append(t.uniques, unique{terms: []term{{over: func(row string) string { return row + "." + t.rowid }}}})
	} else if alias && !t.withoutRowID {
		t.uniques = append(t.uniques, unique{terms: []term{t.term(t.primary[0], "")}})
	}
	return t, t.describeIndexes(ctx, db)
}

func (t *table) term(column, collation string) term {
	return term{over: func(row string) string { return row + "." + ident(column) }, collation: collation}
}

// describeIndexes reads what else must be unique.
func (t *table) describeIndexes(ctx context.Context, db Conn) error {
	type index struct {
		name       string
		partial    bool
		definition string
	}
	var indexes []index
	err := query(ctx, db, `
SELECT l.name, l.partial, coalesce(s.sql, '') FROM pragma_index_list(?1) l LEFT JOIN sqlite_schema s ON s.type = 'index' AND s.name = l.name
WHERE l."unique" ORDER BY l.name`, []any{t.name}, func(scan func(...any) error) error {
		var i index
		err := scan(&i.name, &i.partial, &i.definition)
		indexes = append(indexes, i)
		return err
	})
	if err != nil {
		return err
	}
	for _, i := range indexes {
		list, err := language.Tokens(i.definition)
		if err != nil {
			return fmt.Errorf("definition of %s: %w", i.name, err)
		}
		terms, rest := commas(sqltemplate.Dense(list))
		var u unique
		if at := slices.IndexFunc(rest, func(t token) bool { return t.Is("WHERE") }); i.partial && at >= 0 {
			u.where = sqltemplate.Join(rest[at+1:])
		}
		err = query(ctx, db, `SELECT seqno, coalesce(name, ''), coalesce(coll, '') FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno`, []any{i.name}, func(scan func(...any) error) error {
			var n int
			var column, collation string
			if err := scan(&n, &column, &collation); err != nil {
				return err
			}
			if column != "" {
				if strings.EqualFold(collation, cmp.Or(t.column(column).collation, "BINARY")) {
					collation = ""
				}
				u.terms = append(u.terms, t.term(column, collation))
				return nil
			}
			if n >= len(terms) {
				return fmt.Errorf("definition of %s: term %d is not found", i.name, n+1)
			}
			of := terms[n]
			for len(of) > 2 {
				if last := of[len(of)-1]; last.Is("ASC", "DESC") {
					of = of[:len(of)-1]
				} else if of[len(of)-2].Is("COLLATE") {
					of = of[:len(of)-2]
				} else {
					break
				}
			}
			e := &expr{tokens: of, table: t}
			if _, err := e.over("new"); err != nil {
				return fmt.Errorf("definition of %s: %w", i.name, err)
			}
			if strings.EqualFold(collation, "BINARY") {
				collation = ""
			}
			u.terms = append(u.terms, term{over: e.sql, collation: collation})
			return nil
		})
		if err != nil {
			return err
		}
		t.uniques = append(t.uniques, u)
	}
	return nil
}

// check refuses a column whose text is not certain to be the one that a reader asks for.
func (c *column) check(t *table) error {
	col := c.name
	if c.collation != "" && c.collation != "BINARY" {
		return fmt.Errorf("%w: %s.%s compares with COLLATE %s, so a reader finds its row under several spellings: write {lower(%s)}, and give cache.T the lower-case text",
			ErrWatch, t.name, col, c.collation, col)
	}
	declared := strings.ToUpper(c.declared)
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(declared, w) })
	}
	cannot := fmt.Errorf("%w: %s.%s is declared %s", ErrWatch, t.name, col, c.declared)
	switch { // the order in which SQLite decides the affinity of a column
	case t.strict && declared == "ANY", declared == "", has("INT"), has("CHAR", "CLOB", "TEXT"), has("BLOB"):
		return nil
	case has("BOOL"):
		return fmt.Errorf("%w, and holds 0 and 1 where cache.T spells false and true: write {CASE WHEN %s THEN 'true' ELSE 'false' END}, or {CAST(%s AS INTEGER)} and give cache.T an integer",
			cannot, col, col)
	case has("DATE", "TIME"):
		return fmt.Errorf("%w, and every program spells times its own way: write {CAST(%s AS TEXT)} and give cache.T the text that is stored, or bring it to one form, as {strftime('%%Y-%%m-%%dT%%H:%%M:%%f000Z', %s)} does that of a time.Time",
			cannot, col, col)
	case has("REAL", "FLOA", "DOU"+"B"): // SQLite's rule of affinity has these prefixes
		return fmt.Errorf("%w, and real numbers have no one text: write {CAST(%s AS INTEGER)}, or tag by another column", cannot, col)
	}
	return fmt.Errorf("%w, which makes numbers of texts that look like them: write {CAST(%s AS TEXT)} or {CAST(%s AS INTEGER)}, and give cache.T the same", cannot, col, col)
}

// Conn is what a *sql.DB, a *sql.Conn and a *sql.Tx have in common.
type Conn interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func query(ctx context.Context, db Conn, statement string, args []any, each func(scan func(...any) error) error) error {
	rows, err := db.QueryContext(ctx, statement, args...)
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

func queryRow(ctx context.Context, db Conn, statement string, args []any, to ...any) error {
	found := false
	err := query(ctx, db, statement, args, func(scan func(...any) error) error {
		found = true
		return scan(to...)
	})
	if err == nil && !found {
		return sql.ErrNoRows
	}
	return err
}

package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Watch makes every change of a row of a table record the tags that templates give for it. The
// watch is named by the program that declares it: others may watch the same table, and to declare
// it again replaces its own templates only. When nothing has changed it writes nothing.
//
// A template is a tag with expressions over the row, in braces:
//
//	product:{id}
//	stock:{warehouse}:{product_id}
//	course:{CASE WHEN generated_for IS NULL THEN course_id END}
//	catalog:{SELECT difficulty FROM courses WHERE courses.id = enrollments.course_id}
//	catalog:page-{position / 20}
//	catalog
//
// It is spelled as cache.T spells it for the same values: T("stock", "north", 7). An expression is
// a column, or SQL over the columns. In a SELECT the row goes by the table's name
// (enrollments.course_id), and each row of its result is a tag; a SELECT deeper in an
// expression gives its first. NULL means no tag. Expressions hold no braces.
//
// It may end with the events that concern it, as in CREATE TRIGGER; the default is all three:
//
//	courses:titles ON DELETE OR UPDATE OF title
//
// An UPDATE records the tags of the row before and after. UPDATE OF is for updates in which one of
// the columns, or the tag itself, becomes another. REPLACE deletes rows without running the triggers
// for it; their tags are recorded all the same, as for an UPDATE where the new row has the
// primary key of the old one and the template names UPDATE, and otherwise as for a DELETE.
//
// # Values
//
// Integers and texts are their own text, and bytes are hexadecimal, as cache.T has it. What a trigger
// does not spell alike in a few steps widens the tag to the family of its kind, which is always
// safe, and invalidates all answers of the kind: texts with other characters than letters and
// digits of ASCII, the space and -._~@+=,/%: (SQLite compiles a trigger again with every statement,
// so that escaping all of them would take milliseconds of each write), real numbers, and tags
// so long that cache.T hashes them. What could silently be spelled otherwise
// is refused, and the error says what to write instead: columns declared BOOLEAN (which
// hold 0 and 1), as dates or times, as real or any other number than INTEGER, and columns that
// compare with a collation.
//
// # Schema changes
//
// SQLite itself carries a watch through ALTER TABLE … RENAME, and refuses to drop a column that
// one uses. DROP TABLE drops the watch as well: declare it again after a table was built again.
// Check tells.
//
// db may be a transaction, of a migration for instance, or else it happens in one of its own.
func Watch(ctx context.Context, db Conn, watch, table string, templates ...string) error {
	if err := declare(ctx, db, watch, table, templates); err != nil {
		return fmt.Errorf("watch %q of %s: %w", watch, table, err)
	}
	return nil
}

// WatchSQL returns the SQL that Watch would run, for a migration file. It reads the schema, in
// which the table must exist, and changes nothing. The triggers are good for the keys
// and columns that the table has now.
func WatchSQL(ctx context.Context, db Conn, watch, table string, templates ...string) (string, error) {
	w, err := parseWatch(ctx, db, watch, table, templates)
	if err != nil {
		return "", fmt.Errorf("watch %q of %s: %w", watch, table, err)
	}
	return w.script(), nil
}

// Unwatch ends a watch. It is no error if there is none.
func Unwatch(ctx context.Context, db Conn, watch, name string) error {
	w := &tableWatch{name: watch, table: &table{name: name}}
	err := inSavepoint(ctx, db, func(db Conn) error {
		_, err := db.ExecContext(ctx, w.dropScript())
		return err
	})
	if err != nil {
		return fmt.Errorf("unwatch %q of %s: %w", watch, name, err)
	}
	return nil
}

// tableWatch is a declared watch.
type tableWatch struct {
	name      string
	table     *table
	templates []*template
}

func parseWatch(ctx context.Context, db Conn, watch, table string, templates []string) (*tableWatch, error) {
	if watch == "" || len(watch) > 64 {
		return nil, errors.New("a watch has a name of 1 to 64 bytes: that of the program that declares it")
	}
	if len(templates) == 0 {
		return nil, errors.New("no templates: Unwatch ends a watch")
	}
	t, err := describe(ctx, db, table)
	if err != nil {
		return nil, err
	}
	w := &tableWatch{name: watch, table: t}
	for _, source := range templates {
		p, err := parseTemplate(source, t)
		if err != nil {
			return nil, err
		}
		// A mistake fails here, and not in some program's write.
		for _, e := range p.Exprs() {
			if err := query(ctx, db, `EXPLAIN SELECT (`+e.sql("")+`)`, nil, func(func(...any) error) error { return nil }); err != nil {
				hint := ""
				if e.many {
					hint = fmt.Sprintf(" (a SELECT gives one column, and in it the columns of the row are %s.column)", t.name)
				}
				return nil, fmt.Errorf("template %q: {%s}: %w%s", source, e.source, err, hint)
			}
		}
		w.templates = append(w.templates, p)
	}
	return w, nil
}

func declare(ctx context.Context, db Conn, watch, table string, templates []string) error {
	w, err := parseWatch(ctx, db, watch, table, templates)
	if err != nil {
		return err
	}
	if problem, err := w.differs(ctx, db); err != nil || problem == "" {
		return err
	}
	return inSavepoint(ctx, db, func(db Conn) error {
		if w, err = parseWatch(ctx, db, watch, table, templates); err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, w.script()); err != nil {
			return err
		}
		return w.compile(ctx, db)
	})
}

// compile has SQLite compile the triggers, which it otherwise does in the first write.
func (w *tableWatch) compile(ctx context.Context, db Conn) error {
	name := ident(w.table.name)
	column := ident(w.table.columns[0].name)
	for _, statement := range []string{
		`EXPLAIN INSERT INTO ` + name + ` DEFAULT VALUES`,
		`EXPLAIN UPDATE ` + name + ` SET ` + column + ` = ` + column,
		`EXPLAIN DELETE FROM ` + name,
	} {
		if err := query(ctx, db, statement, nil, func(func(...any) error) error { return nil }); err != nil && !strings.Contains(err.Error(), "generated column") {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// inSavepoint runs fn so that an error leaves nothing behind.
func inSavepoint(ctx context.Context, db Conn, fn func(Conn) error) error {
	begin, commit, undo := `SAVEPOINT cache_watch`, `RELEASE cache_watch`, `ROLLBACK TO cache_watch; RELEASE cache_watch`
	if pool, ok := db.(interface {
		Conn(context.Context) (*sql.Conn, error)
	}); ok {
		conn, err := pool.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		db, begin, commit, undo = conn, `BEGIN IMMEDIATE`, `COMMIT`, `ROLLBACK`
	}
	if _, err := db.ExecContext(ctx, begin); err != nil {
		return err
	}
	err := fn(db)
	if err == nil {
		if _, err = db.ExecContext(ctx, commit); err == nil {
			return nil
		}
	}
	_, undone := db.ExecContext(context.WithoutCancel(ctx), undo)
	return errors.Join(err, undone)
}

// trigger of a watch.
type trigger struct{ name, sql string }

// events are the last words of the triggers' names.
var events = []string{"insert", "update", "delete", "replace_insert", "replace_update"}

// triggerName is the same for the same watch and table, whatever the case of its letters.
func (w *tableWatch) triggerName(event string) string {
	sum := sha256.Sum256([]byte(w.name + "\x00" + strings.ToLower(w.table.name)))
	return "cache_watch_" + hex.EncodeToString(sum[:6]) + "_" + event
}

// templatesJSON is how the templates are kept.
func (w *tableWatch) templatesJSON() string {
	sources := make([]string, len(w.templates))
	for i, p := range w.templates {
		sources[i] = p.Source
	}
	b, err := json.Marshal(sources)
	if err != nil {
		panic(err) // strings
	}
	return string(b)
}

func (w *tableWatch) dropScript() string {
	var b strings.Builder
	for _, event := range events {
		fmt.Fprintf(&b, "DROP TRIGGER IF EXISTS %s;\n", w.triggerName(event))
	}
	fmt.Fprintf(&b, "DELETE FROM cache_watches WHERE watch = %s AND watched = %s;\n", text(w.name), text(w.table.name))
	return b.String()
}

func (w *tableWatch) script() string {
	var b strings.Builder
	b.WriteString(w.dropScript())
	for _, t := range w.triggers() {
		b.WriteString(t.sql + ";\n")
	}
	fmt.Fprintf(&b, "INSERT INTO cache_watches (watch, watched, templates) VALUES (%s, %s, %s);\n",
		text(w.name), text(w.table.name), text(w.templatesJSON()))
	return b.String()
}

// differs says how the watch in the database differs from w, or "".
func (w *tableWatch) differs(ctx context.Context, db Conn) (problem string, err error) {
	var templates string
	err = queryRow(ctx, db, `SELECT templates FROM cache_watches WHERE watch = ?1 AND watched = ?2`, []any{w.name, w.table.name}, &templates)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "it is not declared", nil
	case err != nil:
		return "", err
	case templates != w.templatesJSON():
		return "its templates differ", nil
	}
	found := map[string]string{}
	err = query(ctx, db, `SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND name GLOB ?1`, []any{w.triggerName("*")}, func(scan func(...any) error) error {
		var name, sql string
		err := scan(&name, &sql)
		found[name] = sql
		return err
	})
	if err != nil {
		return "", err
	}
	for _, t := range w.triggers() {
		sql, is := found[t.name]
		switch {
		case !is:
			return fmt.Sprintf("its trigger %s is missing", t.name), nil
		case language.Normal(sql) != language.Normal(t.sql):
			return fmt.Sprintf("its trigger %s is another than the templates give for the table as it is now", t.name), nil
		}
		delete(found, t.name)
	}
	for name := range found {
		return fmt.Sprintf("its trigger %s should not be there", name), nil
	}
	return "", nil
}

// triggers returns the triggers that record what the templates say.
func (w *tableWatch) triggers() (list []trigger) {
	name := ident(w.table.name)
	add := func(event, when string, statements []string) {
		if len(statements) == 0 {
			return
		}
		t := w.triggerName(event)
		list = append(list, trigger{t, "CREATE TRIGGER " + t + " " + when + "\nBEGIN\n    " + strings.Join(statements, ";\n    ") + ";\nEND"})
	}
	var inserts, updates, deletes, replaces, moves []string
	for _, p := range w.templates {
		if p.Insert {
			inserts = append(inserts, p.record("new", ""))
		}
		if p.Delete {
			deletes = append(deletes, p.record("old", ""))
		}
		if p.Update {
			differs := p.differs("old")
			condition := ""
			if p.Of != nil {
				condition = p.changed("old")
			}
			updates = append(updates, p.record("new", condition))
			if !p.Constant() {
				updates = append(updates, p.record("old", differs))
			}
		}
		replaces = append(replaces, w.replaced(p)...)
		if p.Update || p.Delete {
			for _, conflict := range w.conflicts() {
				moves = append(moves, p.recordOf(name, conflict+" AND NOT "+w.same("old")))
			}
		}
	}
	add("insert", "AFTER INSERT ON "+name, inserts)
	add("update", "AFTER UPDATE ON "+name, updates)
	add("delete", "AFTER DELETE ON "+name, deletes)
	if len(w.table.uniques) == 0 {
		return list
	}
	add("replace_insert", "BEFORE INSERT ON "+name, replaces)
	var moved []string
	for _, u := range w.table.uniques {
		for _, t := range u.terms {
			c := t.over("old") + " IS NOT " + t.over("new")
			if !slices.Contains(moved, c) {
				moved = append(moved, c)
			}
		}
	}
	add("replace_update", "BEFORE UPDATE ON "+name+" WHEN "+strings.Join(moved, " OR "), moves)
	return list
}

// replaced records the row that REPLACE puts a new one in the place of, before it is gone.
func (w *tableWatch) replaced(p *template) (statements []string) {
	name := ident(w.table.name)
	condition := ""
	switch {
	case !p.Update && !p.Delete:
		return nil
	case p.Of != nil && p.Delete:
		condition = " AND (NOT " + w.same("new") + " OR " + p.changed(name) + ")"
	case p.Of != nil:
		condition = " AND (" + p.changed(name) + ")"
	}
	for _, conflict := range w.conflicts() {
		statements = append(statements, p.recordOf(name, conflict+condition))
		if p.Update && !p.Insert && !p.Constant() {
			statements = append(statements, p.record("new", "EXISTS (SELECT 1 FROM "+name+" WHERE "+conflict+condition+")"))
		}
	}
	return statements
}

// conflicts are the conditions that a row of the table has a key of the row new, one for each
// key: SQLite finds no index for all of them joined by OR.
func (w *tableWatch) conflicts() (keys []string) {
	name := ident(w.table.name)
	for _, u := range w.table.uniques {
		var terms []string
		for _, t := range u.terms {
			// The collation only where it is another than the column's own, and on the left: on the right
			// it keeps SQLite 3.50 from using the index.
			collate := ""
			if t.collation != "" {
				collate = " COLLATE " + t.collation
			}
			terms = append(terms, t.over(name)+collate+" = "+t.over("new"))
		}
		if u.where != "" {
			terms = append(terms, "("+u.where+")")
		}
		keys = append(keys, strings.Join(terms, " AND "))
	}
	return keys
}

// same is the condition that a row of the table has the primary key of a row.
func (w *tableWatch) same(row string) string {
	name := ident(w.table.name)
	if len(w.table.primary) == 0 || row == "old" && w.table.rowid != "" {
		if w.table.rowid == "" {
			return "(0)"
		}
		return "(" + name + "." + w.table.rowid + " = " + row + "." + w.table.rowid + ")"
	}
	var terms []string
	for _, c := range w.table.primary {
		terms = append(terms, name+"."+ident(c)+" = "+row+"."+ident(c))
	}
	return "(" + strings.Join(terms, " AND ") + ")"
}

// changed is the condition that a listed column, or the tag, of a row is another than that of
// the row new.
func (p *template) changed(row string) string {
	var terms []string
	for _, c := range p.Of {
		terms = append(terms, row+"."+ident(c)+" IS NOT new."+ident(c)+" COLLATE BINARY")
	}
	if d := p.differs(row); d != "" {
		terms = append(terms, d)
	}
	return strings.Join(terms, " OR ")
}

// differs is the condition that the tag of a row is another than that of the row new; empty if it
// is never.
func (p *template) differs(row string) string {
	var terms []string
	for _, e := range p.Exprs() {
		var term string
		switch {
		case !e.many:
			term = e.sql(row) + " IS NOT " + e.sql("new") + " COLLATE BINARY"
		case row != "old" && row != "new":
			term = "1" // a SELECT in FROM sees no other table of FROM
		default:
			one := "SELECT v COLLATE BINARY FROM " + rowsOf(e, row)
			other := "SELECT v COLLATE BINARY FROM " + rowsOf(e, "new")
			term = "EXISTS (" + one + " EXCEPT " + other + ") OR EXISTS (" + other + " EXCEPT " + one + ")"
		}
		if !slices.Contains(terms, term) {
			terms = append(terms, term)
		}
	}
	return strings.Join(terms, " OR ")
}

// rowsOf is a SELECT as a table of one column v.
func rowsOf(e *expr, row string) string {
	return "(SELECT NULL AS v WHERE 0 UNION ALL SELECT * FROM (" + e.sql(row) + "))"
}

// record is the statement that records the tags of the row new or old, if a condition holds.
func (p *template) record(row, condition string) string {
	where := ""
	if condition != "" {
		where = " WHERE " + condition
	}
	if p.Constant() {
		return "INSERT INTO cache_record SELECT " + text(p.Tag()) + where
	}
	var from []string
	values := p.values(func(e *expr, repeated bool) string {
		switch {
		case e.many:
			from = append(from, rowsOf(e, row)+" AS "+fmt.Sprintf("s%d", len(from)+1))
		case repeated:
			from = append(from, "(SELECT "+e.sql(row)+" AS v) AS "+fmt.Sprintf("s%d", len(from)+1))
		default:
			return e.sql(row)
		}
		return fmt.Sprintf("s%d.v", len(from))
	})
	s := p.into() + " SELECT " + p.head() + strings.Join(values, ", ")
	if from != nil {
		s += " FROM " + strings.Join(from, ", ")
	}
	return s + where
}

// recordOf is the statement that records the tags of the rows of the table for which a condition
// holds. There a SELECT sees the row as a value only. If it gives several, they are not told
// apart, and a real number makes the family of them.
func (p *template) recordOf(table, condition string) string {
	if p.Constant() {
		return "INSERT INTO cache_record SELECT " + text(p.Tag()) + " WHERE EXISTS (SELECT 1 FROM " + table + " WHERE " + condition + ")"
	}
	var columns []string
	values := p.values(func(e *expr, _ bool) string {
		s := e.sql(table)
		if e.many {
			s = "CASE (SELECT count(*) FROM (" + s + ")) WHEN 0 THEN NULL WHEN 1 THEN (" + s + ") ELSE 0.5 END"
		}
		columns = append(columns, s+" AS "+fmt.Sprintf("e%d", len(columns)+1))
		return fmt.Sprintf("e%d", len(columns))
	})
	return p.into() + " SELECT " + p.head() + strings.Join(values, ", ") +
		" FROM (SELECT " + strings.Join(columns, ", ") + " FROM " + table + " WHERE " + condition + ")"
}

func (p *template) into() string {
	if len(p.Parts) == 1 {
		return "INSERT INTO cache_touch_value (kind, v)"
	}
	columns := []string{"kind", "n"}
	for i := range p.Parts {
		columns = append(columns, fmt.Sprintf("v%d", i+1))
	}
	return "INSERT INTO cache_touch_values (" + strings.Join(columns, ", ") + ")"
}

func (p *template) head() string {
	if len(p.Parts) == 1 {
		return text(p.Kind) + ", "
	}
	return fmt.Sprintf("%s, %d, ", text(p.Kind), len(p.Parts))
}

// values returns the values of the parts as SQL. of returns that of an expression; repeated
// says that it will be named several times.
func (p *template) values(of func(e *expr, repeated bool) string) (list []string) {
	for _, part := range p.Parts {
		if len(part) == 1 && part[0].Expr != nil {
			list = append(list, of(part[0].Expr, false))
			continue
		}
		// Joined here, so bytes become text here, and a real number makes all of it one.
		var texts, reals []string
		for _, piece := range part {
			if piece.Expr == nil {
				texts = append(texts, text(piece.Literal))
				continue
			}
			v := of(piece.Expr, true)
			texts = append(texts, "CASE typeof("+v+") WHEN 'blob' THEN lower(hex("+v+")) ELSE "+v+" END")
			reals = append(reals, "typeof("+v+") = 'real'")
		}
		joined := strings.Join(texts, " || ")
		if reals != nil {
			joined = "CASE WHEN " + strings.Join(reals, " OR ") + " THEN 0.5 ELSE " + joined + " END"
		}
		list = append(list, joined)
	}
	return list
}

package mysql

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chainlearn/chainlearn/cache/outbox"
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
//	catalog:page-{position DIV 20}
//	catalog
//
// It is spelled as cache.T spells it for the same values: T("stock", "north", 7). An expression is
// a column, or SQL over the columns. In a SELECT the row goes by the table's name
// (enrollments.course_id), and each row of its result is a tag; a SELECT deeper in an
// expression gives one. NULL means no tag. Expressions hold no braces. An expression that reads another row
// sees it as of now, and locks it where there is a binary log whose format is not ROW.
//
// It may end with the events that concern it, as in CREATE TRIGGER; the default is all three:
//
//	courses:titles ON DELETE OR UPDATE OF title
//
// An UPDATE records the tags of the row before and after. UPDATE OF is for updates in which one of
// the columns, or the tag itself, becomes another; with a SELECT in the template every update
// counts. REPLACE deletes rows and inserts others. A template for UPDATE therefore records what is
// deleted, too: it invalidates more than it names, and never less.
//
// A tag is recorded once in a statement. Beyond 1,000 tags of a statement, the families of the others
// are recorded.
//
// # Values
//
// Integers and texts are their own text, bytes are hexadecimal, dates and times are as cache.T has
// them: DATETIME where it holds UTC, and TIMESTAMP. What has several texts gives the family of its kind, which
// invalidates all answers of the kind: dates such as 0000-00-00, a TIMESTAMP that is written in a
// session whose time zone has a name other than UTC, and values of more than 1,024 bytes. What could silently be
// spelled otherwise is refused, and the error says what to write instead: BOOLEAN columns, which hold 0
// and 1; DECIMAL, FLOAT, BIT, TIME and JSON; and texts whose collation takes different texts for
// equal. Collations that end in _bin are accepted. Most of them ignore spaces at the end: a
// reader must ask for the text as it is stored. An expression that makes a text of a TIMESTAMP does so in the
// time zone of the session that writes.
//
// # What no trigger sees
//
// InnoDB changes the rows of a child by ON DELETE CASCADE and SET NULL without running its triggers. Such a
// table is refused, unless watches of the parent record tags of the same kinds when a row is
// deleted: order:{order_id} of a child and order:{id} of its parent do, and so does line:{SELECT id FROM
// lines WHERE lines.order_id = orders.id} of the parent, which is asked before the row goes. ON UPDATE CASCADE
// and SET NULL are refused. TRUNCATE and the partitions that are dropped or exchanged are found by a relay
// within some two seconds, if the account that applied Schema has the privilege PROCESS.
//
// # Schema changes
//
// Triggers name the columns that they use. Declare the watch again after such a column was renamed or
// dropped, or writes fail, and after one has got another type. DROP TABLE drops the triggers. Check
// tells. Each trigger is made before the one that it replaces goes, so no write is missed. Making
// one waits for transactions that use the table, and others wait for it: after 3 seconds it
// fails and may be tried again.
//
// db is a *sql.DB or a *sql.Conn that is in no transaction: MySQL commits before and after it makes a
// trigger. Where there is a binary log, the account needs log_bin_trust_function_creators to be on.
func Watch(ctx context.Context, db Conn, watch, table string, templates ...string) error {
	err := inSession(ctx, db, func(db Conn) error {
		w, err := parseWatch(ctx, db, watch, table, templates)
		if err != nil {
			return err
		}
		if problem, err := w.differs(ctx, db); err != nil || problem == "" {
			return err
		}
		found, err := w.found(ctx, db)
		if err != nil {
			return err
		}
		// Before the triggers are there, so that TRUNCATE is seen from here on. Without an answer a relay
		// notes the first number that it sees, and invalidates what may have gone before.
		now, _ := incarnations(ctx, db)
		for _, statement := range w.statements(found, now[strings.ToLower(fileName(w.table.name))]) {
			if _, err := db.ExecContext(ctx, statement); err != nil && !isCode(err, triggerExists) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("watch %q of %s: %w", watch, table, err)
	}
	return nil
}

// WatchSQL returns the SQL that Watch would run, for a migration file: bodies of triggers are between
// comments for goose, as in Schema. It reads the schema, in which the table must exist, and
// changes nothing. The triggers are good for the columns that the table has now.
func WatchSQL(ctx context.Context, db Conn, watch, table string, templates ...string) (script string, err error) {
	err = inSession(ctx, db, func(db Conn) error {
		w, err := parseWatch(ctx, db, watch, table, templates)
		if err != nil {
			return err
		}
		found, err := w.found(ctx, db)
		if err != nil {
			return err
		}
		var b strings.Builder
		b.WriteString("SET @cache_sql_mode = @@SESSION.sql_mode;\nSET SESSION sql_mode = " + text(sqlMode) + ";\n")
		for _, s := range w.statements(found, "") {
			if strings.HasPrefix(s, "CREATE TRIGGER") {
				s = strings.Replace(s, "CREATE TRIGGER", "CREATE TRIGGER IF NOT EXISTS", 1)
				s = "-- +goose StatementBegin\n" + s + ";\n-- +goose StatementEnd"
			} else {
				s += ";"
			}
			b.WriteString(s + "\n")
		}
		b.WriteString("SET SESSION sql_mode = @cache_sql_mode;\n")
		script = b.String()
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("watch %q of %s: %w", watch, table, err)
	}
	return script, nil
}

// Unwatch ends a watch. It is no error if there is none. What Watch says of db holds here, too.
func Unwatch(ctx context.Context, db Conn, watch, name string) error {
	w := &tableWatch{name: watch, table: &table{name: name}}
	err := inSession(ctx, db, func(db Conn) error {
		found, err := w.found(ctx, db)
		if err != nil {
			return err
		}
		for _, t := range found {
			if _, err := db.ExecContext(ctx, "DROP TRIGGER IF EXISTS "+t.name); err != nil {
				return err
			}
		}
		_, err = db.ExecContext(ctx, "DELETE FROM cache_watches WHERE watch = "+text(watch)+" AND watched = "+text(name))
		return err
	})
	if err != nil {
		return fmt.Errorf("unwatch %q of %s: %w", watch, name, err)
	}
	return nil
}

// sqlMode is that of all triggers and routines: whatever the mode of a writer, they mean the same.
const sqlMode = "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_BACKSLASH_ESCAPES,NO_ENGINE_SUBSTITUTION"

var errInTx = errors.New("MySQL would commit this transaction before it makes a trigger or a table: give a *sql.DB, or a *sql.Conn that is in none")

// inSession runs fn on one connection, in sqlMode, and with a limit of the wait for other
// transactions.
func inSession(ctx context.Context, db Conn, fn func(Conn) error) (err error) {
	if _, is := db.(*sql.Tx); is {
		return errInTx
	}
	if pool, is := db.(interface {
		Conn(context.Context) (*sql.Conn, error)
	}); is {
		conn, err := pool.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		db = conn
	}
	if _, err := db.ExecContext(ctx, `SET @cache_sql_mode = @@SESSION.sql_mode, @cache_lock_wait = @@SESSION.lock_wait_timeout`); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, `SET SESSION sql_mode = `+text(sqlMode)+`, SESSION lock_wait_timeout = 3`); err != nil {
		return err
	}
	defer func() {
		if _, undone := db.ExecContext(context.WithoutCancel(ctx), `SET SESSION sql_mode = @cache_sql_mode, SESSION lock_wait_timeout = @cache_lock_wait`); undone != nil {
			err = errors.Join(err, undone)
			if conn, is := db.(*sql.Conn); is {
				discard(conn)
			}
		}
	}()
	return fn(db)
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
		for _, e := range p.Exprs() {
			if err := e.resolve(ctx, db); err != nil {
				return nil, fmt.Errorf("template %q: {%s}: %w", source, e.source, err)
			}
		}
		w.templates = append(w.templates, p)
	}
	return w, w.checkParents(ctx, db)
}

// resolve finds out how the values of an expression are spelled. A mistake in it fails here, and not in
// some program's write.
func (e *expr) resolve(ctx context.Context, db Conn) (err error) {
	if c := e.column(); c != nil {
		e.spell, err = e.table.spelling(c)
		return err
	}
	of := func(c *column) string { return e.table.ident() + "." + ident(c.name) }
	statement := "SELECT " + e.sql(of) + " FROM " + e.table.ident() + " LIMIT 0"
	if e.many {
		// What is in WITH sees no other table, so a row is a value here.
		of = func(c *column) string { return "(SELECT " + ident(c.name) + " FROM " + e.table.ident() + " LIMIT 1)" }
		statement = "WITH cache_query (v) AS " + e.sql(of) + " SELECT v FROM cache_query LIMIT 0"
	}
	rows, err := db.QueryContext(ctx, statement)
	if err != nil {
		if e.many {
			return fmt.Errorf("%w (a SELECT gives one column, and in it the columns of the row are %s.column)", err, e.table.name)
		}
		return err
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return err
	}
	name := types[0].DatabaseTypeName()
	if isTemporal(name) && e.mentions(func(c *column) bool { return c.dataType == "timestamp" }) {
		return fmt.Errorf("%w: its text depends on the time zone of the session: write the TIMESTAMP column alone, or one of type DATETIME", ErrWatch)
	}
	var remedy string
	if e.spell, remedy = spellingOf(name, false); e.spell == nil {
		return fmt.Errorf("%w: it is of type %s, which has no one text: %s", ErrWatch, name, remedy)
	}
	return rows.Err()
}

// checkParents refuses a table whose rows go with those of another without a trigger, unless watches of the
// other one record tags of the same kinds.
func (w *tableWatch) checkParents(ctx context.Context, db Conn) error {
	for _, parent := range w.table.parents {
		if parent.moves {
			return fmt.Errorf("%w: ON UPDATE of a foreign key to %s changes rows of %s without running a trigger: make it ON UPDATE RESTRICT", ErrWatch, parent.name, w.table.name)
		}
		covered := map[string]bool{}
		self := strings.EqualFold(parent.name, w.table.name)
		err := declarations(ctx, db, func(d declaration) error {
			if strings.EqualFold(d.table, parent.name) && !(self && d.watch == w.name) {
				return d.deleted(covered, self)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, p := range w.templates {
			if self && (p.Delete || p.Update) && strings.Contains(p.Source, "SELECT") {
				covered[p.Kind] = true
			}
		}
		for _, p := range w.templates {
			if (p.Delete || p.Update) && !covered[p.Kind] {
				return fmt.Errorf("%w: deleting rows of %s changes rows of %s without running a trigger (a foreign key with CASCADE or SET NULL), and no watch of %s records tags of the kind %s: "+
					"declare one first, such as %s:{SELECT … FROM %s WHERE …}, or make the key ON DELETE RESTRICT",
					ErrWatch, parent.name, w.table.name, parent.name, p.Kind, p.Kind, w.table.name)
			}
		}
	}
	return nil
}

// declaration of a watch, as the database keeps it.
type declaration struct {
	watch, table string
	templates    []string
	incarnation  string // of the table's rows, as a relay has last seen it; empty if none has
	broken       error  // of templates that cannot be read
}

// declarations calls each for what is declared, in an order.
func declarations(ctx context.Context, db Conn, each func(declaration) error) error {
	var list []declaration
	err := query(ctx, db, `SELECT watch, watched, templates, COALESCE(incarnation, '') FROM cache_watches ORDER BY watch, watched`, func(scan func(...any) error) error {
		var d declaration
		var templates []byte
		if err := scan(&d.watch, &d.table, &templates, &d.incarnation); err != nil {
			return err
		}
		d.broken = json.Unmarshal(templates, &d.templates)
		list = append(list, d)
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range list { // each may ask the same connection
		if err := each(d); err != nil {
			return err
		}
	}
	return nil
}

// deleted adds the kinds that are recorded when a row is deleted; only those of other rows, if
// others is set.
func (d declaration) deleted(kinds map[string]bool, others bool) error {
	for _, source := range d.templates {
		_, events, limited := strings.Cut(strings.ToUpper(source[strings.LastIndexByte(source, '}')+1:]), " ON ")
		concerns := !limited || strings.Contains(events, "DELETE") || strings.Contains(events, "UPDATE")
		if concerns && (!others || strings.Contains(strings.ToUpper(source), "SELECT")) {
			kinds[outbox.KindOf(source)] = true
		}
	}
	return d.broken
}

func (t *table) ident() string { return ident(t.name) }

// isCode says whether the server has refused a statement with one of some codes.
func isCode(err error, codes ...uint16) bool {
	return slices.Contains(codes, codeOf(err))
}

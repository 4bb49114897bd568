package mysql

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

	"github.com/chainlearn/chainlearn/cache/outbox/internal/sqltemplate"
)

// trigger of a watch.
type trigger struct{ name, timing, event, body string }

func (t trigger) sql(table string) string {
	return "CREATE TRIGGER " + t.name + " " + t.timing + " " + t.event + " ON " + table + " FOR EACH ROW\n" + t.body
}

// prefix of the names of the watch's triggers. The end of a name is a digest of what the trigger does, so
// that a new one and the one that it replaces stand side by side for a moment.
func (w *tableWatch) prefix() string {
	sum := sha256.Sum256([]byte(w.name + "\x00" + w.table.name))
	return "cache_watch_" + hex.EncodeToString(sum[:6]) + "_"
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

// statements that make the watch of what was found. The new triggers come before the others go.
func (w *tableWatch) statements(found []foundTrigger, incarnation string) (list []string) {
	wanted := w.triggers()
	for _, t := range wanted {
		if !slices.ContainsFunc(found, func(f foundTrigger) bool { return f.trigger.name == t.name }) {
			list = append(list, t.sql(w.table.ident()))
		}
	}
	list = append(list, fmt.Sprintf(`INSERT INTO cache_watches (watch, watched, templates, incarnation) VALUES (%s, %s, %s, NULLIF(%s, ''))
ON DUPLICATE KEY UPDATE templates = %[3]s`, text(w.name), text(w.table.name), text(w.templatesJSON()), text(incarnation)))
	for _, f := range found {
		if !slices.ContainsFunc(wanted, func(t trigger) bool { return f.trigger.name == t.name }) {
			list = append(list, "DROP TRIGGER IF EXISTS "+f.name)
		}
	}
	return list
}

// foundTrigger is one that the database has.
type foundTrigger struct {
	trigger
	table, mode string
}

// found returns the triggers of the watch.
func (w *tableWatch) found(ctx context.Context, db Conn) (list []foundTrigger, err error) {
	err = query(ctx, db, `SELECT trigger_name, action_timing, event_manipulation, action_statement, event_object_table, sql_mode FROM information_schema.triggers
		WHERE trigger_schema = DATABASE() AND trigger_name LIKE `+text(strings.ReplaceAll(w.prefix(), "_", "|_")+"%")+` ESCAPE '|' ORDER BY trigger_name`, func(scan func(...any) error) error {
		var t foundTrigger
		err := scan(&t.name, &t.timing, &t.event, &t.body, &t.table, &t.mode)
		list = append(list, t)
		return err
	})
	return list, err
}

// differs says how the watch in the database differs from w, or "".
func (w *tableWatch) differs(ctx context.Context, db Conn) (problem string, err error) {
	var templates string
	err = queryRow(ctx, db, `SELECT templates FROM cache_watches WHERE watch = `+text(w.name)+` AND watched = `+text(w.table.name), &templates)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "it is not declared", nil
	case err != nil:
		return "", err
	case templates != w.templatesJSON():
		return "its templates differ", nil
	}
	found, err := w.found(ctx, db)
	if err != nil {
		return "", err
	}
	for _, t := range w.triggers() {
		i := slices.IndexFunc(found, func(f foundTrigger) bool { return f.name == t.name })
		if i < 0 {
			return fmt.Sprintf("its trigger for %s is missing, is another than the templates give for the table as it is now, or this account may not see it", t.event), nil
		}
		f := found[i]
		if f.timing != t.timing || f.event != t.event || f.table != w.table.name || language.Normal(f.body) != language.Normal(t.body) || modes(f.mode) != modes(sqlMode) {
			return fmt.Sprintf("its trigger %s is another than the templates give", t.name), nil
		}
		found = slices.Delete(found, i, i+1)
	}
	for _, f := range found {
		return fmt.Sprintf("its trigger %s should not be there", f.name), nil
	}
	return "", nil
}

// modes returns a mode in one order.
func modes(mode string) string {
	list := strings.Split(mode, ",")
	slices.Sort(list)
	return strings.Join(list, ",")
}

// triggers returns the triggers that record what the templates say.
func (w *tableWatch) triggers() (list []trigger) {
	add := func(timing, event string, blocks []string) {
		if len(blocks) == 0 {
			return
		}
		body := "BEGIN\n" + strings.Join(blocks, "") + "END"
		sum := sha256.Sum256([]byte(timing + event + body))
		list = append(list, trigger{w.prefix() + strings.ToLower(event) + "_" + hex.EncodeToString(sum[:6]), timing, event, body})
	}
	var inserts, updates, deletes []string
	replaces := false
	for _, p := range w.templates {
		switch {
		case p.Insert:
			inserts = append(inserts, p.record("NEW"))
		case p.Update: // REPLACE, which has deleted a row in this statement
			inserts = append(inserts, "    IF @cache_deleted <=> CAST(UTC_TIMESTAMP(6) AS CHAR) THEN\n"+p.record("NEW")+"    END IF;\n")
			replaces = true
		}
		if p.Update {
			updates = append(updates, p.recordUpdate())
		}
		if p.Update || p.Delete {
			deletes = append(deletes, p.record("OLD"))
		}
	}
	if replaces {
		deletes = append(deletes, "    SET @cache_deleted = CAST(UTC_TIMESTAMP(6) AS CHAR);\n")
	}
	add("AFTER", "INSERT", inserts)
	add("AFTER", "UPDATE", updates)
	// Before, because with the row go those that cascades delete, and a template may ask for them.
	add("BEFORE", "DELETE", deletes)
	return list
}

func of(row string) func(*column) string {
	return func(c *column) string { return row + "." + ident(c.name) }
}

// record is the statement that records the tags of the row NEW or OLD.
func (p *template) record(row string) string {
	if p.many() == nil {
		return "    CALL cache_touch(" + p.sql(of(row)) + ");\n"
	}
	return `    BEGIN
        DECLARE cache_one VARCHAR(200) CHARACTER SET ascii;
        DECLARE cache_end BOOLEAN DEFAULT FALSE;
        DECLARE cache_rows CURSOR FOR ` + p.query(of(row)) + `;
        DECLARE CONTINUE HANDLER FOR NOT FOUND SET cache_end = TRUE;
        OPEN cache_rows;
        cache_each: LOOP
            FETCH cache_rows INTO cache_one;
            IF cache_end THEN LEAVE cache_each; END IF;
            CALL cache_touch(cache_one);
        END LOOP;
        CLOSE cache_rows;
    END;
`
}

// recordUpdate is the statement that records the tags of the row before and after, if the update
// concerns the template.
func (p *template) recordUpdate() string {
	if p.Of == nil && p.Constant() {
		return p.record("NEW")
	}
	if p.Of == nil || p.many() != nil {
		return p.record("NEW") + p.record("OLD")
	}
	var changed []string
	for _, name := range p.Of {
		before, after := "OLD."+ident(name), "NEW."+ident(name)
		switch c := p.table.column(name); {
		case c.dataType == "json": // MySQL's own, whose values are equal in several spellings
			before, after = "CAST(CAST("+before+" AS CHAR) AS BINARY)", "CAST(CAST("+after+" AS CHAR) AS BINARY)"
		case c.collation != "":
			before, after = "CAST("+before+" AS BINARY)", "CAST("+after+" AS BINARY)"
		}
		changed = append(changed, "NOT ("+before+" <=> "+after+")")
	}
	if p.Constant() {
		return "    IF " + strings.Join(changed, " OR ") + " THEN\n    " + p.record("NEW") + "    END IF;\n"
	}
	changed = append(changed, "NOT (cache_before <=> cache_after)")
	return `    BEGIN
        DECLARE cache_before, cache_after VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin;
        SET cache_before = ` + p.sql(of("OLD")) + `, cache_after = ` + p.sql(of("NEW")) + `;
        IF ` + strings.Join(changed, " OR ") + ` THEN
            CALL cache_touch(cache_before);
            CALL cache_touch(cache_after);
        END IF;
    END;
`
}

// many returns the expression that is a SELECT, or nil.
func (p *template) many() *expr {
	for _, e := range p.Exprs() {
		if e.many {
			return e
		}
	}
	return nil
}

// query is the SELECT of the tags of a row, of a template with a SELECT.
func (p *template) query(of func(*column) string) string {
	return "WITH cache_query (v) AS " + p.many().sql(of) + " SELECT " + p.sql(of) + " FROM cache_query"
}

// sql is the tag of a row. The value of a SELECT is that of cache_query.
func (p *template) sql(of func(*column) string) string {
	if p.Constant() {
		return text(p.Tag())
	}
	var parts []string
	for _, part := range p.Parts {
		var pieces []string
		for _, piece := range part {
			switch {
			case piece.Expr == nil:
				pieces = append(pieces, text(piece.Literal))
			case piece.Expr.many:
				pieces = append(pieces, piece.Expr.spell("cache_query.v"))
			default:
				pieces = append(pieces, piece.Expr.spell(piece.Expr.sql(of)))
			}
		}
		if len(pieces) == 1 {
			parts = append(parts, pieces[0])
			continue
		}
		// An empty text is a lone % only if it is all of a part.
		for i, piece := range part {
			if piece.Expr != nil {
				pieces[i] = "REPLACE(CONCAT(" + pieces[i] + ", ';'), '%;', ';')"
			}
		}
		joined := "REPLACE(CONCAT(" + strings.Join(pieces, ", ") + "), ';', '')"
		if !slices.ContainsFunc(part, func(p sqltemplate.Piece[expr]) bool { return p.Expr == nil }) {
			joined = "IF(" + joined + " = '', '%', " + joined + ")"
		}
		parts = append(parts, joined)
	}
	return "cache_tag(" + text(p.Kind) + ", CONCAT(" + strings.Join(parts, ", ':', ") + "))"
}

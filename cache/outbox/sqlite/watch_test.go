package sqlite_test

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox/sqlite"
)

// shell runs SQL with the sqlite3 program: another release of SQLite, and another process.
func (f *file) shell(statements string) error {
	f.Helper()
	program, err := exec.LookPath("sqlite3")
	if err != nil {
		f.Skip("no sqlite3 program: ", err)
	}
	out, err := exec.CommandContext(f.Context(), program, "-bail", "-cmd", ".timeout 10000", f.path(), statements).CombinedOutput()
	if err != nil {
		return errors.New(strings.TrimSpace(string(out)))
	}
	return nil
}

func (f *file) path() (path string) {
	f.Helper()
	if err := f.read.QueryRowContext(f.Context(), `SELECT file FROM pragma_database_list WHERE name = 'main'`).Scan(&path); err != nil {
		f.Fatal(err)
	}
	return path
}

// touched empties the outbox, and returns the tags that were in it, in order.
func (f *file) touched() (tags []cache.Tag) {
	f.Helper()
	rows, err := f.write.QueryContext(f.Context(), `DELETE FROM cache_outbox RETURNING tag`)
	if err != nil {
		f.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var tag cache.Tag
		if err := rows.Scan(&tag); err != nil {
			f.Fatal(err)
		}
		if err := tag.Check(); err != nil {
			f.Errorf("the outbox holds a malformed tag: %v", err)
		}
		tags = append(tags, tag)
	}
	if err := rows.Err(); err != nil {
		f.Fatal(err)
	}
	slices.Sort(tags)
	return tags
}

// records says which tags a statement records, run here and by the sqlite3 program.
func (f *file) records(statement string, want ...cache.Tag) {
	f.Helper()
	f.exec(statement)
	slices.Sort(want)
	if got := f.touched(); !slices.Equal(got, slices.Compact(want)) {
		f.Errorf("%s recorded\n\t%q, want\n\t%q", statement, got, want)
	}
}

// literal spells a text for any SQL, byte by byte.
func literal(s string) string { return fmt.Sprintf("CAST(x'%x' AS TEXT)", s) }

// Reader and writer spell one tag for one value, whatever its bytes.
func TestWatchSpellsTagsAsT(t *testing.T) {
	f := newFile(t)
	f.exec(`CREATE TABLE pages (n INTEGER PRIMARY KEY, slug TEXT, raw BLOB, id INTEGER, free)`)
	f.watch("test", "pages", "page:{slug}", "raw:{raw}", "both:{id}:{slug}", "mixed:p-{id}.{slug}", "literal:a-b/c")
	texts := []string{
		"", "a", "red wine", "a\tb", "a\nb", "\x7f", "\u0085", "a:b", "*", "%", "%20", "a%", "%%", "#", "!x", "{}", "urn:isbn:1",
		"é", "日本語", "\x00", "a\x00b", "\xff\xfe", "'\"`[]", "-._~@+=,/", ":", "::", "A%2F", "😀", strings.Repeat("x", 195), strings.Repeat("x", 196),
		strings.Repeat(" ", 65), strings.Repeat(" ", 66), strings.Repeat("é", 40), strings.Repeat("x", 5000),
	}
	for b := 0; b < 256; b += 2 { // half of them each time
		texts = append(texts, "x"+string([]byte{byte(b + rand.N(2))})+"y")
	}
	for range 100 {
		b := make([]byte, rand.N(12))
		for i := range b {
			b[i] = byte(rand.N(256))
		}
		texts = append(texts, string(b))
	}
	// A tag that cache.T hashes, or of which it escapes more than a few characters, is the family here.
	sameOrFamily := func(tag cache.Tag, text string) cache.Tag {
		few := strings.TrimLeft(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~@+=,/%: ") == ""
		if !few || strings.Contains(string(tag), ":#") {
			return tag.Family()
		}
		return tag
	}
	check := func(run func(string) error, text string, id int64) {
		t.Helper()
		if err := run(fmt.Sprintf(`INSERT INTO pages (slug, raw, id) VALUES (%s, x'%x', %d)`, literal(text), text, id)); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		want := []cache.Tag{
			sameOrFamily(cache.T("page", text), text), sameOrFamily(cache.T("raw", []byte(text)), ""), sameOrFamily(cache.T("both", id, text), text),
			sameOrFamily(cache.T("mixed", fmt.Sprintf("p-%d.%s", id, text)), text), "literal:a-b/c",
		}
		slices.Sort(want)
		if got := f.touched(); !slices.Equal(got, want) {
			t.Errorf("%q, %d: recorded\n\t%q, want\n\t%q", text, id, got, want)
		}
	}
	here := func(s string) error { _, err := f.stranger.ExecContext(t.Context(), s); return err }
	for _, text := range texts {
		check(here, text, rand.Int64()-rand.Int64())
	}
	for _, text := range texts[:34] { // each costs a process
		check(f.shell, text, -7)
	}
	// Real numbers have no text, and neither has what is enormous: the family covers both.
	f.exec(`DELETE FROM pages`)
	f.touched()
	f.watch("test", "pages", "free:{free}", "mixed:x{free}", "two:{free}:{id}")
	f.records(`INSERT INTO pages (free, id) VALUES (1.5, 1)`, "free:*", "mixed:*", "two:*")
	f.records(`INSERT INTO pages (free, id) VALUES (zeroblob(16000000), 1)`, "free:*", "mixed:*", "two:*")
	f.records(`INSERT INTO pages (free, id) VALUES (NULL, 1), (5, NULL)`, "free:5", "mixed:x5")
}

func TestWatchEvents(t *testing.T) {
	f := newFile(t)
	f.exec(`CREATE TABLE c ("courseId" INTEGER, title TEXT, lessons INTEGER, n INTEGER PRIMARY KEY); INSERT INTO lessons (id, course_id) VALUES (1, 7), (2, 7), (3, 8)`)
	f.touched()
	f.watch("a", "c",
		`all:{"courseId"}`,
		`title:{c."courseId"} ON UPDATE OF title`, // the tag counts as a column
		`gone:{courseid}:{n} ON DELETE`,
		`new:{CASE WHEN title > 'm' THEN courseId END} ON INSERT`,
		`l:{SELECT id FROM lessons WHERE lessons.course_id = c.lessons}`,
		`titles ON DELETE OR UPDATE OF title`)
	f.records(`INSERT INTO c VALUES (1, 'z', 7, 1)`, "all:1", "new:1", "l:1", "l:2")
	f.records(`INSERT INTO c VALUES (2, 'a', 8, 2)`, "all:2", "l:3")
	f.records(`UPDATE c SET title = title WHERE n = 1`, "all:1", "l:1", "l:2")
	f.records(`UPDATE c SET title = 'y' WHERE n = 1`, "all:1", "title:1", "titles", "l:1", "l:2")
	f.records(`UPDATE c SET "courseId" = 3 WHERE n = 1`, "all:1", "all:3", "title:1", "title:3", "l:1", "l:2")
	f.records(`UPDATE c SET lessons = 8 WHERE n = 1`, "all:3", "l:1", "l:2", "l:3")
	f.records(`UPDATE c SET title = NULL, lessons = NULL WHERE n = 1`, "all:3", "title:3", "titles", "l:3")
	f.records(`REPLACE INTO c VALUES (3, NULL, NULL, 1)`, "all:3", "gone:3:1")
	f.records(`REPLACE INTO c VALUES (3, 'a', NULL, 1)`, "all:3", "title:3", "titles", "gone:3:1")
	f.records(`DELETE FROM c WHERE n = 1`, "all:3", "gone:3:1", "titles")

	// Another program's watch of the table is another's, and declaring one again replaces it.
	f.watch("b", "C", "b:{n}")
	f.watch("a", "c", "a:{n}")
	f.records(`UPDATE c SET title = 'b'`, "a:2", "b:2")
	if err := sqlite.Unwatch(t.Context(), f.write, "b", "c"); err != nil {
		t.Fatal(err)
	}
	f.records(`UPDATE c SET title = 'c'`, "a:2")
}

// REPLACE runs no delete trigger.
func TestWatchSeesWhatReplaceRemoves(t *testing.T) {
	f := newFile(t)
	f.exec(`
CREATE TABLE r (id INTEGER PRIMARY KEY, a TEXT, b TEXT COLLATE NOCASE, c INTEGER, live INTEGER, UNIQUE (b, c));
CREATE UNIQUE INDEX r_a ON r (lower(a) DESC) WHERE live = 1;
CREATE TABLE w (a TEXT, b INTEGER, c TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE UNIQUE INDEX w_c ON w (c COLLATE NOCASE);
CREATE TABLE p (x TEXT UNIQUE ON CONFLICT REPLACE)`)
	f.watch("t", "r", "r:{id}", "once")
	f.watch("t", "w", "w:{a}:{b}")
	f.watch("t", "p", "p:{x} ON DELETE")
	for _, run := range []func(string) error{
		func(s string) error { _, err := f.stranger.ExecContext(t.Context(), s); return err }, f.shell,
	} {
		for _, c := range []struct {
			statement string
			want      []cache.Tag
		}{
			{`DELETE FROM r; DELETE FROM w; DELETE FROM p; DELETE FROM cache_outbox;
			  INSERT INTO r VALUES (1, 'A', 'b', 1, 1), (2, 'x', 'y', 2, 0); INSERT INTO w VALUES ('a', 1, 'c'), ('a', 2, 'd'); INSERT INTO p VALUES ('x')`,
				[]cache.Tag{"once", "r:1", "r:2", "w:a:1", "w:a:2"}},
			{`REPLACE INTO r VALUES (3, 'a', NULL, NULL, 1)`, []cache.Tag{"once", "r:1", "r:3"}},
			{`REPLACE INTO r VALUES (4, NULL, 'Y', 2, 0)`, []cache.Tag{"once", "r:2", "r:4"}},
			{`REPLACE INTO r (a, live) VALUES ('a', 1)`, []cache.Tag{"once", "r:3", "r:5"}},
			{`UPDATE OR REPLACE r SET id = 5 WHERE id = 4`, []cache.Tag{"once", "r:4", "r:5"}},
			{`INSERT OR IGNORE INTO r VALUES (6, 'q', 'Y', 2, 0)`, []cache.Tag{"once", "r:5"}}, // more than needed
			{`REPLACE INTO w VALUES ('b', 3, 'C')`, []cache.Tag{"w:a:1", "w:b:3"}},
			{`UPDATE OR REPLACE w SET b = 2, a = 'a' WHERE a = 'b'`, []cache.Tag{"w:a:2", "w:b:3"}},
			{`INSERT INTO p VALUES ('x')`, []cache.Tag{"p:x"}},
		} {
			if err := run(c.statement); err != nil {
				t.Fatalf("%s: %v", c.statement, err)
			}
			if got := f.touched(); !slices.Equal(got, c.want) {
				t.Errorf("%s recorded\n\t%q, want\n\t%q", c.statement, got, c.want)
			}
		}
	}
}

// What cannot be spelled alike, or can have no trigger, is refused when it is declared.
func TestWatchRefuses(t *testing.T) {
	f := newFile(t)
	f.exec(`
CREATE TABLE x (id INTEGER PRIMARY KEY, flag BOOLEAN, price REAL, at DATETIME, day DATE, n NUMERIC(5,2), u UUID, slug TEXT COLLATE NOCASE, name TEXT);
CREATE VIEW v AS SELECT id FROM x;
CREATE VIRTUAL TABLE ft USING fts5(body)`)
	for _, c := range []struct{ table, template, says string }{
		{"nothing", "a:{id}", "there is no table nothing"},
		{"v", "a:{id}", "is a view"},
		{"ft", "a:{body}", "is a virtual table"},
		{"cache_outbox", "a:{tag}", "belongs to SQLite or to the outbox"},
		{"sqlite_schema", "a:{name}", "there is no table sqlite_schema"},
		{"x", "a:{idd}", "x has no column idd: it has id, flag"},
		{"x", "a:{x.idd}", "x has no column idd"},
		{"x", `a:{"idd"}`, "x has no column idd"},
		{"x", "a:{lower(idd)}", "x has no column idd"},
		{"x", "a:{nosuch(id)}", "no such function"},
		{"x", "a:{flag}", "{CASE WHEN flag THEN 'true' ELSE 'false' END}"},
		{"x", "a:{x.price}", "real numbers have no one text"},
		{"x", "a:{at}", "{CAST(at AS TEXT)}"},
		{"x", "a:{day}", "strftime('%Y-%m-%dT%H:%M:%f000Z', day)"},
		{"x", "a:{n}", "makes numbers of texts"},
		{"x", "a:{u}", "{CAST(u AS TEXT)}"},
		{"x", "a:{slug}", "write {lower(slug)}"},
		{"x", "a:{new.id}", "write x.id"},
		{"x", "a:{main.x.id}", "leave the name of the schema out"},
		{"x", "a:{SELECT id FROM x}", "give the table another name"},
		{"x", "a:{SELECT id FROM x WHERE x.id = 1}", "give the table another name"},
		{"x", "a:{SELECT id FROM lessons AS x}", "give the table another name"},
		{"x", "a:{SELECT id FROM lessons WHERE course_id = flag}", "the columns of the row are x.column"},
		{"x", "a:{SELECT id, title FROM lessons}", "a SELECT gives one column"},
		{"x", "a:{SELECT id FROM lessons}:{SELECT id FROM lessons}", "only one of its expressions"},
		{"x", "a:{?1}", "cannot stand in an expression"},
		{"x", "a:{id; DROP TABLE x}", "cannot stand in an expression"},
		{"x", "a:{id -- c}", "no comments"},
		{"x", "a:{}", "is empty"},
		{"x", "a:{{id}}", "between braces"},
		{"x", "a:{id", "between braces"},
		{"x", "a:", "a part is empty"},
		{"x", "a::{id}", "a part is empty"},
		{"x", "a:*", "a literal holds"},
		{"x", "item:%d", "a literal holds"},
		{"x", "item:$1", "a literal holds"},
		{"x", "{id}", "the kind is a word"},
		{"x", "a b:{id}", "want ON"},
		{"x", "", "is no kind"},
		{"x", "a:{id} ON TRUNCATE", "want ON, and INSERT"},
		{"x", "a:{id} ON UPDATE OF nothing", "x has no column nothing"},
		{"x", "a:1:2:3:4:5:6:{id}", "more than 6"},
	} {
		err := sqlite.Watch(t.Context(), f.write, "t", c.table, c.template)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s of %s: %v, want %q", c.template, c.table, err, c.says)
		}
	}
	for _, template := range []string{
		"a:{lower(slug)}", "a:{CAST(u AS TEXT)}", "a:{CASE WHEN flag THEN 'true' ELSE 'false' END}", "a:{id || x'00'}",
		"a:{strftime('%Y-%m-%dT%H:%M:%f000Z', at)}", "a:{SELECT other.id FROM x AS other WHERE other.id = x.id}", "a:{(SELECT max(id) FROM lessons)}",
		"a:{coalesce((SELECT id FROM lessons WHERE title = x.name), 0)}", "a:{WITH n(i) AS (SELECT 1) SELECT i FROM n}",
		"a:b:{id} on insert or UPDATE of Name , \"slug\" OR delete", "a",
	} {
		if err := sqlite.Watch(t.Context(), f.write, "t", "x", template); err != nil {
			t.Errorf("%s: %v", template, err)
		}
		f.exec(`INSERT INTO x (name) VALUES ('n'); UPDATE x SET name = 'm'; REPLACE INTO x (id, name) VALUES (1, 'o'); DELETE FROM x`)
	}
	if err := sqlite.Watch(t.Context(), f.write, "t", "x"); err == nil {
		t.Error("a watch without templates")
	}
	utf16, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "utf16.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer utf16.Close()
	utf16.SetMaxOpenConns(1)
	if _, err := utf16.ExecContext(t.Context(), `PRAGMA encoding = 'UTF-16'; CREATE TABLE x (id TEXT);`+sqlite.Schema); err != nil {
		t.Fatal(err)
	}
	if err := sqlite.Watch(t.Context(), utf16, "t", "x", "a:{id}"); !errors.Is(err, sqlite.ErrWatch) || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("a database in UTF-16: %v", err)
	}
}

// A time.Time, a bool and a lower-case text, by the remedies that a refusal names.
func TestRemediesSpellAsT(t *testing.T) {
	f := newFile(t)
	f.exec(`CREATE TABLE x (id INTEGER PRIMARY KEY, flag BOOLEAN, at DATETIME, slug TEXT COLLATE NOCASE)`)
	f.watch("t", "x", "flag:{CASE WHEN flag THEN 'true' ELSE 'false' END}", "at:{strftime('%Y-%m-%dT%H:%M:%f000Z', at)}", "slug:{lower(slug)}")
	at := time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.UTC)
	f.records(`INSERT INTO x VALUES (1, TRUE, '`+at.Format("2006-01-02 15:04:05.000")+`', 'Red Wine')`,
		cache.T("flag", true), cache.T("at", at), cache.T("slug", "red wine"))
}

func TestWatchWritesNothingWhenNothingHasChanged(t *testing.T) {
	f := newFile(t)
	version := func() (n int) {
		if err := f.read.QueryRowContext(t.Context(), `PRAGMA schema_version`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := version()
	f.watch("test", "LESSONS", "lesson:{id}", "course:{course_id} ON INSERT")
	if after := version(); after != before {
		t.Errorf("schema version %d became %d", before, after)
	}
	// In a transaction that is rolled back, nothing stays; WatchSQL is what Watch runs.
	tx, err := f.write.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sqlite.Watch(t.Context(), tx, "test", "lessons", "other:{id}"); err != nil {
		t.Fatal(err)
	}
	if err := sqlite.Watch(t.Context(), tx, "test", "lessons", "other:{idd}"); err == nil {
		t.Error("an unknown column")
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	f.records(`INSERT INTO lessons VALUES (1, 'a', 5)`, "lesson:1", "course:5")
	script, err := sqlite.WatchSQL(t.Context(), f.read, "test", "lessons", "script:{id}")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.shell(script); err != nil {
		t.Fatal(err)
	}
	f.records(`INSERT INTO lessons VALUES (2, 'a', 5)`, "script:2")
	f.findings()
}

// findings says what Check finds: each the start of a finding.
func (f *file) findings(want ...string) {
	f.Helper()
	got, err := sqlite.Check(f.Context(), f.read)
	if err != nil {
		f.Fatal(err)
	}
	ok := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		ok = ok && strings.Contains(got[i].String(), want[i]) && got[i].Remedy != ""
	}
	if !ok {
		f.Errorf("found\n\t%v, want\n\t%q", got, want)
	}
}

func TestCheckAndSchemaChanges(t *testing.T) {
	f := newFile(t)
	f.exec(`CREATE TABLE c (id INTEGER PRIMARY KEY, title TEXT, old INTEGER, spare TEXT)`)
	f.watch("t", "c", "c:{id}", "t:{title}")
	f.findings()

	// SQLite carries the watch through a RENAME, and refuses to drop what it uses.
	f.exec(`ALTER TABLE c RENAME COLUMN title TO "new title"`)
	f.records(`INSERT INTO c VALUES (1, 'a', 1, '')`, "c:1", "t:a")
	f.findings("watch t of c: template \"t:{title}\": {title}: c has no column title")
	if _, err := f.stranger.ExecContext(t.Context(), `ALTER TABLE c DROP COLUMN "new title"`); err == nil {
		t.Error("a column in use was dropped")
	}
	f.exec(`ALTER TABLE c DROP COLUMN spare`)
	f.watch("t", "c", "c:{id}", `t:{"new title"}`)
	f.findings()
	f.exec(`ALTER TABLE c RENAME TO d`)
	f.records(`UPDATE d SET old = 2`, "c:1", "t:a")
	f.findings("watch t of c: the table is gone")
	f.watch("t", "d", "c:{id}")
	if err := sqlite.Unwatch(t.Context(), f.write, "t", "c"); err != nil {
		t.Fatal(err)
	}
	f.findings()

	f.exec(`CREATE UNIQUE INDEX d_old ON d (old)`) // another row that REPLACE may remove
	f.findings("watch t of d: its trigger cache_watch_")
	f.watch("t", "d", "c:{id}")
	f.records(`REPLACE INTO d VALUES (9, 'x', 2)`, "c:1", "c:9")
	// Built again, as ALTER TABLE cannot do everything.
	f.exec(`CREATE TABLE e (id INTEGER PRIMARY KEY, old INTEGER UNIQUE); DROP TABLE d; ALTER TABLE e RENAME TO d`)
	f.findings("watch t of d: its trigger")
	f.watch("t", "d", "c:{id}")
	f.findings()

	f.exec(`DROP TRIGGER cache_touch_records; DROP TABLE cache_delivered`)
	f.findings("cache_delivered: is missing", "cache_touch_records: is missing", "watch t of d: ", "watch test of lessons: ")
	f.exec(sqlite.Schema)
	f.findings()
	f.exec(`DROP TABLE cache_watches`)
	f.findings("cache_watches: is missing")
}

// The schema of the first release, with triggers by hand, becomes that of this one in place.
func TestSchemaOverAnEarlierVersion(t *testing.T) {
	f := newFile(t)
	f.exec(`
DROP TRIGGER cache_touch_values_records; DROP VIEW cache_touch_values; DROP VIEW cache_touch; DROP TABLE cache_watches;
DROP TABLE cache_consumers; DROP TRIGGER cache_outbox_deleted; DROP TABLE cache_delivered; DROP TABLE lessons;
CREATE VIEW cache_touch (tag) AS SELECT tag FROM cache_outbox;
CREATE TRIGGER cache_touch_records INSTEAD OF INSERT ON cache_touch WHEN new.tag IS NOT NULL
BEGIN
    DELETE FROM cache_outbox WHERE tag = new.tag;
    INSERT INTO cache_outbox (tag) VALUES (new.tag);
END;
CREATE TABLE lessons (id INTEGER PRIMARY KEY);
CREATE TRIGGER l AFTER INSERT ON lessons BEGIN INSERT INTO cache_touch VALUES ('lesson:' || new.id); END;
INSERT INTO lessons VALUES (1)`)
	f.exec(sqlite.Schema)
	f.findings()
	f.exec(`INSERT INTO lessons VALUES (2)`)
	if got := f.touched(); !slices.Equal(got, []cache.Tag{"lesson:1", "lesson:2"}) {
		t.Errorf("recorded %q", got)
	}
}

// Tags by hand are refused when they are malformed, as Tag.Check says, and otherwise recorded.
func TestTouchByHand(t *testing.T) {
	f := newFile(t)
	hash := strings.Repeat("0a", 32)
	list := []string{
		"a", "*", "a:*", "a:b", "a:b:c", "a:%", "a:%:%", "a:%:%:%:b", "a:%20", "a:b%20c", "a:%C3%BC", "a:#" + hash, "a.b-c_D:1", "a:-._~@+=,/",
		strings.Repeat("k", 64) + ":1", "a:" + strings.Repeat("x", 198),
		"", ":", "a:", ":a", "a::b", "a:b:", "a b", "a:b c", "a:ü", "ü", "a:%2", "a:%2f", "a:%zz", "a:%41", "a:%2F", "a:%7E", "a:%3D", "a:%40", "a:%5F", "a:%%",
		"a:b%", "a:%b", "a:**", "a:*b", "a:#", "a:#" + hash[1:], "a:#" + hash + "0", "a:#" + strings.ToUpper(hash), "a:#" + hash + ":b", "a:!x", "**", "*:a", "a\x00b", "a:\x00",
		strings.Repeat("k", 65), "a:" + strings.Repeat("x", 199), "a:b\n", "\t", "a:{b}", "a:[b]", "a:b?", "a:b'",
	}
	for b := range 256 {
		list = append(list, fmt.Sprintf("a:%%%02X", b), fmt.Sprintf("a:%%%02x:%%", b), "a:"+string([]byte{byte(b)}), string([]byte{'k', byte(b)}))
	}
	for _, tag := range list {
		_, err := f.stranger.ExecContext(t.Context(), `INSERT INTO cache_touch VALUES (`+literal(tag)+`)`)
		if want := cache.Tag(tag).Check(); (err == nil) != (want == nil) {
			t.Errorf("%q: %v, want %v", tag, err, want)
		}
		if err == nil {
			if got := f.touched(); !slices.Equal(got, []cache.Tag{cache.Tag(tag)}) {
				t.Errorf("%q became %q", tag, got)
			}
		}
	}
	if err := f.shell(`INSERT INTO cache_touch VALUES ('a b')`); err == nil || !strings.Contains(err.Error(), "malformed tag") {
		t.Errorf("by the sqlite3 program: %v", err)
	}
	if err := f.shell(`INSERT INTO cache_touch VALUES ('a:b'), (NULL), ('a:%20')`); err != nil {
		t.Error(err)
	}
	f.want("a:%20", "a:b")
}

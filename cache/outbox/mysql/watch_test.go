package mysql_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/mysql"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// shell runs SQL with the mariadb program: another client library, and another process.
func (f *file) shell(statements string, options ...string) error {
	f.Helper()
	program := testservers.Require(f.T, "mariadb-client", "mariadb")
	cmd := exec.CommandContext(f.Context(), program, append(f.server.Shell(f.name), options...)...)
	cmd.Stdin = strings.NewReader(statements)
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.New(strings.TrimSpace(string(out)))
	}
	return nil
}

// touched empties the outbox, and returns the tags that were in it, in order.
func (f *file) touched() (tags []cache.Tag) {
	f.Helper()
	rows, err := f.pool.QueryContext(f.Context(), `SELECT DISTINCT tag FROM cache_outbox`)
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
	f.exec(`DELETE FROM cache_outbox`)
	slices.Sort(tags)
	return tags
}

// records says which tags a statement records.
func (f *file) records(statement string, want ...cache.Tag) {
	f.Helper()
	f.exec(statement)
	f.recorded(statement, want...)
}

func (f *file) recorded(statement string, want ...cache.Tag) {
	f.Helper()
	slices.Sort(want)
	if got := f.touched(); !slices.Equal(got, slices.Compact(want)) {
		f.Errorf("%.300s recorded\n\t%.2000q, want\n\t%.2000q", statement, got, want)
	}
}

// literal spells a text for any session.
func literal(s string) string { return fmt.Sprintf("CONVERT(X'%x' USING utf8mb4)", s) }

// unsettled are settings of sessions that change how the server reads and spells values.
func unsettled() string {
	pick := func(list ...string) string { return list[rand.N(len(list))] }
	return "SET SESSION sql_mode = '" + pick("", "ANSI", "ANSI_QUOTES,PIPES_AS_CONCAT", "NO_BACKSLASH_ESCAPES", "PAD_CHAR_TO_FULL_LENGTH", "TRADITIONAL", "ORACLE", "ORACLE", "ORACLE", "ORACLE", "ORACLE", "ORACLE", "ORACLE", "ORACLE", "ORACLE", "HIGH_NOT_PRECEDENCE,REAL_AS_FLOAT") + "'," +
		" time_zone = '" + pick("SYSTEM", "+00:00", "+05:45", "-11:00") + "', lc_time_names = '" + pick("en_US", "de_DE", "ja_JP") + "';" +
		" SET NAMES " + pick("utf8mb4", "latin1", "utf8mb3") + pick("", " COLLATE DEFAULT") + ";" +
		" SET collation_connection = " + pick("utf8mb4_general_ci", "latin1_german2_ci", "utf8mb4_turkish_ci", "utf8mb4_bin") + ", div_precision_increment = " + pick("4", "10") +
		", tx_isolation = '" + pick("READ-UNCOMMITTED", "READ-COMMITTED", "REPEATABLE-READ", "SERIALIZABLE") + "';"
}

// Reader and writer spell one tag for one value, whatever its bytes and the settings of the session.
func TestWatchSpellsTagsAsT(t *testing.T) {
	f := newFile(t)
	f.exec(`CREATE TABLE pages (n INT PRIMARY KEY AUTO_INCREMENT, slug TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, raw BLOB, id BIGINT, latin VARCHAR(50) CHARACTER SET latin1 COLLATE latin1_bin)`)
	f.watch("test", "pages", "page:{slug}", "raw:{raw}", "both:{id}:{slug}", "mixed:p-{id}.{slug}", "empty:{slug}{slug}", "latin:{latin}", "literal:a-b/c", "big:{slug}:{slug}:{slug}:{slug}:{slug}:{slug}:{slug}")
	texts := []string{
		"", "a", "A", " ", "a ", "red wine", "a\tb", "a\nb", "a\n", "\n", "\x7f", "\u0085", "a:b", "*", "%", "%20", "a%", "%%", "#", "!x", "{}", "urn:isbn:1", `\`, `\'`, `a\n`, "?", ";",
		"é", "日本語", "\x00", "a\x00b", "'\"`[]", "-._~@+=,/", ":", "::", "A%2F", "😀", strings.Repeat("x", 195), strings.Repeat("x", 196),
		strings.Repeat(" ", 65), strings.Repeat(" ", 66), strings.Repeat("é", 40), strings.Repeat("x", 1024), strings.Repeat("x", 1025), strings.Repeat("é", 3000),
	}
	for b := range 128 {
		texts = append(texts, "x"+string(rune(b))+"y")
	}
	for range 60 {
		r := make([]rune, rand.N(12))
		for i := range r {
			r[i] = []rune{rune(rand.N(0x80)), rune(0x80 + rand.N(0x700)), rune(0x800 + rand.N(0xd000)), rune(0x10000 + rand.N(0x10000))}[rand.N(4)]
		}
		texts = append(texts, string(r))
	}
	long := func(tag cache.Tag, text string) cache.Tag {
		if len(text) > 1024 {
			return tag.Family()
		}
		return tag
	}
	check := func(run func(string) error, text string, id int64) {
		t.Helper()
		latin := ""
		if !strings.ContainsFunc(text, func(r rune) bool { return r > 0x7f && r < 0xa0 || r > 0xff }) && len(text) < 50 {
			latin = text
		}
		if err := run(fmt.Sprintf(`INSERT INTO pages (slug, raw, id, latin) VALUES (%s, X'%x', %d, %s)`, literal(text), text, id, literal(latin))); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		f.recorded(fmt.Sprintf("%.50q, %d", text, id),
			long(cache.T("page", text), text), long(cache.T("raw", []byte(text)), text), long(cache.T("both", id, text), text),
			long(cache.T("mixed", fmt.Sprintf("p-%d.%s", id, text)), text), long(cache.T("empty", text+text), text), cache.T("latin", latin), "literal:a-b/c",
			long(cache.T("big", text, text, text, text, text, text, text), text))
	}
	here := func(s string) error { _, err := f.stranger.ExecContext(t.Context(), unsettled()+s); return err }
	for _, text := range texts {
		check(here, text, rand.Int64()-rand.Int64())
	}
	for _, text := range texts[:12] { // each costs a process
		check(func(s string) error { return f.shell(unsettled() + s) }, text, -7)
	}
	f.records(`INSERT INTO pages (slug, id) VALUES (NULL, 5)`, "literal:a-b/c")
}

// Values of each type that is accepted are spelled as cache.T spells what the driver hands to a reader.
func TestTypesAreSpelledAsT(t *testing.T) {
	f := newFile(t)
	times := func(format string) func(string) any {
		return func(s string) any {
			at, err := time.Parse(format, s)
			if err != nil {
				t.Fatal(err)
			}
			return at
		}
	}
	same := func(s string) any { return s }
	for i, c := range []struct {
		typ    string
		values []string
		of     func(string) any
	}{
		{"TINYINT", []string{"-128", "0", "127"}, same}, {"SMALLINT UNSIGNED", []string{"65535"}, same}, {"MEDIUMINT ZEROFILL", []string{"7"}, same},
		{"INT(10)", []string{"-2147483648"}, same}, {"BIGINT", []string{"-9223372036854775808", "9223372036854775807"}, same}, {"BIGINT UNSIGNED", []string{"18446744073709551615"}, same},
		{"BIGINT UNSIGNED ZEROFILL", []string{"12"}, same}, {"YEAR", []string{"2026", "1901"}, same},
		{"CHAR(10) COLLATE utf8mb4_bin", []string{"ab", "a b"}, same}, {"ENUM('so so', 'fine') COLLATE utf8mb4_bin", []string{"so so"}, same}, {"SET('a', 'b') COLLATE utf8mb4_bin", []string{"a,b"}, same},
		{"BINARY(3)", []string{"abc"}, func(s string) any { return []byte(s) }}, {"VARBINARY(9)", []string{"", "a b"}, func(s string) any { return []byte(s) }},
		{"UUID", []string{"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, same}, {"TEXT CHARACTER SET utf16 COLLATE utf16_bin", []string{"é日"}, same},
		{"DATE", []string{"2026-02-01", "0001-01-01", "9999-12-31"}, func(s string) any { return cache.Date(times("2006-01-02")(s).(time.Time)) }},
		{"DATETIME", []string{"2026-02-01 03:04:05", "1000-01-01 00:00:00"}, times("2006-01-02 15:04:05")},
		{"DATETIME(3)", []string{"2026-02-28 23:04:05.678"}, times("2006-01-02 15:04:05")}, {"DATETIME(6)", []string{"2026-02-01 03:04:05.678901"}, times("2006-01-02 15:04:05")},
	} {
		table := fmt.Sprint("t", i)
		f.exec(`SET sql_mode = DEFAULT; CREATE TABLE ` + table + ` (v ` + c.typ + `)`) // under ORACLE, which the last statement may have set, a DATE is a DATETIME
		f.watch("test", table, "v:{v}", "two:1:{v}")
		for range 3 {
			for _, v := range c.values {
				text := fmt.Sprintf("CONVERT(X'%x' USING utf8mb4)", v)
				f.exec(unsettled())
				f.records(`INSERT INTO `+table+` VALUES (`+text+`)`, cache.T("v", c.of(v)), cache.T("two", 1, c.of(v)))
			}
		}
	}

	// A date that is none is what programs disagree about, and a time zone with a name has an hour twice.
	f.exec(`SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'; CREATE TABLE d (d DATE, dt DATETIME(6), ts TIMESTAMP(6) NULL)`)
	f.watch("test", "d", "d:{d}", "dt:{dt}", "ts:{ts}", "gone:{CASE WHEN ts IS NULL THEN 1 END}")
	f.records(`INSERT INTO d (d, dt) VALUES ('0000-00-00', '2026-02-31 01:00:00')`, "d:*", "dt:*", "gone:1")
	f.records(`INSERT INTO d (d, dt) VALUES ('2026-00-01', NULL)`, "d:*", "gone:1")
	at := time.Date(2026, 10, 25, 0, 30, 0, 123456000, time.UTC)
	for zone, offset := range map[string]time.Duration{"+00:00": 0, "SYSTEM": 0, "+05:45": 5*time.Hour + 45*time.Minute, "-11:00": -11 * time.Hour} {
		f.records(fmt.Sprintf(`SET time_zone = '%s'; INSERT INTO d (ts) VALUES ('%s')`, zone, at.Add(offset).Format("2006-01-02 15:04:05.000000")), cache.T("ts", at))
	}
}

// In a session whose time zone has a name an instant is not certain, so the family is recorded.
func TestTimestampInANamedZone(t *testing.T) {
	server := testservers.StartMariaDB(t, testservers.MariaDBConfig{TimeZone: "Europe/Berlin"})
	db := open(t, server, server.Database(t), 1, strange)
	f := &file{T: t, server: server, pool: db, stranger: db}
	if err := mysql.Apply(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	f.exec(`CREATE TABLE d (ts TIMESTAMP NULL)`)
	f.watch("test", "d", "ts:{ts}")
	f.records(`INSERT INTO d VALUES ('2026-10-25 02:30:00')`, "ts:*")
	f.records(`SET time_zone = '+02:00'; INSERT INTO d VALUES ('2026-10-25 02:30:00')`, cache.T("ts", time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC)))
}

func TestWatchEvents(t *testing.T) {
	f := newFile(t)
	f.exec(`CREATE TABLE c (courseId INT, title VARCHAR(20) COLLATE utf8mb4_general_ci, lessons INT, n INT PRIMARY KEY, x DOUBLE); INSERT INTO lessons (id, course_id) VALUES (1, 7), (2, 7), (3, 8)`)
	f.touched()
	f.watch("a", "c",
		"all:{`courseId`}",
		"title:{c.`courseId`} ON UPDATE OF title", // the tag counts as a column
		`gone:{courseid}:{n} ON DELETE`,
		`new:{CASE WHEN title > 'm' THEN courseId END} ON INSERT`,
		`l:{SELECT id FROM lessons WHERE lessons.course_id = c.lessons}`,
		`titles ON DELETE OR UPDATE OF title, x`)
	f.records(`INSERT INTO c VALUES (1, 'z', 7, 1, 0)`, "all:1", "new:1", "l:1", "l:2")
	f.records(`INSERT INTO c VALUES (2, 'a', 8, 2, 0)`, "all:2", "l:3")
	f.records(`UPDATE c SET title = title WHERE n = 1`, "all:1", "l:1", "l:2")
	f.records(`UPDATE c SET title = 'Z' WHERE n = 1`, "all:1", "title:1", "titles", "l:1", "l:2")
	f.records(`UPDATE c SET x = 1.5 WHERE n = 1`, "all:1", "titles", "l:1", "l:2")
	f.records(`UPDATE c SET courseId = 3 WHERE n = 1`, "all:1", "all:3", "title:1", "title:3", "l:1", "l:2")
	f.records(`UPDATE c SET lessons = 8 WHERE n = 1`, "all:3", "l:1", "l:2", "l:3")
	f.records(`UPDATE c SET title = NULL, lessons = NULL WHERE n = 1`, "all:3", "title:3", "titles", "l:3")
	// A delete that REPLACE makes cannot be told from another, so templates for UPDATE record it, too.
	f.records(`REPLACE INTO c VALUES (4, 'a', NULL, 1, 0)`, "all:3", "all:4", "title:3", "title:4", "titles", "gone:3:1")
	f.records(`INSERT INTO c VALUES (5, 'a', NULL, 5, 0)`, "all:5")
	f.records(`INSERT INTO c VALUES (6, 'b', NULL, 5, 0) ON DUPLICATE KEY UPDATE title = 'b'`, "all:5", "title:5", "titles")
	f.records(`DELETE FROM c WHERE n IN (1, 5)`, "all:4", "all:5", "title:4", "title:5", "gone:4:1", "gone:5:5", "titles")

	// Without a trigger for DELETE, REPLACE may be an update to the server, and is seen all the same.
	f.watch("a", "c", "new:{courseid} ON INSERT")
	f.records(`REPLACE INTO c VALUES (8, 'a', NULL, 2, 0)`, "new:8")
	f.records(`UPDATE c SET courseId = 2`)

	// Another program's watch of the table is another's, and declaring one again replaces it.
	f.watch("b", "c", "b:{n}")
	f.watch("a", "c", "a:{n}")
	f.records(`UPDATE c SET title = 'b'`, "a:2", "b:2")
	if err := mysql.Unwatch(t.Context(), f.pool, "b", "c"); err != nil {
		t.Fatal(err)
	}
	f.records(`UPDATE c SET title = 'c'`, "a:2")
}

// Every statement that changes rows is seen.
func TestEveryKindOfStatement(t *testing.T) {
	f := newFile(t)
	f.exec(`CREATE TABLE a (id INT PRIMARY KEY, v INT); CREATE TABLE b (id INT PRIMARY KEY, v INT); CREATE VIEW w AS SELECT id, v FROM a`)
	f.watch("t", "a", "a:{id}")
	f.watch("t", "b", "b:{id}")
	for _, run := range []func(string) error{
		func(s string) error { _, err := f.stranger.ExecContext(t.Context(), s); return err },
		func(s string) error { return f.shell(s, "--local-infile=1") },
	} {
		f.exec(`DELETE FROM a; DELETE FROM b; DELETE FROM cache_outbox`)
		for _, c := range []struct {
			statement string
			want      []cache.Tag
		}{
			{`INSERT INTO a VALUES (1, 1), (2, 2)`, []cache.Tag{"a:1", "a:2"}},
			{`INSERT INTO b SELECT * FROM a`, []cache.Tag{"b:1", "b:2"}},
			{`INSERT IGNORE INTO a VALUES (1, 5), (3, 3)`, []cache.Tag{"a:3"}},
			{`REPLACE INTO a VALUES (1, 5), (4, 4)`, []cache.Tag{"a:1", "a:4"}},
			{`UPDATE a JOIN b USING (id) SET a.v = 9, b.v = 9`, []cache.Tag{"a:1", "a:2", "b:1", "b:2"}},
			{`DELETE a, b FROM a JOIN b USING (id) WHERE a.id = 2`, []cache.Tag{"a:2", "b:2"}},
			{`UPDATE w SET v = 7 WHERE id = 1`, []cache.Tag{"a:1"}},
			{`UPDATE a SET id = id + 10 ORDER BY id DESC LIMIT 1`, []cache.Tag{"a:14", "a:4"}},
			{`LOCK TABLES a WRITE; UPDATE a SET v = 1 WHERE id = 1; UNLOCK TABLES`, []cache.Tag{"a:1"}},
			{`SET foreign_key_checks = 0, unique_checks = 0; UPDATE a SET v = 2 WHERE id = 1`, []cache.Tag{"a:1"}},
			{`SET SESSION transaction_isolation = 'SERIALIZABLE'; UPDATE a SET v = 3 WHERE id = 1; SET SESSION transaction_isolation = DEFAULT`, []cache.Tag{"a:1"}},
			{`SET autocommit = 0; UPDATE a SET v = 4 WHERE id = 1; COMMIT; SET autocommit = 1`, []cache.Tag{"a:1"}},
			{`START TRANSACTION; UPDATE a SET v = 4 WHERE id = 1; SAVEPOINT s; UPDATE a SET v = 4 WHERE id = 3; ROLLBACK TO SAVEPOINT s; COMMIT`, []cache.Tag{"a:1"}},
			{`XA START 'x'; UPDATE a SET v = 5 WHERE id = 1; XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'`, []cache.Tag{"a:1"}},
			{`PREPARE p FROM 'UPDATE a SET v = 6 WHERE id = ?'; SET @id = 3; EXECUTE p USING @id`, []cache.Tag{"a:3"}},
		} {
			if strings.HasPrefix(c.statement, "SET SESSION transaction") {
				c.statement = strings.ReplaceAll(c.statement, "transaction_isolation", "tx_isolation")
			}
			if err := run(c.statement); err != nil {
				t.Fatalf("%s: %v", c.statement, err)
			}
			f.recorded(c.statement, c.want...)
		}
	}
	path := f.server.DataFile(t, "rows.csv", "50,1\n51,2\n1,3\n")
	f.records(`LOAD DATA INFILE '`+path+`' REPLACE INTO TABLE a FIELDS TERMINATED BY ','`, "a:1", "a:50", "a:51")
}

// A statement that touches one tag for many rows leaves one row; one of more than a thousand tags
// leaves that many, and families.
func TestBulkStatementsAreBounded(t *testing.T) {
	f := newFile(t)
	f.exec(`CREATE TABLE p (id INT PRIMARY KEY, category INT); SET max_recursive_iterations = 100000`)
	f.watch("t", "p", "p:{id}", "category:{category}", "all")
	f.exec(`INSERT INTO p WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 5000) SELECT n, n % 10 FROM n`)
	for _, statement := range []string{``, `UPDATE p SET category = category`, `DELETE FROM p`} {
		if statement != `` {
			f.exec(statement)
		}
		var rows int
		if err := f.pool.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM cache_outbox`).Scan(&rows); err != nil || rows > 1010 {
			t.Errorf("%s left %d rows, %v", statement, rows, err)
		}
		tags := f.touched()
		for _, tag := range []cache.Tag{"p:*", "category:3", "all"} {
			if !slices.Contains(tags, tag) {
				t.Errorf("%s did not record %s", statement, tag)
			}
		}
		if slices.Contains(tags, "category:*") {
			t.Errorf("%s widened what had room", statement)
		}
	}
}

// Nothing that a session remembers of an earlier statement makes up for a row that is not there: not
// after a rollback, not after a relay has deleted it, and not while it is delivering it.
func TestNoTouchIsLostToWhatASessionRemembers(t *testing.T) {
	f := newFile(t)
	for _, clock := range []string{`SET timestamp = DEFAULT`, `SET timestamp = 1700000000.5`} { // a session may stop its clock
		f.exec(`DELETE FROM lessons; INSERT INTO lessons VALUES (1, 'a', NULL), (2, 'a', NULL); DELETE FROM cache_outbox`)
		f.exec(clock)
		f.records(`START TRANSACTION; UPDATE lessons SET title = 'b' WHERE id = 1; ROLLBACK; UPDATE lessons SET title = 'c' WHERE id = 1`, "lesson:1")
		f.records(`START TRANSACTION; SAVEPOINT s; UPDATE lessons SET title = 'd'; ROLLBACK TO SAVEPOINT s; UPDATE lessons SET title = 'e'; COMMIT`, "lesson:1", "lesson:2")
		f.records(`UPDATE lessons SET title = 'f'`, "lesson:1", "lesson:2")
		f.records(`UPDATE lessons SET title = 'g'`, "lesson:1", "lesson:2") // after the rows were deleted
		// A statement that fails on its way.
		if _, err := f.stranger.ExecContext(t.Context(), `UPDATE lessons SET id = 9, title = 'h'`); err == nil {
			t.Error("two rows of one key")
		}
		f.records(`UPDATE lessons SET title = 'i'`, "lesson:1", "lesson:2")

		f.exec(`UPDATE lessons SET title = 'j' WHERE id = 1`)
		_, err := f.log.Deliver(t.Context(), consumer, 0, 10, func(context.Context, []outbox.Row) error {
			f.exec(`UPDATE lessons SET title = 'k' WHERE id = 1`)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		f.recorded("an update during the delivery", "lesson:1")
	}
}

// What cannot be spelled alike, or can have no trigger, is refused when it is declared.
func TestWatchRefuses(t *testing.T) {
	f := newFile(t)
	f.exec(`
CREATE TABLE x (id INT PRIMARY KEY AUTO_INCREMENT, flag BOOLEAN, price DOUBLE, f FLOAT, at TIME, ts TIMESTAMP NULL, n NUMERIC(5,2), b BIT(4), slug VARCHAR(20) COLLATE utf8mb4_general_ci, g POINT, name VARCHAR(20) COLLATE utf8mb4_bin);
CREATE VIEW v AS SELECT id FROM x;
CREATE SEQUENCE s;
CREATE TABLE isam (id INT PRIMARY KEY) ENGINE = MyISAM; CREATE TABLE mem (id INT PRIMARY KEY) ENGINE = MEMORY; CREATE TABLE aria (id INT PRIMARY KEY) ENGINE = Aria TRANSACTIONAL = 1`)
	for _, c := range []struct{ table, template, says string }{
		{"nothing", "a:{id}", "there is no table nothing"},
		{"v", "a:{id}", "is a view"},
		{"s", "a:{next_not_cached_value}", "of the kind SEQUENCE"},
		{"isam", "a:{id}", "ENGINE = InnoDB"}, {"mem", "a:{id}", "ENGINE = InnoDB"}, {"aria", "a:{id}", "ENGINE = InnoDB"},
		{"cache_outbox", "a:{id}", "belongs to the outbox"},
		{"x", "a:{idd}", "Unknown column 'idd'"},
		{"x", "a:{x.idd}", "x has no column idd: it has id, flag"},
		{"x", "a:{nosuch(id)}", "nosuch"},
		{"x", "a:{flag}", "{CASE WHEN flag THEN 'true' ELSE 'false' END}"},
		{"x", "a:{x.price}", "{CAST(price AS SIGNED)}"}, {"x", "a:{f}", "{CAST(f AS SIGNED)}"},
		{"x", "a:{at}", "{TIME_TO_SEC(at)}"},
		{"x", "a:{n}", "{CAST(n AS CHAR)}"}, {"x", "a:{id / 20}", "DIV"},
		{"x", "a:{b}", "{CAST(b AS UNSIGNED)}"},
		{"x", "a:{g}", "no one text"},
		{"x", "a:{slug}", "{CONVERT(slug USING utf8mb4)}"},
		{"x", "a:{TIMESTAMP(ts)}", "time zone of the session"},
		{"x", "a:{new.id}", "write x.id"},
		{"x", "a:{db.x.id}", "leave the name of the schema out"},
		{"x", "a:{SELECT id FROM x}", "give the table another name"},
		{"x", "a:{SELECT id FROM lessons AS x}", "give the table another name"},
		{"x", "a:{SELECT id FROM lessons WHERE course_id = flag}", "the columns of the row are x.column"},
		{"x", "a:{SELECT id, title FROM lessons}", "a SELECT gives one column"},
		{"x", "a:{SELECT id FROM lessons}:{SELECT id FROM lessons}", "only one of its expressions"},
		{"x", "a:{?}", "cannot stand in an expression"}, {"x", "a:{@v}", "cannot stand in an expression"},
		{"x", "a:{id; DROP TABLE x}", "cannot stand in an expression"},
		{"x", "a:{id -- c}", "no comments"}, {"x", "a:{id # c}", "no comments"}, {"x", "a:{id /*! c */}", "no comments"},
		{"x", "a:{CONCAT(name, 'é')}", "_utf8mb4"},
		{"x", "a:{}", "is empty"},
		{"x", "a:{{id}}", "between braces"},
		{"x", "a:{id", "between braces"},
		{"x", "a:", "a part is empty"},
		{"x", "a:*", "a literal holds"},
		{"x", "item:%d", "a literal holds"},
		{"x", "{id}", "the kind is a word"},
		{"x", "a b:{id}", "want ON"},
		{"x", "", "is no kind"},
		{"x", "a:{id} ON TRUNCATE", "want ON, and INSERT"},
		{"x", "a:{id} ON UPDATE OF nothing", "x has no column nothing"},
	} {
		err := mysql.Watch(t.Context(), f.pool, "t", c.table, c.template)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s of %s: %v, want %q", c.template, c.table, err, c.says)
		}
	}
	for _, template := range []string{
		"a:{LOWER(slug)}", "a:{CAST(n AS CHAR)}", "a:{CASE WHEN flag THEN 'true' ELSE 'false' END}", `a:{CONCAT(name, '\', "'", X'00', ')')}`, "a:{TIME_TO_SEC(at)}", "a:{CAST(b AS UNSIGNED)}",
		"a:{SELECT other.id FROM x AS other WHERE other.id = x.id}", "a:{(SELECT MAX(id) FROM lessons)}",
		"a:{COALESCE((SELECT id FROM lessons WHERE title = x.name), 0)}", "a:{WITH n(i) AS (SELECT 1) SELECT i FROM n}", "a:{SELECT 1 UNION ALL SELECT x.id}",
		"a:b:{id} on insert or UPDATE of Name , `slug` OR delete", "a:1:2:3:4:5:6:{id}", "a", "a:{ts}", "a:{name COLLATE utf8mb4_bin}", "a:{flag AND id = 1}",
	} {
		if err := mysql.Watch(t.Context(), f.pool, "t", "x", template); err != nil {
			t.Errorf("%s: %v", template, err)
		}
		f.exec(`INSERT INTO x (name, n, ts) VALUES ('n', 1.50, NOW()); UPDATE x SET name = 'm'; REPLACE INTO x (id, name) VALUES (1, 'o'); DELETE FROM x`)
	}
	if err := mysql.Watch(t.Context(), f.pool, "t", "x"); err == nil {
		t.Error("a watch without templates")
	}
	tx, err := f.pool.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if err := mysql.Watch(t.Context(), tx, "t", "x", "a:{id}"); err == nil || !strings.Contains(err.Error(), "would commit this transaction") {
		t.Errorf("in a transaction: %v", err)
	}
}

// A child whose rows go with those of its parent is refused, unless the parent records them; and then
// it does.
func TestCascades(t *testing.T) {
	f := newFile(t)
	f.exec(`
CREATE TABLE orders (id INT PRIMARY KEY, customer INT);
CREATE TABLE order_lines (id INT PRIMARY KEY, order_id INT, FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE);
CREATE TABLE notes (id INT PRIMARY KEY, line_id INT, FOREIGN KEY (line_id) REFERENCES order_lines (id) ON DELETE SET NULL);
CREATE TABLE moved (id INT PRIMARY KEY, order_id INT, FOREIGN KEY (order_id) REFERENCES orders (id) ON UPDATE CASCADE);
CREATE TABLE tree (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES tree (id) ON DELETE CASCADE);
CREATE TABLE plain (id INT PRIMARY KEY, order_id INT, FOREIGN KEY (order_id) REFERENCES orders (id));
INSERT INTO orders VALUES (1, 7), (2, 7); INSERT INTO order_lines VALUES (11, 1), (12, 1), (21, 2); INSERT INTO notes VALUES (111, 11); INSERT INTO tree VALUES (1, NULL), (2, 1)`)
	refused := func(table, says string, templates ...string) {
		t.Helper()
		err := mysql.Watch(t.Context(), f.pool, "t", table, templates...)
		if !errors.Is(err, mysql.ErrWatch) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v of %s: %v, want %q", templates, table, err, says)
		}
	}
	refused("order_lines", "no watch of orders records tags of the kind line", "line:{id}")
	refused("moved", "ON UPDATE RESTRICT", "moved:{id}")
	refused("tree", "no watch of tree records tags of the kind tree", "tree:{id}")
	f.watch("t", "plain", "plain:{id}")
	f.watch("t", "order_lines", "inserted:{id} ON INSERT")
	lines := "line:{SELECT id FROM order_lines WHERE order_lines.order_id = orders.id}"
	f.watch("t", "orders", "order:{id}", lines, "note:{SELECT notes.id FROM notes JOIN order_lines ON line_id = order_lines.id WHERE order_id = orders.id} ON DELETE")
	refused("notes", "no watch of order_lines records tags of the kind note", "note:{id}")
	f.watch("t", "order_lines", "line:{id}", "order:{order_id}", "note:{SELECT id FROM notes WHERE line_id = order_lines.id} ON DELETE")
	f.watch("t", "notes", "note:{id}")
	f.watch("t", "tree", "tree:{id}", "tree:{WITH RECURSIVE down (id) AS (SELECT tree.id UNION ALL SELECT child.id FROM tree AS child JOIN down ON child.parent = down.id) SELECT id FROM down} ON DELETE")
	f.records(`DELETE FROM orders WHERE id = 1`, "order:1", "line:11", "line:12", "note:111")
	f.records(`DELETE FROM tree WHERE id = 1`, "tree:1", "tree:2")
	f.findings()
	f.exec(`ALTER TABLE plain ADD FOREIGN KEY (id) REFERENCES orders (id) ON DELETE CASCADE`)
	f.findings("no watch of orders records tags of the kind plain")
}

// findings says what Check finds: each a part of a finding.
func (f *file) findings(want ...string) {
	f.Helper()
	got, err := mysql.Check(f.Context(), f.pool)
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
	f.exec(`CREATE TABLE c (id INT PRIMARY KEY, title VARCHAR(20) COLLATE utf8mb4_bin, old INT, spare TEXT)`)
	f.watch("t", "c", "c:{id}", "t:{title}")
	f.findings()
	names, err := triggers(f)
	if err != nil {
		t.Fatal(err)
	}
	f.watch("t", "c", "c:{id}", "t:{title}") // writes nothing
	if again, err := triggers(f); err != nil || !slices.Equal(again, names) {
		t.Errorf("triggers %q became %q, %v", names, again, err)
	}
	f.exec(`DROP TRIGGER ` + names[0])
	f.findings("watch t of c: its trigger for")
	f.watch("t", "c", "c:{id}", "t:{title}")
	f.exec(`DROP TRIGGER ` + names[1] + `; CREATE TRIGGER ` + names[1] + ` AFTER INSERT ON c FOR EACH ROW DO 1`)
	f.findings("watch t of c: its trigger")
	f.exec(`DROP TRIGGER ` + names[1])
	f.watch("t", "c", "c:{id}", "t:{title}")
	f.exec(`ALTER TABLE c MODIFY title VARBINARY(20)`)
	f.findings("watch t of c: its trigger")
	f.watch("t", "c", "c:{id}", "t:{title}")
	f.records(`INSERT INTO c (id, title) VALUES (1, 'a')`, "c:1", "t:61")
	f.exec(`ALTER TABLE c CHANGE title name VARCHAR(20)`)
	f.findings("watch t of c: template \"t:{title}\"")
	f.watch("t", "c", "c:{id}")
	f.exec(`ALTER TABLE c ENGINE = MyISAM`)
	f.findings("ENGINE = InnoDB")
	f.exec(`ALTER TABLE c ENGINE = InnoDB; RENAME TABLE c TO d`)
	f.findings("watch t of c: the table is gone")
	f.watch("t", "d", "c:{id}")
	if err := mysql.Unwatch(t.Context(), f.pool, "t", "c"); err != nil {
		t.Fatal(err)
	}
	f.findings()
	f.records(`UPDATE d SET old = 2`, "c:1")

	f.exec(`DROP PROCEDURE cache_record; DROP TABLE cache_delivered; DROP FUNCTION cache_hex; CREATE FUNCTION cache_hex(v LONGBLOB) RETURNS INT RETURN 1`)
	f.findings("cache_delivered: is missing", "cache_hex: is that of another release", "cache_record: is missing")
	f.exec(`DROP FUNCTION cache_hex`)
	if err := mysql.Apply(t.Context(), f.pool); err != nil {
		t.Fatal(err)
	}
	f.findings()
	f.exec(`DROP TABLE cache_watches`)
	f.findings("cache_watches: is missing")
}

func triggers(f *file) (names []string, err error) {
	rows, err := f.pool.QueryContext(f.Context(), `SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE() AND event_object_table = 'c' ORDER BY created, trigger_name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// WatchSQL is what Watch runs, and Schema what Apply does, also for a shell.
func TestScripts(t *testing.T) {
	f := newFile(t)
	script, err := mysql.WatchSQL(t.Context(), f.pool, "test", "lessons", "script:{id}", "l:{SELECT 1 UNION SELECT lessons.id}")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.shell(mysql.Schema, "--delimiter=//"); err != nil {
			t.Fatal(err)
		}
		if err := f.shell(script, "--delimiter=//"); err != nil {
			t.Fatal(err)
		}
	}
	f.records(`INSERT INTO lessons VALUES (2, 'a', 5)`, "script:2", "l:1", "l:2")
	f.findings()
	if _, err := f.stranger.ExecContext(t.Context(), mysql.Schema+script); err != nil {
		t.Fatal(err)
	}
	f.watch("test", "lessons", "script:{id}", "l:{SELECT 1 UNION SELECT lessons.id}")
	f.findings()
}

// Tags by hand are refused when they are malformed, as Tag.Check says, and otherwise recorded.
func TestRecord(t *testing.T) {
	f := newFile(t)
	hash := strings.Repeat("0a", 32)
	list := []string{
		"a", "*", "a:*", "a:b", "a:b:c", "a:%", "a:%:%", "a:%:%:%:b", "a:%20", "a:b%20c", "a:%C3%BC", "a:#" + hash, "a.b-c_D:1", "a:-._~@+=,/",
		strings.Repeat("k", 64) + ":1", "a:" + strings.Repeat("x", 198),
		"", ":", "a:", ":a", "a::b", "a:b:", "a b", "a:b c", "a:ü", "ü", "a:%2", "a:%2f", "a:%zz", "a:%41", "a:%2F", "a:%7E", "a:%3D", "a:%40", "a:%5F", "a:%%",
		"a:b%", "a:%b", "a:**", "a:*b", "a:#", "a:#" + hash[1:], "a:#" + hash + "0", "a:#" + strings.ToUpper(hash), "a:#" + hash + ":b", "a:!x", "**", "*:a", "a\x00b", "a:\x00",
		strings.Repeat("k", 65), "a:" + strings.Repeat("x", 199), "a:b\n", "a\n", "\t", "a:{b}", "a:[b]", "a:b?", "a:b'", "* ", "a ", "ａ",
	}
	for b := range 256 {
		list = append(list, fmt.Sprintf("a:%%%02X", b), fmt.Sprintf("a:%%%02x:%%", b))
		if b < 128 {
			list = append(list, "a:"+string(rune(b)), "k"+string(rune(b)))
		}
	}
	for _, tag := range list {
		_, err := f.stranger.ExecContext(t.Context(), `CALL cache_record(`+literal(tag)+`)`)
		if want := cache.Tag(tag).Check(); (err == nil) != (want == nil) {
			t.Errorf("%q: %v, want %v", tag, err, want)
		}
		if err == nil {
			f.recorded(tag, cache.Tag(tag))
		}
	}
	if err := f.shell(`CALL cache_record('a:b'); CALL cache_record(NULL); CALL cache_record(cache_tag('a', cache_part('red wine')))`); err != nil {
		t.Error(err)
	}
	f.want("a:b", "a:red%20wine")
}

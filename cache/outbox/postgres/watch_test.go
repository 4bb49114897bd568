package postgres

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func TestEveryWayToChangeARow(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t,
		`CREATE TABLE owners (id int PRIMARY KEY, name text)`,
		`CREATE TABLE "Odd Things" ("the id" int PRIMARY KEY, owner int REFERENCES owners ON DELETE CASCADE ON UPDATE CASCADE, title text, doc json, secret boolean DEFAULT false)`,
		`SELECT cache_watch('test', 'owners', 'owner:{id}', 'names:all ON DELETE OR UPDATE OF name')`,
		`SELECT cache_watch('test', '"Odd Things"',
			'thing:{"the id"}',
			'of:{owner} ON INSERT OR DELETE OR UPDATE OF owner',
			'title:{CASE WHEN NOT secret THEN "the id" END} ON UPDATE OF title, doc, secret',
			'name:{(SELECT name FROM owners WHERE owners.id = "Odd Things".owner)} ON INSERT')`,
	))
	for _, c := range []struct {
		statement string
		want      string // tags, sorted
	}{
		{`INSERT INTO owners VALUES (1, 'ann'), (2, 'bob')`, `owner:1 owner:2`},
		{`INSERT INTO owners SELECT 3, 'x' WHERE false`, ``},
		{`INSERT INTO "Odd Things" VALUES (1, 1, 'a', '{}'), (2, 1, 'b', '{}'), (3, 2, 'c', '{}')`,
			`name:ann name:bob of:1 of:2 thing:1 thing:2 thing:3`},
		{`UPDATE "Odd Things" SET title = title`, `thing:1 thing:2 thing:3`},
		{`UPDATE "Odd Things" SET title = 'z' WHERE "the id" = 1`, `thing:1 title:1`},
		{`UPDATE "Odd Things" SET title = NULL, secret = true WHERE "the id" = 1`, `thing:1 title:1`}, // it was shown before
		{`UPDATE "Odd Things" SET title = 'hidden' WHERE "the id" = 1`, `thing:1`},
		{`UPDATE "Odd Things" SET doc = '{ }' WHERE "the id" = 2`, `thing:2 title:2`}, // json cannot be compared
		{`UPDATE "Odd Things" SET owner = 2 WHERE "the id" = 1`, `of:1 of:2 thing:1`},
		{`UPDATE "Odd Things" SET "the id" = 9 WHERE "the id" = 3`, `of:2 thing:3 thing:9 title:3 title:9`},
		{`UPDATE owners SET id = 20 WHERE id = 2`, `names:all of:2 of:20 owner:2 owner:20 thing:1 thing:9`},
		{`INSERT INTO "Odd Things" VALUES (2, 1, 'b'), (4, 1, 'd') ON CONFLICT ("the id") DO UPDATE SET title = 'upserted'`,
			`name:ann of:1 thing:2 thing:4 title:2`},
		{`INSERT INTO "Odd Things" VALUES (2, 1, 'b') ON CONFLICT DO NOTHING`, ``},
		{`DELETE FROM owners WHERE id = 20`, `names:all of:20 owner:20 thing:1 thing:9`},
		{`MERGE INTO owners o USING (VALUES (1, 'ann'), (5, 'eve')) v (id, name) ON o.id = v.id
			WHEN MATCHED THEN UPDATE SET name = 'anna' WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.name)`,
			`names:all owner:1 owner:5`},
		{`DELETE FROM "Odd Things" WHERE false`, ``},
		{`DO $$ BEGIN
			INSERT INTO owners VALUES (6, 'f');
			BEGIN INSERT INTO owners VALUES (7, 'g'); RAISE 'undone'; EXCEPTION WHEN raise_exception THEN END;
		END $$`, `owner:6`},
		{`SET session_replication_role = replica; UPDATE owners SET name = 'q' WHERE id = 6; RESET session_replication_role`,
			`names:all owner:6`},
		{`TRUNCATE owners CASCADE`, `names:all of:* owner:* thing:*`},
	} {
		run(t, conn, c.statement)
		// Cascades are statements of their own and may name a tag again.
		if got := strings.Join(slices.Compact(taken(t, conn)), " "); got != c.want {
			t.Errorf("%s\nrecorded %q\n    want %q", c.statement, got, c.want)
		}
	}
	if _, err := conn.CopyFrom(t.Context(), pgx.Identifier{"owners"}, []string{"id"}, pgx.CopyFromRows([][]any{{1}, {2}})); err != nil {
		t.Fatal(err)
	}
	if got := taken(t, conn); !slices.Equal(got, []string{"owner:1", "owner:2"}) {
		t.Errorf("COPY recorded %v", got)
	}
}

func TestRollbackLeavesNothing(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t, items...))
	run(t, conn, `BEGIN`, `INSERT INTO items VALUES (11)`, `SELECT cache_record('a:b')`)
	if n := ask[int](t, conn, `SELECT count(*) FROM cache_outbox`); n != 2 {
		t.Fatalf("recorded %d tags, want 2", n)
	}
	run(t, conn, `ROLLBACK`)
	if got := taken(t, conn); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

func TestLargeStatementsRecordFamilies(t *testing.T) {
	t.Parallel()
	const many = 200_000
	conn := connect(t, database(t,
		`CREATE TABLE points (id int PRIMARY KEY, grp int, v int)`,
		`SELECT cache_watch('test', 'points', 'point:{id}', 'grp:{grp}', 'moved:{grp} ON UPDATE OF v', 'points:all')`,
	))
	recorded := func(statement string) []string {
		t.Helper()
		run(t, conn, statement)
		return taken(t, conn)
	}
	// The plans are made for one row, and must do for many.
	if got := recorded(`INSERT INTO points VALUES (0, 0, 0)`); len(got) != 3 {
		t.Errorf("one row recorded %v", got)
	}
	if got := recorded(`UPDATE points SET v = 1`); len(got) != 4 {
		t.Errorf("one row recorded %v", got)
	}
	if got := recorded(fmt.Sprintf(`INSERT INTO points SELECT i, i %% 100, 0 FROM generate_series(1, %d) i`, many)); len(got) != 1+100+1 || !slices.Contains(got, "point:*") {
		t.Errorf("%d rows recorded %d tags, want 1 family and the 101 others", many, len(got))
	}
	began := time.Now()
	if got := recorded(`UPDATE points SET v = v + 1`); len(got) != 1+100+100+1 {
		t.Errorf("%d rows recorded %d tags, want 1 family and the 201 others", many, len(got))
	}
	t.Logf("an update of %d rows took %v", many, time.Since(began).Round(time.Millisecond))
	if got := recorded(`UPDATE points SET v = v + 1 WHERE id <= 1000 AND id > 0`); len(got) != 1000+100+100+1 {
		t.Errorf("1000 rows recorded %d tags, want each by name", len(got))
	}
	if got := recorded(`DELETE FROM points`); len(got) != 1+100+1 {
		t.Errorf("deleting recorded %d tags", len(got))
	}
}

func TestUnusualTables(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t,
		`CREATE TABLE events (id int, kind text, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind)`,
		`CREATE TABLE events_a PARTITION OF events FOR VALUES IN ('a')`,
		`CREATE TABLE events_b (kind text NOT NULL, id int NOT NULL)`, // columns in another order
		`ALTER TABLE events ATTACH PARTITION events_b FOR VALUES IN ('b')`,
		`CREATE TABLE parent (id int)`,
		`CREATE TABLE child (extra text) INHERITS (parent)`,
		`CREATE TABLE named (n int, few int, writer int, tag int, template int, touched int)`, // as in the trigger functions
		`SELECT cache_watch('test', 'named', 'named:{n}{few}{writer}{tag}{template}{touched}', 'percent:{CASE WHEN n::text LIKE ''1%'' THEN ''100%'' END} ON INSERT OR UPDATE OF n')`,
		`SELECT cache_watch('test', 'events', 'event:{kind}-{id}')`,
		`SELECT cache_watch('test', 'parent', 'p:{id}')`,
	))
	for _, c := range []struct{ statement, want string }{
		{`INSERT INTO events VALUES (1, 'a'), (2, 'b')`, `event:a-1 event:b-2`},
		{`INSERT INTO events_b (id, kind) VALUES (3, 'b')`, `event:b-3`},
		{`UPDATE events SET kind = 'b' WHERE id = 1`, `event:a-1 event:b-1`},
		{`DELETE FROM events_b WHERE id = 1`, `event:b-1`},
		{`TRUNCATE events_b`, `event:*`},
		{`INSERT INTO child VALUES (1, 'x')`, `p:1`},
		{`UPDATE parent SET id = 2`, `p:1 p:2`},
		{`DELETE FROM child`, `p:2`},
		{`INSERT INTO named VALUES (1, 2, 3, 4, 5, 6)`, `named:123456 percent:100%25`},
		{`UPDATE named SET n = 7`, `named:123456 named:723456 percent:100%25`},
	} {
		run(t, conn, c.statement)
		if got := strings.Join(slices.Compact(taken(t, conn)), " "); got != c.want {
			t.Errorf("%s\nrecorded %q\n    want %q", c.statement, got, c.want)
		}
	}
}

// A writer needs no rights on the outbox, and cannot redirect what it records.
func TestWriterWithoutRights(t *testing.T) {
	t.Parallel()
	url := database(t,
		`CREATE SCHEMA shop`,
		`CREATE TABLE shop.orders (id int PRIMARY KEY)`,
		`SELECT cache_watch('test', 'shop.orders', 'order:{id}')`,
	)
	conn := connect(t, url)
	role := "writer_" + strings.TrimPrefix(conn.Config().Database, "test_")
	run(t, conn, `CREATE ROLE `+role, `GRANT USAGE ON SCHEMA shop TO `+role, `GRANT INSERT ON shop.orders TO `+role,
		`REVOKE ALL ON cache_outbox FROM PUBLIC`)
	run(t, conn, `SET ROLE `+role, `SET search_path = shop`,
		`CREATE TEMP TABLE cache_outbox (tag text, mark bytea)`,
		`INSERT INTO orders VALUES (1)`, `SELECT public.cache_record('a:b')`,
		`RESET ROLE`, `RESET search_path`, `DROP TABLE pg_temp.cache_outbox`)
	if got := taken(t, conn); !slices.Equal(got, []string{"a:b", "order:1"}) {
		t.Errorf("recorded %v", got)
	}
}

func TestWatchRejectsMistakes(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t, `CREATE TABLE things (id int PRIMARY KEY, name text)`))
	for template, want := range map[string]string{
		"thing:{nosuch}":                       `column "nosuch" does not exist`,
		"{id}":                                 `"{id}" is no template`,
		"{id}:thing":                           `is no template`,
		"thing{id}":                            `the kind`,
		"thing:":                               `a part is empty`,
		"thing:{id}:":                          `a part is empty`,
		"thing::{id}":                          `a part is empty`,
		"thing:{}":                             `the braces are empty`,
		"thing:{ }":                            `the braces are empty`,
		"thing:%d":                             `"%d" is no literal part of a tag`,
		"thing:$1":                             `as in thing:{id}`,
		"thing:{$1}":                           `there is no parameter $1`,
		"thing:*":                              `"*" is no literal part`,
		"the thing:{id}":                       `is no template`,
		"thé:{id}":                             `the kind`,
		strings.Repeat("k", 65) + ":{id}":      `the kind`,
		"thing:{id, name}":                     `record`,
		"thing:{SELECT id, name FROM things}":  `one column`,
		"thing:{nosuch.id}":                    `missing FROM-clause entry`,
		"thing:{id":                            `is no template`,
		"two words":                            `is no template`,
		"":                                     `is no template`,
		"thing:{id} ON SELECT":                 `names the event "SELECT"`,
		"thing:{id} ON UPDATE OF nosuch":       `nosuch does not exist`,
		"thing:{id} ON INSERT, DELETE":         `names the event "INSERT, DELETE"`,
		"thing:{(SELECT name FROM elsewhere)}": `relation "elsewhere" does not exist`,
	} {
		err := Watch(t.Context(), conn, "test", "things", template)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", template, err, want)
		}
	}
	if err := Watch(t.Context(), conn, "test", "nosuch", "a:b"); err == nil || !strings.Contains(err.Error(), "watch table nosuch") {
		t.Errorf("an unknown table: %v", err)
	}
	if tables, err := Watched(t.Context(), conn); err != nil || len(tables) != 0 {
		t.Errorf("watched: %v, %v", tables, err)
	}
}

func TestWatchReplacesAndUnwatchEnds(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t, `CREATE SCHEMA s`, `CREATE TABLE s.things (id int PRIMARY KEY)`,
		`CREATE TABLE a_table_with_a_name_of_the_greatest_length_that_there_can_be_63 (id int)`))
	run(t, conn, Migration()) // once more does no harm
	for _, c := range []struct{ watch, want string }{
		{`SELECT cache_watch('test', 's.things', 'old:{id}')`, "old:1 old:1"},
		{`SELECT cache_watch('test', 's.things', 'new:{id} ON DELETE')`, "new:1"},
		{`SELECT cache_unwatch('test', 's.things')`, ""},
	} {
		run(t, conn, c.watch, `INSERT INTO s.things VALUES (1)`, `DELETE FROM s.things`)
		if got := strings.Join(taken(t, conn), " "); got != c.want {
			t.Errorf("after %s: recorded %q, want %q", c.watch, got, c.want)
		}
	}
	if n := ask[int](t, conn, `SELECT count(*) FROM pg_proc WHERE proname ~ '^cache_(tags|same|watch)_.*[0-9]$'`); n != 0 {
		t.Errorf("%d functions were left", n)
	}
	testservers.Must(t, Watch(t.Context(), conn, "test", "a_table_with_a_name_of_the_greatest_length_that_there_can_be_63", "long:{id}"))
	run(t, conn, `INSERT INTO a_table_with_a_name_of_the_greatest_length_that_there_can_be_63 VALUES (1)`)
	if got := taken(t, conn); !slices.Equal(got, []string{"long:1"}) {
		t.Errorf("recorded %v", got)
	}
	if tables, err := Watched(t.Context(), conn); err != nil || len(tables) != 1 {
		t.Errorf("watched: %v, %v", tables, err)
	}
}

// A long writer of the table is not waited for.
func TestWatchGivesUpOnALock(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	writer, conn := connect(t, url), connect(t, url)
	run(t, writer, `BEGIN`, `INSERT INTO items VALUES (11)`)
	err := Watch(t.Context(), conn, "test", "items", "other:{id}")
	if err == nil || !strings.Contains(err.Error(), "lock timeout") {
		t.Errorf("got %v, want a lock timeout", err)
	}
	run(t, writer, `COMMIT`)
	testservers.Must(t, Watch(t.Context(), conn, "test", "items", "other:{id}"))
	if got := ask[string](t, conn, `SHOW lock_timeout`); got != "0" {
		t.Errorf("lock_timeout was left at %s", got)
	}
}

func TestOnlyStrangersNotify(t *testing.T) {
	t.Parallel()
	url := database(t, items...)
	listener, conn := connect(t, url), connect(t, url)
	run(t, listener, `LISTEN cache_outbox`)
	run(t, conn, `BEGIN`, `SELECT set_config('cache.mark', repeat('ab', 16), true)`, `INSERT INTO items VALUES (11)`, `SELECT cache_record('a:b')`, `COMMIT`)
	run(t, conn, `BEGIN`, `INSERT INTO items VALUES (12)`, `INSERT INTO items VALUES (13)`, `SELECT cache_record('a:b')`, `COMMIT`)
	run(t, conn, `NOTIFY cache_outbox, 'the last'`)
	var heard []string
	for len(heard) == 0 || heard[len(heard)-1] != "the last" {
		n, err := listener.WaitForNotification(t.Context())
		testservers.Must(t, err)
		heard = append(heard, n.Payload)
	}
	if !slices.Equal(heard, []string{"", "the last"}) {
		t.Errorf("heard %q, want one notification of the transaction without a mark", heard)
	}
	if n := ask[int](t, conn, `SELECT count(*) FROM cache_outbox WHERE mark = decode(repeat('ab', 16), 'hex')`); n != 2 {
		t.Errorf("%d rows bear the mark, want 2", n)
	}
}

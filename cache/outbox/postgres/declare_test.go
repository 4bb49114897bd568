package postgres

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// record is a statement and the tags that it is to record, sorted.
type record struct{ statement, want string }

func records(t *testing.T, conn *pgx.Conn, want ...record) {
	t.Helper()
	for _, r := range want {
		run(t, conn, r.statement)
		if got := strings.Join(slices.Compact(taken(t, conn)), " "); got != r.want {
			t.Errorf("%s\nrecorded %q\n    want %q", r.statement, got, r.want)
		}
	}
}

func wellWatched(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	found, err := Check(t.Context(), conn)
	testservers.Must(t, err)
	for _, f := range found {
		t.Errorf("found: %v", f)
	}
}

// findings returns what Check finds, a line each.
func findings(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	found, err := Check(t.Context(), conn)
	testservers.Must(t, err)
	var lines []string
	for _, f := range found {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

// Two teams watch one table, and neither knows of the other.
func TestWatchesOfOneTableCoexist(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t, `CREATE TABLE things (id int PRIMARY KEY, name text)`))
	testservers.Must(t, Watch(t.Context(), conn, "shop", "things", "thing:{id}", "kept:{id} ON DELETE"))
	testservers.Must(t, Watch(t.Context(), conn, "search", "things", "page:{name}"))
	records(t, conn, record{`INSERT INTO things VALUES (1, 'a')`, "page:a thing:1"})
	testservers.Must(t, Watch(t.Context(), conn, "shop", "things", "new:{id}"))
	records(t, conn, record{`UPDATE things SET name = 'b'`, "new:1 page:a page:b"})
	watches, err := Watched(t.Context(), conn)
	testservers.Must(t, err)
	if len(watches) != 2 || watches[0].Watch != "search" || watches[0].Table != "things" || !slices.Equal(watches[1].Templates, []string{"new:{id}"}) {
		t.Errorf("watched: %+v", watches)
	}
	wellWatched(t, conn)
	testservers.Must(t, Unwatch(t.Context(), conn, "shop", "things"))
	testservers.Must(t, Unwatch(t.Context(), conn, "shop", "things"))
	records(t, conn, record{`DELETE FROM things`, "page:b"})
	testservers.Must(t, Unwatch(t.Context(), conn, "search", "things"))
	records(t, conn, record{`INSERT INTO things VALUES (1, 'a')`, ""})
	if n := ask[int](t, conn, `SELECT count(*) FROM pg_proc WHERE proname ~ '^cache_(tags|same|watch)_.*[0-9]$'`); n != 0 {
		t.Errorf("%d functions were left", n)
	}
	run(t, conn, `DROP TABLE things`)
	wellWatched(t, conn)
}

// A declaration that fails leaves the one before in force.
func TestFailedWatchChangesNothing(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t, items...))
	if err := Watch(t.Context(), conn, "test", "items", "other:{id}", "bad:{nosuch}"); err == nil {
		t.Error("it was accepted")
	}
	records(t, conn, record{`INSERT INTO items VALUES (7)`, "item:7"})
	wellWatched(t, conn)
}

// What no trigger can watch is refused, with what to do instead.
func TestOnlyTablesAreWatched(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t,
		`CREATE TABLE things (id int PRIMARY KEY)`, `CREATE VIEW v AS SELECT * FROM things`, `CREATE MATERIALIZED VIEW m AS SELECT * FROM things`,
		`CREATE EXTENSION postgres_fdw`, `CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw`, `CREATE FOREIGN TABLE f (id int) SERVER s`,
		`CREATE SEQUENCE seq`))
	run(t, conn, `CREATE TEMP TABLE tmp (id int)`)
	for table, want := range map[string]string{
		"v": "watch the tables that it reads", "m": "call cache_record", "f": "watch it there", "tmp": "temporary", "seq": "is no table", "cache_outbox": "outbox itself",
	} {
		if err := Watch(t.Context(), conn, "test", table, "v:1"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", table, err, want)
		}
	}
	for _, err := range []error{Watch(t.Context(), conn, "", "things", "v:1"), Watch(t.Context(), conn, "test", "things")} {
		if err == nil {
			t.Error("a watch without a name, or without templates, was accepted")
		}
	}
}

// A template may stand for many tags: a query gives one for each of its rows.
func TestQueriesGiveManyTags(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t,
		`CREATE TABLE courses (id int PRIMARY KEY, title text, labels text[])`,
		`CREATE TABLE enrollments (user_id int, course_id int REFERENCES courses)`,
		`SELECT cache_watch('test', 'courses',
			'learner:{SELECT user_id FROM enrollments WHERE course_id = courses.id} ON UPDATE',
			'pair:{ ( (SELECT user_id FROM enrollments WHERE course_id = courses.id) ) }:{id} ON UPDATE OF title',
			'with:{WITH e AS (SELECT * FROM enrollments) SELECT user_id FROM e WHERE course_id = courses.id AND '')'' <> ''(''} ON UPDATE',
			'sum:{(SELECT count(*) FROM enrollments WHERE course_id = courses.id) + (SELECT 0)} ON UPDATE',
			'label:{unnest(labels)}')`,
		`INSERT INTO courses VALUES (1, 'a', '{x,y}'), (2, 'b', NULL), (3, 'c', '{}')`,
		`INSERT INTO enrollments VALUES (10, 1), (11, 1), (12, 2), (NULL, 2)`,
		`DELETE FROM cache_outbox`))
	records(t, conn,
		record{`UPDATE courses SET title = 'z' WHERE id = 1`, "label:x label:y learner:10 learner:11 pair:10:1 pair:11:1 sum:2 with:10 with:11"},
		record{`UPDATE courses SET title = title WHERE id = 2`, "learner:12 sum:2 with:12"},
		record{`UPDATE courses SET labels = '{y,z}' WHERE id = 1`, "label:x label:y label:z learner:10 learner:11 sum:2 with:10 with:11"},
		record{`UPDATE courses SET title = 'z' WHERE id = 3`, "sum:0"},
		record{`DO 'BEGIN INSERT INTO enrollments SELECT i, 1 FROM generate_series(20, 2000) i; END'`, ""},
		record{`UPDATE courses SET title = 'y' WHERE id = 1`, "label:y label:z learner:* pair:* sum:1983 with:*"}, // of one row
	)
}

// An update that takes a row from one tag to another concerns both, whatever columns are listed.
func TestMovedRowsNeedNoList(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t,
		`CREATE TABLE lessons (id int PRIMARY KEY, "courseId" int, title text, doc text)`,
		`INSERT INTO lessons VALUES (1, 1, 'a', 'd'), (2, 2, 'b', 'd')`,
		`SELECT cache_watch('test', 'lessons', 'quoted:{"courseId"} ON UPDATE OF title', 'qualified:{lessons."courseId"} ON UPDATE OF title',
			'sum:{"courseId" + 100} ON UPDATE OF title, doc', 'all ON UPDATE OF doc')`))
	records(t, conn,
		record{`UPDATE lessons SET "courseId" = 3 WHERE id = 1`, "qualified:1 qualified:3 quoted:1 quoted:3 sum:101 sum:103"},
		record{`UPDATE lessons SET "courseId" = CASE id WHEN 1 THEN 2 ELSE 3 END`, "qualified:2 qualified:3 quoted:2 quoted:3 sum:102 sum:103"}, // they change places
		record{`UPDATE lessons SET title = title, doc = doc`, ""},
		record{`UPDATE lessons SET title = NULL WHERE id = 2`, "qualified:3 quoted:3 sum:103"},
		record{`UPDATE lessons SET doc = repeat('long', 100000) WHERE id = 2`, "all sum:103"},
		record{`UPDATE lessons SET id = 9 WHERE id = 2`, "all qualified:3 quoted:3 sum:103"},
	)
}

// The family of a tag follows from its kind alone, whatever its values hold.
func TestFamiliesFollowFromTheKind(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t, `CREATE TABLE v (code text, n int)`,
		`SELECT cache_watch('test', 'v', 'item:{code}:x', 'mid:{n}:{code}', 'fixed:a:b')`))
	records(t, conn,
		record{`INSERT INTO v VALUES ('urn:isbn:1', 1)`, "fixed:a:b item:urn%3Aisbn%3A1:x mid:1:urn%3Aisbn%3A1"},
		record{`TRUNCATE v`, "fixed:a:b item:* mid:*"},
		record{`INSERT INTO v SELECT 'c:' || i, i FROM generate_series(1, 3000) i`, "fixed:a:b item:* mid:*"},
	)
}

// Names that would be one if they were joined, and names that mean something to SQL or to format.
func TestNamesOfTables(t *testing.T) {
	t.Parallel()
	tables := []string{`public.sales_orders`, `sales.orders`, `"100% Odd"`, `"We""ird"."Sch.ema"`, `"cache_row"`, `"Übung"`, `public."select"`, `sales."new_rows"`}
	conn := connect(t, database(t, `CREATE SCHEMA sales`, `CREATE SCHEMA "We""ird"`))
	for i, table := range tables {
		n := string(rune('a' + i))
		run(t, conn, `CREATE TABLE `+table+` ("the %id" int PRIMARY KEY, v int)`)
		testservers.Must(t, Watch(t.Context(), conn, "test", table, n+`:{"the %id"}`, n+`x:{v} ON UPDATE OF "the %id"`, n+"all ON DELETE"))
	}
	wellWatched(t, conn)
	for i, table := range tables {
		n := string(rune('a' + i))
		records(t, conn,
			record{`INSERT INTO ` + table + ` VALUES (1, 2)`, n + ":1"},
			record{`UPDATE ` + table + ` SET v = 3`, strings.Join([]string{n + ":1", n + "x:2", n + "x:3"}, " ")},
			record{`TRUNCATE ` + table, n + ":* " + n + "all"},
		)
	}
}

// PostgreSQL knows what a watch uses: names may change, and what would break it is refused.
func TestWatchedTablesMayBeAltered(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t,
		`CREATE SCHEMA other`,
		`CREATE TABLE dropped (junk int, id int PRIMARY KEY, owner int, title text, unused text, doubled int GENERATED ALWAYS AS (owner * 2) STORED)`,
		`ALTER TABLE dropped DROP COLUMN junk`,
		`ALTER TABLE dropped RENAME TO things`,
		`SELECT cache_watch('test', 'things', 'thing:{id}', 'owner:{things.owner} ON UPDATE OF title', 'double:{doubled} ON INSERT', 'whole:{to_jsonb(things)->>''unused''} ON INSERT')`,
		`SELECT cache_watch('other', 'things', 'other:{(SELECT max(id) FROM things AS t WHERE t.owner = things.owner)} ON DELETE')`))
	records(t, conn, record{`INSERT INTO things VALUES (1, 2, 'a', 'x')`, "double:4 thing:1 whole:x"})
	for _, statement := range []string{
		`ALTER TABLE things DROP COLUMN owner`, `ALTER TABLE things ALTER COLUMN id TYPE bigint`, `DROP TABLE things`,
	} {
		if _, err := conn.Exec(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "depend") && !strings.Contains(err.Error(), "used by a function") {
			t.Errorf("%s: got %v, want it refused", statement, err)
		}
	}
	run(t, conn, `ALTER TABLE things RENAME COLUMN owner TO "The Owner"`, `ALTER TABLE things RENAME TO renamed`, `ALTER TABLE renamed ADD COLUMN added int DEFAULT 5`,
		`ALTER TABLE renamed SET SCHEMA other`)
	for range 2 {
		records(t, conn,
			record{`INSERT INTO other.renamed VALUES (2, 3, 'a', 'y')`, "double:6 thing:2 whole:y"},
			record{`UPDATE other.renamed SET title = 'b' WHERE id = 2`, "owner:3 thing:2"},
			record{`DELETE FROM other.renamed WHERE id = 2`, "thing:2"},
		)
		conn = connect(t, conn.Config().ConnString()) // plans are made again
	}
	wellWatched(t, conn)
	run(t, conn, `BEGIN`, `SELECT cache_unwatch('test', 'other.renamed')`, `SELECT cache_unwatch('other', 'other.renamed')`,
		`ALTER TABLE other.renamed ALTER COLUMN id TYPE bigint`, `SELECT cache_watch('test', 'other.renamed', 'thing:{id}')`, `COMMIT`)
	records(t, conn, record{`INSERT INTO other.renamed VALUES (30000000000, 3)`, "thing:30000000000"})
}

// A partition with its columns in another order, deeper ones, and what becomes of them.
func TestPartitionsAndChildren(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t,
		`CREATE TABLE events (id int, kind text, v int, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind)`,
		`CREATE TABLE events_a PARTITION OF events FOR VALUES IN ('a') PARTITION BY RANGE (id)`,
		`CREATE TABLE events_a1 PARTITION OF events_a FOR VALUES FROM (0) TO (100)`,
		`CREATE TABLE events_b (junk int, kind text NOT NULL, v int, id int NOT NULL)`,
		`ALTER TABLE events_b DROP COLUMN junk`,
		`ALTER TABLE events ATTACH PARTITION events_b FOR VALUES IN ('b')`,
		`CREATE TABLE parent (id int PRIMARY KEY, v int)`,
		`CREATE TABLE "Child %" (extra text) INHERITS (parent)`,
		`SELECT cache_watch('test', 'events', 'event:{kind}:{id}', 'v:{v} ON UPDATE OF kind')`,
		`SELECT cache_watch('test', 'events_b', 'b:{id}')`,
		`SELECT cache_watch('test', 'parent', 'p:{id}', 'pv:{v} ON UPDATE OF v', 'parents')`,
		`SELECT cache_watch('test', '"Child %"', 'extra:{extra}')`,
	))
	wellWatched(t, conn)
	records(t, conn,
		record{`INSERT INTO events VALUES (1, 'a', 5), (2, 'b', 6)`, `event:a:1 event:b:2`},
		record{`INSERT INTO events_a1 VALUES (3, 'a', 7)`, `event:a:3`},
		record{`INSERT INTO events_a VALUES (4, 'a', 7)`, `event:a:4`},
		record{`INSERT INTO events_b (id, kind, v) VALUES (5, 'b', 8)`, `b:5 event:b:5`},
		record{`UPDATE events_b SET v = 9 WHERE id = 5`, `b:5 event:b:5 v:8 v:9`},
		record{`UPDATE events SET kind = 'b' WHERE id = 1`, `event:a:1 event:b:1 v:5`},
		record{`DELETE FROM events_a1 WHERE id = 3`, `event:a:3`},
		record{`TRUNCATE events_b`, `b:* event:*`},
		record{`INSERT INTO "Child %" VALUES (1, 2, 'x y')`, `extra:x%20y p:1 parents`},
		record{`UPDATE parent SET v = 3`, `p:1 parents pv:2 pv:3`},
		record{`UPDATE "Child %" SET v = 4`, `extra:x%20y p:1 parents pv:3 pv:4`},
	)
	// Renamed, detached, attached elsewhere: no write fails, and what is to be seen is.
	run(t, conn, `ALTER TABLE events_b RENAME TO events_c`, `ALTER TABLE events RENAME COLUMN v TO value`, `ALTER TABLE "Child %" RENAME TO child`)
	records(t, conn,
		record{`INSERT INTO events_c (id, kind, value) VALUES (6, 'b', 8)`, `b:6 event:b:6`},
		record{`DELETE FROM child`, `extra:x%20y p:1 parents`})
	if got := findings(t, conn); !strings.Contains(got, "events_c") || !strings.Contains(got, "out of date") {
		t.Errorf("found %q", got)
	}
	run(t, conn, `ALTER TABLE events DETACH PARTITION events_c`, `ALTER TABLE child NO INHERIT parent`)
	records(t, conn,
		record{`INSERT INTO events_c (id, kind, value) VALUES (7, 'b', 8)`, `b:7`},
		record{`INSERT INTO child VALUES (1, 2, 'x')`, `extra:x`},
		record{`DROP TABLE events_a1`, ``})
	run(t, conn, `SELECT cache_watch('test', 'events_c', 'c:{id}')`, `SELECT cache_watch('test', 'child', 'extra:{extra}')`)
	wellWatched(t, conn)
}

func TestCheckFindsWhatIsMissing(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t,
		`CREATE TABLE things (id int PRIMARY KEY)`,
		`CREATE TABLE events (id int) PARTITION BY RANGE (id)`,
		`CREATE TABLE kept (id int)`,
		`SELECT cache_watch('shop', 'things', 'thing:{id}', 'things ON INSERT')`,
		`SELECT cache_watch('shop', 'events', 'event:{id}')`,
		`SELECT cache_watch('shop', 'kept', 'kept:{id}')`))
	wellWatched(t, conn)
	for _, c := range []struct {
		name, harm string
		want       []string
		mend       string // or what the remedy says
	}{
		{"a disabled trigger", `ALTER TABLE things DISABLE TRIGGER cache_watch_update`, []string{"things (watch shop)", "UPDATE is disabled"}, `ALTER TABLE things ENABLE ALWAYS TRIGGER cache_watch_update`},
		{"all triggers disabled and enabled", `ALTER TABLE things DISABLE TRIGGER ALL; ALTER TABLE things ENABLE TRIGGER ALL`, []string{"INSERT is not enabled always"}, `SELECT cache_watch('shop', 'things', 'thing:{id}', 'things ON INSERT')`},
		{"a trigger that is gone", `DROP TRIGGER cache_watch_delete ON things`, []string{"no trigger records what DELETE touches"}, `SELECT cache_watch('shop', 'things', 'thing:{id}', 'things ON INSERT')`},
		{"a partition attached later", `CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (9)`, []string{"events_1 (watch shop)", "attached after the table was watched"}, `SELECT cache_watch('shop', 'events', 'event:{id}')`},
		{"a partition swapped", `ALTER TABLE events DETACH PARTITION events_1; ALTER TABLE events_1 RENAME TO events_old; CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (9)`,
			[]string{"events_1 (watch shop)", "events_old: it has triggers of a watch that is not declared"}, `SELECT cache_watch('shop', 'events', 'event:{id}'), cache_unwatch('', 'events_old')`},
		{"a table swapped", `ALTER TABLE kept RENAME TO kept_old; CREATE TABLE kept (LIKE kept_old)`, []string{"public.kept (watch shop)", "another table has this name now", "kept_old"},
			`SELECT cache_watch('shop', 'kept', 'kept:{id}'), cache_unwatch('shop', 'kept_old')`},
		{"a table dropped", `DROP TABLE kept CASCADE`, []string{"public.kept (watch shop)", "is gone"}, ""},
	} {
		run(t, conn, c.harm)
		got := findings(t, conn)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: found %q, want %q", c.name, got, want)
			}
		}
		if c.mend == "" {
			_, c.mend, _ = strings.Cut(got, "end the watch: ")
		}
		run(t, conn, c.mend)
		if got := findings(t, conn); got != "" {
			t.Errorf("%s: after %s: %s", c.name, c.mend, got)
		}
	}
	run(t, conn, `CREATE OR REPLACE FUNCTION cache_version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 999'`)
	if got := findings(t, conn); !strings.Contains(got, "later release") {
		t.Errorf("found %q", got)
	}
	if got := findings(t, connect(t, testservers.SharedPostgres(t).Database(t))); !strings.Contains(got, "apply Migration()") {
		t.Errorf("found %q", got)
	}
}

// The outbox of the release before is brought up to date in place: what it watches stays watched
// until it is declared again, and Check says so.
func TestUpgradeInPlace(t *testing.T) {
	t.Parallel()
	old, err := os.ReadFile("testdata/outbox-1.sql")
	testservers.Must(t, err)
	conn := connect(t, testservers.SharedPostgres(t).Database(t))
	run(t, conn, string(old), `CREATE SCHEMA sales`, `CREATE TABLE sales_orders (id int PRIMARY KEY)`, `CREATE TABLE sales.orders (id int PRIMARY KEY)`,
		`CREATE TABLE events (id int) PARTITION BY RANGE (id)`, `CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (9)`,
		`SELECT cache_watch('sales_orders', 'a:{id}')`, `SELECT cache_watch('events', 'e:{id}')`)
	if got := findings(t, conn); !strings.Contains(got, "earlier release") {
		t.Errorf("found %q", got)
	}
	run(t, conn, Migration(), Migration())
	records(t, conn, record{`INSERT INTO sales_orders VALUES (1)`, "a:1"}, record{`INSERT INTO events_1 VALUES (1)`, "e:1"})
	if got := findings(t, conn); strings.Count(got, "a watch that is not declared") != 3 {
		t.Errorf("found %q", got)
	}
	run(t, conn, `SELECT cache_watch('test', 'sales_orders', 'a:{id}')`, `SELECT cache_watch('test', 'sales.orders', 'b:{id}')`, `SELECT cache_watch('test', 'events', 'f:{id} ON INSERT')`)
	records(t, conn, record{`INSERT INTO sales_orders VALUES (2)`, "a:2"}, record{`INSERT INTO sales.orders VALUES (2)`, "b:2"},
		record{`INSERT INTO events_1 VALUES (2)`, "f:2"}, record{`DELETE FROM events_1`, ""})
	wellWatched(t, conn)
	if n := ask[int](t, conn, `SELECT count(*) FROM pg_proc WHERE proname IN ('cache_watch_event', 'cache_watch_delete_events') OR prosrc LIKE '%left(tag, length(tag)%'`); n != 0 {
		t.Errorf("%d functions of the release before were left", n)
	}
}

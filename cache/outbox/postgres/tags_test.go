package postgres

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// unsettle gives a session settings that change how PostgreSQL spells values.
func unsettle(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	for setting, values := range map[string][]string{
		"DateStyle":          {"ISO, DMY", "German", "SQL, MDY", "Postgres, DMY"},
		"TimeZone":           {"UTC", "Asia/Kathmandu", "America/New_York", "Pacific/Apia"},
		"bytea_output":       {"hex", "escape"},
		"extra_float_digits": {"-15", "0", "3"},
		"IntervalStyle":      {"iso_8601", "sql_standard", "postgres_verbose"},
		"search_path":        {"public", "pg_catalog, public", "public, information_schema"},
		"enable_hashagg":     {"on", "off"},
		"enable_hashjoin":    {"on", "off"},
	} {
		value := values[rand.N(len(values))]
		run(t, conn, fmt.Sprintf(`SET %s = %s`, setting, quoteSetting(setting, value)))
	}
	run(t, conn, `SET lc_monetary = 'C'`)
}

func quoteSetting(setting, value string) string {
	if setting == "search_path" {
		return value
	}
	return "'" + value + "'"
}

// A value has one tag: the one that a reader makes with cache.T of what the driver hands it, and
// the one that the triggers record, whatever the settings of the session that writes.
func TestATagIsSpelledAlikeOnBothSides(t *testing.T) {
	t.Parallel()
	url := database(t, `CREATE TYPE mood AS ENUM ('so so', 'fine')`, `CREATE DOMAIN slug AS text`, `CREATE DOMAIN slugger AS slug`)
	reader := connect(t, url)
	for i, c := range []struct {
		typ    string
		values []string // as literals
		date   bool     // spelled by cache.Date
	}{
		{typ: "smallint", values: []string{"0", "-7"}},
		{typ: "integer", values: []string{"2147483647"}},
		{typ: "bigint", values: []string{"-9223372036854775808"}},
		{typ: "text", values: []string{`''`, `'red wine'`, `E'tab\there'`, `E'line\nbreak'`, `E'\x7f'`, `E'\u0085'`, `'urn:isbn:1'`, `'100%'`, `'%41'`, `'*'`, `'#'`, `'é日本'`, `'{}'`,
			`'-._~@+=,/'`, `repeat('x', 196)`, `repeat('x', 197)`, `repeat(' ', 70)`, `repeat('é', 4000)`}},
		{typ: "varchar(20)", values: []string{`'a b'`, `'ends in blanks  '`}},
		{typ: "name", values: []string{`'a b'`}},
		{typ: "mood", values: []string{`'so so'`, `'fine'`}},
		{typ: "slugger", values: []string{`'a b'`}},
		{typ: "uuid", values: []string{`'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'`}},
		{typ: "boolean", values: []string{"true", "false"}},
		{typ: "bytea", values: []string{`'\xdeadbeef00'`, `''`}},
		{typ: "date", values: []string{`'2026-02-01'`, `'0001-01-01'`, `'12345-06-07'`, `'0044-03-15 BC'`, `'0001-12-31 BC'`}, date: true},
		{typ: "timestamptz", values: []string{`'2026-02-01 03:04:05.678901+05:45'`, `'1883-11-18 12:00:00Z'`, `'2026-11-01 05:30:00Z'`, `'2026-11-01 06:30:00Z'`, `'0044-03-15 12:00:00Z BC'`}},
		{typ: "timestamp", values: []string{`'2026-02-01 03:04:05'`, `'2026-02-01 03:04:05.1'`, `'20260-02-01'`}},
	} {
		table := fmt.Sprint("t", i)
		owner := connect(t, url)
		unsettle(t, owner) // also where it is declared
		run(t, owner, fmt.Sprintf(`CREATE TABLE public.%s (v %s, n int DEFAULT 7)`, table, c.typ),
			fmt.Sprintf(`SELECT public.cache_watch('test', 'public.%s', 'one:{v}', 'two:{n}:{v}:lit', 'mix:a{v}=b')`, table))
		_ = owner.Close(t.Context())
		for range 3 {
			writer := connect(t, url)
			unsettle(t, writer)
			for _, value := range c.values {
				run(t, writer, fmt.Sprintf(`INSERT INTO public.%s VALUES (%s)`, table, value))
			}
			_ = writer.Close(t.Context())
			got := taken(t, reader)
			rows, err := reader.Query(t.Context(), `DELETE FROM `+table+` RETURNING v`)
			testservers.Must(t, err)
			values, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (any, error) {
				values, err := r.Values()
				return values[0], err
			})
			testservers.Must(t, err)
			_ = taken(t, reader)
			var want []string
			for _, v := range values {
				if u, ok := v.([16]byte); ok {
					v = fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:]) // as the types for it say
				}
				if c.date {
					v = cache.Date(v.(time.Time))
				}
				text, ok := v.(string)
				want = append(want, string(cache.T("one", v)), string(cache.T("two", 7, v, "lit")))
				if ok {
					want = append(want, string(cache.T("mix", "a"+text+"=b")))
				}
			}
			slices.Sort(want)
			if _, ok := values[0].(string); !ok || c.date {
				got = slices.DeleteFunc(got, func(tag string) bool { return strings.HasPrefix(tag, "mix:") })
				want = slices.DeleteFunc(want, func(tag string) bool { return strings.HasPrefix(tag, "mix:") })
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: recorded %q,\n want %q", c.typ, got, want)
			}
			for _, tag := range got {
				if err := cache.Tag(tag).Check(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// What no driver value shows: infinity, and numbers that are written in several ways.
func TestTagsOfUnusualValues(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t,
		`CREATE TABLE v (a numeric, b date, c timestamptz, d timestamp)`,
		`SELECT cache_watch('test', 'v', 'a:{a}', 'b:{b}', 'c:{c}', 'd:{d}')`))
	unsettle(t, conn)
	for _, c := range []struct{ values, want string }{
		{`1.50, NULL, NULL, NULL`, "a:1.5"}, {`100, NULL, NULL, NULL`, "a:100"}, {`'NaN', NULL, NULL, NULL`, "a:NaN"}, {`-0.0, NULL, NULL, NULL`, "a:0"},
		{`NULL, 'infinity', 'infinity', '-infinity'`, "b:infinity c:infinity d:-infinity"},
	} {
		run(t, conn, `INSERT INTO public.v VALUES (`+c.values+`)`)
		if got := strings.Join(taken(t, conn), " "); got != c.want {
			t.Errorf("%s: recorded %q, want %q", c.values, got, c.want)
		}
	}
}

// A type that has no one text is refused where the watch is declared, with what to do.
func TestTypesWithoutOneTextAreRefused(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t,
		`CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`,
		`CREATE DOMAIN code AS char(4)`, `CREATE TYPE pair AS (a int, b int)`,
		`CREATE TABLE v (f4 real, f8 float8, m money, i interval, j json, jb jsonb, x xml, c char(4), dc code, a int[], p pair, r int4range, ip inet, t time, ci text COLLATE anycase, id int)`))
	for column, remedy := range map[string]string{
		"f4": "numeric", "f8": "numeric", "m": "numeric", "i": "epoch", "j": "->>", "jb": "->>", "x": "->>", "c": "::text", "dc": "::text",
		"a": "unnest", "p": ".field", "r": "lower", "ip": "::text", "t": "::text", "ci": "COLLATE", "id::float8": "numeric",
	} {
		template := "v:{" + column + "}"
		err := Watch(t.Context(), conn, "test", "v", template)
		if err == nil || !strings.Contains(err.Error(), "no one text for a tag") || !strings.Contains(err.Error(), remedy) || !strings.Contains(err.Error(), template) {
			t.Errorf("%s: got %v, want it refused, with %q", column, err, remedy)
		}
	}
	// What the remedies say works.
	testservers.Must(t, Watch(t.Context(), conn, "test", "v", "a:{round(f8::numeric, 2)}", "b:{extract(epoch FROM i)::bigint}", "c:{jb->>'id'}", "d:{c::text}",
		"e:{SELECT unnest(a)}", "f:{(p).a}", "g:{lower(r)}", "h:{ip::text}", `i:{lower(ci) COLLATE "C"}`, "j:{unnest(a)}"))
	unsettle(t, conn)
	run(t, conn, `INSERT INTO public.v (f8, i, jb, c, a, p, r, ip, ci) VALUES (1.005e2, interval '1 hour', '{"id": "x y"}', 'ab', '{1,2,NULL}', (3,4), '[5,6)', '::1', 'ABC')`)
	if got, want := strings.Join(taken(t, conn), " "), "a:100.5 b:3600 c:x%20y d:ab e:1 e:2 f:3 g:5 h:%3A%3A1%2F128 i:abc j:1 j:2"; got != strings.ReplaceAll(want, "%2F", "/") {
		t.Errorf("recorded %q", got)
	}
}

// An expression means the same in every session, too.
func TestExpressionsDoNotDependOnTheSession(t *testing.T) {
	t.Parallel()
	url := database(t, `CREATE TABLE v (id int PRIMARY KEY, at timestamptz, f float8)`,
		`SELECT cache_watch('test', 'v', 'day:{at::date::text}', 'at:{at::text}', 'f:{f::text}', 'same:{id} ON UPDATE OF f, at')`)
	var first []string
	for range 5 {
		conn := connect(t, url)
		unsettle(t, conn)
		run(t, conn, `INSERT INTO public.v VALUES (1, '2026-11-01 23:30:00Z', 0.1)`, `UPDATE public.v SET f = 0.1::float8 + 1e-17 + 2.8e-17`, `DELETE FROM public.v`)
		got := slices.Compact(taken(t, conn))
		if first == nil {
			first = got
		}
		if !slices.Equal(got, first) || !slices.Contains(got, "day:2026-11-01") || !slices.Contains(got, "same:1") {
			t.Errorf("recorded %q, before %q", got, first)
		}
	}
}

// FuzzTag compares the SQL functions with the package that defines tags.
func FuzzTag(f *testing.F) {
	for _, s := range []string{"", "a", "a b", "product:7", "product:*", "*", "a:%", "a:%41", "a:%2A", "a:#" + strings.Repeat("0", 64), "a::b", "a:", "é", "%", "a:b:%:c", strings.Repeat("x", 201), "a:%2:", "a:%zz"} {
		f.Add(s)
	}
	conn := connect(f, database(f))
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) || strings.Contains(s, "\x00") {
			t.Skip("no text of the database")
		}
		if got, want := ask[string](t, conn, `SELECT cache_escape($1)`, s), string(driver.EscapePart(nil, s)); got != want {
			t.Errorf("%q is escaped as %q, want %q", s, got, want)
		}
		want := string(cache.T("kind", s, "x"))
		if len(s) > 8192 {
			want = "kind:*"
		}
		if got := ask[string](t, conn, `SELECT cache_tag('kind', $1, 'x')`, s); got != want {
			t.Errorf("%q is in the tag %q, want %q", s, got, want)
		}
		problem := ask[*string](t, conn, `SELECT cache_check_tag($1)`, s)
		if err := cache.Tag(s).Check(); (err == nil) != (problem == nil) {
			t.Errorf("%q: %v; in SQL %v", s, err, problem)
		}
	})
}

func TestRecordRefusesWhatIsNoTag(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t))
	for _, tag := range []cache.Tag{"page:a\tb", "page:a b", "page:", "", "page:*x", "page:\u0085"} {
		if err := Record(t.Context(), conn, "fine:1", tag); err == nil || !strings.Contains(err.Error(), "is no tag") {
			t.Errorf("%q: got %v, want an error", tag, err)
		}
	}
	if got := taken(t, conn); len(got) != 0 {
		t.Errorf("recorded %q", got)
	}
	testservers.Must(t, Record(t.Context(), conn, cache.T("page", "a\tb"), cache.Everything, cache.T("page").Family()))
	if got := strings.Join(taken(t, conn), " "); got != "* page:* page:a%09b" {
		t.Errorf("recorded %q", got)
	}
}

// A row with a value of megabytes is delivered like any other, and seen: beyond 8 KiB its family is.
func TestHugeValues(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t, `CREATE TABLE v (t text)`, `SELECT cache_watch('test', 'v', 'v:{t}', 'w:1:{t}')`))
	began := time.Now()
	run(t, conn, `INSERT INTO v VALUES (repeat('é x', 4000000))`)
	if got := strings.Join(taken(t, conn), " "); got != "v:* w:*" {
		t.Errorf("recorded %.100q", got)
	}
	t.Logf("took %v", time.Since(began))
}

// A session in which a backslash escapes in every literal spells tags alike, and declares watches
// alike: nothing in the functions may hang on it. Each session reads their texts for itself.
func TestTagsInASessionWithoutStandardStrings(t *testing.T) {
	t.Parallel()
	conn := connect(t, database(t))
	run(t, conn, `SET escape_string_warning = off`, `SET standard_conforming_strings = off`,
		`CREATE TABLE pages (slug text, n int)`,
		`SELECT cache_watch('test', 'pages', 'page:{slug}', 'upper:{upper(slug)} ON UPDATE OF n OR DELETE')`)
	for _, slug := range []string{"red wine", "a:b", "é", strings.Repeat("long ", 100)} {
		if got := ask[string](t, conn, `SELECT cache_tag('page', $1)`, slug); got != string(cache.T("page", slug)) {
			t.Errorf("%.20q: cache_tag gives %q, want %q", slug, got, cache.T("page", slug))
		}
		_, err := conn.Exec(t.Context(), `INSERT INTO pages VALUES ($1, 1)`, slug)
		testservers.Must(t, err)
		if got := taken(t, conn); !slices.Equal(got, []string{string(cache.T("page", slug))}) {
			t.Errorf("%.20q: recorded %q", slug, got)
		}
	}
}

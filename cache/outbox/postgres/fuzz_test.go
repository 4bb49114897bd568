package postgres

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/chainlearn/chainlearn/cache"
)

// The grammar of a template without expressions of its own, but for {id}; see outbox.sql of package pgschema.
// White space is what PostgreSQL takes for it.
var (
	templateShape = regexp.MustCompile(`^[\s\v]*([A-Za-z0-9._-]{1,64})((?::(?:\{id\}|[-A-Za-z0-9._~@+=,/])+)*)[\s\v]*$`)
	hasEvents     = regexp.MustCompile(`(?i)[\s\v]on[\s\v]`)
	asciiOnly     = regexp.MustCompile(`^[\x01-\x7f]*$`)
)

// FuzzTemplate watches a table by hostile templates. A mistake fails at once, and says which
// template it was; what is accepted records, for each row, the tag that the template spells,
// whatever the characters in it mean to SQL. In either case the table can be written.
func FuzzTemplate(f *testing.F) {
	for _, s := range [][2]string{
		{"kind:", ":x"}, {"kind:a", "b:c"}, {"a.b-c_d:~@+=,/", ""},
		{"thing:", ""}, {"", ":rest"}, {"a:b:", "c"}, {"thing", ""}, {"it's:", "'"}, {`back\slash:`, `\`}, {"$1:", "$$"}, {"%s:", "%I%L%%"},
		{`"q":`, `"`}, {"a--b:", "/*"}, {"a b:", ""}, {"x:", " ON INSERT"}, {"x:", " ON NONSENSE"}, {" x:", "  "}, {"x:{", "}"}, {"x:", "{"},
		{"é:", "日本"}, {"x:\x00", ""}, {"\xff:", ""}, {strings.Repeat("long", 2000) + ":", ""}, {":", ""}, {"::", ""}, {"x:;", ";drop"}, {"\n:", "\t"},
	} {
		f.Add(s[0], s[1])
	}
	conn := connect(f, database(f, `CREATE TABLE things (id int PRIMARY KEY)`))
	f.Fuzz(func(t *testing.T, before, after string) {
		template := before + "{id}" + after
		if strings.ContainsAny(before+after, "{}") && strings.ContainsAny(before+after, "()") || hasEvents.MatchString(template) {
			// What stands in braces or after ON is SQL, and the fuzz test could run anything.
			t.Skip("not for this database")
		}
		run(t, conn, `TRUNCATE things`, `SELECT cache_unwatch('test', 'things')`, `DELETE FROM cache_outbox`)
		err := Watch(t.Context(), conn, "test", "things", template)
		run(t, conn, `INSERT INTO things VALUES (7)`, `UPDATE things SET id = 8`, `DELETE FROM things`)
		got := slices.Compact(taken(t, conn))
		if err != nil {
			if len(got) > 0 {
				t.Errorf("%q was refused, and recorded %q: %v", template, got, err)
			}
			if utf8.ValidString(template) && !strings.ContainsAny(before+after, "\x00{}") && !strings.Contains(err.Error(), "cache_watch") {
				t.Errorf("%q was refused with %v", template, err)
			}
			return
		}
		if !asciiOnly.MatchString(template) {
			return // what is white space depends on the locale
		}
		parts := templateShape.FindStringSubmatch(template)
		if parts == nil {
			t.Fatalf("%q was accepted, and recorded %q", template, got)
		}
		tag := func(id string) string {
			var values []any
			for _, part := range strings.Split(parts[2], ":")[1:] {
				values = append(values, strings.ReplaceAll(part, "{id}", id))
			}
			return string(cache.T(parts[1], values...))
		}
		want := []string{tag("7"), tag("8")}
		slices.Sort(want)
		if !slices.Equal(got, slices.Compact(want)) {
			t.Errorf("%q recorded %q, want %q", template, got, want)
		}
	})
}

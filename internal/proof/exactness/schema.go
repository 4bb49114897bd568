package exactness

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// columnType is a type that rows are found by.
type columnType struct {
	sql    string
	setup  string  // what must exist before
	values []value // distinct, with some that are hard to spell
	refuse bool    // Watch must refuse it: its values have no canonical text
}

// value is one value of a column, as SQL has it and as Go has it.
type value struct {
	literal string // for a session with the default settings, cast to the type
	go_     any    // what a program passes to T and to the driver
}

func texts() []value {
	var vs []value
	for _, s := range []string{
		"plain", "", "red wine", "a:b", "*", "%", "%41", "tab\there", "line\nfeed", "del\x7f", "next\u0085line",
		"é€😀", "'quoted' \"twice\"", "back\\slash", "{brace}", "[a-z]?", "#hash", "!bang", strings.Repeat("long ", 100), strings.Repeat("longer", 100),
	} {
		vs = append(vs, value{quote(s), s})
	}
	return vs
}

func quote(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\t", `\t`).Replace(s) + "'"
}

func integers(most int64) []value {
	var vs []value
	for _, n := range []int64{0, 1, -1, 7, 10, 100, most, -most} {
		vs = append(vs, value{fmt.Sprintf("'%d'", n), n})
	}
	return vs
}

func instants(zone bool) []value {
	var vs []value
	for _, s := range []string{
		"2026-03-01T00:30:00Z", "2026-03-29T01:30:00.000001Z", "1999-12-31T23:59:59.999999Z", "2026-01-02T03:04:05.1Z", "0044-03-15T12:00:00Z",
	} {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			panic(err)
		}
		literal := "'" + s + "'"
		if !zone {
			literal = "'" + strings.TrimSuffix(s, "Z") + "'"
		}
		vs = append(vs, value{literal, t})
	}
	return vs
}

func dates() []value {
	var vs []value
	for _, s := range []string{"2026-03-01", "2026-01-03", "2026-03-29", "1999-12-31", "0044-03-15"} {
		vs = append(vs, value{"'" + s + "'", s}) // as cache.Date gives it
	}
	return vs
}

func blobs() []value {
	var vs []value
	for _, b := range [][]byte{{}, {0}, {0xde, 0xad}, []byte("abc\\"), {0xff, 0, 0x25}} {
		vs = append(vs, value{`'\x` + hex.EncodeToString(b) + `'`, b})
	}
	return vs
}

func strs(list ...string) []value {
	var vs []value
	for _, s := range list {
		vs = append(vs, value{"'" + s + "'", s})
	}
	return vs
}

var columnTypes = []columnType{
	{sql: "text", values: texts()},
	{sql: "varchar(1000)", values: texts()},
	{sql: "int", values: integers(1<<31 - 1)},
	{sql: "bigint", values: integers(1<<63 - 1)},
	{sql: "smallint", values: integers(1<<15 - 1)},
	{sql: "uuid", values: strs("00000000-0000-4000-8000-000000000001", "ffffffff-ffff-4fff-8fff-ffffffffffff", "0a0b0c0d-0000-4000-8000-00000000000a")},
	{sql: "boolean", values: []value{{"'true'", true}, {"'false'", false}}},
	{sql: "date", values: dates()},
	{sql: "timestamptz", values: instants(true)},
	{sql: "timestamp", values: instants(false)},
	{sql: "bytea", values: blobs()},
	{sql: "mood", setup: "CREATE TYPE mood AS ENUM ('sad', 'very happy', 'so:so')", values: strs("sad", "very happy", "so:so")},
	{sql: "slug", setup: "CREATE DOMAIN slug AS text", values: texts()},
	{sql: "char(8)", refuse: true, values: strs("a", "b")},
	{sql: "float8", refuse: true, values: strs("1.5", "0.1")},
	{sql: "interval", refuse: true, values: strs("1 day", "2 hours")},
	{sql: "money", refuse: true, values: strs("1.50", "2.00")},
	{sql: "jsonb", refuse: true, values: strs("1", "2")},
	{sql: "int[]", refuse: true, values: strs("{1}", "{2}")},
}

// table is one table of a schema, and what is asked of it.
type table struct {
	name        string // quoted where it has to be
	kind        string // of its tags
	key, group  columnType
	hasKey      bool
	partitions  int
	manyToMany  bool // has categories
	categories  string
	refused     bool
	expressions bool // the templates are expressions instead of columns
}

// draw draws a table.
func draw(r *rand.Rand, n int) *table {
	t := &table{
		name:        []string{"rows%d", `"Rows %d"`, `"100%%_%d"`, `other.rows%d`, `"order:%d"`}[r.IntN(5)],
		kind:        fmt.Sprintf("row%d", n),
		key:         columnTypes[r.IntN(len(columnTypes))],
		group:       columnTypes[r.IntN(len(columnTypes))],
		hasKey:      r.IntN(4) > 0,
		manyToMany:  r.IntN(2) == 0,
		categories:  fmt.Sprintf("categories%d", n),
		expressions: r.IntN(3) == 0,
	}
	t.name = fmt.Sprintf(t.name, n)
	if r.IntN(3) == 0 {
		t.partitions = 1 + r.IntN(3)
	}
	if t.key.sql == "money" || t.key.sql == "jsonb" || t.key.sql == "interval" || t.key.sql == "int[]" {
		t.hasKey, t.partitions = false, 0
	}
	t.refused = t.key.refuse || t.group.refuse
	return t
}

// create returns the statements that make the table.
func (t *table) create() []string {
	key := ""
	if t.hasKey {
		key = ", PRIMARY KEY (id)"
	}
	partition := ""
	if t.partitions > 0 {
		partition = " PARTITION BY HASH (id)"
	}
	statements := []string{
		fmt.Sprintf(`CREATE TABLE %s (v int NOT NULL, id %s NOT NULL, "group" %s%s)%s`, t.name, t.key.sql, t.group.sql, key, partition),
	}
	for i := range t.partitions {
		statements = append(statements, fmt.Sprintf(`CREATE TABLE %s PARTITION OF %s FOR VALUES WITH (MODULUS %d, REMAINDER %d)`,
			t.partition(i), t.name, t.partitions, i))
	}
	if t.manyToMany {
		statements = append(statements, fmt.Sprintf(`CREATE TABLE %s (id %s NOT NULL, category text NOT NULL)`, t.categories, t.key.sql))
	}
	return statements
}

func (t *table) partition(i int) string { return fmt.Sprintf("%s_part%d", t.kind, i) }

// templates returns what the table and its categories are watched with.
func (t *table) templates() (own, categories []string) {
	column, group := "{id}", `{"group"}`
	if t.expressions {
		column = "{CASE WHEN v IS NOT NULL THEN id END}"
	}
	own = []string{t.kind + ":" + column, t.kind + ".group:" + group}
	if t.manyToMany {
		own = append(own, fmt.Sprintf(`%s.category:{SELECT category FROM %s c WHERE c.id = %s.id}`, t.kind, t.categories, unqualified(t.name)))
		categories = []string{t.kind + ".category:{category}"}
	}
	return own, categories
}

func unqualified(name string) string { return strings.TrimPrefix(name, "other.") }

// categoryNames are as hard to spell as the rest.
var categoryNames = []string{"tea", "red wine", "a:b", "", "tab\there"}

// settings of a session that writes, none of which may change what is recorded.
var settings = map[string][]string{
	"DateStyle":                   {"ISO, MDY", "SQL, DMY", "German, DMY", "Postgres, MDY"},
	"TimeZone":                    {"UTC", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"},
	"bytea_output":                {"hex", "escape"},
	"extra_float_digits":          {"-15", "0", "3"},
	"IntervalStyle":               {"postgres", "iso_8601", "sql_standard", "postgres_verbose"},
	"lc_monetary":                 {"C", "C.UTF-8"},
	"search_path":                 {"public", "other, public", "pg_catalog, public"},
	"standard_conforming_strings": {"on", "off"},
	"backslash_quote":             {"off", "on"},
	"array_nulls":                 {"on", "off"},
	"transform_null_equals":       {"on", "off"},
	"session_replication_role":    {"origin", "replica"},
}

package sqltemplate_test

import (
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/cache/outbox/internal/sqltemplate"
)

var (
	sqlite  = sqltemplate.SQL{Strings: "'", Names: "\"`[", Blobs: true}
	mariaDB = sqltemplate.SQL{Strings: "'\"", Names: "`", Hash: true}
)

func TestTokens(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   sqltemplate.SQL
		sql  string
		want string // kinds, without spaces
	}{
		{"names and numbers", sqlite, "new.a1+.5 + 2.5e3", "w.w+0+0"},
		{"quoted names", sqlite, "\"a\"\"b\" `c` [d e]", "qqq"},
		{"double quotes are strings", mariaDB, "\"a\" `c`", "0q"},
		{"a quote in a string", sqlite, "'it''s' || x", "0||w"},
		{"a blob", sqlite, "x'00ff' x", "0w"},
		{"no blob", mariaDB, "x'00ff'", "w0"},
		{"comments", sqlite, "a -- b\n /* c */ d", "wccw"},
		{"a comment after #", mariaDB, "a # b\nd", "wcw"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := tt.in.Tokens(tt.sql)
			if err != nil {
				t.Fatal(err)
			}
			var kinds strings.Builder
			for _, token := range list {
				if token.Kind != sqltemplate.Space {
					kinds.WriteByte(token.Kind)
				}
			}
			if kinds.String() != tt.want {
				t.Errorf("the kinds of %s are %s, want %s", tt.sql, kinds.String(), tt.want)
			}
		})
	}
}

// Whatever is split is whole again when its tokens are put together, and what has no end is an
// error: half a string must not become a name.
func FuzzTokens(f *testing.F) {
	for _, s := range []string{"a.b = 'c''d'", "x'0", "\"a", "/* b", "1.5e3+$x", "-- \n#", "[a]]", "`a``b`", "é\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, in := range []sqltemplate.SQL{sqlite, mariaDB} {
			list, err := in.Tokens(s)
			if err != nil {
				continue
			}
			var b strings.Builder
			for _, token := range list {
				b.WriteString(token.Text)
			}
			if b.String() != s {
				t.Errorf("the tokens of %q are %q", s, b.String())
			}
			if once := in.Normal(s); in.Normal(once) != once {
				t.Errorf("%q is %q when it is normal, and then %q", s, once, in.Normal(once))
			}
		}
	})
}

package mysql_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox/mysql"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// FuzzTag compares the functions of the database with the package that defines tags.
func FuzzTag(f *testing.F) {
	for _, s := range []string{"", "a", "a b", "product:7", "product:*", "*", "* ", "a:%", "a:%41", "a:%2A", "a:#" + strings.Repeat("0", 64), "a::b", "a:", "é", "%", "a:b:%:c", strings.Repeat("x", 201), strings.Repeat("é", 600), "a:%2:", "a:%zz", "a\n", `\`, "\x00"} {
		f.Add(s)
	}
	server := testservers.SharedMariaDB(f)
	db := open(f, server, server.Database(f), 1, strange)
	if err := mysql.Apply(f.Context(), db); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) || len(s) > 10_000 {
			t.Skip("no text of the database")
		}
		var part, tag, hex string
		if err := db.QueryRowContext(t.Context(), `SELECT cache_part(`+literal(s)+`), cache_tag('kind', CONCAT(cache_part(`+literal(s)+`), ':x')), cache_tag('kind', cache_hex(`+literal(s)+`))`).Scan(&part, &tag, &hex); err != nil {
			t.Fatal(err)
		}
		wantPart, wantTag, wantHex := string(driver.EscapePart(nil, s)), cache.T("kind", s, "x"), cache.T("kind", []byte(s))
		if len(s) > 1024 {
			wantPart, wantTag, wantHex = "*", "kind:*", "kind:*"
		}
		if part != wantPart || tag != string(wantTag) || hex != string(wantHex) {
			t.Errorf("%q is %q, in the tags %q and %q, want %q, %q and %q", s, part, tag, hex, wantPart, wantTag, wantHex)
		}
		_, err := db.ExecContext(t.Context(), `CALL cache_record(`+literal(s)+`); DELETE FROM cache_outbox`)
		if wrong := cache.Tag(s).Check(); (err == nil) != (wrong == nil) {
			t.Errorf("%q: %v; in SQL %v", s, wrong, err)
		}
	})
}

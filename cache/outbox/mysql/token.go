package mysql

import (
	"strings"

	"github.com/chainlearn/chainlearn/cache/outbox/internal/sqltemplate"
)

type token = sqltemplate.Token

// language is how the server writes strings, names and comments in sqlMode: text between double
// quotes is a string, and no string has backslash escapes.
var language = sqltemplate.SQL{Strings: "'\"", Names: "`", Hash: true}

// ident quotes a name, and text a string, for sqlMode.
func ident(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

func text(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }

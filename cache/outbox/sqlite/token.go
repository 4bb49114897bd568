package sqlite

import (
	"strings"

	"github.com/chainlearn/chainlearn/cache/outbox/internal/sqltemplate"
)

type token = sqltemplate.Token

// language is how SQLite writes strings, names and comments.
var language = sqltemplate.SQL{Strings: "'", Names: "\"`[", Blobs: true}

// commas splits what is between the first parenthesis of list and the one that closes it, at
// the commas that are in no further parenthesis. rest is what follows.
func commas(list []token) (parts [][]token, rest []token) {
	depth, begin := 0, 0
	for i, t := range list {
		switch {
		case t.Kind == '(':
			if depth++; depth == 1 {
				begin = i + 1
			}
		case t.Kind == ')':
			if depth--; depth == 0 {
				return append(parts, list[begin:i]), append([]token{}, list[i+1:]...)
			}
		case t.Kind == ',' && depth == 1:
			parts, begin = append(parts, list[begin:i]), i+1
		}
	}
	return parts, nil
}

// ident quotes a name, and text a string.
func ident(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func text(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }

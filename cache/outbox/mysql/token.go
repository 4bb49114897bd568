package mysql

import (
	"fmt"
	"slices"
	"strings"
)

// token is a piece of SQL. The texts of all tokens, one after the other, are the SQL.
type token struct {
	kind byte   // one of the constants below, or the character of an operator
	text string // as written
	name string // of a name, without its quotes
	// spaced says that there was a space before it, of a token of withoutSpace.
	spaced bool
}

const (
	word    = 'w' // a name or a keyword, without quotes
	quoted  = 'q' // a name in quotes
	space   = ' '
	comment = 'c'
	value   = '0' // a number, a string
)

func (t token) isName() bool { return t.kind == word || t.kind == quoted }

// is says whether t is one of some keywords.
func (t token) is(keywords ...string) bool {
	return t.kind == word && slices.ContainsFunc(keywords, func(k string) bool { return strings.EqualFold(t.text, k) })
}

// tokens splits SQL as the server does in sqlMode: text between double quotes is a string, and no string
// has backslash escapes.
func tokens(s string) ([]token, error) {
	var list []token
	for s != "" {
		var t token
		n := 1
		switch c := s[0]; {
		case strings.IndexByte(" \t\r\n\f", c) >= 0:
			for n < len(s) && strings.IndexByte(" \t\r\n\f", s[n]) >= 0 {
				n++
			}
			t.kind = space
		case strings.HasPrefix(s, "--"), c == '#':
			if n = strings.IndexByte(s, '\n'); n < 0 {
				n = len(s)
			}
			t.kind = comment
		case strings.HasPrefix(s, "/*"):
			end := strings.Index(s[2:], "*/")
			if end < 0 {
				return nil, fmt.Errorf("a comment that does not end: %s", s)
			}
			t.kind, n = comment, end+4
		case c == '\'' || c == '"':
			end := closing(s[1:], c)
			if end < 0 {
				return nil, fmt.Errorf("a string that does not end: %s", s)
			}
			t.kind, n = value, end+2
		case c == '`':
			end := closing(s[1:], c)
			if end < 0 {
				return nil, fmt.Errorf("a name that does not end: %s", s)
			}
			t.kind, n = quoted, end+2
			t.name = strings.ReplaceAll(s[1:end+1], "``", "`")
		case '0' <= c && c <= '9' || c == '.' && len(s) > 1 && '0' <= s[1] && s[1] <= '9':
			for n < len(s) && (nameByte(s[n]) || s[n] == '.') {
				n++
			}
			t.kind = value
		case nameByte(c):
			for n < len(s) && (nameByte(s[n]) || s[n] == '$') {
				n++
			}
			t.kind, t.name = word, s[:n]
		default:
			t.kind = c
		}
		t.text = s[:n]
		list, s = append(list, t), s[n:]
	}
	return list, nil
}

func nameByte(c byte) bool {
	return c >= 0x80 || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// closing returns where the quotation of s ends; a doubled mark does not end it.
func closing(s string, mark byte) int {
	for i := 0; i < len(s); i++ {
		if s[i] != mark {
			continue
		}
		if i+1 < len(s) && s[i+1] == mark {
			i++
			continue
		}
		return i
	}
	return -1
}

func withoutSpace(list []token) (dense []token) {
	spaced := false
	for _, t := range list {
		if t.kind == space || t.kind == comment {
			spaced = true
			continue
		}
		t.spaced, spaced = spaced, false
		dense = append(dense, t)
	}
	return dense
}

// normal returns SQL without comments and with one space wherever there is some.
func normal(s string) string {
	list, err := tokens(s)
	if err != nil {
		return s
	}
	var b strings.Builder
	for i, t := range withoutSpace(list) {
		if t.spaced && i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.text)
	}
	return b.String()
}

// ident quotes a name, and text a string, for sqlMode.
func ident(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

func text(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }

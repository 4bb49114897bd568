package sqlite

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
	word   = 'w' // a name or a keyword, without quotes
	quoted = 'q' // a name in quotes
	space  = ' ' // comments too
	value  = '0' // a number, a string, a blob
)

func (t token) isName() bool { return t.kind == word || t.kind == quoted }

// is says whether t is one of some keywords.
func (t token) is(keywords ...string) bool {
	return t.kind == word && slices.ContainsFunc(keywords, func(k string) bool { return strings.EqualFold(t.text, k) })
}

// tokens splits SQL.
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
		case strings.HasPrefix(s, "--"):
			if n = strings.IndexByte(s, '\n'); n < 0 {
				n = len(s)
			}
			t.kind = space
		case strings.HasPrefix(s, "/*"):
			end := strings.Index(s[2:], "*/")
			if end < 0 {
				return nil, fmt.Errorf("a comment that does not end: %s", s)
			}
			t.kind, n = space, end+4
		case c == '\'' || (c == 'x' || c == 'X') && len(s) > 1 && s[1] == '\'':
			end := closing(s[strings.IndexByte(s, '\'')+1:], '\'')
			if end < 0 {
				return nil, fmt.Errorf("a string that does not end: %s", s)
			}
			t.kind, n = value, strings.IndexByte(s, '\'')+1+end+1
		case c == '"' || c == '`' || c == '[':
			mark := c
			if c == '[' {
				mark = ']'
			}
			end := closing(s[1:], mark)
			if end < 0 {
				return nil, fmt.Errorf("a name that does not end: %s", s)
			}
			t.kind, n = quoted, end+2
			t.name = s[1 : end+1]
			if mark != ']' {
				t.name = strings.ReplaceAll(t.name, string([]byte{mark, mark}), string(mark))
			}
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
		if mark != ']' && i+1 < len(s) && s[i+1] == mark {
			i++
			continue
		}
		return i
	}
	return -1
}

func (t token) isComment() bool { return t.kind == space && strings.ContainsAny(t.text, "-*") }

func withoutSpace(list []token) (dense []token) {
	spaced := false
	for _, t := range list {
		if t.kind == space {
			spaced = true
			continue
		}
		t.spaced, spaced = spaced, false
		dense = append(dense, t)
	}
	return dense
}

// join writes tokens of withoutSpace.
func join(list []token) string {
	var b strings.Builder
	for i, t := range list {
		if t.spaced && i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.text)
	}
	return b.String()
}

// normal returns SQL without comments and with one space wherever there is some.
func normal(s string) string {
	list, err := tokens(s)
	if err != nil {
		return s
	}
	return join(withoutSpace(list))
}

// commas splits what is between the first parenthesis of list and the one that closes it, at
// the commas that are in no further parenthesis. rest is what follows.
func commas(list []token) (parts [][]token, rest []token) {
	depth, begin := 0, 0
	for i, t := range list {
		switch {
		case t.kind == '(':
			if depth++; depth == 1 {
				begin = i + 1
			}
		case t.kind == ')':
			if depth--; depth == 0 {
				return append(parts, list[begin:i]), append([]token{}, list[i+1:]...)
			}
		case t.kind == ',' && depth == 1:
			parts, begin = append(parts, list[begin:i]), i+1
		}
	}
	return parts, nil
}

// ident quotes a name, and text a string.
func ident(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func text(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }

package sqltemplate

import (
	"fmt"
	"slices"
	"strings"
)

// Token is a piece of SQL. The texts of all tokens, one after the other, are the SQL.
type Token struct {
	Kind byte   // one of the constants below, or the character of an operator
	Text string // as written
	Name string // of a name, without its quotes
	// Spaced says that there was a space or a comment before it, of a token of Dense.
	Spaced bool
}

// The kinds of tokens that are no operators.
const (
	Word    = 'w' // a name or a keyword, without quotes
	Quoted  = 'q' // a name in quotes
	Space   = ' '
	Comment = 'c'
	Value   = '0' // a number, a string, a blob
)

// IsName says whether t may name a column or a table.
func (t Token) IsName() bool { return t.Kind == Word || t.Kind == Quoted }

// Is says whether t is one of some keywords.
func (t Token) Is(keywords ...string) bool {
	return t.Kind == Word && slices.ContainsFunc(keywords, func(k string) bool { return strings.EqualFold(t.Text, k) })
}

// SQL is how a database writes strings, names and comments. No string has escapes.
type SQL struct {
	Strings string // the marks around strings
	Names   string // the marks before quoted names
	Blobs   bool   // x'…' is one token
	Hash    bool   // a comment may begin with #
}

// Tokens splits s. It fails if a comment, a string or a name does not end.
func (d SQL) Tokens(s string) ([]Token, error) {
	var list []Token
	for s != "" {
		var t Token
		n := 1
		switch c := s[0]; {
		case isSpace(c):
			n, t.Kind = prefix(s, isSpace), Space
		case strings.HasPrefix(s, "--"), d.Hash && c == '#':
			if n = strings.IndexByte(s, '\n'); n < 0 {
				n = len(s)
			}
			t.Kind = Comment
		case strings.HasPrefix(s, "/*"):
			end := strings.Index(s[2:], "*/")
			if end < 0 {
				return nil, fmt.Errorf("a comment that does not end: %s", s)
			}
			t.Kind, n = Comment, end+4
		case strings.IndexByte(d.Strings, c) >= 0, d.Blobs && (c == 'x' || c == 'X') && len(s) > 1 && s[1] == '\'':
			begin := 1
			if c == 'x' || c == 'X' {
				begin, c = 2, '\''
			}
			end := closing(s[begin:], c)
			if end < 0 {
				return nil, fmt.Errorf("a string that does not end: %s", s)
			}
			t.Kind, n = Value, begin+end+1
		case strings.IndexByte(d.Names, c) >= 0:
			mark := c
			if c == '[' {
				mark = ']'
			}
			end := closing(s[1:], mark)
			if end < 0 {
				return nil, fmt.Errorf("a name that does not end: %s", s)
			}
			t.Kind, n = Quoted, end+2
			t.Name = s[1 : end+1]
			if mark != ']' {
				t.Name = strings.ReplaceAll(t.Name, string([]byte{mark, mark}), string(mark))
			}
		case isDigit(c), c == '.' && len(s) > 1 && isDigit(s[1]):
			n, t.Kind = prefix(s, func(c byte) bool { return IsNameByte(c) || c == '.' }), Value
		case IsNameByte(c):
			n = prefix(s, func(c byte) bool { return IsNameByte(c) || c == '$' })
			t.Kind, t.Name = Word, s[:n]
		default:
			t.Kind = c
		}
		t.Text = s[:n]
		list, s = append(list, t), s[n:]
	}
	return list, nil
}

// prefix returns how many bytes at the beginning of s are of a kind.
func prefix(s string, is func(byte) bool) (n int) {
	for n < len(s) && is(s[n]) {
		n++
	}
	return n
}

func isSpace(c byte) bool { return strings.IndexByte(" \t\r\n\f", c) >= 0 }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// IsNameByte says whether c may be part of a name without quotes.
func IsNameByte(c byte) bool {
	return c >= 0x80 || c == '_' || isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
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

// Dense drops spaces and comments.
func Dense(list []Token) (dense []Token) {
	spaced := false
	for _, t := range list {
		if t.Kind == Space || t.Kind == Comment {
			spaced = true
			continue
		}
		t.Spaced, spaced = spaced, false
		dense = append(dense, t)
	}
	return dense
}

// Join writes tokens of Dense.
func Join(list []Token) string {
	var b strings.Builder
	for i, t := range list {
		if t.Spaced && i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.Text)
	}
	return b.String()
}

// Normal returns SQL without comments and with one space wherever there is some, or s if it
// cannot be split.
func (d SQL) Normal(s string) string {
	list, err := d.Tokens(s)
	if err != nil {
		return s
	}
	return Join(Dense(list))
}

package sqldb

import "strings"

// text is what a lexer finds in SQL of PostgreSQL, without knowing its grammar.
type text struct {
	words []string // the first words of the first statement, in lower case; at most three
	// calls are the words that stand before a parenthesis, which may be names of functions. A quoted
	// name counts as a quote.
	calls map[string]bool
	// found are the words that make a SELECT or a WITH more than a read.
	modifies bool
	rollsTo  bool // has the word TO, as in ROLLBACK TO
	chains   bool // has the word CHAIN, as in COMMIT AND CHAIN
	// doubt says that the end of a literal depends on settings, or that something does not end.
	doubt bool
	more  [][]string // the first words of further statements
}

// modifying are the words without which a SELECT, a WITH, a TABLE or a VALUES can change a table only by a
// function that it calls.
var modifying = map[string]bool{"into": true, "insert": true, "update": true, "delete": true, "merge": true}

const keptWords = 3

// lex reads SQL. It skips comments, literals and quoted names as the server does.
func lex(query string) text {
	t := text{calls: map[string]bool{}}
	var words []string
	var before string // the word before the next token, "" if there is none
	empty := true     // of the statement: no token yet
	first := true
	next := func() { // ends a statement
		switch {
		case first:
			t.words, first = words, false
		case !empty:
			t.more = append(t.more, words)
		}
		words, before, empty = nil, "", true
	}
	for i := 0; i < len(query); {
		c := query[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			i++
			continue
		case strings.HasPrefix(query[i:], "--"):
			end := strings.IndexAny(query[i:], "\r\n")
			if end < 0 {
				end = len(query) - i
			}
			i += end
			continue
		case strings.HasPrefix(query[i:], "/*"):
			end := comment(query[i:])
			t.doubt = t.doubt || end < 0
			if end < 0 {
				end = len(query) - i
			}
			i += end
			continue
		case c == ';':
			i++
			next()
			continue
		}
		empty = false
		end, word := 1, ""
		switch {
		case c == '\'':
			end = literal(query[i:], before == "e" && i > 0 && (query[i-1] == 'e' || query[i-1] == 'E'))
		case c == '"':
			end = strings.IndexByte(query[i+1:], '"') // of one with "" inside: two names in a row
			if end >= 0 {
				end += 2
			}
			word = `"`
		case c == '$' && i+1 < len(query) && (query[i+1] < '0' || query[i+1] > '9'):
			end = dollar(query[i:])
		case isLetter(c):
			for end = 1; i+end < len(query) && (isLetter(query[i+end]) || isDigit(query[i+end]) || query[i+end] == '$'); end++ {
			}
			word = strings.ToLower(query[i : i+end])
		case isDigit(c) || c == '$':
			for end = 1; i+end < len(query) && (isLetter(query[i+end]) || isDigit(query[i+end]) || query[i+end] == '.'); end++ {
			}
		case c == '(':
			if before != "" {
				t.calls[before] = true
			}
		}
		if end < 0 { // it does not end, or where is not known
			t.doubt = true
			break
		}
		if word != "" && word != `"` {
			if len(words) < keptWords {
				words = append(words, word)
			}
			t.modifies = t.modifies || modifying[word]
			t.rollsTo = t.rollsTo || word == "to"
			t.chains = t.chains || word == "chain"
		}
		before = word
		i += end
	}
	next()
	return t
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isLetter says whether a name may begin with c.
func isLetter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= 0x80
}

// comment returns the length of the comment that s begins with, which may hold others, or -1.
func comment(s string) int {
	depth := 0
	for i := 0; i+1 < len(s); {
		switch s[i : i+2] {
		case "/*":
			depth++
			i += 2
		case "*/":
			i += 2
			if depth--; depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return -1
}

// literal returns the length of the literal that s begins with, or -1. In one that is no E” a
// backslash before a quote means one thing or another by a setting of the session.
func literal(s string, escapes bool) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && escapes:
			i++
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '\'':
			return -1
		case s[i] == '\'' && i+1 < len(s) && s[i+1] == '\'':
			i++
		case s[i] == '\'':
			return i + 1
		}
	}
	return -1
}

// dollar returns the length of the literal that s begins with, which its own tag ends, or -1.
func dollar(s string) int {
	tag := strings.IndexByte(s[1:], '$') + 2
	if tag < 2 {
		return -1
	}
	for _, c := range []byte(s[1 : tag-1]) {
		if !isLetter(c) && !isDigit(c) {
			return -1
		}
	}
	end := strings.Index(s[tag:], s[:tag])
	if end < 0 {
		return -1
	}
	return tag + end + tag
}

// kindOf returns the kind of the statement by its first words. known says of words before
// parentheses that none is the name of a function that may change a table.
func (t text) kindOf(known func(names map[string]bool) bool) Kind {
	switch {
	case t.doubt:
		return Unclear
	case len(t.more) > 0:
		for _, words := range append(t.more, t.words) {
			if k := t.control(words); k == BeginsTx || k == CommitsTx || k == RollsTxBack {
				return Unclear
			}
		}
		return Other
	case len(t.words) == 0:
		return Other
	}
	switch t.words[0] {
	case "select", "with", "table", "values":
		if !t.modifies && known(t.calls) {
			return Reads
		}
		return Writes
	case "insert", "update", "delete", "merge", "truncate", "execute", "explain":
		return Writes
	}
	return t.control(t.words)
}

// control returns the kind of a statement that concerns the session.
func (t text) control(words []string) Kind {
	if len(words) == 0 {
		return Other
	}
	prepared := len(words) > 1 && words[1] == "prepared"
	switch words[0] {
	case "set", "reset", "show", "listen", "unlisten", "notify", "deallocate", "discard",
		"savepoint", "release", "fetch", "move", "close":
		return Session
	case "prepare":
		if len(words) > 1 && words[1] == "transaction" {
			return RollsTxBack // nothing shows before COMMIT PREPARED
		}
		return Session
	case "begin", "start":
		return BeginsTx
	case "commit", "end":
		if prepared {
			return Other
		}
		if t.chains {
			return Unclear
		}
		return CommitsTx
	case "rollback", "abort":
		if prepared || t.rollsTo {
			return Session
		}
		if t.chains {
			return Unclear
		}
		return RollsTxBack
	}
	return Other
}

package mysql

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// template is a parsed template: see Watch.
type template struct {
	source string
	table  *table
	kind   string
	parts  [][]piece

	insert, delete bool
	update         bool
	of             []string // columns; nil: any update
}

// piece of a part: a literal, or an expression.
type piece struct {
	literal string
	expr    *expr // nil: literal
}

// expr is an expression over the row of a table.
type expr struct {
	source string
	tokens []token
	table  *table
	many   bool                      // a SELECT: it may give several rows, each of them a tag
	spell  func(value string) string // the SQL that spells its value as a part; set by parseWatch
}

func parseTemplate(source string, t *table) (*template, error) {
	p := &template{source: source, table: t}
	if err := p.parse(strings.TrimSpace(source), t); err != nil {
		return nil, fmt.Errorf("template %q: %w", source, err)
	}
	return p, nil
}

func (p *template) parse(s string, t *table) error {
	end := strings.IndexAny(s, ": \t\r\n{")
	if end < 0 {
		end = len(s)
	}
	p.kind, s = s[:end], s[end:]
	if strings.HasPrefix(s, "{") {
		return errors.New("the kind is a word of the program's, not a value: write kind:{…}")
	}
	if err := driver.Tag(p.kind).Check(); err != nil || p.kind == "*" {
		return fmt.Errorf("%q is no kind: want 1 to %d of letters, digits and ._-", p.kind, driver.MaxKind)
	}
	for strings.HasPrefix(s, ":") {
		var part []piece
		for s = s[1:]; s != "" && !strings.ContainsRune(": \t\r\n", rune(s[0])); {
			if s[0] == '{' {
				end := strings.IndexByte(s, '}')
				if end < 0 || strings.Contains(s[1:end], "{") {
					return errors.New("an expression is between braces and holds none")
				}
				e, err := parseExpr(strings.TrimSpace(s[1:end]), t)
				if err != nil {
					return err
				}
				part, s = append(part, piece{expr: e}), s[end+1:]
				continue
			}
			end := strings.IndexAny(s, ":{ \t\r\n")
			if end < 0 {
				end = len(s)
			}
			literal := s[:end]
			if string(driver.EscapePart(nil, literal)) != literal {
				return fmt.Errorf("%q: a literal holds letters, digits and -._~@+=,/ only", literal)
			}
			part, s = append(part, piece{literal: literal}), s[end:]
		}
		if part == nil {
			return errors.New("a part is empty: want kind:part:part")
		}
		p.parts = append(p.parts, part)
	}
	many := 0
	for _, e := range p.exprs() {
		if e.many {
			many++
		}
	}
	if many > 1 {
		return errors.New("only one of its expressions may be a SELECT: two would give every pair of their rows")
	}
	if p.constant() {
		if err := driver.Tag(p.tag()).Check(); err != nil {
			return err
		}
	}
	return p.parseEvents(s, t)
}

func (p *template) parseEvents(s string, t *table) error {
	if s = strings.TrimSpace(s); s == "" {
		p.insert, p.update, p.delete = true, true, true
		return nil
	}
	list, err := tokens(s)
	if err != nil {
		return err
	}
	list = withoutSpace(list)
	bad := fmt.Errorf("%q: want ON, and INSERT, DELETE, UPDATE or UPDATE OF columns, with OR between them", s)
	for first := true; first || len(list) > 0; first = false {
		if between := map[bool]string{true: "ON", false: "OR"}[first]; len(list) < 2 || !list[0].is(between) {
			return bad
		}
		event := list[1]
		list = list[2:]
		switch {
		case event.is("INSERT"):
			p.insert = true
		case event.is("DELETE"):
			p.delete = true
		case event.is("UPDATE") && (len(list) == 0 || !list[0].is("OF")):
			p.update = true
		case event.is("UPDATE"):
			p.update = true
			for comma := true; comma; {
				if list = list[1:]; len(list) == 0 || !list[0].isName() {
					return bad
				}
				c := t.column(list[0].name)
				if c == nil {
					return t.noColumn(list[0].name)
				}
				p.of = append(p.of, c.name)
				list = list[1:]
				comma = len(list) > 0 && list[0].kind == ','
			}
		default:
			return bad
		}
	}
	return nil
}

func (p *template) exprs() (list []*expr) {
	for _, part := range p.parts {
		for _, piece := range part {
			if piece.expr != nil {
				list = append(list, piece.expr)
			}
		}
	}
	return list
}

// constant says whether the tag is the same for all rows, and tag which.
func (p *template) constant() bool { return len(p.exprs()) == 0 }

func (p *template) tag() string {
	var tag strings.Builder
	tag.WriteString(p.kind)
	for _, part := range p.parts {
		tag.WriteByte(':')
		for _, piece := range part {
			tag.WriteString(piece.literal)
		}
	}
	return tag.String()
}

// keywords are no columns, unless they are quoted. Any other word that is no column is left to the server.
var keywords = strings.Fields(`AND AS BETWEEN CASE CAST COLLATE CONVERT DISTINCT DIV ELSE END ESCAPE EXISTS FALSE FROM IN IS
	LIKE MOD NOT NULL OR REGEXP RLIKE THEN TRUE USING WHEN WHERE XOR`)

// keywordsOfSelect may follow the name of a table.
var keywordsOfSelect = strings.Fields(`WHERE JOIN INNER LEFT RIGHT CROSS NATURAL STRAIGHT_JOIN ON USING GROUP HAVING ORDER LIMIT UNION
	INTERSECT EXCEPT FOR LOCK PARTITION USE FORCE IGNORE WINDOW SELECT`)

func parseExpr(s string, t *table) (*expr, error) {
	e := &expr{source: s, table: t}
	list, err := tokens(s)
	if err != nil {
		return nil, fmt.Errorf("{%s}: %w", s, err)
	}
	for _, token := range list {
		switch {
		case token.kind == comment:
			return nil, fmt.Errorf("{%s}: an expression holds no comments", s)
		case token.kind == value && strings.ContainsFunc(token.text, func(r rune) bool { return r >= 0x80 }):
			return nil, fmt.Errorf("{%s}: a string beyond ASCII depends on the character set of the session that declares it: write _utf8mb4 0x… instead", s)
		}
	}
	if list = withoutSpace(list); len(list) == 0 {
		return nil, errors.New("an expression is empty: want {column}")
	}
	// A SELECT in parentheses is one all the same: it may give several rows.
	for len(list) > 2 && list[0].kind == '(' && (list[1].is("SELECT", "WITH") || list[1].kind == '(') && enclosed(list) {
		list = list[1 : len(list)-1]
	}
	e.tokens, e.many = list, list[0].is("SELECT", "WITH")
	if _, err := e.over(func(c *column) string { return ident(c.name) }); err != nil {
		return nil, fmt.Errorf("{%s}: %w", s, err)
	}
	return e, nil
}

// enclosed says whether the first parenthesis of a list is closed by its last token.
func enclosed(list []token) bool {
	depth := 0
	for i, t := range list {
		switch t.kind {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i == len(list)-1
			}
		}
	}
	return false
}

// column returns the column that the expression is, or nil if it is more than that.
func (e *expr) column() *column {
	list := e.tokens
	if len(list) == 3 && list[0].isName() && list[1].kind == '.' {
		list = list[2:]
	}
	if len(list) != 1 || !list[0].isName() {
		return nil
	}
	return e.table.column(list[0].name)
}

// mentions says whether the expression has a column of the row of which a condition holds.
func (e *expr) mentions(is func(*column) bool) (found bool) {
	_, _ = e.over(func(c *column) string { found = found || is(c); return "" })
	return found
}

// over returns the expression over a row, whose columns are spelled by of: NEW.c and OLD.c in a
// trigger. A name is a column of the row if the table's name stands before it, or if
// it is no SELECT and so has no other columns. Everything else stays as it is.
func (e *expr) over(of func(*column) string) (string, error) {
	selects := slices.ContainsFunc(e.tokens, func(t token) bool { return t.is("SELECT") })
	var b strings.Builder
	at := func(i int) token {
		if i < 0 || i >= len(e.tokens) {
			return token{}
		}
		return e.tokens[i]
	}
	for i := 0; i < len(e.tokens); i++ {
		t := e.tokens[i]
		if t.spaced && i > 0 {
			b.WriteByte(' ')
		}
		before, after := at(i-1), at(i+1)
		if strings.IndexByte(";?:@$\\", t.kind) >= 0 {
			return "", fmt.Errorf("%q cannot stand in an expression", t.text)
		}
		if !t.isName() || before.kind == '.' || after.kind == '(' {
			b.WriteString(t.text)
			continue
		}
		self := strings.EqualFold(t.name, e.table.name)
		switch {
		case after.kind == '.' && self:
			c := e.table.column(at(i + 2).name)
			if c == nil {
				return "", e.table.noColumn(at(i + 2).text)
			}
			b.WriteString(of(c))
			i += 2
		case after.kind == '.':
			if strings.EqualFold(t.name, "new") || strings.EqualFold(t.name, "old") {
				return "", fmt.Errorf("%s.%s: a template is for the row before and after: write %s.%s",
					t.text, at(i+2).text, e.table.name, at(i+2).text)
			}
			if at(i+3).kind == '.' {
				return "", fmt.Errorf("%s.%s.%s: leave the name of the schema out", t.text, at(i+2).text, at(i+4).text)
			}
			b.WriteString(t.text)
		case t.kind == word && slices.ContainsFunc(keywords, func(k string) bool { return t.is(k) }),
			before.is("AS", "COLLATE", "USING") && !self:
			b.WriteString(t.text)
		case selects && self:
			// The table itself, in a FROM clause: from here on its name would mean two things.
			alias := after
			if after.is("AS") {
				alias = at(i + 2)
			}
			if !before.is("FROM", "JOIN") && before.kind != ',' || !alias.isName() || strings.EqualFold(alias.name, t.name) ||
				slices.ContainsFunc(keywordsOfSelect, func(k string) bool { return alias.is(k) }) {
				return "", fmt.Errorf("%s is the row: give the table another name in the SELECT, as in FROM %s AS other", t.text, t.text)
			}
			b.WriteString(t.text)
		case selects:
			b.WriteString(t.text)
		default:
			if c := e.table.column(t.name); c != nil {
				b.WriteString(of(c))
			} else {
				b.WriteString(t.text)
			}
		}
	}
	return b.String(), nil
}

// sql is over, of an expression that has been parsed.
func (e *expr) sql(of func(*column) string) string {
	s, err := e.over(of)
	if err != nil {
		panic(err) // parseExpr has refused it
	}
	if e.column() == nil {
		s = "(" + s + ")"
	}
	return s
}

package sqlite

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
	many   bool // a SELECT: it may give several rows, each of them a tag
}

// maxParts is the number of values that cache_touch_values takes.
const maxParts = 6

func parseTemplate(source string, t *table) (*template, error) {
	p := &template{source: source}
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
	if len(p.parts) > maxParts && !p.constant() {
		return fmt.Errorf("it has %d parts, more than %d", len(p.parts), maxParts)
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

// keywords of expressions are no columns, unless they are quoted.
var keywords = strings.Fields(`ALL AND AS BETWEEN BY CASE CAST COLLATE CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP DISTINCT ELSE END
	ESCAPE EXISTS FALSE FILTER FROM GLOB IN IS ISNULL LIKE MATCH NOT NOTNULL NULL OR OVER REGEXP THEN TRUE WHEN WHERE`)

// keywordsOfSelect may follow the name of a table.
var keywordsOfSelect = append(strings.Fields(`WHERE JOIN INNER LEFT RIGHT FULL CROSS NATURAL OUTER ON USING GROUP HAVING ORDER LIMIT
	OFFSET UNION INTERSECT EXCEPT INDEXED WINDOW SELECT`), keywords...)

func parseExpr(s string, t *table) (*expr, error) {
	e := &expr{source: s, table: t}
	list, err := tokens(s)
	if err != nil {
		return nil, fmt.Errorf("{%s}: %w", s, err)
	}
	if slices.ContainsFunc(list, token.isComment) {
		return nil, fmt.Errorf("{%s}: an expression holds no comments", s)
	}
	if list = withoutSpace(list); len(list) == 0 {
		return nil, errors.New("an expression is empty: want {column}")
	}
	// A SELECT in parentheses is one all the same: SQLite would take the first of its rows and
	// forget the others.
	for len(list) > 2 && list[0].kind == '(' && list[1].is("SELECT", "WITH", "VALUES") {
		if _, rest := commas(list); rest == nil || len(rest) > 0 {
			break
		}
		list = list[1 : len(list)-1]
	}
	e.tokens, e.many = list, list[0].is("SELECT", "WITH", "VALUES")
	if _, err := e.over("new"); err != nil {
		return nil, fmt.Errorf("{%s}: %w", s, err)
	}
	if c := e.column(); c != nil {
		if err := c.check(t); err != nil {
			return nil, fmt.Errorf("{%s}: %w", s, err)
		}
	}
	return e, nil
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

// over returns the expression over a row: "new" and "old" in a trigger, a table of a FROM clause,
// quoted, or "" for no row, all columns of which are NULL. A name is a column of the row if the table's name stands before it, or
// if it is no SELECT and so has no other columns. Everything else stays as it is.
func (e *expr) over(row string) (string, error) {
	selects := slices.ContainsFunc(e.tokens, func(t token) bool { return t.is("SELECT", "VALUES") })
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
		if strings.IndexByte(";?:@$#\\", t.kind) >= 0 {
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
			b.WriteString(of(row, c))
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
			before.is("AS", "COLLATE") && !self:
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
			c := e.table.column(t.name)
			if c == nil {
				return "", e.table.noColumn(t.name)
			}
			b.WriteString(of(row, c))
		}
	}
	return b.String(), nil
}

// of is a column of a row; NULL for no row.
func of(row string, c *column) string {
	if row == "" {
		return "NULL"
	}
	return row + "." + ident(c.name)
}

// sql is over, of an expression that has been parsed.
func (e *expr) sql(row string) string {
	s, err := e.over(row)
	if err != nil {
		panic(err) // parseExpr has refused it
	}
	if e.column() == nil && !e.many {
		s = "(" + s + ")"
	}
	return s
}

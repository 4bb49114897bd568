package mysql

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chainlearn/chainlearn/cache/outbox/internal/sqltemplate"
)

// template is a parsed template: see Watch.
type template struct {
	*sqltemplate.Template[expr]
	table *table
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
	p, err := sqltemplate.Grammar[expr]{
		SQL:    language,
		Expr:   func(source string) (*expr, error) { return parseExpr(source, t) },
		Many:   func(e *expr) bool { return e.many },
		Column: t.exact,
	}.Parse(source)
	if err != nil {
		return nil, err
	}
	return &template{p, t}, nil
}

// keywords are no columns, unless they are quoted. Any other word that is no column is left to the server.
var keywords = strings.Fields(`AND AS BETWEEN CASE CAST COLLATE CONVERT DISTINCT DIV ELSE END ESCAPE EXISTS FALSE FROM IN IS
	LIKE MOD NOT NULL OR REGEXP RLIKE THEN TRUE USING WHEN WHERE XOR`)

// keywordsOfSelect may follow the name of a table.
var keywordsOfSelect = strings.Fields(`WHERE JOIN INNER LEFT RIGHT CROSS NATURAL STRAIGHT_JOIN ON USING GROUP HAVING ORDER LIMIT UNION
	INTERSECT EXCEPT FOR LOCK PARTITION USE FORCE IGNORE WINDOW SELECT`)

func parseExpr(s string, t *table) (*expr, error) {
	e := &expr{source: s, table: t}
	list, err := language.Tokens(s)
	if err != nil {
		return nil, fmt.Errorf("{%s}: %w", s, err)
	}
	for _, token := range list {
		switch {
		case token.Kind == sqltemplate.Comment:
			return nil, fmt.Errorf("{%s}: an expression holds no comments", s)
		case token.Kind == sqltemplate.Value && strings.ContainsFunc(token.Text, func(r rune) bool { return r >= 0x80 }):
			return nil, fmt.Errorf("{%s}: a string beyond ASCII depends on the character set of the session that declares it: write _utf8mb4 0x… instead", s)
		}
	}
	if list = sqltemplate.Dense(list); len(list) == 0 {
		return nil, errors.New("an expression is empty: want {column}")
	}
	// A SELECT in parentheses is one all the same: it may give several rows.
	for len(list) > 2 && list[0].Kind == '(' && (list[1].Is("SELECT", "WITH") || list[1].Kind == '(') && enclosed(list) {
		list = list[1 : len(list)-1]
	}
	e.tokens, e.many = list, list[0].Is("SELECT", "WITH")
	if _, err := e.over(func(c *column) string { return ident(c.name) }); err != nil {
		return nil, fmt.Errorf("{%s}: %w", s, err)
	}
	return e, nil
}

// enclosed says whether the first parenthesis of a list is closed by its last token.
func enclosed(list []token) bool {
	depth := 0
	for i, t := range list {
		switch t.Kind {
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
	if len(list) == 3 && list[0].IsName() && list[1].Kind == '.' {
		list = list[2:]
	}
	if len(list) != 1 || !list[0].IsName() {
		return nil
	}
	return e.table.column(list[0].Name)
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
	selects := slices.ContainsFunc(e.tokens, func(t token) bool { return t.Is("SELECT") })
	var b strings.Builder
	at := func(i int) token {
		if i < 0 || i >= len(e.tokens) {
			return token{}
		}
		return e.tokens[i]
	}
	for i := 0; i < len(e.tokens); i++ {
		t := e.tokens[i]
		if t.Spaced && i > 0 {
			b.WriteByte(' ')
		}
		before, after := at(i-1), at(i+1)
		if strings.IndexByte(";?:@$\\", t.Kind) >= 0 {
			return "", fmt.Errorf("%q cannot stand in an expression", t.Text)
		}
		if !t.IsName() || before.Kind == '.' || after.Kind == '(' {
			b.WriteString(t.Text)
			continue
		}
		self := strings.EqualFold(t.Name, e.table.name)
		switch {
		case after.Kind == '.' && self:
			c := e.table.column(at(i + 2).Name)
			if c == nil {
				return "", e.table.noColumn(at(i + 2).Text)
			}
			b.WriteString(of(c))
			i += 2
		case after.Kind == '.':
			if strings.EqualFold(t.Name, "new") || strings.EqualFold(t.Name, "old") {
				return "", fmt.Errorf("%s.%s: a template is for the row before and after: write %s.%s",
					t.Text, at(i+2).Text, e.table.name, at(i+2).Text)
			}
			if at(i+3).Kind == '.' {
				return "", fmt.Errorf("%s.%s.%s: leave the name of the schema out", t.Text, at(i+2).Text, at(i+4).Text)
			}
			b.WriteString(t.Text)
		case t.Kind == sqltemplate.Word && slices.ContainsFunc(keywords, func(k string) bool { return t.Is(k) }),
			before.Is("AS", "COLLATE", "USING") && !self:
			b.WriteString(t.Text)
		case selects && self:
			// The table itself, in a FROM clause: from here on its name would mean two things.
			alias := after
			if after.Is("AS") {
				alias = at(i + 2)
			}
			if !before.Is("FROM", "JOIN") && before.Kind != ',' || !alias.IsName() || strings.EqualFold(alias.Name, t.Name) ||
				slices.ContainsFunc(keywordsOfSelect, func(k string) bool { return alias.Is(k) }) {
				return "", fmt.Errorf("%s is the row: give the table another name in the SELECT, as in FROM %s AS other", t.Text, t.Text)
			}
			b.WriteString(t.Text)
		case selects:
			b.WriteString(t.Text)
		default:
			if c := e.table.column(t.Name); c != nil {
				b.WriteString(of(c))
			} else {
				b.WriteString(t.Text)
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

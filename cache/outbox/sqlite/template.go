package sqlite

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
	p, err := sqltemplate.Grammar[expr]{
		SQL:      language,
		Expr:     func(source string) (*expr, error) { return parseExpr(source, t) },
		Many:     func(e *expr) bool { return e.many },
		Column:   t.exact,
		MaxParts: maxParts,
	}.Parse(source)
	if err != nil {
		return nil, err
	}
	return &template{p}, nil
}

// keywords of expressions are no columns, unless they are quoted.
var keywords = strings.Fields(`ALL AND AS BETWEEN BY CASE CAST COLLATE CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP DISTINCT ELSE END
	ESCAPE EXISTS FALSE FILTER FROM GLOB IN IS ISNULL LIKE MATCH NOT NOTNULL NULL OR OVER REGEXP THEN TRUE WHEN WHERE`)

// keywordsOfSelect may follow the name of a table.
var keywordsOfSelect = append(strings.Fields(`WHERE JOIN INNER LEFT RIGHT FULL CROSS NATURAL OUTER ON USING GROUP HAVING ORDER LIMIT
	OFFSET UNION INTERSECT EXCEPT INDEXED WINDOW SELECT`), keywords...)

func parseExpr(s string, t *table) (*expr, error) {
	e := &expr{source: s, table: t}
	list, err := language.Tokens(s)
	if err != nil {
		return nil, fmt.Errorf("{%s}: %w", s, err)
	}
	if slices.ContainsFunc(list, func(t token) bool { return t.Kind == sqltemplate.Comment }) {
		return nil, fmt.Errorf("{%s}: an expression holds no comments", s)
	}
	if list = sqltemplate.Dense(list); len(list) == 0 {
		return nil, errors.New("an expression is empty: want {column}")
	}
	// A SELECT in parentheses is one all the same: SQLite would take the first of its rows and
	// forget the others.
	for len(list) > 2 && list[0].Kind == '(' && list[1].Is("SELECT", "WITH", "VALUES") {
		if _, rest := commas(list); rest == nil || len(rest) > 0 {
			break
		}
		list = list[1 : len(list)-1]
	}
	e.tokens, e.many = list, list[0].Is("SELECT", "WITH", "VALUES")
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
	if len(list) == 3 && list[0].IsName() && list[1].Kind == '.' {
		list = list[2:]
	}
	if len(list) != 1 || !list[0].IsName() {
		return nil
	}
	return e.table.column(list[0].Name)
}

// over returns the expression over a row: "new" and "old" in a trigger, a table of a FROM clause,
// quoted, or "" for no row, all columns of which are NULL. A name is a column of the row if the table's name stands before it, or
// if it is no SELECT and so has no other columns. Everything else stays as it is.
func (e *expr) over(row string) (string, error) {
	selects := slices.ContainsFunc(e.tokens, func(t token) bool { return t.Is("SELECT", "VALUES") })
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
		if strings.IndexByte(";?:@$#\\", t.Kind) >= 0 {
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
			b.WriteString(of(row, c))
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
			before.Is("AS", "COLLATE") && !self:
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
			c := e.table.column(t.Name)
			if c == nil {
				return "", e.table.noColumn(t.Name)
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

// Package sqltemplate parses the templates of watches, kind:{expression}:text ON events, for the
// databases whose triggers this module's adapters write in Go. What an expression may be, and the
// SQL that a template becomes, is each adapter's own.
package sqltemplate

import (
	"errors"
	"fmt"
	"strings"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Template is a parsed template whose expressions are E.
type Template[E any] struct {
	Source string
	Kind   string
	Parts  [][]Piece[E]

	Insert, Update, Delete bool
	Of                     []string // columns of UPDATE OF; nil: any update
}

// Piece of a part: a literal, or an expression.
type Piece[E any] struct {
	Literal string
	Expr    *E // nil: literal
}

// Grammar is what a database adds to templates.
type Grammar[E any] struct {
	SQL      SQL
	Expr     func(source string) (*E, error)             // parses what is between braces
	Many     func(*E) bool                               // says whether it may give several rows
	Column   func(name string) (exact string, err error) // of the watched table
	MaxParts int                                         // of a template with expressions; 0: any number
}

// Parse parses a template. Its errors name it.
func (g Grammar[E]) Parse(source string) (*Template[E], error) {
	p := &Template[E]{Source: source}
	events, err := g.parseTag(p, strings.TrimSpace(source))
	if err == nil {
		err = g.parseEvents(p, strings.TrimSpace(events))
	}
	if err != nil {
		return nil, fmt.Errorf("template %q: %w", source, err)
	}
	return p, nil
}

func (g Grammar[E]) parseTag(p *Template[E], s string) (rest string, err error) {
	end := strings.IndexAny(s, ": \t\r\n{")
	if end < 0 {
		end = len(s)
	}
	p.Kind, s = s[:end], s[end:]
	if strings.HasPrefix(s, "{") {
		return "", errors.New("the kind is a word of the program's, not a value: write kind:{…}")
	}
	if err := driver.Tag(p.Kind).Check(); err != nil || p.Kind == "*" {
		return "", fmt.Errorf("%q is no kind: want 1 to %d of letters, digits and ._-", p.Kind, driver.MaxKind)
	}
	for strings.HasPrefix(s, ":") {
		var part []Piece[E]
		if part, s, err = g.parsePart(s[1:]); err != nil {
			return "", err
		}
		p.Parts = append(p.Parts, part)
	}
	if g.MaxParts > 0 && len(p.Parts) > g.MaxParts && !p.Constant() {
		return "", fmt.Errorf("it has %d parts, more than %d", len(p.Parts), g.MaxParts)
	}
	many := 0
	for _, e := range p.Exprs() {
		if g.Many(e) {
			many++
		}
	}
	if many > 1 {
		return "", errors.New("only one of its expressions may be a SELECT: two would give every pair of their rows")
	}
	if p.Constant() {
		if err := driver.Tag(p.Tag()).Check(); err != nil {
			return "", err
		}
	}
	return s, nil
}

func (g Grammar[E]) parsePart(s string) (part []Piece[E], rest string, err error) {
	for s != "" && !strings.ContainsRune(": \t\r\n", rune(s[0])) {
		if s[0] == '{' {
			end := strings.IndexByte(s, '}')
			if end < 0 || strings.Contains(s[1:end], "{") {
				return nil, "", errors.New("an expression is between braces and holds none")
			}
			e, err := g.Expr(strings.TrimSpace(s[1:end]))
			if err != nil {
				return nil, "", err
			}
			part, s = append(part, Piece[E]{Expr: e}), s[end+1:]
			continue
		}
		end := strings.IndexAny(s, ":{ \t\r\n")
		if end < 0 {
			end = len(s)
		}
		literal := s[:end]
		if string(driver.EscapePart(nil, literal)) != literal {
			return nil, "", fmt.Errorf("%q: a literal holds letters, digits and -._~@+=,/ only", literal)
		}
		part, s = append(part, Piece[E]{Literal: literal}), s[end:]
	}
	if part == nil {
		return nil, "", errors.New("a part is empty: want kind:part:part")
	}
	return part, s, nil
}

func (g Grammar[E]) parseEvents(p *Template[E], s string) error {
	if s == "" {
		p.Insert, p.Update, p.Delete = true, true, true
		return nil
	}
	list, err := g.SQL.Tokens(s)
	if err != nil {
		return err
	}
	list = Dense(list)
	bad := fmt.Errorf("%q: want ON, and INSERT, DELETE, UPDATE or UPDATE OF columns, with OR between them", s)
	for first := true; first || len(list) > 0; first = false {
		if between := map[bool]string{true: "ON", false: "OR"}[first]; len(list) < 2 || !list[0].Is(between) {
			return bad
		}
		event := list[1]
		list = list[2:]
		switch {
		case event.Is("INSERT"):
			p.Insert = true
		case event.Is("DELETE"):
			p.Delete = true
		case event.Is("UPDATE") && (len(list) == 0 || !list[0].Is("OF")):
			p.Update = true
		case event.Is("UPDATE"):
			p.Update = true
			for comma := true; comma; {
				if list = list[1:]; len(list) == 0 || !list[0].IsName() {
					return bad
				}
				column, err := g.Column(list[0].Name)
				if err != nil {
					return err
				}
				p.Of = append(p.Of, column)
				list = list[1:]
				comma = len(list) > 0 && list[0].Kind == ','
			}
		default:
			return bad
		}
	}
	return nil
}

// Exprs returns the expressions, in order.
func (p *Template[E]) Exprs() (list []*E) {
	for _, part := range p.Parts {
		for _, piece := range part {
			if piece.Expr != nil {
				list = append(list, piece.Expr)
			}
		}
	}
	return list
}

// Constant says whether the tag is the same for all rows, and Tag which.
func (p *Template[E]) Constant() bool { return len(p.Exprs()) == 0 }

// Tag returns the tag of a constant template.
func (p *Template[E]) Tag() string {
	var tag strings.Builder
	tag.WriteString(p.Kind)
	for _, part := range p.Parts {
		tag.WriteByte(':')
		for _, piece := range part {
			tag.WriteString(piece.Literal)
		}
	}
	return tag.String()
}

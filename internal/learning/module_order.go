package learning

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ModuleRow is a module that some quiz defines, with what the modules table says of it.
type ModuleRow struct {
	ID       ModuleID `json:"id"`
	Title    *string  `json:"title"`
	Position *int     `json:"position"`
}

// ModulesInOrder numbers modules from 1: those with a position by it, then the others by id.
func ModulesInOrder(rows []ModuleRow) []Module {
	slices.SortFunc(rows, func(a, b ModuleRow) int {
		return cmp.Or(cmp.Compare(positionOf(a), positionOf(b)), compareNatural(string(a.ID), string(b.ID)))
	})
	modules := make([]Module, len(rows))
	for i, row := range rows {
		title := titleFrom(row.ID)
		if row.Title != nil {
			title = *row.Title
		}
		modules[i] = Module{ID: row.ID, Title: title, Order: i + 1}
	}
	return modules
}

func positionOf(m ModuleRow) int {
	if m.Position == nil {
		return math.MaxInt
	}
	return *m.Position
}

// titleFrom makes "Module 2" of "module-2".
func titleFrom(id ModuleID) string {
	title := strings.Join(strings.FieldsFunc(string(id), func(r rune) bool { return r == '-' || r == '_' || r == ' ' }), " ")
	if title == "" {
		return string(id)
	}
	first, n := utf8.DecodeRuneInString(title)
	return string(unicode.ToUpper(first)) + title[n:]
}

// compareNatural compares texts with the numbers in them taken as numbers: "module-2" comes before
// "module-10". Texts that differ never compare equal.
func compareNatural(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		n, m := digits(x), digits(y)
		if n > 0 && m > 0 {
			// Of two numbers without leading zeros, the longer is the larger.
			u, v := strings.TrimLeft(x[:n], "0"), strings.TrimLeft(y[:m], "0")
			if c := cmp.Or(cmp.Compare(len(u), len(v)), strings.Compare(u, v)); c != 0 {
				return c
			}
			x, y = x[n:], y[m:]
			continue
		}
		if x[0] != y[0] {
			return cmp.Compare(x[0], y[0])
		}
		x, y = x[1:], y[1:]
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(a, b))
}

// digits returns how many digits s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return n
}

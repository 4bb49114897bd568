package main

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A condition of an if.
type condition struct {
	number   int    // from 1
	name     string // file: function: text, and a number if there are several such
	file     string
	from, to int // its place in the text of file

	came     bool   // true in some test
	missedBy string // the test that fails without it; "" if none does
}

// conditionsOf returns the conditions in the files of a package that are compiled here and are no tests.
func conditionsOf(dir string) (all []*condition, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	named := map[string]int{}
	for _, file := range files {
		if ours, err := build.Default.MatchFile(dir, filepath.Base(file)); err != nil {
			return nil, err
		} else if !ours || strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, file, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range parsed.Decls {
			in := "a variable"
			if f, ok := d.(*ast.FuncDecl); ok {
				in = f.Name.Name
			}
			ast.Inspect(d, func(n ast.Node) bool {
				if s, ok := n.(*ast.IfStmt); ok {
					from, to := set.Position(s.Cond.Pos()).Offset, set.Position(s.Cond.End()).Offset
					name := fmt.Sprintf("%s: %s: %s", filepath.ToSlash(file), in, strings.Join(strings.Fields(string(text[from:to])), " "))
					if named[name]++; named[name] > 1 {
						name = fmt.Sprintf("%s #%d", name, named[name])
					}
					all = append(all, &condition{number: len(all) + 1, name: name, file: file, from: from, to: to})
				}
				return true
			})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no if in a Go file that is no test", dir)
	}
	return all, nil
}

// switched returns the text of a file with a switch around each of its conditions.
func switched(text []byte, conditions []*condition) []byte {
	type insertion struct {
		at   int
		text string
	}
	var all []insertion
	for _, c := range conditions {
		all = append(all, insertion{c.from, fmt.Sprintf("mutant(%d, ", c.number)}, insertion{c.to, ")"})
	}
	slices.SortStableFunc(all, func(a, b insertion) int { return cmp.Compare(a.at, b.at) })
	var b bytes.Buffer
	at := 0
	for _, in := range all {
		b.Write(text[at:in.at])
		b.WriteString(in.text)
		at = in.at
	}
	b.Write(text[at:])
	return b.Bytes()
}

// switchText is the file that a package has more while it is tested: the switches.
const switchText = `package %s

import (
	"os"
	"strconv"
	"sync/atomic"
)

var (
	mutantOut, _ = strconv.Atoi(os.Getenv("MUTANT_OUT"))
	mutantTrue   = os.Getenv("MUTANT_TRUE") // the file that takes the numbers of those that came true
	mutantSeen   [%d]atomic.Bool
)

func mutant(number int, is bool) bool {
	if !is || number == mutantOut {
		return false
	}
	if mutantTrue != "" && !mutantSeen[number].Swap(true) {
		f, err := os.OpenFile(mutantTrue, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			panic(err)
		}
		defer f.Close()
		if _, err := f.WriteString(strconv.Itoa(number) + "\n"); err != nil {
			panic(err)
		}
	}
	return true
}
`

// Package coursefile reads files of courses, in YAML or JSON, as docs/import.md describes them.
package coursefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// Bounds, in bytes, characters (not bytes) and things. The ID of a module has to fit a varchar(100).
const (
	MaxFile = 64 << 20

	maxCourses     = 10_000
	maxQuestions   = 200_000 // in all
	maxMembers     = 1_000   // modules of a course, questions of a module
	maxID          = 100
	maxTitle       = 200
	maxDescription = 10_000
	maxHash        = 200
	maxText        = 2_000
	minOptions     = 2
	maxOptions     = 20
)

// mostProblems are listed of a file; of more only the number is said.
const mostProblems = 20

// Parse returns the courses of a file, whose name is for messages. Its error lists what is wrong, each
// with the line, the field and what to do.
func Parse(name string, text []byte) ([]learning.CourseImport, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%s: has %d bytes, and may have %d: split it", name, len(text), MaxFile)
	}
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("%s: is no text in UTF-8", name)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, next yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: is empty: it must have the field courses", name)
	} else if err != nil {
		return nil, fmt.Errorf("%s: is neither YAML nor JSON: %w", name, err)
	}
	if err := decoder.Decode(&next); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:%d: a second document begins here: put all courses into the first", name, max(next.Line, 1))
	}
	r := &reader{name: name, seen: map[string]int{}}
	courses := r.file(document.Content[0])
	if len(r.problems) == 0 {
		return courses, nil
	}
	if more := len(r.problems) - mostProblems; more > 0 {
		r.problems = append(r.problems[:mostProblems], fmt.Sprintf("%s: and %d more", name, more))
	}
	return nil, errors.New(strings.Join(r.problems, "\n"))
}

// reader collects what is wrong with a file.
type reader struct {
	name      string
	problems  []string
	questions int
	seen      map[string]int // what must be unique → the line where it stood first
}

// value is a value of the file, and where it stands.
type value struct {
	*yaml.Node
	path string
}

func (r *reader) problem(v value, format string, args ...any) {
	path := v.path
	if path != "" {
		path += ": "
	}
	r.problems = append(r.problems, fmt.Sprintf("%s:%d: %s%s", r.name, v.Line, path, fmt.Sprintf(format, args...)))
}

// field of an object, and what reads it.
type field struct {
	name     string
	required bool
	read     func(v value)
}

// object reads an object with some fields and no others. A value that is written elsewhere (an alias
// of YAML) is read where it stands.
func (r *reader) object(v value, fields ...field) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	if v.Node = resolve(v.Node); v.Kind != yaml.MappingNode {
		r.problem(v, "must be an object with the fields %s, not %s", strings.Join(names, ", "), describe(v.Node))
		return
	}
	given := map[string]int{} // field → line
	for i := 0; i+1 < len(v.Content); i += 2 {
		name := v.Content[i].Value
		in := value{v.Content[i+1], strings.TrimPrefix(v.path+"."+name, ".")}
		at := slices.Index(names, name)
		switch first := given[name]; {
		case at < 0:
			r.problem(value{v.Content[i], v.path}, "has no field %q: there are %s", name, strings.Join(names, ", "))
		case first > 0:
			r.problem(value{v.Content[i], in.path}, "is given twice, first on line %d", first)
		case resolve(in.Node).Tag == "!!null":
			r.problem(in, "has no value: leave the field out, and what is stored stays")
		default:
			fields[at].read(in)
		}
		if given[name] == 0 {
			given[name] = v.Content[i].Line
		}
	}
	for _, f := range fields {
		if f.required && given[f.name] == 0 {
			r.problem(v, "%s is missing", f.name)
		}
	}
}

func (r *reader) list(v value, least, most int, each func(v value)) {
	if v.Node = resolve(v.Node); v.Kind != yaml.SequenceNode {
		r.problem(v, "must be a list, not %s", describe(v.Node))
		return
	}
	if n := len(v.Content); n < least || n > most {
		r.problem(v, "has %d elements: between %d and %d are possible", n, least, most)
		return
	}
	for i, n := range v.Content {
		each(value{n, fmt.Sprintf("%s[%d]", v.path, i)})
	}
}

// text reads a text that is not blank, unless it may be.
func (r *reader) text(v value, most int, mayBeBlank bool) string {
	v.Node = resolve(v.Node)
	switch n := utf8.RuneCountInString(v.Value); {
	case v.Kind != yaml.ScalarNode || v.Tag != "!!str":
		r.problem(v, "must be a text, not %s: quotes make it one", describe(v.Node))
	case !mayBeBlank && strings.TrimSpace(v.Value) == "":
		r.problem(v, "is blank")
	case n > most:
		r.problem(v, "has %d characters: at most %d are possible", n, most)
	case learning.HasControls(v.Value):
		r.problem(v, "has a control character")
	}
	return v.Value
}

// unique says that a value must not stand twice in a scope.
func (r *reader) unique(v value, scope, what string) {
	key := scope + "\x00" + what
	if first := r.seen[key]; first > 0 {
		r.problem(v, "%q stands on line %d too", what, first)
		return
	}
	r.seen[key] = v.Line
}

func (r *reader) file(root *yaml.Node) (courses []learning.CourseImport) {
	r.object(value{root, ""}, field{"courses", true, func(v value) {
		r.list(v, 1, maxCourses, func(v value) { courses = append(courses, r.course(v)) })
	}})
	return courses
}

func (r *reader) course(v value) (c learning.CourseImport) {
	r.object(
		v,
		field{"id", true, func(v value) {
			id, err := learning.ParseID[learning.Course](r.text(v, maxID, false))
			if err != nil {
				r.problem(v, "%v", err)
				return
			}
			c.ID = id
			r.unique(v, "courses", id.String())
		}},
		field{"title", true, func(v value) { c.Title = r.text(v, maxTitle, false) }},
		field{"description", false, func(v value) { c.Description = new(r.text(v, maxDescription, true)) }},
		field{"difficulty", false, func(v value) {
			d := learning.Difficulty(r.text(v, maxID, false))
			if !slices.Contains(learning.Difficulties, d) {
				r.problem(v, "is %q: must be one of beginner, intermediate, advanced", d)
			}
			c.Difficulty = &d
		}},
		field{"contentHash", false, func(v value) { c.ContentHash = new(r.text(v, maxHash, false)) }},
		field{"active", false, func(v value) {
			var active bool
			if v.Node = resolve(v.Node); v.Tag != "!!bool" || v.Decode(&active) != nil {
				r.problem(v, "must be true or false, not %s", describe(v.Node))
			}
			c.IsActive = &active
		}},
		field{"modules", false, func(v value) {
			scope := "modules of " + v.path
			r.list(v, 1, maxMembers, func(v value) { c.Modules = append(c.Modules, r.module(v, scope)) })
		}},
	)
	return c
}

func (r *reader) module(v value, scope string) (m learning.ModuleImport) {
	r.object(
		v,
		field{"id", true, func(v value) {
			m.ID = learning.ModuleID(r.text(v, maxID, false))
			r.unique(v, scope, string(m.ID))
		}},
		field{"title", false, func(v value) { m.Title = new(r.text(v, maxTitle, false)) }},
		field{"questions", false, func(v value) {
			scope := "questions of " + v.path
			r.list(v, 1, maxMembers, func(v value) {
				if r.questions++; r.questions == maxQuestions+1 {
					r.problem(v, "is question %d of the file: split it", r.questions)
				}
				if r.questions <= maxQuestions {
					m.Questions = append(m.Questions, r.question(v, scope))
				}
			})
		}},
	)
	return m
}

func (r *reader) question(v value, scope string) (q learning.Question) {
	correct := value{}
	r.object(
		v,
		field{"id", true, func(v value) {
			q.ID = r.text(v, maxID, false)
			r.unique(v, scope, q.ID)
		}},
		field{"text", true, func(v value) { q.Text = r.text(v, maxText, false) }},
		field{"options", true, func(v value) {
			scope := "options of " + v.path
			r.list(v, minOptions, maxOptions, func(v value) {
				option := r.text(v, maxText, false)
				q.Options = append(q.Options, option)
				r.unique(v, scope, option)
			})
		}},
		field{"correctIndex", true, func(v value) { correct = v }},
	)
	if correct.Node == nil {
		return q
	}
	if n := resolve(correct.Node); n.Tag != "!!int" || n.Decode(&q.CorrectIndex) != nil || q.CorrectIndex < 0 || len(q.Options) > 0 && q.CorrectIndex >= len(q.Options) {
		r.problem(correct, "is %s: must be the number of an option, from 0 to %d", describe(n), max(len(q.Options)-1, 0))
	}
	return q
}

// resolve follows aliases. One cannot contain itself forever: what is read has four levels.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// describe says what a value is, for messages.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	}
	const most = 40
	if runes := []rune(n.Value); len(runes) > most {
		return fmt.Sprintf("%q…", string(runes[:most]))
	}
	return fmt.Sprintf("%q", n.Value)
}

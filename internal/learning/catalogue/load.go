package catalogue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The files are decoded level by level and not in one go: a decoder reports an
// unknown or mistyped field by its name alone, and only we know which question
// of which module it stands in. Where zero is a legal value a pointer tells it
// from a field that was left out.
type (
	courseFile struct {
		Slug        string            `json:"slug"`
		Title       string            `json:"title"`
		Description string            `json:"description"`
		Difficulty  string            `json:"difficulty"`
		Active      *bool             `json:"active"`
		CreatedAt   time.Time         `json:"createdAt"`
		Modules     []json.RawMessage `json:"modules"`
	}
	moduleFile struct {
		ID        string            `json:"id"`
		Title     string            `json:"title"`
		Order     int               `json:"order"`
		Questions []json.RawMessage `json:"questions"`
	}
	questionFile struct {
		ID           string   `json:"id"`
		Text         string   `json:"text"`
		Options      []string `json:"options"`
		CorrectIndex *int     `json:"correctIndex"`
	}
)

// Limits, in characters and in numbers of things. An id must fit the
// varchar(100) of a module's id in the database.
const (
	maxID          = 100
	maxTitle       = 100
	maxDescription = 600
	maxQuestion    = 200
	maxOption      = 160

	minModules, maxModules     = 3, 6
	minQuestions, maxQuestions = 3, 20
	minOptions, maxOptions     = 3, 4
	minSentences, maxSentences = 2, 4
)

var (
	difficulties = []string{"beginner", "intermediate", "advanced"}

	slugPattern = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

	// sentenceEnd also counts "web3.js" right: a full stop ends a sentence only
	// before white space or at the end.
	sentenceEnd = regexp.MustCompile(`[.!?](\s|$)`)

	// An option that refers to others gives itself away and breaks as soon as
	// the options are shuffled.
	blanketOption = regexp.MustCompile(`(?i)\b(all|any|both|none|neither) of (the )?(above|these|others)\b`)
)

// load reads and checks every course in fsys, oldest first.
func load(fsys fs.FS) ([]Course, error) {
	names, err := fs.Glob(fsys, "courses/*.json")
	if err != nil {
		return nil, fmt.Errorf("list the catalogue: %w", err)
	}
	l := &loader{seen: make(map[string]string)}
	courses := make([]Course, 0, len(names))
	for _, name := range names {
		raw, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("read the catalogue: %w", err)
		}
		courses = append(courses, l.course(location{l, name}, raw))
	}
	if len(l.errs) > 0 {
		return nil, errors.Join(l.errs...)
	}
	slices.SortFunc(courses, func(a, b Course) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return courses, nil
}

type loader struct {
	errs []error
	seen map[string]string // what must be unique → where it stood first
}

// A location is where in the catalogue a value stands.
type location struct {
	l  *loader
	at string
}

// element returns the location of the i-th element of list, named by its id if it has one.
func (p location) element(list string, i int, id string) location {
	at := fmt.Sprintf("%s: %s[%d]", p.at, list, i)
	if id != "" {
		at += " " + strconv.Quote(id)
	}
	return location{p.l, at}
}

// addError records what is wrong with a field and what to do about it.
func (p location) addError(field, format string, args ...any) {
	p.l.errs = append(p.l.errs, fmt.Errorf("%s: %s: %s", p.at, field, fmt.Sprintf(format, args...)))
}

// checkUnique demands that no other location of the same scope holds value in field.
func (p location) checkUnique(scope, field, value string) {
	// Case and outer punctuation do not make a text another one.
	key := scope + "\x00" + strings.ToLower(strings.TrimFunc(value, unicode.IsPunct))
	if first, ok := p.l.seen[key]; ok {
		p.addError(field, "%q is already used in %s; change one of them", value, first)
		return
	}
	p.l.seen[key] = p.at
}

// checkText demands a clean line of at most limit characters.
func (p location) checkText(field, value string, limit int) {
	switch n := utf8.RuneCountInString(value); {
	case value == "":
		p.addError(field, "is missing or empty")
	case n > limit:
		p.addError(field, "has %d characters; at most %d are allowed", n, limit)
	case strings.Join(strings.Fields(value), " ") != value:
		p.addError(field, "%q has outer, repeated or unusual white space; use single spaces", value)
	case strings.ContainsFunc(value, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }):
		p.addError(field, "%q holds a character that cannot be printed", value)
	}
}

func (p location) checkSlug(field, value string) {
	if len(value) > maxID || !slugPattern.MatchString(value) {
		p.addError(field, "is %q; use at most %d lower-case letters and digits, joined by single hyphens", value, maxID)
	}
}

func (p location) checkCount(field string, n, least, most int) {
	if n < least || n > most {
		p.addError(field, "has %d; between %d and %d are needed", n, least, most)
	}
}

// decode fills v from exactly one JSON value, without unknown fields.
func (p location) decode(raw []byte, v any) bool {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, next := dec.Token(); next != io.EOF {
			err = errors.New("more text after the value; keep one object per file")
		}
	}
	if err != nil {
		p.l.errs = append(p.l.errs, fmt.Errorf("%s: %w", p.at, err))
	}
	return err == nil
}

func (l *loader) course(p location, raw []byte) Course {
	var f courseFile
	if !p.decode(raw, &f) {
		return Course{}
	}
	p.checkSlug("slug", f.Slug)
	// Slugs are unique because file names are.
	if want := strings.TrimSuffix(path.Base(p.at), ".json"); f.Slug != want {
		p.addError("slug", "is %q; it must be the name of the file, %q", f.Slug, want)
	}
	p.checkText("title", f.Title, maxTitle)
	p.checkUnique("course title", "title", f.Title)
	p.checkText("description", f.Description, maxDescription)
	if n := len(sentenceEnd.FindAllString(f.Description, -1)); n < minSentences || n > maxSentences {
		p.addError("description", "has %d sentences; between %d and %d are needed", n, minSentences, maxSentences)
	}
	if !slices.Contains(difficulties, f.Difficulty) {
		p.addError("difficulty", "is %q; use one of %s", f.Difficulty, strings.Join(difficulties, ", "))
	}
	if f.Active == nil {
		p.addError("active", "is missing; write true or false")
		f.Active = new(bool)
	}
	switch _, offset := f.CreatedAt.Zone(); {
	case f.CreatedAt.IsZero():
		p.addError("createdAt", "is missing; write a time such as 2025-03-04T09:00:00Z")
	case offset != 0 || f.CreatedAt.Nanosecond() != 0:
		p.addError("createdAt", "is %s; use whole seconds in UTC", f.CreatedAt.Format(time.RFC3339Nano))
	default:
		// Two courses of one age would be listed in the order of their ids,
		// which an author cannot foresee.
		p.checkUnique("createdAt", "createdAt", f.CreatedAt.Format(time.RFC3339))
	}
	p.checkCount("modules", len(f.Modules), minModules, maxModules)

	c := Course{
		Slug: f.Slug, Title: f.Title, Description: f.Description, Difficulty: f.Difficulty,
		Active: *f.Active, CreatedAt: f.CreatedAt.UTC(), Modules: make([]Module, 0, len(f.Modules)),
	}
	for i, raw := range f.Modules {
		c.Modules = append(c.Modules, l.module(p, i, raw))
	}
	return c
}

func (l *loader) module(course location, i int, raw []byte) Module {
	var f moduleFile
	if !course.element("modules", i, "").decode(raw, &f) {
		return Module{}
	}
	p := course.element("modules", i, f.ID)
	p.checkSlug("id", f.ID)
	p.checkUnique("module of "+course.at, "id", f.ID)
	p.checkText("title", f.Title, maxTitle)
	p.checkUnique("module title of "+course.at, "title", f.Title)
	if f.Order != i+1 {
		p.addError("order", "is %d; modules are numbered in the order of the file, so it must be %d", f.Order, i+1)
	}
	p.checkCount("questions", len(f.Questions), minQuestions, maxQuestions)

	m := Module{ID: f.ID, Title: f.Title, Order: f.Order, Questions: make([]Question, 0, len(f.Questions))}
	for i, raw := range f.Questions {
		m.Questions = append(m.Questions, l.question(p, i, raw))
	}
	return m
}

func (l *loader) question(module location, i int, raw []byte) Question {
	var f questionFile
	if !module.element("questions", i, "").decode(raw, &f) {
		return Question{}
	}
	p := module.element("questions", i, f.ID)
	p.checkSlug("id", f.ID)
	p.checkUnique("question of "+module.at, "id", f.ID)
	p.checkText("text", f.Text, maxQuestion)
	p.checkUnique("question text", "text", f.Text)
	p.checkCount("options", len(f.Options), minOptions, maxOptions)
	for j, option := range f.Options {
		field := fmt.Sprintf("options[%d]", j)
		p.checkText(field, option, maxOption)
		if first := slices.IndexFunc(f.Options[:j], func(o string) bool { return strings.EqualFold(o, option) }); first >= 0 {
			p.addError(field, "%q repeats options[%d]", option, first)
		}
		if blanketOption.MatchString(option) {
			p.addError(field, "%q refers to other options; each must stand for itself", option)
		}
	}
	switch {
	case f.CorrectIndex == nil:
		p.addError("correctIndex", "is missing")
		f.CorrectIndex = new(int)
	case *f.CorrectIndex < 0 || *f.CorrectIndex >= len(f.Options):
		p.addError("correctIndex", "is %d; it must name one of the %d options, counted from 0", *f.CorrectIndex, len(f.Options))
	}
	return Question{ID: f.ID, Text: f.Text, Options: f.Options, CorrectIndex: *f.CorrectIndex}
}

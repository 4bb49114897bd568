package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// maxBody is the most bytes of a request's body.
const maxBody = 100 << 10

// fieldErrors collects what is wrong with a request, so that a client learns of everything at
// once.
type fieldErrors map[string][]string // part of the request → "field: what is wrong"

func (errs fieldErrors) add(place, field, format string, args ...any) {
	errs[place] = append(errs[place], field+": "+fmt.Sprintf(format, args...))
}

func (errs fieldErrors) err() error {
	if len(errs) == 0 {
		return nil
	}
	return &problem{kind: validation, message: "The request is not valid", details: errs}
}

// idParam reads an ID from the path.
func idParam[K any](r *http.Request, name string, errs fieldErrors) learning.ID[K] {
	id, err := learning.ParseID[K](r.PathValue(name))
	if err != nil {
		errs.add("params", name, "%v", err)
	}
	return id
}

const maxModuleID = 100 // characters, as wide as its column

func checkModuleID(id string) string {
	switch {
	case id == "" || utf8.RuneCountInString(id) > maxModuleID:
		return fmt.Sprintf("must have 1 to %d characters", maxModuleID)
	case !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl):
		return "must not contain control characters"
	}
	return ""
}

// query parses the query part of the address. Unknown parameters are ignored.
func query(r *http.Request, errs fieldErrors) url.Values {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		errs["query"] = append(errs["query"], "is malformed: "+err.Error())
	}
	return q
}

// singleValue returns the single value of a parameter.
func singleValue(q url.Values, name string, errs fieldErrors) (value string, given bool) {
	switch values := q[name]; len(values) {
	case 0:
		return "", false
	case 1:
		return values[0], true
	default:
		errs.add("query", name, "must be given once, not %d times", len(values))
		return "", false
	}
}

func intParam(q url.Values, name string, fallback, maximum int, errs fieldErrors) int {
	s, given := singleValue(q, name, errs)
	if !given {
		return fallback
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maximum || strings.TrimLeft(s, "0123456789") != "" {
		errs.add("query", name, "must be between 1 and %d", maximum)
		return fallback
	}
	return n
}

func pageOf(q url.Values, errs fieldErrors) (page, limit int) {
	return intParam(q, "page", 1, learning.MaxPage, errs), intParam(q, "limit", learning.DefaultLimit, learning.MaxLimit, errs)
}

func difficultyOf(q url.Values, errs fieldErrors) learning.Difficulty {
	s, given := singleValue(q, "difficulty", errs)
	if !given {
		return ""
	}
	for _, d := range learning.Difficulties {
		if s == string(d) {
			return d
		}
	}
	errs.add("query", "difficulty", "must be one of beginner, intermediate, advanced")
	return ""
}

// object is a JSON object of a request's body, or within it. Its methods add what is
// wrong to errs, and unknown fields are ignored.
type object struct {
	fields map[string]json.RawMessage
	path   string // of the object, with a dot at its end; empty for the body itself
	errs   fieldErrors
}

// body reads the request's body, which must be a JSON object. What is wrong with it is
// added to errs; an error is for a body that is too large or does not arrive.
func body(r *http.Request, errs fieldErrors) (object, error) {
	o := object{errs: errs}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return o, &problem{kind: tooLarge, message: fmt.Sprintf("The body must have at most %d bytes", maxBody)}
		}
		return o, &problem{kind: validation, message: "The body did not arrive whole", err: err}
	}
	if err := json.Unmarshal(data, &o.fields); err != nil || o.fields == nil {
		errs["body"] = append(errs["body"], "must be a JSON object"+syntaxHint(err, len(data)))
	}
	return o, nil
}

func syntaxHint(err error, size int) string {
	if size == 0 {
		return "; it is empty"
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("; %v at byte %d", e, e.Offset)
	}
	return ""
}

// ok says that the object could be read at all: without it, nothing is said about fields.
func (o object) ok() bool { return o.fields != nil }

func (o object) addError(name, format string, args ...any) {
	o.errs.add("body", o.path+name, format, args...)
}

// optionalText returns a field that may be left out.
func (o object) optionalText(name string) (s string, given bool) {
	raw, given := o.fields[name]
	if !given || !o.ok() {
		return "", false
	}
	if string(raw) == "null" || json.Unmarshal(raw, &s) != nil {
		o.addError(name, "must be a text")
		return "", false
	}
	return s, true
}

// requiredText returns a field that must be there.
func (o object) requiredText(name string) (s string, ok bool) {
	if _, given := o.fields[name]; !given {
		if o.ok() {
			o.addError(name, "is required")
		}
		return "", false
	}
	return o.optionalText(name)
}

func requiredID[K any](o object, name string) learning.ID[K] {
	s, ok := o.requiredText(name)
	if !ok {
		return learning.ID[K]{}
	}
	id, err := learning.ParseID[K](s)
	if err != nil {
		o.addError(name, "%v", err)
	}
	return id
}

func (o object) moduleID(name string) learning.ModuleID {
	s, ok := o.requiredText(name)
	if ok {
		if problem := checkModuleID(s); problem != "" {
			o.addError(name, "%s", problem)
		}
	}
	return learning.ModuleID(s)
}

func (o object) idempotencyKey(name string) string {
	s, ok := o.requiredText(name)
	if ok {
		if problem := learning.CheckIdempotencyKey(s); problem != "" {
			o.addError(name, "%s", problem)
		}
	}
	return s
}

// requiredInt returns an integer field that must be there.
func (o object) requiredInt(name string) int {
	raw, given := o.fields[name]
	if !given {
		o.addError(name, "is required")
		return 0
	}
	var n int
	if string(raw) == "null" || json.Unmarshal(raw, &n) != nil {
		o.addError(name, "must be a whole number")
	}
	return n
}

// objects returns a field that must be a list of at most maximum objects.
func (o object) objects(name string, maximum int) []object {
	if !o.ok() {
		return nil
	}
	raw, given := o.fields[name]
	if !given {
		o.addError(name, "is required")
		return nil
	}
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil || items == nil {
		o.addError(name, "must be a list")
		return nil
	}
	if len(items) > maximum {
		o.addError(name, "must have at most %d entries, not %d", maximum, len(items))
		return nil
	}
	list := make([]object, 0, len(items))
	for i, item := range items {
		entry := object{path: fmt.Sprintf("%s%s[%d].", o.path, name, i), errs: o.errs}
		if json.Unmarshal(item, &entry.fields) != nil || entry.fields == nil {
			o.addError(fmt.Sprintf("%s[%d]", name, i), "must be an object")
			continue
		}
		list = append(list, entry)
	}
	return list
}

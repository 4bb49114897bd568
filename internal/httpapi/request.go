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
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// maxBody is the most bytes of a request's body.
const maxBody = 100 << 10

// limitBodyTime bounds the time in which the request's body arrives. Without it the server would
// wait for a body that no handler reads, before it sends the answer, until no answer may be sent.
func limitBodyTime(w http.ResponseWriter, r *http.Request, limit time.Duration) {
	if r.ContentLength == 0 {
		return
	}
	c := http.NewResponseController(w)
	if c.SetReadDeadline(time.Now().Add(limit)) == nil { // else there is no connection, as in a test
		r.Body = &timedBody{r.Body, c}
	}
}

// timedBody takes the deadline back when the body has arrived. From then on the server reads to see
// whether the client leaves, and the deadline would look as if it had.
type timedBody struct {
	io.ReadCloser
	c *http.ResponseController
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.c.SetReadDeadline(time.Time{}) // it was set before
	}
	return n, err
}

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

// MaxModuleID is the most characters of a module's ID, as wide as its column.
const MaxModuleID = 100

func checkModuleID(id string) string {
	switch {
	case id == "" || utf8.RuneCountInString(id) > MaxModuleID:
		return fmt.Sprintf("must have 1 to %d characters", MaxModuleID)
	case !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl):
		return "must not contain control characters"
	}
	return ""
}

// query parses the query part of the address. Unknown parameters are ignored, whatever they look
// like. A parameter that cannot be decoded has its text as it was sent, which is no value of ours.
func query(r *http.Request) url.Values {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err == nil {
		return q
	}
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if _, err := url.ParseQuery(pair); err != nil {
			name, value, _ := strings.Cut(pair, "=")
			q.Add(name, value)
		}
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
	// The decoder replaces what is no character by U+FFFD, and something else would be stored than
	// was sent.
	if strings.ContainsRune(s, utf8.RuneError) && !isUnicode(raw) {
		o.addError(name, "must be Unicode: it has invalid UTF-8, or half of a surrogate pair")
		return "", false
	}
	return s, true
}

// isUnicode says whether a JSON string, which has been decoded once, has none but characters: valid
// UTF-8, and surrogates in pairs.
func isUnicode(raw []byte) bool {
	if !utf8.Valid(raw) {
		return false
	}
	escape := func(i int) rune { // the code unit of the escape at i, or -1
		if i+6 > len(raw) || raw[i] != '\\' || raw[i+1] != 'u' {
			return -1
		}
		n, err := strconv.ParseUint(string(raw[i+2:i+6]), 16, 16)
		if err != nil {
			return -1
		}
		return rune(n)
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		if unit := escape(i); utf16.IsSurrogate(unit) {
			if utf16.DecodeRune(unit, escape(i+6)) == utf8.RuneError {
				return false
			}
			i += 6
		}
		i++ // what is escaped is no backslash of its own
	}
	return true
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

package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// What the types of Go do not say.

func uuidSchema() *openapi3.Schema { return openapi3.NewUUIDSchema() }

func timeSchema() *openapi3.Schema {
	s := openapi3.NewDateTimeSchema()
	s.Description = "ISO 8601, in UTC, with milliseconds."
	s.Pattern = `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`
	return s
}

func text(least, most int64) func() *openapi3.Schema {
	return func() *openapi3.Schema { return openapi3.NewStringSchema().WithMinLength(least).WithMaxLength(most) }
}

func number(least, most, otherwise float64) func() *openapi3.Schema {
	return func() *openapi3.Schema {
		return openapi3.NewIntegerSchema().WithMin(least).WithMax(most).WithDefault(otherwise)
	}
}

func oneOf[S ~string](values []S) func() *openapi3.Schema {
	return func() *openapi3.Schema {
		s := openapi3.NewStringSchema()
		for _, v := range values {
			s.Enum = append(s.Enum, string(v))
		}
		return s
	}
}

var parameters = map[string]func() *openapi3.Schema{
	"id":         uuidSchema,
	"moduleId":   text(1, httpapi.MaxModuleID),
	"difficulty": oneOf(learning.Difficulties),
	"page":       number(1, learning.MaxPage, 1),
	"limit":      number(1, learning.MaxLimit, learning.DefaultLimit),
}

// types are those that JSON has as a text.
var types = map[reflect.Type]func() *openapi3.Schema{
	reflect.TypeFor[learning.Time]():       timeSchema,
	reflect.TypeFor[learning.Difficulty](): oneOf(learning.Difficulties),
	reflect.TypeFor[learning.Pace]():       oneOf(learning.Paces),
	reflect.TypeFor[learning.ModuleID]():   text(1, httpapi.MaxModuleID),
}

// bounds are by component and property.
var bounds = map[string]func(*openapi3.Schema){
	"ProfileChange.displayName":   most(learning.MaxDisplayName),
	"ProfileChange.background":    most(learning.MaxBackground),
	"ProfileChange.learningGoal":  most(learning.MaxLearningGoal),
	"ProfileChange.language":      func(s *openapi3.Schema) { s.WithMinLength(1).WithMaxLength(learning.MaxLanguage) },
	"ClaimRequest.idempotencyKey": func(s *openapi3.Schema) { s.WithMinLength(1).WithMaxLength(learning.MaxIdempotencyKey) },
	"MintRequest.idempotencyKey":  func(s *openapi3.Schema) { s.WithMinLength(1).WithMaxLength(learning.MaxIdempotencyKey) },
	"QuizAnswers.answers":         func(s *openapi3.Schema) { s.WithMaxItems(httpapi.MaxAnswers) },
	"Submission.percentage":       func(s *openapi3.Schema) { s.WithMin(0).WithMax(100) },
	"Problem.error":               func(s *openapi3.Schema) { s.Enum = httpapi.ProblemCodes() },
	"Meta.version":                func(s *openapi3.Schema) { s.Enum = []any{"v1"} },
	"Health.status":               func(s *openapi3.Schema) { s.Enum = []any{"ok", "degraded", "starting", "stopping", "unavailable"} },
	"Checks.database":             func(s *openapi3.Schema) { s.Enum = []any{"ok", "read-only", "down"} },
	"Checks.cache":                func(s *openapi3.Schema) { s.Enum = []any{"ok", "recovering", "down"} },
}

func most(characters int64) func(*openapi3.Schema) {
	return func(s *openapi3.Schema) { s.WithMaxLength(characters) }
}

// customize makes of the schema of a Go type that of what clients get: each field is there, unless
// it may be left out, and null is a type.
func (d *describer) customize(_ string, t reflect.Type, _ reflect.StructTag, s *openapi3.Schema) error {
	nullable := s.Nullable
	switch schema := types[t]; {
	case schema != nil:
		*s = *schema()
	case strings.HasPrefix(t.Name(), "ID["):
		*s = *uuidSchema()
	case t.Kind() == reflect.Struct:
		name := componentName(t)
		if other := d.named[name]; other != nil && other != t {
			return fmt.Errorf("both %v and %v would be the component %s", t, other, name)
		}
		d.named[name] = t
		s.Required = slices.Sorted(maps.Keys(s.Properties))
		for _, f := range reflect.VisibleFields(t) {
			if property, options, _ := strings.Cut(f.Tag.Get("json"), ","); options == "omitempty" {
				s.Required = slices.DeleteFunc(s.Required, func(r string) bool { return r == property })
			}
		}
		for property, schema := range s.Properties {
			if bound := bounds[name+"."+property]; bound != nil {
				bound(schema.Value)
			}
		}
	}
	s.Nullable = false
	if nullable && s.Type != nil && t.Kind() != reflect.Struct {
		s.Type = &openapi3.Types{(*s.Type)[0], "null"}
	}
	return nil
}

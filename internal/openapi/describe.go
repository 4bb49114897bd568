package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3gen"

	"github.com/chainlearn/chainlearn/internal/httpapi"
)

const about = `Courses, enrolments, quizzes, progress, rewards and credentials.

Every route under /api/v1 also answers under /api, and a GET route also HEAD. Unknown query parameters and unknown fields of a body are ignored. A body has at most 100 KiB.

An answer that may come from the cache has an ETag, which makes the next request conditional (If-None-Match), and says in Cache-Status (RFC 9211) how it came about. A request with "Cache-Control: no-cache" gets an answer that was validated after it was sent.`

// describer builds the description.
type describer struct {
	*openapi3.T
	schemas *openapi3gen.Generator
	named   map[string]reflect.Type // components
}

func describe() (*openapi3.T, error) {
	d := &describer{
		T: &openapi3.T{
			OpenAPI: "3.1.0",
			Info:    &openapi3.Info{Title: "chainlearn", Version: "1", Description: about},
			Servers: openapi3.Servers{{URL: "/"}},
			Paths:   openapi3.NewPaths(),
			Components: &openapi3.Components{
				Schemas:         openapi3.Schemas{"Time": openapi3.NewSchemaRef("", timeSchema())},
				Headers:         headers(),
				SecuritySchemes: openapi3.SecuritySchemes{"token": {Value: openapi3.NewJWTSecurityScheme().WithDescription("The token of /auth/verify.")}},
			},
		},
		named: map[string]reflect.Type{},
	}
	d.schemas = openapi3gen.NewGenerator(
		openapi3gen.CreateComponentSchemas(openapi3gen.ExportComponentSchemasOptions{ExportComponentSchemas: true, ExportTopLevelSchema: true}),
		openapi3gen.CreateTypeNameGenerator(componentName),
		openapi3gen.SchemaCustomizer(d.customize),
	)
	for _, v := range []any{httpapi.Problem{}, httpapi.Meta{}, httpapi.Pagination{}} {
		if _, err := d.schemaOf(v); err != nil {
			return nil, err
		}
	}
	for _, o := range httpapi.Operations() {
		operation, err := d.operation(o)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", o.Method, o.Path, err)
		}
		d.AddOperation(o.Path, o.Method, operation)
	}
	// What is read back has its references resolved, and can be validated.
	b, err := json.Marshal(d.T)
	if err != nil {
		return nil, err
	}
	whole, err := openapi3.NewLoader().LoadFromData(b)
	if err != nil {
		return nil, err
	}
	return whole, whole.Validate(context.Background())
}

// schemaOf returns the schema of a Go value, and adds those of its structs to the components.
func (d *describer) schemaOf(v any) (*openapi3.SchemaRef, error) {
	return d.schemas.NewSchemaRefForValue(v, d.Components.Schemas)
}

var pathParameter = regexp.MustCompile(`{(\w+)}`)

func (d *describer) operation(o httpapi.Operation) (*openapi3.Operation, error) {
	op := &openapi3.Operation{
		OperationID: o.ID, Tags: []string{o.Group}, Summary: o.Summary, Description: o.Description,
		Responses: openapi3.NewResponsesWithCapacity(8),
	}
	switch o.Auth {
	case httpapi.AuthRequired:
		op.Security = openapi3.NewSecurityRequirements().With(openapi3.NewSecurityRequirement().Authenticate("token"))
	case httpapi.AuthOptional:
		op.Security = openapi3.NewSecurityRequirements().With(openapi3.NewSecurityRequirement()).With(openapi3.NewSecurityRequirement().Authenticate("token"))
	}
	for _, m := range pathParameter.FindAllStringSubmatch(o.Path, -1) {
		op.AddParameter(openapi3.NewPathParameter(m[1]).WithSchema(parameters[m[1]]()))
	}
	for _, name := range o.Query {
		op.AddParameter(openapi3.NewQueryParameter(name).WithSchema(parameters[name]()))
	}
	if o.Conditional {
		for _, name := range []string{"If-Match", "If-None-Match"} {
			op.AddParameter(openapi3.NewHeaderParameter(name).WithDescription("Entity tags, as RFC 9110 has them.").WithSchema(openapi3.NewStringSchema()))
		}
	}
	if o.Cached {
		op.AddParameter(openapi3.NewHeaderParameter("If-None-Match").WithDescription("Entity tags that the client has.").WithSchema(openapi3.NewStringSchema()))
	}
	if o.Body != nil {
		schema, err := d.schemaOf(o.Body)
		if err != nil {
			return nil, err
		}
		op.RequestBody = &openapi3.RequestBodyRef{Value: openapi3.NewRequestBody().WithRequired(true).WithContent(content(schema, o.Body))}
	}
	if err := d.addSuccess(op, o); err != nil {
		return nil, err
	}
	if o.Bare {
		return op, d.addProbe(op, o)
	}
	d.addRefusals(op, o)
	return op, nil
}

// addSuccess describes the answer of a request that is carried out.
func (d *describer) addSuccess(op *openapi3.Operation, o httpapi.Operation) error {
	data, err := d.schemaOf(o.Data)
	if err != nil {
		return err
	}
	r := openapi3.NewResponse().WithDescription(o.Summary + ".")
	op.AddResponse(o.Status, r)
	r.Headers = headerRefs("X-Request-Id", "Cache-Control")
	if o.Bare {
		r.Headers = headerRefs("Cache-Control")
		r.Content = content(data, o.Data)
		return nil
	}
	maps.Copy(r.Headers, headerRefs("RateLimit", "RateLimit-Policy"))
	if o.Cached {
		maps.Copy(r.Headers, headerRefs("Cache-Status", "ETag"))
		known := openapi3.NewResponse().WithDescription("The client has the answer: If-None-Match names it.")
		known.Headers = headerRefs("X-Request-Id", "ETag", "Cache-Status")
		op.AddResponse(http.StatusNotModified, known)
	}
	envelope := openapi3.NewObjectSchema()
	example := map[string]any{"success": true, "data": o.Data, "meta": httpapi.ExampleMeta}
	add := func(name string, schema *openapi3.SchemaRef) {
		envelope.WithPropertyRef(name, schema)
		envelope.Required = append(envelope.Required, name)
	}
	add("success", openapi3.NewSchemaRef("", openapi3.NewBoolSchema().WithEnum(true)))
	if o.Message != "" {
		add("message", openapi3.NewSchemaRef("", openapi3.NewStringSchema().WithEnum(o.Message)))
		example["message"] = o.Message
	}
	add("data", data)
	if o.Paged {
		add("pagination", openapi3.NewSchemaRef("#/components/schemas/Pagination", nil))
		example["pagination"] = httpapi.Pagination{Page: 1, Limit: 20, Total: 1}
	}
	add("meta", openapi3.NewSchemaRef("#/components/schemas/Meta", nil))
	r.Content = content(openapi3.NewSchemaRef("", envelope), example)
	return nil
}

// addProbe describes the answer of a probe that is not well.
func (d *describer) addProbe(op *openapi3.Operation, o httpapi.Operation) error {
	data, err := d.schemaOf(o.Data)
	if err != nil {
		return err
	}
	for status, why := range o.Refusals {
		r := openapi3.NewResponse().WithDescription(why)
		r.Content = content(data, nil)
		op.AddResponse(status, r)
	}
	return nil
}

// addRefusals describes what a route may refuse, and what may stand in its way.
func (d *describer) addRefusals(op *openapi3.Operation, o httpapi.Operation) {
	refusals := map[int]string{
		429: "The quota of the learner or of the address is used up.",
		500: "A defect of the service. The message says nothing of it.",
		503: "OVERLOADED or UNAVAILABLE: the service has too much to do, or cannot reach what it needs. Nothing was done that a later request could not do.",
	}
	if o.Body != nil || len(o.Query) > 0 || strings.Contains(o.Path, "{") {
		refusals[400] = "Something in the request is not valid. details names each place and field."
	}
	if o.Body != nil {
		refusals[413] = "The body is too large."
	}
	if o.Auth == httpapi.AuthRequired {
		refusals[401] = "There is no token, or it is not valid, has expired or was revoked. A passing failure is 503, never 401."
	}
	maps.Copy(refusals, o.Refusals)
	for _, status := range slices.Sorted(maps.Keys(refusals)) {
		r := openapi3.NewResponse().WithDescription(refusals[status])
		r.Headers = headerRefs("X-Request-Id")
		switch status {
		case 401:
			maps.Copy(r.Headers, headerRefs("WWW-Authenticate"))
		case 429, 503:
			maps.Copy(r.Headers, headerRefs("Retry-After"))
		}
		r.Content = content(openapi3.NewSchemaRef("#/components/schemas/Problem", nil), httpapi.ExampleProblem(status))
		op.AddResponse(status, r)
	}
}

// content is JSON of a schema, with an example unless that is nil.
func content(schema *openapi3.SchemaRef, example any) openapi3.Content {
	m := openapi3.NewMediaType().WithSchemaRef(schema)
	if example != nil {
		b, err := json.Marshal(example)
		if err == nil {
			err = json.Unmarshal(b, &m.Example)
		}
		if err != nil {
			panic(err) // the values are this program's own
		}
	}
	return openapi3.Content{"application/json": m}
}

func headers() openapi3.Headers {
	all := openapi3.Headers{}
	for name, h := range map[string]struct {
		required             bool
		description, example string
	}{
		"X-Request-Id":     {true, "The client's, if it sent one that is fit for logs, else a fresh one.", "0199b5c2-5f6e-7c1a-9d3e-6f1a2b3c4d5e"},
		"Cache-Control":    {true, "no-cache on what a client may keep and must validate; public where it holds nothing of the caller. no-store on all else.", "private, no-cache"},
		"ETag":             {true, "Stands for data and pagination; meta takes no part in it.", `"3q2-7wEBAgMEBQYHCAkKCw"`},
		"Cache-Status":     {true, "How the answer came about: RFC 9211.", "chainlearn; hit; ttl=27"},
		"RateLimit":        {false, "What is left of each quota, unless there is none: draft-ietf-httpapi-ratelimit-headers.", `"default";r=5991;t=1`},
		"RateLimit-Policy": {false, "The quotas.", `"default";q=6000;w=60`},
		"Retry-After":      {true, "Seconds.", "2"},
		"WWW-Authenticate": {true, "Bearer.", "Bearer"},
	} {
		parameter := openapi3.Parameter{Description: h.description, Required: h.required, Schema: openapi3.NewSchemaRef("", openapi3.NewStringSchema()), Example: h.example}
		if name == "Retry-After" {
			parameter.Schema, parameter.Example = openapi3.NewSchemaRef("", openapi3.NewIntegerSchema().WithMin(1)), 2
		}
		all[name] = &openapi3.HeaderRef{Value: &openapi3.Header{Parameter: parameter}}
	}
	return all
}

func headerRefs(names ...string) openapi3.Headers {
	refs := openapi3.Headers{}
	for _, name := range names {
		refs[name] = &openapi3.HeaderRef{Ref: "#/components/headers/" + name}
	}
	return refs
}

// componentName is the name of a struct among the components.
func componentName(t reflect.Type) string {
	name := strings.TrimSuffix(t.Name(), "View")
	return strings.ToUpper(name[:1]) + name[1:]
}

package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// QueryInfo is what there is to know of a query without its types: see Cache.Queries.
type QueryInfo struct {
	Name   string
	Params json.RawMessage // the zero value of its parameters as JSON: what Cache.Inspect reads

	FreshFor             time.Duration
	StaleWhileRevalidate time.Duration
	StaleIfError         time.Duration
	Near                 time.Duration
	NearStrict           bool
	Owned                bool // answers belong to one owner each
}

// Queries returns what is known of each query, in the order of definition. It asks no store. Safe for
// concurrent use.
func (c *Cache) Queries() []QueryInfo {
	c.mu.Lock()
	defined := c.defined
	c.mu.Unlock()
	infos := make([]QueryInfo, len(defined))
	for i, d := range defined {
		infos[i] = d.info()
	}
	return infos
}

// Inspect is Cached.Inspect for a tool that knows a query by its name alone: params is a parameter of
// it as JSON (QueryInfo.Params shows its form), empty for the zero value. An error of its own says that
// there is no such query, or what is wrong with params. Safe for concurrent use.
func (c *Cache) Inspect(ctx context.Context, query string, params []byte) (Inspection, error) {
	c.mu.Lock()
	d, names := c.names[query], slices.Sorted(maps.Keys(c.names))
	c.mu.Unlock()
	if d == nil {
		return Inspection{}, fmt.Errorf("cache: there is no query %q: there are %s", query, strings.Join(names, ", "))
	}
	return d.inspect(ctx, params)
}

func (d *Cached[P, V]) info() QueryInfo {
	return QueryInfo{
		Name: d.q.Name, Params: zeroParams[P](), FreshFor: d.q.FreshFor, StaleWhileRevalidate: d.q.StaleWhileRevalidate,
		StaleIfError: d.q.StaleIfError, Near: d.q.Near, NearStrict: d.q.NearStrict, Owned: d.q.Owner != nil,
	}
}

// zeroParams is the zero value as JSON, or null if it has no form in it: then it cannot be read from it
// either, and inspect says why.
func zeroParams[P any]() json.RawMessage {
	var zero P
	params, err := func() (params []byte, err error) {
		defer caught("MarshalJSON", &err)
		return json.Marshal(zero)
	}()
	if err != nil {
		return json.RawMessage("null")
	}
	return params
}

func (d *Cached[P, V]) inspect(ctx context.Context, params []byte) (Inspection, error) {
	p, err := readParams[P](params)
	if err != nil {
		return Inspection{}, fmt.Errorf("cache: parameters %s of query %q: %w: they look like %s", params, d.q.Name, err, zeroParams[P]())
	}
	return d.Inspect(ctx, p)
}

func readParams[P any](params []byte) (p P, err error) {
	if len(params) == 0 {
		return p, nil
	}
	defer caught("UnmarshalJSON", &err)
	decoder := json.NewDecoder(bytes.NewReader(params))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		return p, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return p, errors.New("there is more after the value")
	}
	return p, nil
}

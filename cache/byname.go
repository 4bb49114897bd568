package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
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
	defined := c.defined
	c.mu.Unlock()
	names := make([]string, len(defined))
	for i, d := range defined {
		if names[i] = d.info().Name; names[i] == query {
			return d.inspect(ctx, params)
		}
	}
	return Inspection{}, fmt.Errorf("cache: there is no query %q: there are %s", query, strings.Join(names, ", "))
}

func (d *Cached[P, V]) info() QueryInfo {
	var zero P
	params, err := json.Marshal(zero)
	if err != nil {
		params = []byte("null") // Inspect cannot read them either, and says why
	}
	return QueryInfo{
		Name: d.q.Name, Params: params, FreshFor: d.q.FreshFor, StaleWhileRevalidate: d.q.StaleWhileRevalidate,
		StaleIfError: d.q.StaleIfError, Near: d.q.Near, NearStrict: d.q.NearStrict, Owned: d.q.Owner != nil,
	}
}

func (d *Cached[P, V]) inspect(ctx context.Context, params []byte) (Inspection, error) {
	var p P
	if len(params) > 0 {
		decoder := json.NewDecoder(bytes.NewReader(params))
		decoder.DisallowUnknownFields()
		err := decoder.Decode(&p)
		if err == nil {
			if _, end := decoder.Token(); end != io.EOF {
				err = fmt.Errorf("there is more after the value")
			}
		}
		if err != nil {
			return Inspection{}, fmt.Errorf("cache: parameters %s of query %q: %w: they look like %s", params, d.q.Name, err, d.info().Params)
		}
	}
	return d.Inspect(ctx, p)
}

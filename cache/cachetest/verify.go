package cachetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/chainlearn/chainlearn/cache"
)

// Verify fails a test for each mistake that it finds in the queries of c. Give it a Sample of
// each query, on a test database with rows that differ:
//
//	cachetest.Verify(t, c,
//		cachetest.Sample(product, 1, 2),
//		cachetest.Sample(list, ListParams{Page: 1}, ListParams{Page: 2}),
//		cachetest.From(db))
//
// Of each sample it demands:
//
//   - The value survives its codec: what is decoded equals what was loaded. Times are equal if
//     they are one instant with one offset, values with an Equal method if that says so.
//   - Parameters whose values differ have different keys: a Key that leaves out the page does
//     not. Only parameters that are in the sample can show it.
//   - Equal parameters have one key and the same tags, in the same order, each time.
//   - There are tags, and they are well formed.
//   - Load gives the same when called twice, and the same with the context of a request (see
//     As) as with the empty one that the cache calls it with. LoadMany gives what Load gives.
//   - Each table that Load reads is watched, if the source is a cache.Tracer, or Unchanging.
//   - A change of all rows of such a table touches a tag of at least one of the sample's answers,
//     if the source is a cache.DryRunner. So the test database needs rows in each table, and the
//     sample a parameter whose answer each table has a part in: one revoked token, one product
//     with a review. And each answer that was found, and is not empty, has a tag that a change
//     of some of the tables touches. Of a DryRunner that is no Tracer, the tables that record the
//     kinds of the answer's tags take the place of those that Load reads: it does not see a
//     table that Tags forgets.
//
// And of c, that cache.Cache.Check with the sources finds nothing. Notices are logged.
//
// Verify calls the loaders itself, some times each, and stores no answers.
func Verify(t testing.TB, c *cache.Cache, parts ...Part) {
	t.Helper()
	v := &verification{t: t, watched: map[int][]string{}, dryRuns: map[int]map[string]*cache.DryRun{}}
	for _, p := range parts {
		p(v)
	}
	for _, verify := range v.samples {
		verify(v)
	}
	findings, err := c.Check(t.Context(), v.sources...)
	for _, f := range findings {
		if f.Notice {
			t.Logf("%v", f)
		} else {
			t.Errorf("%v", f)
		}
	}
	if err != nil {
		t.Errorf("check: %v", err)
	}
}

// Part is something for Verify to take into account: Sample, From, As or Unchanging.
type Part func(*verification)

type verification struct {
	t       testing.TB
	request context.Context // nil: none was given
	sources []cache.Source
	samples []func(*verification)

	unchanging []string
	watched    map[int][]string                 // by the index of the source
	dryRuns    map[int]map[string]*cache.DryRun // by the index of the source, and the table
}

// From names the sources that the queries load from, such as the DB of an outbox.
func From(sources ...cache.Source) Part {
	return func(v *verification) { v.sources = append(v.sources, sources...) }
}

// As gives the context of a request of the program, with the values that its middleware puts
// there: a tenant, a user, a language. Load must not depend on them.
func As(request context.Context) Part { return func(v *verification) { v.request = request } }

// Unchanging names tables that no watch need record, as the source spells them: those whose rows
// never change while the program runs, such as countries, and those whose changes the program
// invalidates itself, such as a materialized view.
func Unchanging(tables ...string) Part {
	return func(v *verification) { v.unchanging = append(v.unchanging, tables...) }
}

// Sample names parameters of a query to verify it with. Two that differ in one field show
// whether Key knows of the field.
func Sample[P comparable, V any](q *cache.Cached[P, V], params ...P) Part {
	return func(v *verification) {
		v.samples = append(v.samples, func(v *verification) {
			v.t.Helper()
			s := &sample[P, V]{verification: v, cached: q, q: q.Query()}
			s.verify(params)
		})
	}
}

// sample is the verification of one query.
type sample[P comparable, V any] struct {
	*verification
	cached *cache.Cached[P, V]
	q      cache.Query[P, V]
	seen   []verified[P, V]
	tables []string // that were complained of
}

// verified is a parameter and what belongs to it.
type verified[P comparable, V any] struct {
	p     P
	key   string
	value result[V]
	tags  []cache.Tag      // its own
	added []cache.Tag      // what it depends on besides
	reads map[int][]string // tables that Load read, by the index of a source that is a Tracer
}

// result is what a loader returned, other than an error.
type result[V any] struct {
	value V
	found bool
	named []cache.Tag // by the loader
}

func (s *sample[P, V]) errorf(format string, args ...any) {
	s.t.Helper()
	s.t.Errorf("query %s: %s", s.q.Name, fmt.Sprintf(format, args...))
}

func (s *sample[P, V]) verify(params []P) {
	s.t.Helper()
	if len(params) == 0 {
		s.errorf("the sample has no parameters")
		return
	}
	for _, p := range params {
		in, ok := s.verifyNames(p)
		if !ok {
			continue
		}
		key := in.Key
		value, ok := s.verifyLoad(p)
		if !ok {
			continue
		}
		if len(in.Tags)+len(value.named) == 0 {
			s.errorf("%+v: Tags returns nothing, and Load names nothing: no write ends the answer before its time is over", p)
		}
		if value.found {
			s.verifyCodec(p, value.value)
		}
		for _, other := range s.seen {
			if key != other.key {
				continue
			}
			if at := differenceOf(other.value, value); at != "" {
				s.errorf("Key gives %q for %+v and for %+v, whose answers differ: %s: one caller would get the other's", key, other.p, p, at)
			}
		}
		s.seen = append(s.seen, verified[P, V]{p, key, value, slices.Concat(in.Tags, value.named), slices.Concat(in.Added, familiesOf(value.named)), s.verifyTables(p)})
	}
	s.verifyLoadMany()
	s.verifyTouched()
}

func familiesOf(tags []cache.Tag) (families []cache.Tag) {
	for _, t := range tags {
		families = append(families, t.Family())
	}
	return families
}

// verifyNames looks at the key and the tags of a parameter.
func (s *sample[P, V]) verifyNames(p P) (in cache.Inspection, ok bool) {
	s.t.Helper()
	in, err := s.cached.Inspect(s.t.Context(), p)
	if err != nil {
		s.errorf("%+v: %v", p, err)
		return in, false
	}
	for range 10 { // maps are walked in another order now and then
		again, err := s.cached.Inspect(s.t.Context(), equalTo(p))
		if err != nil {
			s.errorf("%+v: the second time: %v", p, err)
			return in, false
		}
		if again.Key != in.Key {
			s.errorf("%+v: Key gives %q and then %q for equal parameters: is there an address, a time or chance in it?", p, in.Key, again.Key)
			return in, false
		}
		if !slices.Equal(again.Tags, in.Tags) {
			s.errorf("%+v: Tags gives %v and then %v: they must be the same, and in one order, or the answer is never found valid", p, in.Tags, again.Tags)
			break
		}
	}
	return in, true
}

// verifyLoad loads as the cache does, twice, and as no cache may.
func (s *sample[P, V]) verifyLoad(p P) (first result[V], ok bool) {
	s.t.Helper()
	bare := context.Background()
	first, err := s.load(bare, p)
	if err != nil {
		if s.request != nil {
			if _, as := s.load(s.request, p); as == nil {
				s.errorf("%+v: Load needs values of the caller's context, which the cache does not give it: what it depends on belongs into the parameter, and what does not change the answer into ContextKeys: %v", p, err)
				return first, false
			}
		}
		s.errorf("%+v: Load: %v", p, err)
		return first, false
	}
	for _, with := range []struct {
		ctx   context.Context
		about string
	}{
		{bare, "Load gives different answers when called twice"},
		{onlyValues{bare, s.request, s.q.ContextKeys}, "Load gives another answer with the ContextKeys of the request: they must not change it"},
		{s.request, "Load gives another answer with the context of the request: it is called without its values, and serves many callers: put what it depends on into the parameter"},
	} {
		if with.ctx == nil || s.request == nil && with.ctx != bare {
			continue
		}
		again, err := s.load(with.ctx, p)
		if err != nil {
			s.errorf("%+v: %s: %v", p, with.about, err)
			return first, false
		}
		if at := differenceOf(first, again); at != "" {
			s.errorf("%+v: %s: %s", p, with.about, at)
			return first, false
		}
		if !slices.Equal(first.named, again.named) {
			s.errorf("%+v: Load names the tags %v with DependOn and then %v, for one answer: it would be loaded twice each time, and not stored", p, first.named, again.named)
			return first, false
		}
	}
	return first, true
}

// onlyValues has of a request's values those that Load is given.
type onlyValues struct {
	context.Context
	request context.Context
	keys    []any
}

func (o onlyValues) Value(key any) any {
	if slices.Contains(o.keys, key) {
		return o.request.Value(key)
	}
	return nil
}

// load calls Load, which may panic.
func (s *sample[P, V]) load(ctx context.Context, p P) (r result[V], err error) {
	ctx, cancel := context.WithTimeout(ctx, s.q.LoadTimeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("it panicked: %v", v)
		}
	}()
	ctx, named := cache.CollectTags(ctx)
	v, err := s.q.Load(ctx, p)
	if errors.Is(err, cache.ErrNotFound) {
		return result[V]{named: named()}, nil
	}
	return result[V]{v, true, named()}, err
}

func (s *sample[P, V]) verifyCodec(p P, loaded V) {
	s.t.Helper()
	b, err := s.q.Codec.Encode(loaded)
	if err != nil {
		s.errorf("%+v: the value cannot be encoded, so it is never kept: %v", p, err)
		return
	}
	decoded, err := s.q.Codec.Decode(b)
	if err != nil {
		s.errorf("%+v: the value is encoded and cannot be decoded, so no answer is ever found: %v", p, err)
		return
	}
	if at := difference(reflect.ValueOf(&loaded).Elem(), reflect.ValueOf(&decoded).Elem()); at != "" {
		s.errorf("%+v: the codec %T does not keep the value: who loads it gets one, and later callers another: %s", p, s.q.Codec, at)
	}
}

func (s *sample[P, V]) verifyLoadMany() {
	s.t.Helper()
	if s.q.LoadMany == nil || len(s.seen) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.q.LoadTimeout)
	defer cancel()
	ps := make([]P, len(s.seen))
	for i, v := range s.seen {
		ps[i] = v.p
	}
	ctx, named := cache.CollectTags(ctx)
	many, err := s.q.LoadMany(ctx, slices.Clone(ps))
	switch {
	case err != nil:
		s.errorf("LoadMany: %v", err)
		return
	case len(many) != len(ps):
		s.errorf("LoadMany returns %d results for %d parameters: one for each, in order, is wanted", len(many), len(ps))
		return
	}
	for i, m := range many {
		r := result[V]{m.Value, true, slices.Concat(named(), m.Tags)}
		switch {
		case errors.Is(m.Err, cache.ErrNotFound):
			r = result[V]{named: r.named}
		case m.Err != nil:
			s.errorf("%+v: LoadMany: %v", ps[i], m.Err)
			continue
		}
		if at := differenceOf(s.seen[i].value, r); at != "" {
			s.errorf("%+v: LoadMany gives another answer than Load: %s: are the results in the order of the parameters?", ps[i], at)
		}
		for _, t := range s.seen[i].value.named {
			if !slices.Contains(r.named, t) && !slices.Contains(s.seen[i].tags[:len(s.seen[i].tags)-len(s.seen[i].value.named)], t) {
				s.errorf("%+v: Load names the tag %s with DependOn, and LoadMany does not: give it in Loaded.Tags", ps[i], t)
			}
		}
	}
}

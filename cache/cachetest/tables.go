package cachetest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// sourceTime bounds one question to a source, which may wait for locks.
const sourceTime = time.Minute

// verifyTables returns the tables that Load reads, by the index of the source.
func (s *sample[P, V]) verifyTables(p P) map[int][]string {
	s.t.Helper()
	all := map[int][]string{}
	for i, source := range s.sources {
		tracer, ok := source.(cache.Tracer)
		if !ok {
			continue
		}
		watched, ok := s.watchedOf(i, tracer)
		if !ok {
			continue
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), sourceTime)
		read, err := tracer.Tables(ctx, func(ctx context.Context) error {
			_, err := s.load(ctx, p)
			return err
		})
		cancel()
		if err != nil {
			s.errorf("%+v: which tables Load reads: %v", p, err)
			continue
		}
		for _, table := range read {
			switch {
			case slices.Contains(s.unchanging, table):
			case slices.Contains(watched, table):
				all[i] = append(all[i], table)
			case !slices.Contains(s.tables, table):
				s.tables = append(s.tables, table)
				s.errorf("%+v: Load reads table %s, which no source watches: writes to it go unseen: declare a watch of it and carry one of its tags, or name it in Unchanging if nothing writes it", p, table)
			}
		}
	}
	return all
}

// watchedOf returns the tables that a source watches; it asks once.
func (v *verification) watchedOf(source int, s interface {
	Watched(ctx context.Context) ([]string, error)
},
) (tables []string, ok bool) {
	v.t.Helper()
	if tables, ok = v.watched[source]; ok {
		return tables, true
	}
	ctx, cancel := context.WithTimeout(v.t.Context(), sourceTime)
	defer cancel()
	tables, err := s.Watched(ctx)
	if err != nil {
		v.t.Errorf("which tables a %T watches: %v", s, err)
		return nil, false
	}
	v.watched[source] = tables
	return tables, true
}

// dryRunOf returns what changes of a table record, or nil; it asks once.
func (v *verification) dryRunOf(source int, runner cache.DryRunner, table string) *cache.DryRun {
	v.t.Helper()
	if v.dryRuns[source] == nil {
		v.dryRuns[source] = map[string]*cache.DryRun{}
	}
	if p, ok := v.dryRuns[source][table]; ok {
		return p
	}
	ctx, cancel := context.WithTimeout(v.t.Context(), sourceTime)
	defer cancel()
	var found *cache.DryRun
	p, err := runner.DryRun(ctx, table)
	switch {
	case err != nil:
		v.t.Errorf("table %s: which tags its changes touch: %v", table, err)
	case p.Rows == 0:
		v.t.Logf("table %s has no rows: nothing shows which answers a change of it ends", table)
	default:
		found = &p
	}
	v.dryRuns[source][table] = found
	return found
}

// origin is what answers are loaded from, with the tags that changes of its rows touch: a
// table that Load reads, or, where that cannot be seen, the tables that record a kind.
type origin struct {
	by      string // how that is known: "Load reads", "Tags names"
	name    string // "table products", "kind product (tables products, prices)"
	tags    []cache.Tag
	more    bool
	touches bool     // some answer of the sample
	answers []string // of the sample that are loaded from it
	own     []cache.Tag
}

// verifyTouched holds what answers depend on against what changes of their origins touch.
//
// It cannot demand that every table touches every answer: no review may be of this product, no
// revoked token be this one. It demands that every table touches one of them, and every answer
// is touched by a table.
// Decision 44.
func (s *sample[P, V]) verifyTouched() {
	s.t.Helper()
	for i, source := range s.sources {
		runner, ok := source.(cache.DryRunner)
		if !ok {
			continue
		}
		_, traced := source.(cache.Tracer)
		byName := map[string]*origin{}
		var origins []*origin
		of := make([][]*origin, len(s.seen)) // each answer
		touched := make([]bool, len(s.seen))
		for n, a := range s.seen {
			var found []*origin
			if traced {
				found = s.origins(i, runner, a.reads[i])
			} else {
				found = s.originsOfKinds(i, runner, a.tags)
			}
			for _, o := range found {
				if had := byName[o.name]; had != nil {
					o = had
				} else {
					byName[o.name] = o
					origins = append(origins, o)
				}
				of[n] = append(of[n], o)
				o.answers = append(o.answers, fmt.Sprintf("%+v", a.p))
				o.own = append(o.own, a.tags...)
				if o.touch(a.tags) || o.touch(a.added) {
					o.touches, touched[n] = true, true
				}
			}
		}
		for _, o := range origins {
			switch {
			case o.touches:
			case o.more:
				s.t.Logf("query %s: %s has more rows than were looked at, none of which touches the answers of %s: nothing is demanded", s.q.Name, o.name, some(o.answers))
			default:
				s.errorf("%s %s, and no change of it ends an answer: those of %s depend on %s, and changes of the rows touch %s: "+
					"return from Tags a tag that the watch records, or give the watch a template of a tag that Tags returns; if no row has a part in these answers, sample a parameter whose answer has one",
					o.by, o.name, some(o.answers), some(o.own), some(o.tags))
			}
		}
		for n, a := range s.seen {
			if len(of[n]) == 0 {
				continue
			}
			var tags []cache.Tag
			var names []string
			known, said := true, true
			for _, o := range of[n] {
				tags, names = append(tags, o.tags...), append(names, o.name)
				known = known && !o.more
				said = said && !o.touches && !o.more
			}
			switch {
			case touched[n] || said:
			case !known || !a.value.found || empty(reflect.ValueOf(&a.value.value).Elem()):
				s.t.Logf("query %s: %+v: no row that was looked at touches a tag of the answer, which is empty or from many rows: nothing is demanded", s.q.Name, a.p)
			default:
				s.errorf("%+v: no change of what the answer is loaded from ends it: it depends on %s, and changes of the rows of %s touch %s: "+
					"is a tag made of another value than in the template of the watch? If the answer has no row in it, leave the parameter out or add such a row",
					a.p, some(a.tags), strings.Join(names, ", "), some(tags))
			}
		}
	}
}

// touch says whether a change of the rows ends what depends on tags.
func (o *origin) touch(tags []cache.Tag) bool {
	return slices.ContainsFunc(tags, func(t cache.Tag) bool { return slices.Contains(o.tags, t) })
}

// origins returns what is known of tables.
func (v *verification) origins(source int, runner cache.DryRunner, tables []string) (list []*origin) {
	v.t.Helper()
	for _, table := range tables {
		if p := v.dryRunOf(source, runner, table); p != nil {
			list = append(list, &origin{by: "Load reads", name: "table " + table, tags: p.Tags, more: p.More})
		}
	}
	return list
}

// originsOfKinds returns what is known of the tables that record the kinds of tags.
func (v *verification) originsOfKinds(source int, runner cache.DryRunner, tags []cache.Tag) (list []*origin) {
	v.t.Helper()
	watched, ok := v.watchedOf(source, runner)
	if !ok {
		return nil
	}
	var kinds []string
	for _, t := range tags {
		if !slices.Contains(kinds, t.Kind()) {
			kinds = append(kinds, t.Kind())
		}
	}
	for _, kind := range kinds {
		o := &origin{by: "Tags names"}
		var tables []string
		for _, table := range watched {
			if slices.Contains(v.unchanging, table) {
				continue
			}
			p := v.dryRunOf(source, runner, table)
			if p == nil {
				continue
			}
			before := len(o.tags)
			for _, t := range p.Tags {
				if t.Kind() == kind || t == cache.Everything {
					o.tags = append(o.tags, t)
				}
			}
			if len(o.tags) > before {
				tables = append(tables, table)
				o.more = o.more || p.More
			}
		}
		if len(tables) > 0 {
			o.name = fmt.Sprintf("kind %s (tables %s)", kind, strings.Join(tables, ", "))
			list = append(list, o)
		}
	}
	return list
}

// some names a few of a list, each once.
func some[T ~string](list []T) string {
	const few = 5
	list = slices.Clone(list)
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) == 0 {
		return "none"
	}
	names := make([]string, 0, few+1)
	for _, item := range list[:min(len(list), few)] {
		names = append(names, string(item))
	}
	if len(list) > few {
		names = append(names, fmt.Sprintf("… (%d in all)", len(list)))
	}
	return strings.Join(names, ", ")
}

// empty says of an answer that no row need be in it.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return v.IsZero()
}

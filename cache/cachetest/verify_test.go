package cachetest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
)

// recorder is a test that does not mind to fail.
type recorder struct {
	testing.TB
	errors, logs []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (r *recorder) Logf(format string, args ...any) {
	r.logs = append(r.logs, fmt.Sprintf(format, args...))
}

// verdict is what Verify says of a query.
func verdict[P comparable, V any](t *testing.T, q cache.Query[P, V], params []P, parts ...cachetest.Part) []string {
	t.Helper()
	c := cachetest.New(t)
	r := &recorder{TB: t}
	cachetest.Verify(r, c.Cache, append(parts, cachetest.Sample(cache.Define(c.Cache, q), params...))...)
	return r.errors
}

func wantVerdict(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("Verify found %d mistakes, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
		return
	}
	for i := range got {
		for word := range strings.SplitSeq(want[i], "…") {
			if !strings.Contains(got[i], word) {
				t.Errorf("Verify says %q, want it to say %q", got[i], word)
			}
		}
	}
}

type listParams struct {
	Genre string
	Page  int
}

type listPage struct {
	Items  []string `json:"items"`
	Next   *int     `json:"next,omitempty"`
	When   time.Time
	hidden int
}

func listQuery() cache.Query[listParams, listPage] {
	return cache.Query[listParams, listPage]{
		Name: "shop:list", FreshFor: time.Minute, Codec: cache.JSON[listPage]{},
		Tags: func(p listParams) []cache.Tag { return cache.Tags("catalog", p.Genre) },
		Load: func(_ context.Context, p listParams) (listPage, error) {
			if p.Page > 9 {
				return listPage{}, fmt.Errorf("page %d: %w", p.Page, cache.ErrNotFound)
			}
			return listPage{Items: []string{fmt.Sprint(p.Genre, p.Page)}, When: time.Date(2026, 1, 2, 3, 4, 5, 6, time.Local)}, nil
		},
	}
}

var listSamples = []listParams{{"jazz", 1}, {"jazz", 2}, {"pop", 1}, {"pop", 99}}

func TestVerifyAcceptsWhatIsRight(t *testing.T) {
	q := listQuery()
	wantVerdict(t, verdict(t, q, listSamples))
	q.LoadMany = func(ctx context.Context, ps []listParams) ([]cache.Loaded[listPage], error) {
		all := make([]cache.Loaded[listPage], len(ps))
		for i, p := range ps {
			all[i].Value, all[i].Err = q.Load(ctx, p)
		}
		return all, nil
	}
	wantVerdict(t, verdict(t, q, listSamples, cachetest.As(context.WithValue(t.Context(), tenantKey{}, "b"))))
}

func TestVerifyComparesWhatTheCodecKeeps(t *testing.T) {
	q := listQuery()
	good := q.Load
	q.Load = func(ctx context.Context, p listParams) (listPage, error) {
		page, err := good(ctx, p)
		page.hidden = 7
		return page, err
	}
	wantVerdict(t, verdict(t, q, listSamples[:1]), "shop:list…{Genre:jazz Page:1}…codec…hidden…7…0")
	wantVerdict(t, verdict(t, cache.Query[int, map[string][]any]{
		Name: "a:b", FreshFor: time.Minute, Codec: cache.JSON[map[string][]any]{},
		Tags: func(int) []cache.Tag { return cache.Tags("x") },
		Load: func(context.Context, int) (map[string][]any, error) {
			return map[string][]any{"n": {"text", int64(1)}}, nil
		},
	}, []int{1}), `["n"][1]…int64…float64`)
	wantVerdict(t, verdict(t, cache.Query[int, string]{
		Name: "a:b", FreshFor: time.Minute,
		Tags: func(int) []cache.Tag { return cache.Tags("x") },
		Load: func(context.Context, int) (string, error) { return "caf\xe9", nil },
	}, []int{1}), `codec…caf\xe9`)
	wantVerdict(t, verdict(t, cache.Query[int, func()]{
		Name: "a:b", FreshFor: time.Minute, Codec: cache.JSON[func()]{},
		Tags: func(int) []cache.Tag { return cache.Tags("x") },
		Load: func(context.Context, int) (func(), error) { return nil, nil },
	}, []int{1}), `cannot be encoded…func()`)
}

func TestVerifyFindsAKeyThatLeavesSomethingOut(t *testing.T) {
	q := listQuery()
	q.Key = func(p listParams) string { return cache.Key(p.Genre) }
	wantVerdict(t, verdict(t, q, listSamples),
		`Key…"shop:list:jazz"…{Genre:jazz Page:1}…{Genre:jazz Page:2}…Items[0]`,
		`Key…{Genre:pop Page:1}…{Genre:pop Page:99}…not found`)
	// What does not show in the answer may be left out.
	q.Load = func(context.Context, listParams) (listPage, error) { return listPage{}, nil }
	wantVerdict(t, verdict(t, q, listSamples))
}

func TestVerifyFindsAddressesAndChanceInKeys(t *testing.T) {
	type filtered struct{ Genre *string }
	jazz := "jazz"
	q := cache.Query[filtered, string]{
		Name: "a:b", FreshFor: time.Minute,
		Key:  func(p filtered) string { return cache.Key(fmt.Sprintf("%v", p)) },
		Tags: func(p filtered) []cache.Tag { return cache.Tags("x", p.Genre) },
		Load: func(_ context.Context, p filtered) (string, error) { return *p.Genre, nil },
	}
	wantVerdict(t, verdict(t, q, []filtered{{&jazz}}), "Key…equal parameters…address")
	q.Key = func(filtered) string { return cache.Key(rand.Int64()) }
	wantVerdict(t, verdict(t, q, []filtered{{&jazz}}), "Key…equal parameters")
	q.Key = func(p filtered) string { return cache.Key(p.Genre) }
	wantVerdict(t, verdict(t, q, []filtered{{&jazz}}))
}

func TestVerifyFindsBadTags(t *testing.T) {
	q := listQuery()
	q.Tags = func(listParams) []cache.Tag { return nil }
	wantVerdict(t, verdict(t, q, listSamples[:1]), "Tags…nothing", "query shop:list…no tags") // the second by Check
	q.Tags = func(p listParams) []cache.Tag { return []cache.Tag{"catalog:rock & roll"} }
	wantVerdict(t, verdict(t, q, listSamples[:1]), "not escaped")
	q.Tags = func(p listParams) (tags []cache.Tag) {
		for kind := range map[string]bool{"a": true, "b": true, "c": true, "d": true} {
			tags = append(tags, cache.T(kind))
		}
		return tags
	}
	wantVerdict(t, verdict(t, q, listSamples[:1]), "Tags…order")
}

type tenantKey struct{}

func TestVerifyFindsLoadsThatDependOnTheCaller(t *testing.T) {
	q := listQuery()
	q.Load = func(ctx context.Context, p listParams) (listPage, error) {
		tenant, _ := ctx.Value(tenantKey{}).(string)
		return listPage{Items: []string{tenant}}, nil
	}
	request := cachetest.As(context.WithValue(t.Context(), tenantKey{}, "b"))
	wantVerdict(t, verdict(t, q, listSamples[:1], request), `context…Items[0]…""…"b"`)
	q.ContextKeys = []any{tenantKey{}} // it is given the value, and still the answer is everybody's
	wantVerdict(t, verdict(t, q, listSamples[:1], request), "ContextKeys…Items[0]")
	q.ContextKeys = nil
	q.Load = func(ctx context.Context, p listParams) (listPage, error) {
		return listPage{Items: []string{ctx.Value(tenantKey{}).(string)}}, nil
	}
	wantVerdict(t, verdict(t, q, listSamples[:1], request), "context…panicked")
	wantVerdict(t, verdict(t, q, listSamples[:1]), "Load…panicked")
}

// Tags that a loader names count as those of Tags do, and have to be the same each time.
func TestVerifyJudgesNamedTags(t *testing.T) {
	q := listQuery()
	load := q.Load
	named := []cache.Tag{"product:1"}
	q.Load = func(ctx context.Context, p listParams) (listPage, error) {
		cache.DependOn(ctx, named...)
		return load(ctx, p)
	}
	q.LoadMany = func(ctx context.Context, ps []listParams) ([]cache.Loaded[listPage], error) {
		all := make([]cache.Loaded[listPage], len(ps))
		for i, p := range ps {
			all[i].Value, all[i].Err = load(ctx, p)
			all[i].Tags = named
		}
		return all, nil
	}
	wantVerdict(t, verdict(t, q, listSamples[:1]))
	many := q.LoadMany
	q.LoadMany = func(ctx context.Context, ps []listParams) ([]cache.Loaded[listPage], error) {
		all, err := many(ctx, ps)
		all[0].Tags = nil
		return all, err
	}
	wantVerdict(t, verdict(t, q, listSamples[:1]), "product:1 with DependOn, and LoadMany does not")
	q.LoadMany = nil
	loads := 0
	q.Load = func(ctx context.Context, p listParams) (listPage, error) {
		loads++
		cache.DependOn(ctx, cache.T("product", loads))
		return load(ctx, p)
	}
	wantVerdict(t, verdict(t, q, listSamples[:1]), "product:1] with DependOn and then [product:2]")
}

func TestVerifyFindsLoadsThatDiffer(t *testing.T) {
	q := listQuery()
	n := 0
	q.Load = func(context.Context, listParams) (listPage, error) {
		n++
		return listPage{Next: &n, Items: []string{fmt.Sprint(n)}}, nil
	}
	wantVerdict(t, verdict(t, q, listSamples[:1]), `twice…Items[0]…"1"…"2"`)
	q.Load = func(context.Context, listParams) (listPage, error) { return listPage{}, errors.New("no such table") }
	wantVerdict(t, verdict(t, q, listSamples[:1]), "Load…no such table")
	wantVerdict(t, verdict(t, q, nil), "shop:list…no parameters")
	q = listQuery()
	q.LoadMany = func(ctx context.Context, ps []listParams) ([]cache.Loaded[listPage], error) {
		ps = slices.Clone(ps)
		slices.Reverse(ps) // as the database likes
		all := make([]cache.Loaded[listPage], len(ps))
		for i, p := range ps {
			all[i].Value, all[i].Err = q.Load(ctx, p)
		}
		return all, nil
	}
	wantVerdict(t, verdict(t, q, listSamples[:2]), "LoadMany…Items[0]", "LoadMany…Items[0]")
	q.LoadMany = func(context.Context, []listParams) ([]cache.Loaded[listPage], error) { return nil, nil }
	wantVerdict(t, verdict(t, q, listSamples[:2]), "LoadMany…0 results for 2")
}

// traced is a source that sees which tables loaders say they read.
type traced struct {
	watched []string
	read    *[]string
}

func (traced) Kinds(context.Context) ([]string, error)        { return []string{"catalog", "order"}, nil }
func (traced) Check(context.Context) ([]cache.Finding, error) { return nil, nil }
func (s traced) Watched(context.Context) ([]string, error)    { return s.watched, nil }
func (s traced) Tables(ctx context.Context, read func(context.Context) error) ([]string, error) {
	*s.read = nil
	err := read(ctx)
	return *s.read, err
}

func TestVerifyDemandsThatTablesAreWatched(t *testing.T) {
	var read []string
	q := listQuery()
	good := q.Load
	q.Load = func(ctx context.Context, p listParams) (listPage, error) {
		read = append(read, "records", "prices")
		return good(ctx, p)
	}
	wantVerdict(t, verdict(t, q, listSamples[:2], cachetest.From(traced{[]string{"records", "prices"}, &read})))
	wantVerdict(t, verdict(t, q, listSamples[:2], cachetest.From(traced{[]string{"records"}, &read})),
		"shop:list…reads table prices…no source watches")
}

func TestVerifyFailsOnFindings(t *testing.T) {
	q := listQuery()
	q.Tags = func(listParams) []cache.Tag { return cache.Tags("katalog") }
	wantVerdict(t, verdict(t, q, listSamples[:1], cachetest.From(traced{nil, new([]string)})), "katalog…no source records")
}

// dryRunning is a source that says what changes touch, and traces like traced.
type dryRunning struct {
	traced
	dryRuns map[string]cache.DryRun
}

func (s dryRunning) DryRun(_ context.Context, table string) (cache.DryRun, error) {
	p, ok := s.dryRuns[table]
	if !ok {
		return p, errors.New("no such table")
	}
	return p, nil
}

// untraced hides that a source traces.
type untraced struct {
	cache.Source
	cache.DryRunner
}

func TestVerifyDemandsThatChangesTouchAnswers(t *testing.T) {
	var read []string
	tables := []string{"records", "prices"}
	q := listQuery()
	good := q.Load
	q.Load = func(ctx context.Context, p listParams) (listPage, error) {
		read = append(read, tables...)
		return good(ctx, p)
	}
	source := func(records, prices cache.DryRun) cachetest.Part {
		return cachetest.From(dryRunning{traced{[]string{"records", "prices"}, &read}, map[string]cache.DryRun{"records": records, "prices": prices}})
	}
	dry := func(rows int, more bool, tags ...cache.Tag) cache.DryRun {
		return cache.DryRun{Tags: tags, Rows: rows, More: more}
	}
	right := dry(3, false, "catalog:jazz", "catalog:pop")
	wantVerdict(t, verdict(t, q, listSamples, source(right, right)))
	wantVerdict(t, verdict(t, q, listSamples, source(right, dry(1, false, "catalog:*"))))
	wantVerdict(t, verdict(t, q, listSamples, source(right, dry(1, false, cache.Everything))))
	wantVerdict(t, verdict(t, q, listSamples, source(right, dry(1, false, "catalog:pop"))))
	wantVerdict(t, verdict(t, q, listSamples, source(right, dry(0, false))))
	wantVerdict(t, verdict(t, q, listSamples, source(right, dry(1000, true, "price:1"))))
	wantVerdict(t, verdict(t, q, listSamples, source(right, dry(1, false, "price:1"))),
		"shop:list…table prices…{Genre:jazz Page:1}…catalog:jazz, catalog:pop…price:1")
	wantVerdict(t, verdict(t, q, listSamples, source(right, dry(1, false))), "shop:list…table prices…touch none")
	wantVerdict(t, verdict(t, q, listSamples, source(right, dry(1, false, "price:1")), cachetest.Unchanging("prices")))
	// One answer that nothing ends; the one that is not there need not be ended by a row.
	wantVerdict(t, verdict(t, q, listSamples, source(dry(1, false, "catalog:pop"), dry(1, false, "catalog:pop"))),
		"{Genre:jazz Page:1}: no change…catalog:jazz…table records, table prices…catalog:pop", "{Genre:jazz Page:2}: no change")
	wantVerdict(t, verdict(t, q, []listParams{{"pop", 1}, {"jazz", 99}}, source(dry(1, false, "catalog:pop"), right)))
	tables = []string{"records", "countries"}
	wantVerdict(t, verdict(t, q, listSamples, source(right, right), cachetest.Unchanging("countries")))
	wantVerdict(t, verdict(t, q, listSamples, source(right, right)), "table countries…Unchanging")

	// Without a trace, kinds take the place of tables.
	blind := func(records cache.DryRun) cachetest.Part {
		s := dryRunning{traced{[]string{"records"}, &read}, map[string]cache.DryRun{"records": records}}
		return cachetest.From(untraced{s, s})
	}
	wantVerdict(t, verdict(t, q, listSamples, blind(right)))
	wantVerdict(t, verdict(t, q, listSamples, blind(dry(1, false, "price:1"))))
	wantVerdict(t, verdict(t, q, listSamples, blind(dry(1, false, "catalog:7"))), "kind catalog (tables records)…catalog:jazz…catalog:7")
	broken := dryRunning{traced{[]string{"records"}, &read}, nil}
	wantVerdict(t, verdict(t, q, listSamples, cachetest.From(untraced{broken, broken})), "table records…no such table")
}

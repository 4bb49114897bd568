package cache_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
)

// watches is a source with some kinds, some findings and an error.
type watches struct {
	kinds    []string
	findings []cache.Finding
	err      error
}

func (w watches) Kinds(context.Context) ([]string, error)        { return w.kinds, w.err }
func (w watches) Check(context.Context) ([]cache.Finding, error) { return w.findings, nil }

func thingQuery(name string, tags func(int) []cache.Tag) cache.Query[int, string] {
	return cache.Query[int, string]{
		Name: name, Tags: tags, FreshFor: time.Minute,
		Load: func(_ context.Context, id int) (string, error) { return fmt.Sprint(id), nil },
	}
}

// wantFindings compares findings by what they say, in order: each has to contain all of the
// words of one of want.
func wantFindings(t *testing.T, findings []cache.Finding, want ...[]string) {
	t.Helper()
	if len(findings) != len(want) {
		t.Errorf("%d findings, want %d: %v", len(findings), len(want), findings)
		return
	}
	for i, f := range findings {
		if f.Subject == "" || f.Problem == "" || f.Remedy == "" {
			t.Errorf("a finding is incomplete: %+v", f)
		}
		for _, words := range want[i] {
			if !strings.Contains(f.String(), words) {
				t.Errorf("finding %d says %q, want it to say %q", i, f, words)
			}
		}
	}
}

func findingsOf(t *testing.T, c *cache.Cache, sources ...cache.Source) []cache.Finding {
	t.Helper()
	findings, err := c.Check(t.Context(), sources...)
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

func TestCheckComparesKinds(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCache(t)
		cache.Define(c.Cache, thingQuery("shop:right", func(id int) []cache.Tag { return cache.Tags("product", id) }))
		cache.Define(c.Cache, thingQuery("shop:misspelt", func(id int) []cache.Tag { return cache.Tags("prodcut", id) }))
		wantFindings(t, findingsOf(t, c.Cache)) // nothing to compare with
		wantFindings(t, findingsOf(t, c.Cache, watches{kinds: []string{"product", "order"}}),
			[]string{"query shop:misspelt", "prodcut", "no source records", "product"},
			[]string{"kind order", "no query"})
		findings := findingsOf(t, c.Cache, watches{kinds: []string{"product", "order"}})
		if findings[0].Notice || !findings[1].Notice {
			t.Errorf("only the second is a notice: %+v", findings)
		}
		wantFindings(t, findingsOf(t, c.Cache, watches{kinds: []string{"product"}}, cache.InvalidatedByHand("prodcut")))
		cache.Define(c.Cache, thingQuery("shop:all", func(int) []cache.Tag { return []cache.Tag{cache.Everything} }))
		wantFindings(t, findingsOf(t, c.Cache, watches{kinds: []string{"product"}}, cache.InvalidatedByHand("prodcut")))
	})
}

// What a query reads shows when it is asked: not every tag is in that of the zero parameter.
func TestCheckKnowsWhatWasRead(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCache(t)
		q := cache.Define(c.Cache, thingQuery("shop:some", func(id int) []cache.Tag {
			switch id {
			case 0:
				panic("no caller asks for it")
			case 1:
				return cache.Tags("one")
			default:
				return []cache.Tag{cache.T("one"), cache.T(fmt.Sprintf("kind%d", id), 7)}
			}
		}))
		source := watches{kinds: []string{"one"}}
		wantFindings(t, findingsOf(t, c.Cache, source), []string{"shop:some", "not known"})
		mustGet(t, q, 1, "1")
		wantFindings(t, findingsOf(t, c.Cache, source))
		mustGet(t, q, 2, "2")
		if _, err := q.GetMany(t.Context(), []int{3, 4}); err != nil {
			t.Fatal(err)
		}
		wantFindings(t, findingsOf(t, c.Cache, source),
			[]string{"shop:some", "kind2"}, []string{"kind3"}, []string{"kind4"})
		for id := range 200 { // more than anybody has
			mustGet(t, q, id+1, fmt.Sprint(id+1))
		}
		if n := len(findingsOf(t, c.Cache, source)); n < 60 || n > 70 {
			t.Errorf("%d findings, want some 64", n)
		}
	})
}

func TestCheckAsksWhatIsKeptWarm(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCache(t)
		query := thingQuery("shop:warm", func(id int) []cache.Tag { return cache.Tags(fmt.Sprintf("kind%d", id), id) })
		query.Warm = func(context.Context) ([]int, error) { return []int{5}, nil }
		cache.Define(c.Cache, query)
		wantFindings(t, findingsOf(t, c.Cache, watches{kinds: []string{"kind0"}}), []string{"shop:warm", "kind5"})

		tagless := query
		tagless.Name, tagless.Warm = "shop:tagless", func(context.Context) ([]int, error) { return []int{1, 2}, nil }
		tagless.Tags = func(id int) []cache.Tag {
			if id == 2 {
				return nil
			}
			return cache.Tags("kind0", id)
		}
		cache.Define(c.Cache, tagless)
		wantFindings(t, findingsOf(t, c.Cache), []string{"shop:tagless", "no tags"})

		for what, warm := range map[string]func(context.Context) ([]int, error){
			"cannot say": func(context.Context) ([]int, error) { return nil, errors.New("cannot say") },
			"falls over": func(context.Context) ([]int, error) { panic("falls over") },
		} {
			c := newCache(t)
			query.Warm = warm
			cache.Define(c.Cache, query)
			if _, err := c.Check(t.Context()); err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "shop:warm") {
				t.Errorf("error is %v, want it to say %q", err, what)
			}
		}
	})
}

func TestCheckFindsQueriesWithoutTags(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCache(t)
		cache.Define(c.Cache, thingQuery("shop:none", func(int) []cache.Tag { return nil }))
		sometimes := cache.Define(c.Cache, thingQuery("shop:sometimes", func(id int) []cache.Tag {
			if id > 1 {
				return nil
			}
			return cache.Tags("thing", id)
		}))
		zero := cache.Define(c.Cache, thingQuery("shop:zero", func(id int) []cache.Tag {
			if id == 0 {
				return nil // not a parameter
			}
			return cache.Tags("thing", id)
		}))
		mustGet(t, zero, 1, "1")
		mustGet(t, sometimes, 1, "1")
		wantFindings(t, findingsOf(t, c.Cache), []string{"shop:none", "no tags"})
		mustGet(t, sometimes, 2, "2")
		wantFindings(t, findingsOf(t, c.Cache), []string{"shop:none", "no tags"}, []string{"shop:sometimes", "no tags"})
	})
}

func TestCheckPassesOnWhatSourcesFind(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCache(t)
		cache.Define(c.Cache, thingQuery("shop:thing", func(id int) []cache.Tag { return cache.Tags("thing", id) }))
		found := cache.Finding{Subject: "table things", Problem: "its trigger is disabled", Remedy: "enable it"}
		wantFindings(t, findingsOf(t, c.Cache, watches{kinds: []string{"thing"}, findings: []cache.Finding{found}}), []string{"table things"})
		// A source that does not answer is an error, and no reason to doubt the queries.
		findings, err := c.Check(t.Context(), watches{err: errors.New("no connection"), findings: []cache.Finding{found}})
		if err == nil || !strings.Contains(err.Error(), "no connection") {
			t.Errorf("error is %v", err)
		}
		wantFindings(t, findings, []string{"table things"})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Check(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v, want that of the context", err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Check(t.Context()); !errors.Is(err, cache.ErrClosed) {
			t.Errorf("error is %v, want ErrClosed", err)
		}
	})
}

type productV1 struct {
	ID    int
	Price int `json:"price"`
}

type productV2 struct {
	ID    int
	Price string `json:"price"`
}

type productV3 struct {
	ID        int
	CentPrice int `json:"price"` // another name here, the same in JSON
}

func defineProduct[V any](c *cache.Cache, revision int, codec cache.Codec[V]) *cache.Cached[int, V] {
	return cache.Define(c, cache.Query[int, V]{
		Name: "shop:product", FreshFor: time.Minute, Revision: revision, Codec: codec,
		Tags: func(id int) []cache.Tag { return cache.Tags("product", id) },
		Load: func(context.Context, int) (v V, err error) { return v, nil },
	})
}

func TestCheckFindsAnotherDefinitionInTheStore(t *testing.T) {
	virtual(t, func(t *testing.T) {
		fleet := newFleet(t, 5)
		defineProduct[productV1](fleet[0].Cache, 0, nil)
		defineProduct[productV2](fleet[1].Cache, 0, nil)
		defineProduct[productV2](fleet[2].Cache, 1, nil)
		defineProduct[productV3](fleet[3].Cache, 0, cache.JSON[productV3]{})
		defineProduct(fleet[4].Cache, 0, cache.Codec[string](textCodec{}))
		wantFindings(t, findingsOf(t, fleet[0].Cache))
		wantFindings(t, findingsOf(t, fleet[0].Cache))
		wantFindings(t, findingsOf(t, fleet[1].Cache), []string{"query shop:product", "cache_test.productV1", "cache_test.productV2", "price int", "price string", "Revision"})
		wantFindings(t, findingsOf(t, fleet[2].Cache))
		wantFindings(t, findingsOf(t, fleet[3].Cache), []string{"productV2"})
		wantFindings(t, findingsOf(t, fleet[0].Cache), []string{"productV2"}) // the other learns of it too
		if n := len(findingsOf(t, fleet[4].Cache)); n != 2 {
			t.Errorf("%d findings, want one for each other shape", n)
		}
		// A release that is gone is forgotten, however often the others check.
		for _, p := range fleet {
			if err := p.Close(); err != nil { // a running one checks its store often
				t.Fatal(err)
			}
		}
		later := func() []cache.Finding {
			p := newProcess(t, fleet[0].store.Peer(), cache.Config{})
			defer p.Close()
			defineProduct[productV1](p.Cache, 0, nil)
			return findingsOf(t, p.Cache)
		}
		time.Sleep(23 * time.Hour)
		if n := len(later()); n != 2 {
			t.Errorf("%d findings, want one for each other shape", n)
		}
		time.Sleep(2 * time.Hour)
		wantFindings(t, later())
	})
}

// What is in the store under the name need not be ours.
func TestCheckOverwritesWhatItCannotRead(t *testing.T) {
	virtual(t, func(t *testing.T) {
		fleet := newFleet(t, 2)
		defineProduct[productV1](fleet[0].Cache, 0, nil)
		defineProduct[productV2](fleet[1].Cache, 0, nil)
		err := fleet[0].store.Settle(t.Context(), []driver.Fill{{Key: "define:shop:product", Entry: []byte("{?"), Life: time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		wantFindings(t, findingsOf(t, fleet[0].Cache))
		wantFindings(t, findingsOf(t, fleet[1].Cache), []string{"productV1"})
	})
}

func TestCheckNeedsNoStore(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCache(t)
		defineProduct[productV1](c.Cache, 0, nil)
		c.store.Fail(errors.New("unplugged"))
		wantFindings(t, findingsOf(t, c.Cache, watches{kinds: []string{"products"}}),
			[]string{"store", "unplugged"}, []string{"shop:product", "no source records"}, []string{"products"})
		findingsOf(t, c.Cache)
		if state := c.Health().State; state != "down" {
			t.Fatalf("the store is %s", state)
		}
		c.store.Heal()
		wantFindings(t, findingsOf(t, c.Cache)) // it waits for the recovery
	})
}

func TestInspect(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.query()
		query.StaleWhileRevalidate = time.Minute
		q := cache.Define(c.Cache, query)
		inspect := func(id int) cache.Inspection {
			t.Helper()
			in, err := q.Inspect(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			return in
		}
		in := inspect(1)
		if in.Query != "rows:one" || in.Key != "rows:one:1" || in.Stored || in.Next != cache.Miss {
			t.Errorf("before: %+v", in)
		}
		if !slices.Equal(in.Tags, []cache.Tag{"row:1", "rows:*"}) || !slices.Equal(in.Added, []cache.Tag{"row:*", "*"}) {
			t.Errorf("tags are %v, and %v were added", in.Tags, in.Added)
		}
		wantLoads(t, s, 0)
		mustGet(t, q, 1, "one")
		time.Sleep(time.Second)
		if in := inspect(1); !in.Stored || !in.Valid || !in.Found || in.Next != cache.Hit || in.Age < time.Second || in.Bytes == 0 || in.TTL <= 0 {
			t.Errorf("a hit: %+v", in)
		}
		time.Sleep(70 * time.Second)
		if in := inspect(1); !in.Valid || in.Next != cache.Stale || in.TTL > 0 {
			t.Errorf("stale: %+v", in)
		}
		if err := c.Invalidate(t.Context(), rowTag(1)); err != nil {
			t.Fatal(err)
		}
		if in := inspect(1); !in.Stored || in.Valid || in.Next != cache.Miss {
			t.Errorf("invalidated: %+v", in)
		}
		if _, err := q.Get(t.Context(), 9); !errors.Is(err, cache.ErrNotFound) {
			t.Fatal(err)
		}
		synctest.Wait() // the entry is stored after the caller was answered
		if in := inspect(9); !in.Valid || in.Found || in.Next != cache.Hit {
			t.Errorf("not found: %+v", in)
		}
		if err := c.store.Fence(t.Context(), []cache.Tag{"row:1"}, driver.Mark{1}, time.Minute); err != nil {
			t.Fatal(err)
		}
		if in := inspect(1); !slices.Equal(in.Fenced, []cache.Tag{"row:1"}) || in.Next != cache.Bypass || in.Detail != cache.DetailFenced {
			t.Errorf("fenced: %+v", in)
		}
		c.store.Fail(errors.New("unplugged"))
		if in := inspect(1); in.Next != cache.Bypass || in.Detail != cache.DetailUnavailable || in.StoreErr == nil {
			t.Errorf("without a store: %+v", in)
		}
		wantLoads(t, s, 2)
		if q.Query().Codec == nil || q.Query().NotFound == 0 {
			t.Error("Query has no defaults")
		}
	})
}

func TestInspectSeesNearAnswers(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.query()
		query.Near = time.Second
		q := cache.Define(c.Cache, query)
		time.Sleep(time.Second)
		mustGet(t, q, 1, "one")
		synctest.Wait()
		mustGet(t, q, 1, "one")
		in, err := q.Inspect(t.Context(), 1)
		if err != nil || in.Next != cache.Hit || in.Detail != cache.DetailNear || !in.Valid {
			t.Errorf("near: %+v, %v", in, err)
		}
		if in, err := q.Inspect(cache.WithStrict(t.Context()), 1); err != nil || in.Next != cache.Hit || in.Detail != cache.DetailNearProven {
			t.Errorf("strictly: %+v, %v", in, err)
		}
	})
}

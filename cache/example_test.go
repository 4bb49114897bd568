package cache_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
)

// A program's own data, standing in for a database.
var titles = map[int]string{1: "Stellar Basics", 2: "Smart Contracts"}

func loadTitle(_ context.Context, id int) (string, error) {
	fmt.Println("asking the database for", id)
	title, ok := titles[id]
	if !ok {
		return "", cache.ErrNotFound
	}
	return title, nil
}

func titleTag(id int) cache.Tag { return cache.Tag("course:" + cache.Key(id)) }

var titleQuery = cache.Query[int, string]{
	Name:     "courses:title",
	Key:      func(id int) string { return cache.Key(id) },
	Tags:     func(id int) []cache.Tag { return []cache.Tag{titleTag(id)} },
	Load:     loadTitle,
	FreshFor: time.Minute,
}

func newExampleCache() (*cache.Cache, func()) {
	store := memstore.New(memstore.Config{})
	c, err := cache.New(cache.Config{Store: store})
	if err != nil {
		panic(err)
	}
	return c, func() { c.Close(); store.Close() }
}

// Define an answer once, then ask for it.
func Example() {
	c, done := newExampleCache()
	defer done()
	title := cache.Define(c, titleQuery)

	for range 2 {
		answer, err := title.Get(context.Background(), 1)
		fmt.Println(answer, err)
	}
	// Output:
	// asking the database for 1
	// Stellar Basics <nil>
	// Stellar Basics <nil>
}

// After a change, name what changed. Package outbox does this for every committed
// transaction of a database.
func ExampleCache_Invalidate() {
	c, done := newExampleCache()
	defer done()
	ctx := context.Background()
	title := cache.Define(c, titleQuery)
	fmt.Println(title.Get(ctx, 2))

	titles[2] = "Smarter Contracts"
	if err := c.Invalidate(ctx, titleTag(2)); err != nil {
		fmt.Println(err)
	}
	fmt.Println(title.Get(ctx, 2))
	titles[2] = "Smart Contracts"
	// Output:
	// asking the database for 2
	// Smart Contracts <nil>
	// asking the database for 2
	// Smarter Contracts <nil>
}

// That something does not exist is an answer too, and is remembered.
func ExampleErrNotFound() {
	c, done := newExampleCache()
	defer done()
	title := cache.Define(c, titleQuery)

	for range 2 {
		_, err := title.Get(context.Background(), 99)
		fmt.Println(errors.Is(err, cache.ErrNotFound))
	}
	// Output:
	// asking the database for 99
	// true
	// true
}

// Lookup tells where an answer came from.
func ExampleCached_Lookup() {
	c, done := newExampleCache()
	defer done()
	title := cache.Define(c, titleQuery)

	for range 2 {
		answer, _ := title.Lookup(context.Background(), 1)
		fmt.Println(answer.Value, answer.Status, answer.TTL > 50*time.Second)
	}
	// Output:
	// asking the database for 1
	// Stellar Basics miss true
	// Stellar Basics hit true
}

// GetMany reads in one round trip what is stored, and loads the rest in one go.
func ExampleCached_GetMany() {
	c, done := newExampleCache()
	defer done()
	query := titleQuery
	query.LoadMany = func(_ context.Context, ids []int) ([]cache.Loaded[string], error) {
		fmt.Println("asking the database for", ids)
		var rows []cache.Loaded[string]
		for _, id := range ids {
			if title, ok := titles[id]; ok {
				rows = append(rows, cache.Loaded[string]{Value: title})
			} else {
				rows = append(rows, cache.Loaded[string]{Err: cache.ErrNotFound})
			}
		}
		return rows, nil
	}
	title := cache.Define(c, query)

	results, err := title.GetMany(context.Background(), []int{1, 2, 99})
	if err != nil {
		fmt.Println(err)
	}
	for _, r := range results {
		fmt.Printf("%q %v\n", r.Value, r.Err)
	}
	// Output:
	// asking the database for [1 2 99]
	// "Stellar Basics" <nil>
	// "Smart Contracts" <nil>
	// "" cache: not found
}

// Answers that everybody wants can be there before anybody asks, and stay.
func ExampleCache_Warm() {
	c, done := newExampleCache()
	defer done()
	query := titleQuery
	query.StaleWhileRevalidate = time.Minute
	query.Warm = func(context.Context) ([]int, error) { return []int{1, 2}, nil }
	query.WarmEvery = 90 * time.Second
	title := cache.Define(c, query)

	if err := c.Warm(context.Background()); err != nil {
		fmt.Println(err)
	}
	fmt.Println(title.Get(context.Background(), 1))
	// Output:
	// asking the database for 1
	// asking the database for 2
	// Stellar Basics <nil>
}

func ExampleKey() {
	fmt.Println(cache.Key("beginner", 1, 20))
	fmt.Println(cache.Key("a:b", ""))
	// Output:
	// beginner:1:20
	// a%3Ab:%
}

// What a page shows is known when it has been loaded.
func ExampleDependOn() {
	c, done := newExampleCache()
	defer done()
	ctx := context.Background()
	inCategory := map[string][]int{"wine": {7, 8}}
	page := cache.Define(c, cache.Query[string, []int]{
		Name:     "shop:page",
		Tags:     func(category string) []cache.Tag { return cache.Tags("listing", category) }, // which products there are
		FreshFor: time.Hour,
		Load: func(ctx context.Context, category string) ([]int, error) {
			for _, product := range inCategory[category] {
				cache.DependOn(ctx, cache.T("product", product)) // and what each of them says
			}
			return inCategory[category], nil
		},
	})
	status := func() {
		a, err := page.Lookup(ctx, "wine")
		fmt.Println(a.Value, a.Status, err)
	}
	status()
	status()
	_ = c.Invalidate(ctx, cache.T("product", 9)) // not on the page
	status()
	_ = c.Invalidate(ctx, cache.T("product", 7))
	status()
	// Output:
	// [7 8] miss <nil>
	// [7 8] hit <nil>
	// [7 8] hit <nil>
	// [7 8] miss <nil>
}

// An answer that is made of a response lives as long as that says.
func ExampleKeepFor() {
	c, done := newExampleCache()
	defer done()
	rate := cache.Define(c, cache.Query[string, float64]{
		Name:     "rates:one",
		Tags:     func(currency string) []cache.Tag { return cache.Tags("rate", currency) },
		FreshFor: time.Hour,
		Load: func(ctx context.Context, currency string) (float64, error) {
			maxAge := 20 * time.Second // of the response
			cache.KeepFor(ctx, maxAge)
			return 1.08, nil
		},
	})
	a, err := rate.Lookup(context.Background(), "EUR")
	fmt.Println(a.Value, a.TTL <= 20*time.Second, err)
	// Output: 1.08 true <nil>
}

// For one answer, on every process: end it, load it now, or look whether it is there.
func ExampleCached_Forget() {
	c, done := newExampleCache()
	defer done()
	ctx := context.Background()
	title := cache.Define(c, titleQuery)
	_, _ = title.Get(ctx, 1)
	_, there, _ := title.Peek(ctx, 1)
	fmt.Println(there)
	_ = title.Forget(ctx, 1)
	_, there, _ = title.Peek(ctx, 1)
	fmt.Println(there)
	a, err := title.Refresh(ctx, 1)
	fmt.Println(a.Value, err)
	// Output:
	// asking the database for 1
	// true
	// false
	// asking the database for 1
	// Stellar Basics <nil>
}

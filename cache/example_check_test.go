package cache_test

import (
	"context"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// shopDB stands in for the DB of an outbox, which is a Source.
type shopDB struct{}

func (shopDB) Kinds(context.Context) ([]string, error) { return []string{"product", "order"}, nil }
func (shopDB) Check(context.Context) ([]cache.Finding, error) {
	return []cache.Finding{{
		Subject: "table prices",
		Problem: "its trigger is disabled",
		Remedy:  "ALTER TABLE prices ENABLE TRIGGER ALL",
	}}, nil
}

// A program looks at itself once it has started, or in a command for operators.
func ExampleCache_Check() {
	c, done := newExampleCache()
	defer done()
	cache.Define(c, cache.Query[int, string]{
		Name:     "shop:product",
		Tags:     func(id int) []cache.Tag { return cache.Tags("prodcut", id) },
		Load:     func(context.Context, int) (string, error) { return "tea", nil },
		FreshFor: time.Minute,
	})

	findings, err := c.Check(context.Background(), shopDB{})
	if err != nil {
		fmt.Println("not everything could be checked:", err)
	}
	for _, f := range findings {
		if !f.Notice {
			fmt.Println(f.Subject, "-", f.Problem)
		}
	}
	// Output:
	// query shop:product - it reads tags of kind prodcut, which no source records (recorded are order, product), so that no write ends its answers
	// table prices - its trigger is disabled
}

// Why was this answer old, or not there? Inspect says, and loads nothing.
func ExampleCached_Inspect() {
	c, done := newExampleCache()
	defer done()
	ctx := context.Background()
	title := cache.Define(c, titleQuery)
	explain := func() {
		in, err := title.Inspect(ctx, 1)
		if err != nil {
			fmt.Println(err)
		}
		fmt.Printf("%s depends on %v and %v; stored %v, valid %v; next: %v\n", in.Key, in.Tags, in.Added, in.Stored, in.Valid, in.Next)
	}

	explain()
	fmt.Println(title.Get(ctx, 1))
	for { // callers get the answer before the store does
		if in, err := title.Inspect(ctx, 1); in.Stored || err != nil {
			break
		}
	}
	explain()
	fmt.Println(c.Invalidate(ctx, titleTag(1)))
	explain()
	// Output:
	// courses:title:1 depends on [course:1] and [course:* *]; stored false, valid false; next: miss
	// asking the database for 1
	// Stellar Basics <nil>
	// courses:title:1 depends on [course:1] and [course:* *]; stored true, valid true; next: hit
	// <nil>
	// courses:title:1 depends on [course:1] and [course:* *]; stored true, valid false; next: miss
}

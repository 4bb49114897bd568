package cache_test

import (
	"context"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// Keep what is asked for most in the memory of each process, as exact as in Redis. With a store in
// process, as here, it makes no difference: there it is so in any case.
func ExampleQuery_nearStrict() {
	c, done := newExampleCache()
	defer done()
	title := cache.Define(c, cache.Query[int, string]{
		Name:       "courses:title",
		Tags:       func(id int) []cache.Tag { return []cache.Tag{cache.T("course", id)} },
		Load:       func(context.Context, int) (string, error) { return "Stellar Basics", nil },
		FreshFor:   time.Minute,
		NearStrict: true,
	})
	fmt.Println(title.Get(context.Background(), 1))
	// Output:
	// Stellar Basics <nil>
}

// A tool that knows queries by their names alone: it lists them, and explains an answer.
func ExampleCache_Inspect() {
	c, done := newExampleCache()
	defer done()
	cache.Define(c, titleQuery)
	for _, q := range c.Queries() {
		fmt.Println(q.Name, "with parameters like", string(q.Params))
	}
	in, err := c.Inspect(context.Background(), "courses:title", []byte("1"))
	fmt.Println(in.Key, in.Stored, in.Next, err)
	// Output:
	// courses:title with parameters like 0
	// courses:title:1 false miss <nil>
}

package cachetest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
)

// What a program's own test looks like: does this query depend on the right tag, and does
// the program live through an outage?
func TestQueryOfAProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cachetest.New(t)
		price := 10
		query := cache.Query[string, int]{
			Name:     "shop:price",
			Key:      func(sku string) string { return cache.Key(sku) },
			Tags:     func(sku string) []cache.Tag { return []cache.Tag{cache.Tag("product:" + sku)} },
			Load:     func(context.Context, string) (int, error) { return price, nil },
			FreshFor: time.Minute,
		}
		here, there := cache.Define(c.Cache, query), cache.Define(c.Peer(t).Cache, query)
		want := func(q *cache.Cached[string, int], price int) {
			t.Helper()
			if got, err := q.Get(t.Context(), "tea"); err != nil || got != price {
				t.Errorf("price is %d (error %v), want %d", got, err, price)
			}
		}
		want(here, 10)
		price = 12
		want(there, 10)
		if err := c.Invalidate(t.Context(), "product:tea"); err != nil {
			t.Fatal(err)
		}
		want(here, 12)
		want(there, 12)

		c.Store.Fail(errors.New("unplugged"))
		price = 14
		want(here, 14)
		c.Store.Heal()
	})
}

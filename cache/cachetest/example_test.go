package cachetest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cachetest"
	"github.com/chainlearn/chainlearn/cache/memstore"
)

// printer stands in for the *testing.T of a test.
type printer struct{ testing.TB }

func (printer) Helper()                           {}
func (printer) Context() context.Context          { return context.Background() }
func (printer) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (printer) Logf(string, ...any)               {}

// A test of all queries of a program, with parameters that differ in one field each. Here
// Key has forgotten the page, and a price is kept that JSON turns into another number.
func ExampleVerify() {
	type listParams struct {
		Genre string
		Page  int
	}
	store := memstore.New(memstore.Config{})
	defer store.Close()
	c, err := cache.New(cache.Config{Store: store})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	list := cache.Define(c, cache.Query[listParams, []string]{
		Name: "shop:list", FreshFor: time.Minute,
		Key:  func(p listParams) string { return cache.Key(p.Genre) },
		Tags: func(p listParams) []cache.Tag { return cache.Tags("catalog", p.Genre) },
		Load: func(_ context.Context, p listParams) ([]string, error) {
			return []string{fmt.Sprintf("%s record %d", p.Genre, 20*p.Page)}, nil
		},
	})
	price := cache.Define(c, cache.Query[int, map[string]any]{
		Name: "shop:price", FreshFor: time.Minute, Codec: cache.JSON[map[string]any]{},
		Tags: func(id int) []cache.Tag { return cache.Tags("product", id) },
		Load: func(context.Context, int) (map[string]any, error) {
			return map[string]any{"cents": int64(9007199254740993)}, nil
		},
	})

	var t printer // in a test: func TestQueries(t *testing.T)
	cachetest.Verify(t, c,
		cachetest.Sample(list, listParams{"jazz", 1}, listParams{"jazz", 2}, listParams{"pop", 1}),
		cachetest.Sample(price, 7),
	)
	// Output:
	// query shop:list: Key gives "shop:list:jazz" for {Genre:jazz Page:1} and for {Genre:jazz Page:2}, whose answers differ: [0]: "jazz record 20" and "jazz record 40": one caller would get the other's
	// query shop:price: 7: the codec cache.JSON[map[string]interface {}] does not keep the value: who loads it gets one, and later callers another: ["cents"]: int64(9007199254740993) and float64(9.007199254740992e+15)
}

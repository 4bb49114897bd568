package membership

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

var comparisons = flag.Int("comparisons", 100_000, "answers to hold against what was written")

func TestMain(m *testing.M) { goleak.VerifyTestMain(testservers.Main(m)) }

func TestNoAnswerIsOldWhileMembershipChanges(t *testing.T) {
	redis := testservers.SharedRedis(t)
	var handles []driver.Store
	for range 3 {
		handle, err := redisstore.Open(t.Context(), redisstore.Config{URL: redis.URL(), Prefix: "membership:"})
		testservers.Must(t, err)
		defer handle.Close()
		handles = append(handles, handle)
	}
	result, err := Run(t.Context(), testservers.SharedPostgres(t).Database(t), handles, *comparisons, func(r Result) {
		t.Logf("%d of %d answers compared", r.Answers, *comparisons) // seen while it runs with -v
	})
	testservers.Must(t, err)
	for _, s := range result.Stale {
		t.Error(s)
	}
	t.Logf("%+v", result)
	if result.Hits < result.Answers/3 || result.Titles == 0 || result.Moves == 0 || result.External == 0 {
		t.Errorf("this shows little: %+v", result)
	}
}

// The check itself: what it must find, and what it must not.
func TestCheck(t *testing.T) {
	h := newHistory() // product 1 is in category 1, as are 9, 17, 25 and 33
	page := func(change func(map[int]shown)) (all []shown) {
		byProduct := map[int]shown{}
		for p := 1; p < products; p += categories {
			byProduct[p] = shown{Product: p}
		}
		change(byProduct)
		for _, s := range byProduct {
			all = append(all, s)
		}
		return all
	}
	same := func(map[int]shown) {}
	h.retitled(9, 3)
	h.moves(17, 1, 2)
	h.moved(17, move{1, 1, 2})
	h.moves(25, 1, 3) // not acknowledged
	h.moves(33, 1, 4) // by another program
	h.moves(33, 2, 5)
	h.moved(33, move{2, 4, 5}) // which says nothing of category 1
	before := h.acknowledged()
	for name, c := range map[string]struct {
		change func(map[int]shown)
		right  bool
	}{
		"an old title":                  {func(m map[int]shown) { m[9] = shown{9, 2, 0}; delete(m, 17) }, false},
		"an old membership":             {func(m map[int]shown) { m[9] = shown{9, 3, 0} }, false},
		"a membership of elsewhere":     {func(m map[int]shown) { m[9] = shown{9, 3, 0}; m[17] = shown{17, 0, 1} }, false},
		"one that stayed is missing":    {func(m map[int]shown) { m[9] = shown{9, 3, 0}; delete(m, 17); delete(m, 1) }, false},
		"as it was acknowledged":        {func(m map[int]shown) { m[9] = shown{9, 3, 0}; delete(m, 17) }, true},
		"newer, not yet acknowledged":   {func(m map[int]shown) { m[9] = shown{9, 4, 0}; delete(m, 17); delete(m, 25) }, true},
		"nothing that was acknowledged": {same, false},
	} {
		if wrong := h.check(1, page(c.change), before); (wrong == "") != c.right {
			t.Errorf("%s: %q", name, wrong)
		}
	}
}

package cache_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

type question struct {
	Difficulty slug
	page       int // not exported, and a part of the question all the same
	Limit      uint8
	Who        uuid
	Since      time.Time
	Pair       [2]int
	Strict     bool
	Share      float64
}

// defined returns a query of parameters P whose loads say how often they ran.
func defined[P comparable](t *testing.T, c process, change func(*cache.Query[P, int])) *cache.Cached[P, int] {
	t.Helper()
	loads := 0
	q := cache.Query[P, int]{
		Name: "derived:one", FreshFor: time.Minute,
		Tags: func(P) []cache.Tag { return cache.Tags("row") },
		Load: func(context.Context, P) (int, error) { loads++; return loads, nil },
	}
	if change != nil {
		change(&q)
	}
	return cache.Define(c.Cache, q)
}

// Every field tells one question from another, whether or not it is exported (C9).
func TestKeyIsDerivedFromTheWholeParameter(t *testing.T) {
	virtual(t, func(t *testing.T) {
		q := defined[question](t, newCache(t), nil)
		base := question{Difficulty: "beginner", page: 1, Limit: 20, Who: uuid{1}, Since: time.Unix(1, 1), Pair: [2]int{1, 2}, Share: 0.5}
		questions := []question{base}
		for _, change := range []func(*question){
			func(l *question) { l.Difficulty = "" },
			func(l *question) { l.page = 2 },
			func(l *question) { l.Limit = 21 },
			func(l *question) { l.Who[15] = 1 }, // its String shows two bytes
			func(l *question) { l.Since = time.Unix(1, 2) },
			func(l *question) { l.Pair[1] = 3 },
			func(l *question) { l.Strict = true },
			func(l *question) { l.Share = 0.25 },
		} {
			other := base
			change(&other)
			questions = append(questions, other)
		}
		for i, p := range questions {
			if got, err := q.Get(t.Context(), p); err != nil || got != i+1 {
				t.Errorf("question %d is answered %d (error %v): another's", i, got, err)
			}
		}
		// The same instant in another place is the same question.
		same := base
		same.Since = base.Since.In(time.FixedZone("elsewhere", 3600))
		time.Sleep(time.Millisecond)
		if got, err := q.Get(t.Context(), same); err != nil || got != 1 {
			t.Errorf("the same instant is answered %d (error %v), want 1", got, err)
		}
	})
}

func TestScalarKeys(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCache(t)
		q := defined[string](t, c, nil)
		for i, p := range []string{"", "a", "a:b", "red wine", "%"} {
			if got, err := q.Get(t.Context(), p); err != nil || got != i+1 {
				t.Errorf("%q is answered %d (error %v), want %d", p, got, err, i+1)
			}
		}
		synctest.Wait() // the entries are stored after the callers were answered
		if n, err := c.Purge(t.Context(), "derived:one:red%20wine"); err != nil || n != 1 {
			t.Errorf("purged %d (error %v), want the one key", n, err)
		}
	})
}

func TestParametersThatAreNoValuesAreRefused(t *testing.T) {
	c := newCache(t)
	for name, define := range map[string]func(){
		"a pointer":               func() { defined[*int](t, c, nil) },
		"a struct with a pointer": func() { defined[struct{ Filter *int }](t, c, nil) },
		"an interface":            func() { defined[any](t, c, nil) },
		"a channel":               func() { defined[chan int](t, c, nil) },
	} {
		if said := panicOf(define); !strings.Contains(said, "set Key") {
			t.Errorf("%s: panic says %q", name, said)
		}
	}
	if said := panicOf(func() {
		defined(t, c, func(q *cache.Query[*int, int]) {
			q.Key = func(p *int) string { return cache.Key(p) }
			q.Near = time.Second
		})
	}); !strings.Contains(said, "Near") {
		t.Errorf("near answers by pointer: panic says %q", said)
	}
	q := defined(t, c, func(q *cache.Query[*int, int]) { q.Key = func(p *int) string { return cache.Key(p) } })
	one, uno := 1, 1
	a, _ := q.Get(t.Context(), &one)
	b, _ := q.Get(t.Context(), &uno)
	if a != 1 || b != 1 {
		t.Errorf("two pointers to 1 are answered %d and %d: an address is not a value", a, b)
	}
	var none *question
	if key := cache.Key(none, nil); strings.Contains(key, "0x") {
		t.Errorf("the key of nothing is %q", key)
	}
}

type tenantKey struct{}

// A load serves every caller that waits for it, so it must not answer for the tenant of one (C11).
func TestLoadSeesNoneOfTheCallersValues(t *testing.T) {
	virtual(t, func(t *testing.T) {
		for _, carried := range []bool{false, true} {
			c := newCache(t)
			var saw any
			var loadMany any
			q := defined(t, c, func(q *cache.Query[int, int]) {
				q.Load = func(ctx context.Context, id int) (int, error) { saw = ctx.Value(tenantKey{}); return id, nil }
				q.LoadMany = func(ctx context.Context, ids []int) ([]cache.Loaded[int], error) {
					loadMany = ctx.Value(tenantKey{})
					return make([]cache.Loaded[int], len(ids)), nil
				}
				if carried {
					q.ContextKeys = []any{tenantKey{}}
				}
			})
			ctx := context.WithValue(t.Context(), tenantKey{}, "A")
			if _, err := q.Get(ctx, 1); err != nil {
				t.Fatal(err)
			}
			if _, err := q.GetMany(ctx, []int{2, 3}); err != nil {
				t.Fatal(err)
			}
			var want any
			if carried {
				want = "A"
			}
			if saw != want || loadMany != want {
				t.Errorf("ContextKeys set: %t; Load saw %v and LoadMany %v, want %v", carried, saw, loadMany, want)
			}
		}
	})
}

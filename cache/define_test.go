package cache_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

func TestNewReportsEverythingWrong(t *testing.T) {
	_, err := cache.New(cache.Config{StoreTimeout: -1, FenceLease: -time.Second})
	for _, want := range []string{"Store is nil", "StoreTimeout is negative: -1ns", "FenceLease is negative: -1s"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want it to say %q", err, want)
		}
	}
}

func TestDefineReportsEverythingWrong(t *testing.T) {
	c := newCache(t)
	message := panicOf(func() {
		cache.Define(c.Cache, cache.Query[int, string]{Name: "Rows", StaleWhileRevalidate: -time.Second, WarmEvery: time.Minute})
	})
	for _, want := range []string{`Name is "Rows"`, "Tags is nil", "Load is nil", "FreshFor is 0s", "StaleWhileRevalidate is negative: -1s", "Warm is nil"} {
		if !strings.Contains(message, want) {
			t.Errorf("panic says %q, want it to say %q", message, want)
		}
	}
	reserved := newSource().query()
	reserved.Name = "tag:x"
	if message := panicOf(func() { cache.Define(c.Cache, reserved) }); !strings.Contains(message, "belongs to the stores") {
		t.Errorf("a reserved namespace: %q", message)
	}
	cache.Define(c.Cache, newSource().query())
	if message := panicOf(func() { cache.Define(c.Cache, newSource().query()) }); !strings.Contains(message, "defined twice") {
		t.Errorf("a second definition: %q", message)
	}
}

func panicOf(f func()) (message string) {
	defer func() { message, _ = recover().(string) }()
	f()
	return ""
}

// One user's answer cannot reach another, whatever Key forgets.
func TestOwnersNeverShareAnAnswer(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.query()
		query.Key = func(int) string { return "mine" } // forgets the user
		query.Tags = func(int) []cache.Tag { return []cache.Tag{"rows"} }
		query.Owner = func(id int) string {
			if id == 0 {
				return ""
			}
			return "user " + string(rune('0'+id))
		}
		q := cache.Define(c.Cache, query)
		mustGet(t, q, 1, "one")
		mustGet(t, q, 2, "two")
		if _, err := q.Get(t.Context(), 0); err == nil || errors.Is(err, cache.ErrNotFound) {
			t.Errorf("an answer that no caller waits for: error %v", err)
		}
	})
}

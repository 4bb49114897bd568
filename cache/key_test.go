package cache_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/cache"
)

func TestKeyReadsWell(t *testing.T) {
	for _, test := range []struct {
		parts []any
		want  string
	}{
		{[]any{"all", 1, 20}, "all:1:20"},
		{nil, ""},
		{[]any{""}, "%"},
		{[]any{"a:b", "c"}, "a%3Ab:c"},
		{[]any{"100%", "*", "{x}"}, "100%25:%2A:%7Bx%7D"},
		{[]any{"é\n"}, "%C3%A9%0A"},
		{[]any{cache.Tag("t"), true, 1.5}, "t:true:1.5"},
	} {
		if got := cache.Key(test.parts...); got != test.want {
			t.Errorf("Key(%q) is %q, want %q", test.parts, got, test.want)
		}
	}
}

// No two lists of parts give one key.
func FuzzKeyIsInjective(f *testing.F) {
	f.Add("a", "b", "a:b", "")
	f.Add("", "", "%", "%25")
	f.Add("a", "", "a", ":")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		lists := [][]any{{}, {a}, {b}, {a, b}, {b, a}, {c, d}, {a, b, c}, {a, b, c, d}, {a + b}, {a + ":" + b}}
		for i, x := range lists {
			key := cache.Key(x...)
			if strings.ContainsAny(key, "*?[]{}\\\n ") {
				t.Errorf("Key(%q) is %q: it holds a character that means something elsewhere", x, key)
			}
			for _, y := range lists[:i] {
				if !slices.Equal(x, y) && key == cache.Key(y...) {
					t.Errorf("%q and %q give the same key %q", x, y, key)
				}
			}
		}
	})
}

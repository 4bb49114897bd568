package memstore

import (
	"regexp"
	"strings"
	"testing"
)

// FuzzMatches compares with the same pattern as a regular expression.
func FuzzMatches(f *testing.F) {
	for _, seed := range [][2]string{
		{"courses:*", "courses:list:1"}, {"*a*b*c", "aXbXbc"}, {"a?c", "abc"}, {"?", ""}, {"", ""},
		{"**", "x"}, {"*a", "aaab"}, {"a*a", "a"}, {"*\n?", "a\nb"}, {"[a]", "a"}, {"?*?", "\xff"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, key string) {
		if len(pattern) > 50 || len(key) > 200 {
			t.Skip("nothing new in length")
		}
		// Byte by byte, as latin-1: a regular expression would take a rune for one.
		expr := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(latin1(pattern)))
		want := regexp.MustCompile(`(?s)\A` + expr + `\z`).MatchString(latin1(key))
		if got := matches(pattern, key); got != want {
			t.Errorf("matches(%q, %q) is %t, want %t", pattern, key, got, want)
		}
	})
}

func latin1(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

// Patterns come from operators, and one with many stars must not stop the store.
func TestMatchesIsFast(t *testing.T) {
	if matches(strings.Repeat("*a", 100)+"b", strings.Repeat("a", 10_000)) {
		t.Error("a pattern that ends in b matched a key that has none")
	}
}

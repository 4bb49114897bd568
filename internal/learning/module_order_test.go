package learning

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestNaturalOrder(t *testing.T) {
	want := []string{"", "2", "10", "a", "a1", "a1b", "a02", "a2", "a10", "a10b2", "a10b11", "b", "module-1", "module-2", "module-10",
		"module-99999999999999999999", "module-100000000000000000000", "é"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, compareNatural)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A sort needs a total order, whatever the ids.
func TestNaturalIsATotalOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a0-2é-]{0,6}`)
		a, b, c := text.Draw(t, "a"), text.Draw(t, "b"), text.Draw(t, "c")
		if compareNatural(a, b) != -compareNatural(b, a) {
			t.Errorf("%q and %q compare as %d and %d", a, b, compareNatural(a, b), compareNatural(b, a))
		}
		if (compareNatural(a, b) == 0) != (a == b) {
			t.Errorf("%q and %q compare as %d", a, b, compareNatural(a, b))
		}
		if compareNatural(a, b) < 0 && compareNatural(b, c) < 0 && compareNatural(a, c) >= 0 {
			t.Errorf("%q < %q < %q, but not %q < %q", a, b, c, a, c)
		}
	})
}

func TestTitleFromID(t *testing.T) {
	for id, want := range map[ModuleID]string{
		"module-2": "Module 2", "smart_contracts": "Smart contracts", "élan": "Élan", "X": "X", "--": "--", "": "", "-a--b-": "A b",
	} {
		if got := titleFrom(id); got != want {
			t.Errorf("%q is entitled %q, want %q", id, got, want)
		}
	}
}

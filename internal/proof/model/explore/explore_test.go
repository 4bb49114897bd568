package explore

import (
	"slices"
	"testing"
)

// A counter that goes up by one or by two, and must never be five.
func steps(s int, emit func(next int, what, wrong string)) {
	for _, by := range []struct {
		n    int
		what string
	}{{1, "one"}, {2, "two"}} {
		wrong := ""
		if s+by.n == 5 {
			wrong = "five"
		}
		if s+by.n < 8 {
			emit(s+by.n, by.what, wrong)
		}
	}
}

func TestAllFindsTheShortestRun(t *testing.T) {
	r := All(0, false, steps)
	if run := r.Wrong["five"]; r.States != 8 || !slices.Equal(run, []string{"one", "two", "two"}) {
		t.Errorf("%d states, and five after %q", r.States, run)
	}
	if r := All(0, true, steps); r.States == 8 || len(r.Wrong) != 1 {
		t.Errorf("it went on: %+v", r)
	}
}

package named

import (
	"reflect"
	"strings"
	"testing"
)

var systems = [][]Write{
	{WriteA}, {Move}, {WriteA, WriteA}, {WriteA, Move}, {WriteB, Move}, {Move, Move},
}

func TestNamedTagsHold(t *testing.T) {
	t.Parallel()
	explored := systems
	if raceEnabled {
		explored = systems[:2] // make test explores all of them without the detector
	}
	for _, writes := range explored {
		r := Check(Config{Protocol: Full(), Writes: writes, Readers: 2})
		for wrong, run := range r.Wrong {
			t.Errorf("%v: %s:\n\t%s", writes, wrong, strings.Join(run, "\n\t"))
		}
		t.Logf("%v: %d states", writes, r.States)
	}
}

// Without any one of its rules something goes wrong.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		t.Skip("takes minutes with the race detector; make test runs it without")
	}
	rules := reflect.TypeFor[Protocol]()
	for i := range rules.NumField() {
		p := Full()
		reflect.ValueOf(&p).Elem().Field(i).SetBool(false)
		missed := true
		for _, writes := range systems {
			for wrong, run := range Check(Config{Protocol: p, Writes: writes, Readers: 2, Stop: true}).Wrong {
				if missed {
					t.Logf("without %s, %v: %s:\n\t%s", rules.Field(i).Name, writes, wrong, strings.Join(run, "\n\t"))
				}
				missed = false
			}
			if !missed {
				break
			}
		}
		if missed {
			t.Errorf("without %s nothing goes wrong", rules.Field(i).Name)
		}
	}
}

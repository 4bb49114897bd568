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
	for _, writes := range systems {
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
	rules := reflect.TypeFor[Protocol]()
	for i := range rules.NumField() {
		p := Full()
		reflect.ValueOf(&p).Elem().Field(i).SetBool(false)
		missed := true
		for _, writes := range systems {
			for wrong, run := range Check(Config{Protocol: p, Writes: writes, Readers: 2}).Wrong {
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

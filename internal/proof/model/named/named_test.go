package named

import (
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

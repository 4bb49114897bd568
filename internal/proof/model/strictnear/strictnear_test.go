package strictnear

import (
	"fmt"
	"strings"
	"testing"
)

func systems() []Config {
	return []Config{
		{Interval: 0, Processes: 1, Writers: 2, Lose: 1, Cut: 1},
		{Interval: 1, Processes: 1, Writers: 2},
		{Interval: 2, Processes: 1, Writers: 2, Lose: 2},
		{Interval: 2, Processes: 1, Writers: 1, External: true, Lose: 1},
		{Interval: 2, Processes: 1, Writers: 1, Replace: true, Cut: 1},
		{Interval: 1, Processes: 2, Writers: 1},
	}
}

func (c Config) String() string {
	return fmt.Sprintf("interval %d, %d processes, %d writers, external %v, %d lost, replaced %v, %d cut",
		c.Interval, c.Processes, c.Writers, c.External, c.Lose, c.Replace, c.Cut)
}

func TestStrictNearHolds(t *testing.T) {
	t.Parallel()
	explored := systems()
	if raceEnabled {
		explored = explored[:2] // make test explores all of them without the detector
	}
	for _, cfg := range explored {
		cfg.Protocol = Full()
		served := map[string]int{}
		r := Check(cfg, func(way string) { served[way]++ })
		for wrong, run := range r.Wrong {
			t.Errorf("%v: %s:\n\t%s", cfg, wrong, strings.Join(run, "\n\t"))
		}
		t.Logf("%v: %d states, %v", cfg, r.States, served)
		for _, way := range []string{"near", "after a proof", "loaded", "fenced"} {
			if served[way] == 0 && (way != "near" || cfg.Interval > 0) {
				t.Errorf("%v: no answer was served %s", cfg, way)
			}
		}
	}
}

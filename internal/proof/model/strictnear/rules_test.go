//go:build !race

// With the race detector this takes minutes: make test runs it without.

package strictnear

import (
	"reflect"
	"strings"
	"testing"
)

// Without any one of its rules something goes wrong.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()
	rules := reflect.TypeFor[Protocol]()
	for i := range rules.NumField() {
		p := Full()
		reflect.ValueOf(&p).Elem().Field(i).SetBool(false)
		missed := true
		for _, cfg := range systems() {
			cfg.Protocol, cfg.Stop = p, true
			for wrong, run := range Check(cfg, func(string) {}).Wrong {
				if missed {
					t.Logf("without %s, %v: %s:\n\t%s", rules.Field(i).Name, cfg, wrong, strings.Join(run, "\n\t"))
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

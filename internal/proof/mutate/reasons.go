package main

import (
	"fmt"
	"strings"
)

// reasons why conditions stay that no test misses, by their names.
type reasons map[string]string

// readReasons reads names of conditions, one on each line, each followed, perhaps after other
// names, by an indented line with the reason. Lines that begin with # are remarks.
func readReasons(text string) (reasons, error) {
	all := reasons{}
	var names []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case !strings.HasPrefix(line, "\t"):
			names = append(names, line)
		case len(names) == 0:
			return nil, fmt.Errorf("reasons.txt: %q is the reason of nothing", line)
		default:
			for _, name := range names {
				all[name] = strings.TrimSpace(line)
			}
			names = nil
		}
	}
	if len(names) > 0 {
		return nil, fmt.Errorf("reasons.txt: %q has no reason", names[0])
	}
	return all, nil
}

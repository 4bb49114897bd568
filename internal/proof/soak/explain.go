package soak

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// line is one event of an explanation.
type line struct {
	begin, end int64
	text       string
}

// explain tells the minimal history: a stale read takes two operations to show, what was
// demanded and what was seen, and so no history is smaller. The writes behind them
// and the faults of the time are told for the sake of the reader.
func (v *Violation) explain() string {
	lines := []line{{v.read.Begin, v.read.End, "READ   " + v.read.String()}}
	about := map[*commit]bool{}
	if v.need.read != nil {
		lines = append(lines, line{v.need.read.Begin, v.need.read.End, "before " + v.need.read.String()})
	}
	for _, c := range []*commit{v.seen, v.need.commit} {
		if c != nil && !about[c] {
			about[c] = true
			if c.Begin != longAgo {
				lines = append(lines, line{c.Begin, c.End, "write  " + c.String()})
			}
		}
	}
	first, last := v.read.Begin, v.read.End
	for _, l := range lines {
		first, last = min(first, l.begin), max(last, l.end)
	}
	for _, f := range v.faults {
		if f.End > first-int64(time.Second) && f.Begin < last {
			lines = append(lines, line{f.Begin, f.End, "fault  " + f.Name})
		}
	}
	return tell(lines, first)
}

// tell prints lines in order, in milliseconds since origin.
func tell(lines []line, origin int64) string {
	slices.SortFunc(lines, func(a, b line) int { return cmp.Compare(a.begin, b.begin) })
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "  %s .. %s  %s\n", millis(l.begin, origin), millis(l.end, origin), l.text)
	}
	return b.String()
}

func millis(t, origin int64) string {
	if t >= never {
		return "       ?"
	}
	return fmt.Sprintf("%8.2f", float64(t-origin)/1e6)
}

func (r *read) String() string {
	value := fmt.Sprint(r.Value)
	if r.Value == 0 {
		value = "nothing"
	}
	return fmt.Sprintf("of key %d by worker %d (%s, %s): %s", r.Key, r.By, r.Asked, r.Status, value)
}

func (c *commit) String() string {
	if c.Begin == longAgo {
		return fmt.Sprintf("of key %d = %d, before", c.Key, c.Value)
	}
	var marks []string
	add := func(is bool, yes, no string) {
		if is {
			marks = append(marks, yes)
		} else if no != "" {
			marks = append(marks, no)
		}
	}
	add(c.Fenced, "fenced", "not fenced")
	add(c.Bumped, "bumped", "not bumped")
	add(c.Lost, "the fence may be lost", "")
	add(c.Absent, "removed the row", "")
	who := fmt.Sprintf("worker %d", c.By)
	if c.By == stranger {
		who = "a stranger"
	}
	return fmt.Sprintf("of key %d = %d by %s: %s (%s)", c.Key, c.Value, who, c.Outcome, strings.Join(marks, ", "))
}

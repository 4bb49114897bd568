package soak

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// timelineEntry is one event of an explanation.
type timelineEntry struct {
	begin, end int64
	text       string
}

// explain prints the minimal history of a stale read. It takes two operations: the one that
// requires a value, and the read that shows an older one. The writes behind them and the
// faults of the time are added for the reader.
func (v *Violation) explain() string {
	lines := []timelineEntry{{v.read.Begin, v.read.End, "READ   " + v.read.String()}}
	about := map[*commit]bool{}
	if v.required.read != nil {
		lines = append(lines, timelineEntry{v.required.read.Begin, v.required.read.End, "before " + v.required.read.String()})
	}
	for _, c := range []*commit{v.seen, v.required.commit} {
		if c != nil && !about[c] {
			about[c] = true
			if c.Begin != longAgo {
				lines = append(lines, timelineEntry{c.Begin, c.End, "write  " + c.String()})
			}
		}
	}
	first, last := v.read.Begin, v.read.End
	for _, l := range lines {
		first, last = min(first, l.begin), max(last, l.end)
	}
	for _, f := range v.faults {
		if f.End > first-int64(time.Second) && f.Begin < last {
			lines = append(lines, timelineEntry{f.Begin, f.End, "fault  " + f.Name})
		}
	}
	return formatLines(lines, first)
}

// formatLines prints lines in order, in milliseconds since origin.
func formatLines(lines []timelineEntry, origin int64) string {
	slices.SortFunc(lines, func(a, b timelineEntry) int { return cmp.Compare(a.begin, b.begin) })
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
	return fmt.Sprintf("of key %d by worker %d (%s, %s): %s", r.Key, r.By, r.Kind, r.Status, value)
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
	writer := fmt.Sprintf("worker %d", c.By)
	if c.By == externalWriter {
		writer = "an external writer"
	}
	return fmt.Sprintf("of key %d = %d by %s: %s (%s)", c.Key, c.Value, writer, c.Outcome, strings.Join(marks, ", "))
}

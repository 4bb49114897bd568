package model

import (
	"fmt"
	"io"
	"strconv"
	"time"
)

// Report writes results as a Markdown table, one row per configuration. A count
// that was cut short, because the exploration stopped at a violation it was
// looking for, is followed by a plus.
func Report(w io.Writer, results []Result) error {
	_, err := fmt.Fprint(w, "| Configuration | writers | readers | tags | states | steps |"+
		" stale after ack | inversions | after a lost fence | stuck stale | invalidated, yet served | time |\n"+
		"|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range results {
		if err != nil {
			return err
		}
		more := ""
		if !r.Complete {
			more = "+"
		}
		_, err = fmt.Fprintf(w, "| %s | %d | %d | %d | %s%s | %s%s |", r.Config.Name,
			r.Config.Writers, r.Config.Readers, r.Config.Tags, thousands(r.States), more, thousands(r.Transitions), more)
		for _, p := range AllProperties {
			if err == nil {
				_, err = fmt.Fprintf(w, " %s%s |", thousands(r.Wrong[p]), more)
			}
		}
		if err == nil {
			_, err = fmt.Fprintf(w, " %v |\n", r.Elapsed.Round(10*time.Millisecond))
		}
	}
	return err
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

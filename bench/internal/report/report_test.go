package report_test

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/bench/internal/report"
)

func TestMarkdown(t *testing.T) {
	r := report.Report{Command: "go run .", Rounds: 5, Sections: []*report.Section{{
		Name: "near", Title: "Hits", About: "How.",
		Tables: []report.Table{{Head: []string{"", "a|b"}, Rows: [][]string{{"x", "1\n2"}}}},
		Bars:   []report.Bar{{Subject: "hit", Limit: "fast", Ours: "1 ns", Alternative: "2 ns", Ratio: "0.50 ×", Verdict: report.Met, Remark: "Noted."}},
		Faster: []report.Faster{{What: "Hits", Peer: "otter", Ratio: 0.5, Why: "It does less."}, {What: "Hits", Peer: "sturdyc", Ratio: 0.9, Why: "It does less."}},
		Err:    errors.New("half of it\nfailed"),
	}}}
	text := r.Markdown()
	for _, want := range []string{
		"| hit | fast | 1 ns | 2 ns | 0.50 × | met (1) |", "1. Noted.",
		"| Hits | otter | 0.50 × | It does less. |",
		`|  | a\|b |`, "| x | 1 2 |", "half of it failed", "(raw/near.csv)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	summary := r.Summary()
	for _, want := range []string{"| hit | fast | 1 ns | 2 ns | 0.50 × | met (1) |", "- **otter** (Hits; 0.50 ×), **sturdyc** (Hits; 0.90 ×): It does less."} {
		if !strings.Contains(summary, want) {
			t.Errorf("the summary lacks %q:\n%s", want, summary)
		}
	}
}

func TestUnits(t *testing.T) {
	for ns, want := range map[float64]string{0: "0 ns", 12.34: "12.3 ns", 1500: "1.50 µs", 2e6: "2 ms", 123456789: "123 ms", 2.5e9: "2.50 s"} {
		if got := report.Nanoseconds(ns); got != want {
			t.Errorf("%v ns is written %q, want %q", ns, got, want)
		}
	}
	for n, want := range map[float64]string{10: "10", 2500: "2500", 20_000: "20 k", 1_000_000: "1 M"} {
		if got := report.Count(n); got != want {
			t.Errorf("%v is written %q, want %q", n, got, want)
		}
	}
}

func TestSVGIsWellFormed(t *testing.T) {
	for name, p := range map[string]report.Plot{
		"empty":     {Title: "nothing"},
		"one point": {Title: "a < b & c", Lines: []report.Line{{Name: `"x"`, Points: []report.Point{{1, 1}}}}},
		"logs": {Title: "t", LogX: true, LogY: true, YTick: report.Nanoseconds, Lines: []report.Line{
			{Name: "ours", Points: []report.Point{{10, 5e5}, {1e6, 6e5}}},
			{Name: "peer", Dashed: true, Points: []report.Point{{10, 1e6}, {1e6, 7e10}}},
		}},
		"nought on a logarithmic axis": {LogY: true, Lines: []report.Line{{Points: []report.Point{{0, 0}, {1, 10}}}}},
		"flat":                         {Lines: []report.Line{{Points: []report.Point{{1, 0}, {2, 0}}}}},
	} {
		svg := p.SVG()
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Errorf("%s: %v in\n%s", name, err, svg)
				break
			}
		}
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("%s: a position that is no number:\n%s", name, svg)
		}
	}
}

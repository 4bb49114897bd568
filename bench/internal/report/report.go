// Package report turns what was measured into a page of Markdown and plots.
package report

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Section is the part of a report that one experiment makes.
type Section struct {
	Name, Title string
	About       string // what was measured, and how
	Tables      []Table
	Plots       []Plot
	Notes       []string
	Bars        []Bar
	Faster      []Faster
	Took        time.Duration
	Err         error // what went wrong; the rest may be there in part
}

// Table is one table. Cells are Markdown.
type Table struct {
	Caption string
	Head    []string
	Rows    [][]string
}

// Bar is a limit that was set before anything was measured.
type Bar struct {
	Subject     string // what is measured
	Limit       string // in words
	Ours        string
	Alternative string // what it is compared with, and its value
	Ratio       string
	Verdict     Verdict
	Remark      string
}

// Verdict on a bar.
type Verdict string

// The verdicts.
const (
	Met         Verdict = "met"
	Missed      Verdict = "**missed**"
	NotMeasured Verdict = "not measured"
)

// Judge returns Met if ok.
func Judge(ok bool) Verdict {
	if ok {
		return Met
	}
	return Missed
}

// Faster names a peer that did something faster than package cache.
type Faster struct {
	What, Peer string
	Ratio      float64 // of the peer's time to ours, below 1
	Why        string
}

// Report is everything.
type Report struct {
	When     time.Time
	Command  string
	Rounds   int
	Machine  []Fact
	Versions []Fact
	Setups   []Fact
	Sections []*Section
	Took     time.Duration
}

// Fact is a name and its value.
type Fact struct{ Name, Value string }

// Markdown returns the page.
func (r *Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmark report\n\n")
	fmt.Fprintf(&b, "Written by `%s` on %s; it took %v. All contenders ran in this one run, in turns, %d rounds of each"+
		" unless a section says otherwise; figures are medians over the rounds. A ratio is the median of the ratios within"+
		" each round. Whatever else runs on the machine disturbs the absolute figures more than the ratios.\n\n",
		r.Command, r.When.UTC().Format("2006-01-02 15:04 UTC"), r.Took.Round(time.Second), r.Rounds)

	b.WriteString("## Bars\n\n")
	r.writeBars(&b)
	r.writeFaster(&b)
	for _, s := range r.Sections {
		s.write(&b)
	}
	b.WriteString("## Contenders\n\n")
	facts(&b, "Library", "How it is set up here", r.Setups)
	b.WriteString("## Machine and versions\n\n")
	facts(&b, "", "", r.Machine)
	facts(&b, "Module", "Version", r.Versions)
	return b.String()
}

// Summary returns what the project's README shows of the page: where it was measured, the
// bars, and what a peer does faster and why.
func (r *Report) Summary() string {
	var b strings.Builder
	var machine []string
	for _, f := range r.Machine {
		if f.Name == "Processor" || f.Name == "Processors" || f.Name == "Go" {
			machine = append(machine, f.Value)
		}
	}
	fmt.Fprintf(&b, "Measured on %s by `%s` (%s): medians of %d rounds, everything in one run, in turns.\n\n",
		r.When.UTC().Format("2006-01-02"), r.Command, strings.Join(machine, "; "), r.Rounds)
	r.writeBars(&b)
	all := r.faster()
	if len(all) > 0 {
		b.WriteString("Where a peer is faster (its time against ours, at best), and why:\n\n")
	}
	var reasons []string // in the order of the page
	peers := map[string][]string{}
	for _, f := range all {
		if peers[f.Why] == nil {
			reasons = append(reasons, f.Why)
		}
		peers[f.Why] = append(peers[f.Why], fmt.Sprintf("**%s** (%s; %s)", f.Peer, f.What, Times(f.Ratio)))
	}
	for _, why := range reasons {
		fmt.Fprintf(&b, "- %s: %s\n", strings.Join(peers[why], ", "), why)
	}
	return b.String()
}

func (r *Report) writeBars(b *strings.Builder) {
	t := Table{Head: []string{"", "Bar", "chainlearn", "Compared with", "Ratio", ""}}
	var remarks []string
	for _, s := range r.Sections {
		for _, bar := range s.Bars {
			verdict := string(bar.Verdict)
			if bar.Remark != "" {
				remarks = append(remarks, bar.Remark)
				verdict += fmt.Sprintf(" (%d)", len(remarks))
			}
			t.Rows = append(t.Rows, []string{bar.Subject, bar.Limit, bar.Ours, bar.Alternative, bar.Ratio, verdict})
		}
	}
	if len(t.Rows) == 0 {
		b.WriteString("None of these experiments has one.\n\n")
		return
	}
	t.write(b)
	for i, remark := range remarks {
		fmt.Fprintf(b, "%d. %s\n", i+1, remark)
	}
	if len(remarks) > 0 {
		b.WriteString("\n")
	}
}

func (r *Report) faster() (all []Faster) {
	for _, s := range r.Sections {
		all = append(all, s.Faster...)
	}
	return all
}

func (r *Report) writeFaster(b *strings.Builder) {
	b.WriteString("## Where a peer is faster\n\n")
	all := r.faster()
	if len(all) == 0 {
		b.WriteString("Nowhere in this run, by 5 % or more.\n\n")
		return
	}
	t := Table{Head: []string{"Where", "Peer", "Time against ours, at best", "Why"}}
	for _, f := range all {
		t.Rows = append(t.Rows, []string{f.What, f.Peer, Times(f.Ratio), f.Why})
	}
	t.write(b)
}

func (s *Section) write(b *strings.Builder) {
	fmt.Fprintf(b, "## %s\n\n%s\n\n", s.Title, s.About)
	if s.Err != nil {
		fmt.Fprintf(b, "> **This experiment failed:** %s\n\n", oneLine(s.Err.Error()))
	}
	for _, t := range s.Tables {
		t.write(b)
	}
	for _, p := range s.Plots {
		fmt.Fprintf(b, "![%s](%s)\n\n", p.Title, p.File())
	}
	for _, note := range s.Notes {
		fmt.Fprintf(b, "- %s\n", note)
	}
	if len(s.Notes) > 0 {
		b.WriteString("\n")
	}
	fmt.Fprintf(b, "Raw values: [%s.csv](raw/%s.csv).\n\n", s.Name, s.Name)
}

func (t Table) write(b *strings.Builder) {
	if len(t.Rows) == 0 {
		return
	}
	if t.Caption != "" {
		fmt.Fprintf(b, "%s\n\n", t.Caption)
	}
	row := func(cells []string) {
		b.WriteString("|")
		for _, c := range cells {
			fmt.Fprintf(b, " %s |", strings.ReplaceAll(oneLine(c), "|", `\|`))
		}
		b.WriteString("\n")
	}
	row(t.Head)
	b.WriteString("|" + strings.Repeat("---|", len(t.Head)) + "\n")
	for _, cells := range t.Rows {
		row(cells)
	}
	b.WriteString("\n")
}

func facts(b *strings.Builder, name, value string, list []Fact) {
	t := Table{Head: []string{name, value}}
	for _, f := range list {
		t.Rows = append(t.Rows, []string{f.Name, f.Value})
	}
	t.write(b)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Nanoseconds writes a duration with three digits and a unit.
func Nanoseconds(ns float64) string {
	switch {
	case math.IsNaN(ns):
		return "–"
	case ns < 1e3:
		return number(ns) + " ns"
	case ns < 1e6:
		return number(ns/1e3) + " µs"
	case ns < 1e9:
		return number(ns/1e6) + " ms"
	}
	return number(ns/1e9) + " s"
}

// Count writes a number of things with three digits.
func Count(n float64) string {
	switch {
	case n >= 1e6:
		return number(n/1e6) + " M"
	case n >= 1e4:
		return number(n/1e3) + " k"
	}
	return number(n)
}

// Size writes a number of bytes.
func Size(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%d MB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// Times writes a ratio.
func Times(ratio float64) string { return number(ratio) + " ×" }

func number(v float64) string {
	switch {
	case v != 0 && math.Abs(v) < 10 && v != math.Trunc(v):
		return fmt.Sprintf("%.2f", v)
	case math.Abs(v) < 100 && v != math.Trunc(v):
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

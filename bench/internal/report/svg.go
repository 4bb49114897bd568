package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Plot is a chart of lines. Files are written as SVG, which says itself how it looks on
// light and on dark backgrounds.
type Plot struct {
	Name, Title    string
	XLabel, YLabel string
	LogX, LogY     bool
	XTick, YTick   func(float64) string // of a value; default: Count
	Lines          []Line
}

// Line is one series of a Plot, with X ascending.
type Line struct {
	Name   string
	Points []Point
	Dashed bool // what is compared with
}

// Point of a Line.
type Point struct{ X, Y float64 }

// File returns the name of the plot's file.
func (p Plot) File() string { return p.Name + ".svg" }

const (
	width, height           = 760, 420
	left, right, top, below = 76, 190, 44, 56
)

// Colours that colour-blind readers can distinguish (Okabe and Ito), and that are
// readable on white and on black.
var colours = []string{"#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c6d31", "#7f7f7f"}

const style = `<style>
  svg { background: #ffffff; color: #1f2328; font: 13px system-ui, sans-serif; }
  text { fill: currentColor; }
  .grid { stroke: #d8dee4; stroke-width: 1; }
  .axis { stroke: currentColor; stroke-width: 1; }
  .title { font-weight: 600; font-size: 15px; }
  .line { fill: none; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; color: #e6edf3; }
    .grid { stroke: #30363d; }
  }
</style>
`

// axis maps values to positions.
type axis struct {
	log      bool
	min, max float64
	from, to float64
	ticks    []float64
}

func newAxis(values []float64, log bool, from, to float64) axis {
	a := axis{log: log, from: from, to: to, min: math.Inf(1), max: math.Inf(-1)}
	for _, v := range values {
		if log && v <= 0 {
			continue // has no place on it
		}
		a.min, a.max = min(a.min, v), max(a.max, v)
	}
	if math.IsInf(a.min, 1) {
		a.min, a.max = 1, 10
	}
	if log {
		a.logTicks()
	} else {
		a.linearTicks()
	}
	return a
}

func (a *axis) logTicks() {
	lo, hi := math.Floor(math.Log10(a.min)), math.Ceil(math.Log10(a.max))
	if lo == hi {
		hi++
	}
	a.min, a.max = math.Pow(10, lo), math.Pow(10, hi)
	for e := lo; e <= hi; e++ {
		a.ticks = append(a.ticks, math.Pow(10, e))
	}
	if hi-lo > 2 {
		return
	}
	all := a.ticks
	a.ticks = nil
	for _, t := range all { // few decades: more lines between them
		for _, f := range []float64{1, 2, 5} {
			if t*f <= a.max {
				a.ticks = append(a.ticks, t*f)
			}
		}
	}
}

func (a *axis) linearTicks() {
	a.min = min(a.min, 0) // lengths are compared by eye, so they begin at nought
	if a.max <= a.min {
		a.max = a.min + 1
	}
	step := math.Pow(10, math.Floor(math.Log10((a.max-a.min)/4)))
	for _, f := range []float64{5, 2} {
		if (a.max-a.min)/(step*f) >= 4 {
			step *= f
			break
		}
	}
	for v := math.Floor(a.min/step) * step; ; v += step {
		a.ticks = append(a.ticks, v)
		if v >= a.max {
			break
		}
	}
	a.min, a.max = a.ticks[0], a.ticks[len(a.ticks)-1]
}

func (a axis) at(v float64) float64 {
	lo, hi := a.min, a.max
	if a.log {
		v, lo, hi = math.Log10(max(v, a.min)), math.Log10(lo), math.Log10(hi)
	}
	return a.from + (v-lo)/(hi-lo)*(a.to-a.from)
}

// SVG returns the chart.
func (p Plot) SVG() string {
	var xs, ys []float64
	for _, l := range p.Lines {
		for _, pt := range l.Points {
			xs, ys = append(xs, pt.X), append(ys, pt.Y)
		}
	}
	x := newAxis(xs, p.LogX, left, width-right)
	y := newAxis(ys, p.LogY, height-below, top)
	if !p.LogX { // a count of processes need not begin at nought
		x.ticks = nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`+"\n",
		width, height, width, height, html.EscapeString(p.Title))
	b.WriteString(style)
	text(&b, left, 24, "start", `class="title"`, p.Title)
	p.frame(&b, x, y)
	for i, l := range p.Lines {
		p.line(&b, l, colours[i%len(colours)], i, x, y)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (p Plot) frame(b *strings.Builder, x, y axis) {
	tick := func(f func(float64) string, v float64) string {
		if f == nil {
			return Count(v)
		}
		return f(v)
	}
	for _, t := range y.ticks {
		at := y.at(t)
		fmt.Fprintf(b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`+"\n", left, width-right, at, at)
		text(b, left-8, at+4, "end", "", tick(p.YTick, t))
	}
	for _, t := range p.xTicks(x) {
		at := x.at(t)
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`+"\n", at, at, top, height-below)
		text(b, at, height-below+18, "middle", "", tick(p.XTick, t))
	}
	fmt.Fprintf(b, `<path class="axis" fill="none" d="M%d %d V%d H%d"/>`+"\n", left, top, height-below, width-right)
	text(b, (left+width-right)/2, height-12, "middle", "", p.XLabel)
	middle := (top + height - below) / 2
	text(b, 16, float64(middle), "middle", fmt.Sprintf(`transform="rotate(-90 16 %d)"`, middle), p.YLabel)
}

// xTicks are the values that were measured, unless the axis is in decades.
func (p Plot) xTicks(x axis) []float64 {
	if p.LogX {
		return x.ticks
	}
	var ticks []float64
	for _, l := range p.Lines {
		if len(l.Points) > len(ticks) {
			ticks = nil
			for _, pt := range l.Points {
				ticks = append(ticks, pt.X)
			}
		}
	}
	return ticks
}

func (p Plot) line(b *strings.Builder, l Line, colour string, n int, x, y axis) {
	dash := ""
	if l.Dashed {
		dash = ` stroke-dasharray="6 4"`
	}
	var path strings.Builder
	for i, pt := range l.Points {
		verb := "L"
		if i == 0 {
			verb = "M"
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", verb, x.at(pt.X), y.at(pt.Y))
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x.at(pt.X), y.at(pt.Y), colour)
	}
	if path.Len() > 0 {
		fmt.Fprintf(b, `<path class="line" stroke="%s"%s d="%s"/>`+"\n", colour, dash, path.String())
	}
	at := float64(top + 10 + n*20)
	fmt.Fprintf(b, `<path class="line" stroke="%s"%s d="M%d %.1f h22"/>`+"\n", colour, dash, width-right+16, at-4)
	text(b, float64(width-right+44), at, "start", "", l.Name)
}

func text(b *strings.Builder, x, y float64, anchor, attributes, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" %s>%s</text>`+"\n", x, y, anchor, attributes, html.EscapeString(s))
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/internal/testservers"
)

// oursNear is ours with the near tier, where both tiers are in one table.
const oursNear = "chainlearn, near"

// curve is measured at several points of one quantity: a hit in process beside bare otter,
// and a hit in Redis beside a bare GET.
type curve struct {
	name, title, label string
	points             []int
	log                bool
	format             func(int) string
	// at says what differs at a point.
	at func(point int) setting
}

type setting struct {
	keys  int
	value func(uuid.UUID) []byte
	tags  func(uuid.UUID) []string
}

var (
	smallValue = make([]byte, 100)
	ofPlain    = func(n int) string { return report.Count(float64(n)) }
)

func small(uuid.UUID) []byte { return smallValue }

var growthKeys = experiment{
	name:  "growth-keys",
	title: "Growth: keys",
	about: "A hit with so many answers in the cache (100 bytes each, two tags), all asked for alike. " +
		"Ten million with `-long` only. More answers than the processor's caches hold cost everyone time in process, so otter is beside it.",
	run: func(ctx context.Context, l *lab) error {
		points := []int{1_000, 10_000, 100_000, 1_000_000}
		if l.long {
			points = append(points, 10_000_000)
		}
		err := l.curve(ctx, curve{
			name: "growth-keys", title: "A hit, by the number of keys", label: "keys", points: points, log: true, format: ofPlain,
			at: func(n int) setting { return setting{keys: n, value: small} },
		})
		var cases []string
		for _, n := range points {
			cases = append(cases, ofPlain(n))
		}
		span := fmt.Sprintf(", %s to %s keys", cases[0], cases[len(cases)-1])
		l.judgeFlat("Redis hit"+span, cases, ours, measure.PerCall, peers.BareGet)
		l.judgeFlat("near hit"+span, cases, oursNear, measure.PerCall, peers.Otter)
		return err
	},
}

var growthTags = experiment{
	name:  "growth-tags",
	title: "Growth: tags of an answer",
	about: "A hit with so many tags to check (1000 answers of 100 bytes). Half of the tags are shared by all answers.",
	run: func(ctx context.Context, l *lab) error {
		return l.curve(ctx, curve{
			name: "growth-tags", title: "A hit, by the number of tags", label: "tags of an answer", points: []int{1, 2, 4, 8, 16}, format: ofPlain,
			at: func(n int) setting {
				return setting{keys: hitKeys, value: small, tags: func(id uuid.UUID) []string {
					tags := make([]string, n)
					for i := range tags {
						if tags[i] = fmt.Sprintf("shared:%d", i); i%2 == 1 {
							tags[i] = fmt.Sprintf("own:%d:%s", i, id)
						}
					}
					return tags
				}}
			},
		})
	},
}

var growthSize = experiment{
	name:  "growth-size",
	title: "Growth: size of an answer",
	about: "A hit of an answer of so many bytes (64 answers, two tags); nobody decodes it. " +
		"chainlearn compresses what is above 4 KB and here compressible, and checks a checksum; the bare GET moves all bytes.",
	run: func(ctx context.Context, l *lab) error {
		return l.curve(ctx, curve{
			name: "growth-size", title: "A hit, by the size of the answer", label: "bytes", points: []int{100, 1_000, 10_000, 100_000, 1_000_000},
			log: true, format: ofPlain,
			at: func(n int) setting {
				value := payload.Bytes(n)
				return setting{keys: 64, value: func(uuid.UUID) []byte { return value }}
			},
		})
	},
}

func (l *lab) curve(ctx context.Context, c curve) error {
	for _, point := range c.points {
		err := withRedis(ctx, func(r *testservers.Redis) error { return l.point(ctx, c, point, r) })
		if err != nil {
			return fmt.Errorf("at %d: %w", point, err)
		}
	}
	l.drawCurve(c, report.Nanoseconds)
	return nil
}

func (l *lab) point(ctx context.Context, c curve, point int, r *testservers.Redis) (err error) {
	s := c.at(point)
	load := func(_ context.Context, id uuid.UUID) ([]byte, error) { return s.value(id), nil }
	var all contest[[]byte]
	defer func() { err = errors.Join(err, all.close()) }()
	for _, e := range []entry{
		{library: ours, addr: r.Addr(), tags: s.tags},
		{library: peers.BareGet, addr: r.Addr()},
		{name: oursNear, library: ours, addr: r.Addr(), near: true, tags: s.tags},
		{library: peers.Otter, near: true},
	} {
		held, err := hold(ctx, []entry{e}, s.keys, load, peers.Raw)
		all = append(all, held...)
		if err != nil {
			return err
		}
		if o, ok := held[0].cache.(*peers.Ours[[]byte]); ok && e.near {
			if err := o.NearWorks(ctx, &held[0].keys[0], nearTimeout); err != nil {
				l.section.Notes = append(l.section.Notes, fmt.Sprintf("At %d the near tier is off: %v.", point, err))
				if err := o.Close(); err != nil {
					return err
				}
				all = all[:len(all)-1]
				continue
			}
			if err := held[0].draw(ctx); err != nil {
				return err
			}
		}
	}
	t := measure.Turns{
		Case: c.format(point), Workers: 1, Slice: l.slice, Rounds: l.rounds,
		Sequence: payload.Sequence(payload.Uniform, s.keys, min(max(4*s.keys, 1<<14), 1<<20)),
	}
	return all.hits(ctx, l, t)
}

// drawCurve makes the table, the plots and the bar of a curve.
func (l *lab) drawCurve(c curve, format func(float64) string) {
	subjects := []string{oursNear, peers.Otter, ours, peers.BareGet}
	t := report.Table{Head: append([]string{c.label}, subjects...)}
	t.Head = append(t.Head, "near / otter", "Redis hit / bare GET")
	lines := make([]report.Line, len(subjects))
	for i, s := range subjects {
		lines[i] = report.Line{Name: s, Dashed: s == peers.Otter || s == peers.BareGet}
	}
	for _, point := range c.points {
		case_ := c.format(point)
		row := []string{case_}
		for i, s := range subjects {
			v, ok := l.Median(case_, s, measure.PerCall)
			row = append(row, orDash(ok, format(v)))
			if ok {
				lines[i].Points = append(lines[i].Points, report.Point{X: float64(point), Y: v})
			}
		}
		for _, pair := range [][2]string{{oursNear, peers.Otter}, {ours, peers.BareGet}} {
			ratio, ok := l.Ratio(case_, measure.PerCall, pair[0], pair[1])
			row = append(row, orDash(ok, report.Times(ratio)))
		}
		t.Rows = append(t.Rows, row)
	}
	l.section.Tables = append(l.section.Tables, t)
	plot := report.Plot{
		Name: c.name, Title: c.title, XLabel: c.label, YLabel: "time for a call", LogX: c.log, LogY: true, YTick: report.Nanoseconds, Lines: lines,
	}
	l.section.Plots = append(l.section.Plots, plot)
}

// flatness returns the largest median over the smallest.
func (l *lab) flatness(cases []string, subject, metric string) (float64, bool) {
	low, high := math.Inf(1), 0.0
	for _, case_ := range cases {
		v, ok := l.Median(case_, subject, metric)
		if !ok {
			return 0, false
		}
		low, high = min(low, v), max(high, v)
	}
	return high / low, high > 0
}

// judgeFlat adds the bar that a hit costs the same at all points of a curve.
func (l *lab) judgeFlat(what string, cases []string, subject, metric, base string) {
	flat, ok := l.flatness(cases, subject, metric)
	bar := report.Bar{Subject: what, Limit: "flat, within 1.3 ×", Verdict: report.NotMeasured, Ours: "–", Alternative: "–", Ratio: "–"}
	if ok {
		bar.Ours, bar.Ratio, bar.Verdict = fmt.Sprintf("%s at most over least", report.Times(flat)), report.Times(flat), report.Judge(flat <= 1.3)
		if under, ok := l.flatness(cases, base, metric); ok {
			bar.Alternative = fmt.Sprintf("%s: %s", base, report.Times(under))
		}
	}
	l.section.Bars = append(l.section.Bars, bar)
}

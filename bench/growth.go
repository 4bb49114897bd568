package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
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
	about: "A hit with the given number of answers in the cache (100 bytes each, two tags), drawn uniformly. " +
		"Ten million with `-long` only. More answers than the processor's caches hold cost every library time in process, so otter is beside it.",
	run: func(ctx context.Context, x *experimentRun) error {
		points := []int{1_000, 10_000, 100_000, 1_000_000}
		if x.long {
			points = append(points, 10_000_000)
		}
		err := x.curve(ctx, curve{
			name: "growth-keys", title: "A hit, by the number of keys", label: "keys", points: points, log: true, format: ofPlain,
			at: func(n int) setting { return setting{keys: n, value: small} },
		})
		var cases []string
		for _, n := range points {
			cases = append(cases, ofPlain(n))
		}
		x.judgeFlat("Redis hit", "keys", cases, ours, metricOf(ours), peers.BareGet)
		x.judgeFlat("near hit", "keys", cases, oursNear, metricOf(oursNear), peers.Otter)
		return err
	},
}

var growthTags = experiment{
	name:  "growth-tags",
	title: "Growth: tags of an answer",
	about: "A hit with the given number of tags to check (1000 answers of 100 bytes). Half of the tags are shared by all answers.",
	run: func(ctx context.Context, x *experimentRun) error {
		points := []int{1, 2, 4, 8, 16}
		err := x.curve(ctx, curve{
			name: "growth-tags", title: "A hit, by the number of tags", label: "tags of an answer", points: points, format: ofPlain,
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
		x.judgeTagCost("Redis hit", ours)
		x.judgeTagCost("near hit", oursNear)
		return err
	},
}

// judgeTagCost adds the bar that tags cost little each, and the last as much as the first.
func (x *experimentRun) judgeTagCost(what, subject string) {
	metric := metricOf(subject)
	of := func(tags int) float64 { v, _ := x.Median(ofPlain(tags), subject, metric); return v }
	one, eight, sixteen := of(1), of(8), of(16)
	if one == 0 || eight == 0 || sixteen == 0 {
		return
	}
	each := (sixteen - one) / 15
	straight := sixteen / (eight + (eight-one)*8/7) // against the line through the first two
	x.section.Bars = append(x.section.Bars, report.Bar{
		Subject: what + ", 1 to 16 tags", Limit: "a further tag adds at most a tenth of a hit with one; 16 are within 1.3 × of the line from 1 to 8",
		Ours:        fmt.Sprintf("%s and %s for each further tag", report.Nanoseconds(one), report.Nanoseconds(each)),
		Alternative: "that line: " + report.Times(straight), Ratio: report.Times(each / one),
		Verdict: report.Judge(each <= one/10 && straight <= 1.3),
	})
}

var growthSize = experiment{
	name:  "growth-size",
	title: "Growth: size of an answer",
	about: "A hit of an answer of the given size (64 answers, two tags), which is not decoded. " +
		"chainlearn compresses what is above 4 KB and here compressible, and checks a checksum; the bare GET moves all bytes.",
	run: func(ctx context.Context, x *experimentRun) error {
		return x.curve(ctx, curve{
			name: "growth-size", title: "A hit, by the size of the answer", label: "bytes", points: []int{100, 1_000, 10_000, 100_000, 1_000_000},
			log: true, format: ofPlain,
			at: func(n int) setting {
				value := payload.Bytes(n)
				return setting{keys: 64, value: func(uuid.UUID) []byte { return value }}
			},
		})
	},
}

// curve measures all points in the same rounds, each over a Redis of its own.
func (x *experimentRun) curve(ctx context.Context, c curve) (err error) {
	var all contenders[[]byte]
	var servers []*testservers.Redis
	defer func() {
		err = errors.Join(err, all.close())
		for _, r := range servers {
			err = errors.Join(err, r.Close())
		}
	}()
	var subjects []measure.Subject
	before := make(map[*contender[[]byte]]int64)
	for _, point := range c.points {
		r, err := testservers.OpenRedis(ctx, testservers.RedisConfig{})
		if err != nil {
			return err
		}
		servers = append(servers, r)
		held, err := x.atPoint(ctx, c, point, r.Addr())
		all = append(all, held...)
		if err != nil {
			return fmt.Errorf("at %d: %w", point, err)
		}
		keys := len(held[0].keys)
		sequence := payload.Sequence(payload.Uniform, keys, min(max(4*keys, 1<<14), 1<<20))
		for _, h := range held {
			s := h.subject(ctx)
			s.Case, s.Sequence, s.Latency = c.format(point), sequence, metricOf(s.Name) == measure.P50
			subjects = append(subjects, s)
			before[h] = h.loads.Load()
		}
		x.logf("%s %s prepared", c.format(point), c.label)
	}
	t := measure.Turns{Workers: 1, Slice: x.slice, Rounds: x.rounds, LargeHeap: true}
	if err := t.Run(ctx, subjects, x.Samples); err != nil {
		return err
	}
	for _, h := range all {
		if loads := h.loads.Load() - before[h]; loads > 0 {
			x.section.Notes = append(x.section.Notes, fmt.Sprintf("%s, %d keys: %d calls were no hits, they loaded.", h.name, len(h.keys), loads))
		}
	}
	x.drawCurve(c, report.Nanoseconds)
	return nil
}

// atPoint sets up the contenders of one point. They must be closed, also after an
// error.
func (x *experimentRun) atPoint(ctx context.Context, c curve, point int, addr string) (contenders[[]byte], error) {
	s := c.at(point)
	load := func(_ context.Context, id uuid.UUID) ([]byte, error) { return s.value(id), nil }
	all, err := openContenders(ctx, []contenderSpec{
		{library: ours, addr: addr, tags: s.tags},
		{library: peers.BareGet, addr: addr},
		{library: peers.Otter, near: true},
	}, s.keys, load, peers.Raw)
	if err != nil {
		return all, err
	}
	near, err := all[0].secondClient(ctx, true) // of what is in Redis already
	if err != nil {
		return all, err
	}
	near.name = oursNear
	if err := near.cache.(*peers.Ours[[]byte]).NearWorks(ctx, &near.keys[0], nearTimeout); err != nil {
		x.section.Notes = append(x.section.Notes, fmt.Sprintf("At %s the near tier is off: %v.", c.format(point), err))
		return all, near.cache.Close()
	}
	all = append(all, near)
	if err := near.fillNear(ctx); err != nil {
		return all, err
	}
	// Calls that go to Redis after all would be measured as near hits: they load nothing.
	share, err := near.nearShare(ctx)
	if err != nil || share > 0.95 {
		return all, err
	}
	x.section.Notes = append(x.section.Notes, fmt.Sprintf("At %s only %.0f %% of the answers are kept near, so there is no near hit to measure.", c.format(point), 100*share))
	return all[:len(all)-1], near.cache.Close()
}

// nearShare returns which share of the answers of ours is served in process.
func (c *contender[V]) nearShare(ctx context.Context) (float64, error) {
	const sample = 2000
	asked, near := 0, 0
	for i := 0; i < len(c.keys); i += max(1, len(c.keys)/sample) {
		a, err := c.cache.(*peers.Ours[V]).Lookup(ctx, &c.keys[i])
		if err != nil {
			return 0, err
		}
		asked++
		if a.Detail == cache.DetailNear {
			near++
		}
	}
	return float64(near) / float64(asked), nil
}

// metricOf is what a subject of a curve is measured by. What waits for Redis, by the median
// of its time. What does not, by the time it has a processor, for on a shared machine the
// time that passes has that of others in it, and a clock read for each call would be much
// of what is measured.
func metricOf(subject string) string {
	if subject == ours || subject == peers.BareGet {
		return measure.P50
	}
	return measure.CPU
}

// drawCurve makes the table, the plots and the bar of a curve.
func (x *experimentRun) drawCurve(c curve, format func(float64) string) {
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
			v, ok := x.Median(case_, s, metricOf(s))
			row = append(row, orDash(ok, format(v)))
			if ok {
				lines[i].Points = append(lines[i].Points, report.Point{X: float64(point), Y: v})
			}
		}
		for _, pair := range [][2]string{{oursNear, peers.Otter}, {ours, peers.BareGet}} {
			ratio, ok := x.Ratio(case_, metricOf(pair[0]), pair[0], pair[1])
			row = append(row, orDash(ok, report.Times(ratio)))
		}
		t.Rows = append(t.Rows, row)
	}
	x.section.Tables = append(x.section.Tables, t)
	plot := report.Plot{
		Name: c.name, Title: c.title, XLabel: c.label, YLabel: "time of a call", LogX: c.log, LogY: true, YTick: report.Nanoseconds, Lines: lines,
	}
	x.section.Plots = append(x.section.Plots, plot)
}

// flatness returns how much a metric differs over the cases: the largest over the smallest
// of what it is against the first case.
func (x *experimentRun) flatness(cases []string, subject, metric string) (float64, bool) {
	low, high := math.Inf(1), 0.0
	for _, case_ := range cases {
		v, ok := x.Growth(subject, metric, case_, cases[0])
		if !ok {
			return 0, false
		}
		low, high = min(low, v), max(high, v)
	}
	return high / low, true
}

// judgeFlat adds the bar that a hit costs the same at all points of a curve, and the one that
// it grows no more than what is beneath it: where that is not flat either, the machine is the
// reason. A curve ends where there was nothing to measure.
func (x *experimentRun) judgeFlat(what, unit string, cases []string, subject, metric, base string) {
	cases = slices.DeleteFunc(slices.Clone(cases), func(case_ string) bool {
		_, ok := x.Median(case_, subject, metric)
		return !ok
	})
	if len(cases) < 2 {
		x.section.Bars = append(x.section.Bars, report.Bar{
			Subject: what + ", by " + unit, Limit: "flat, within 1.3 ×", Verdict: report.NotMeasured, Ours: "–", Alternative: "–", Ratio: "–",
		})
		return
	}
	last := cases[len(cases)-1]
	span := fmt.Sprintf("%s, %s to %s %s", what, cases[0], last, unit)
	flat, _ := x.flatness(cases, subject, metric)
	under, _ := x.flatness(cases, base, metric)
	few, _ := x.Ratio(cases[0], metric, subject, base)
	many, _ := x.Ratio(last, metric, subject, base)
	x.section.Bars = append(x.section.Bars,
		report.Bar{
			Subject: span, Limit: "flat, within 1.3 ×", Ours: "most over least " + report.Times(flat),
			Alternative: base + " " + report.Times(under), Ratio: report.Times(flat), Verdict: report.Judge(flat <= 1.3),
		},
		report.Bar{
			Subject: span + ", against " + base, Limit: "against it at most 1.3 × more in the end", Ours: report.Times(many) + " at " + last,
			Alternative: report.Times(few) + " at " + cases[0], Ratio: report.Times(many / few), Verdict: report.Judge(many <= 1.3*few),
		})
}

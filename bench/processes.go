package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/bench/internal/child"
	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

const hitsRole = "hitter"

var growthProcesses = experiment{
	name:  "growth-processes",
	title: "Growth: processes",
	about: "So many processes, with one caller each, ask one Redis for the same 1000 answers. " +
		"With more callers than processors every caller waits longer, so the figure compared is the processor time of a hit in the client.",
	run: func(ctx context.Context, x *experimentRun) error {
		return withRedis(ctx, func(r *testservers.Redis) error { return runProcesses(ctx, x, r) })
	},
}

type hitsSpec struct {
	Library, Addr, Prefix string
	Near                  bool
	For                   time.Duration
}

type hitsResult struct {
	Rows []measure.Row
	Off  string // why the near tier does not serve, if so
}

func runProcesses(ctx context.Context, x *experimentRun, r *testservers.Redis) error {
	const processRounds = 3 // in the short form
	rounds := x.rounds
	if !x.long {
		rounds = min(rounds, processRounds)
	}
	counts := []int{1, 2, 4, 8}
	specs := map[string]hitsSpec{
		ours:          {Library: ours, Addr: r.Addr(), Prefix: "processes:ours:"},
		oursNear:      {Library: ours, Addr: r.Addr(), Prefix: "processes:near:", Near: true},
		peers.BareGet: {Library: peers.BareGet, Addr: r.Addr(), Prefix: "processes:bare:"},
	}
	subjects := []string{oursNear, ours, peers.BareGet}
	off := map[string]bool{}
	for round := range rounds {
		for _, n := range counts {
			for _, name := range subjects {
				if off[name] {
					continue
				}
				spec := specs[name]
				spec.For = 2 * x.slice
				results, err := child.RunTogether[hitsResult](ctx, hitsRole, n, func(int) any { return spec }, nil)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if why := results[0].Off; why != "" {
					off[name] = true
					x.section.Notes = append(x.section.Notes, "The near tier is off: "+why+".")
					continue
				}
				x.addHits(round, fmt.Sprint(n), name, results)
			}
		}
		x.logf("round %d", round+1)
	}
	x.tabulateProcesses(counts, subjects)
	return nil
}

// addHits adds the mean over the processes of each metric, except that rates add up.
func (x *experimentRun) addHits(round int, case_, name string, results []hitsResult) {
	sums := map[string]float64{}
	for _, r := range results {
		for _, row := range r.Rows {
			sums[row.Metric] += row.Value
		}
	}
	for metric, sum := range sums {
		if metric != measure.Rate {
			sum /= float64(len(results))
		}
		x.Add(round, case_, name, metric, sum)
	}
}

func (x *experimentRun) tabulateProcesses(counts []int, subjects []string) {
	var cases []string
	plot := report.Plot{
		Name: "growth-processes", Title: "Processor time of a hit, by the number of processes", XLabel: "processes",
		YLabel: "processor time", LogY: true, YTick: report.Nanoseconds,
	}
	for _, n := range counts {
		cases = append(cases, fmt.Sprint(n))
	}
	for _, name := range subjects {
		line := report.Line{Name: name, Dashed: name == peers.BareGet}
		for _, n := range counts {
			if v, ok := x.Median(fmt.Sprint(n), name, measure.CPU); ok {
				line.Points = append(line.Points, report.Point{X: float64(n), Y: v})
			}
		}
		plot.Lines = append(plot.Lines, line)
	}
	c := comparison{
		caption: "Processor time of a hit in the client, by the number of processes (ratio to chainlearn in Redis).",
		metric:  measure.CPU, format: report.Nanoseconds, cases: cases, subjects: subjects,
	}
	x.tabulate(c)
	c.caption, c.metric = "Median time for a call.", measure.P50
	x.tabulate(c)
	c.caption, c.metric, c.format = "Calls each second of all processes.", measure.Rate, report.Count
	x.tabulate(c)
	x.section.Plots = append(x.section.Plots, plot)
	x.judgeFlat("processor time of a Redis hit", "processes", cases, ours, measure.CPU, peers.BareGet)
	x.judgeFlat("processor time of a near hit", "processes", cases, oursNear, measure.CPU, peers.BareGet)
}

func measureHitsInProcess(ctx context.Context, parent *child.Parent) (any, error) {
	var spec hitsSpec
	if err := parent.Spec(&spec); err != nil {
		return nil, err
	}
	c := &contender[[]byte]{name: spec.Library, keys: payload.Keys(spec.Prefix, hitKeys), loads: new(atomic.Int64)}
	load := func(_ context.Context, id uuid.UUID) ([]byte, error) {
		c.loads.Add(1)
		return payload.EncodedCourse(id), nil
	}
	var err error
	c.cache, err = peers.Open(ctx, spec.Library, peers.Config[[]byte]{
		Addr: spec.Addr, Prefix: spec.Prefix, Codec: peers.Raw, Near: spec.Near, Size: hitKeys, Load: load,
	})
	if err != nil {
		return nil, err
	}
	var result hitsResult
	prepare := func() error {
		if err := c.fill(ctx); err != nil {
			return err
		}
		if o, ok := c.cache.(*peers.Ours[[]byte]); ok && spec.Near {
			if err := o.NearWorks(ctx, &c.keys[0], nearTimeout); err != nil {
				result.Off = err.Error()
			}
			return c.fillNear(ctx)
		}
		return c.waitUntilStored(ctx)
	}
	if err := prepare(); err != nil {
		return nil, errors.Join(err, c.cache.Close())
	}
	if _, err := parent.Ready(); err != nil {
		return nil, err
	}
	samples := &measure.Samples{}
	t := measure.Turns{
		Case: "hit", Workers: 1, Slice: spec.For, Rounds: 1, Latency: !spec.Near,
		Sequence: payload.Sequence(payload.Zipf, hitKeys, 1<<14),
	}
	if err := t.Run(ctx, []measure.Subject{c.subject(ctx)}, samples); err != nil {
		return nil, err
	}
	result.Rows = samples.Rows()
	return result, c.cache.Close()
}

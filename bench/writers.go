package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

var growthWriters = experiment{
	name:  "growth-writers",
	title: "Growth: writes",
	about: "Two readers ask for 1000 answers (Zipf; the source takes 1 ms), while another client of the same library, as in another process, " +
		"invalidates the given number of them each second, drawn uniformly. The optimum is one load for each write that hits an answer before it is asked for again.",
	run: func(ctx context.Context, x *experimentRun) error {
		return withRedis(ctx, func(r *testservers.Redis) error { return runWriters(ctx, x, r) })
	},
}

func runWriters(ctx context.Context, x *experimentRun, r *testservers.Redis) error {
	rates := []int{0, 10, 100, 500}
	entries := []contenderSpec{
		{library: ours, addr: r.Addr()},
		{name: oursNear, library: ours, addr: r.Addr(), near: true},
		{library: peers.GoRedis, addr: r.Addr()},
		{library: peers.Aside, addr: r.Addr(), near: true},
		{library: peers.Rocks, addr: r.Addr()},
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.title())
	}
	for _, rate := range rates {
		if err := x.underWrites(ctx, entries, rate); err != nil {
			return fmt.Errorf("%d writes/s: %w", rate, err)
		}
	}
	x.tabulateWriters(rates, names)
	return nil
}

func (x *experimentRun) underWrites(ctx context.Context, entries []contenderSpec, rate int) (err error) {
	load := func(ctx context.Context, id uuid.UUID) ([]byte, error) {
		if err := pause(ctx, missLoad); err != nil {
			return nil, err
		}
		return loadBytes(ctx, id)
	}
	var all contenders[[]byte]
	defer func() { err = errors.Join(err, all.close()) }()
	t := measure.Turns{
		Case: fmt.Sprintf("%d/s", rate), Workers: 2, Slice: 2 * x.slice, Rounds: x.rounds, Latency: true,
		Sequence: payload.Sequence(payload.Zipf, hitKeys, sequenceLength),
	}
	var subjects []measure.Subject
	var invalidators []*invalidator
	for _, e := range entries {
		c, err := newContender(ctx, e, hitKeys, load, peers.Raw)
		if err != nil {
			return err
		}
		all = append(all, c)
		w, err := c.secondClient(ctx, false)
		if err != nil {
			return err
		}
		all = append(all, w)
		if err := errors.Join(c.fill(ctx), c.waitUntilStored(ctx)); err != nil {
			return err
		}
		s := &invalidator{writer: w, reader: c, rate: rate}
		invalidators = append(invalidators, s)
		subject := c.subject(ctx)
		subject.Meanwhile = func() func() { return s.start(ctx) }
		subjects = append(subjects, subject)
	}
	x.logf("%s", t.Case)
	if err := t.Run(ctx, subjects, x.Samples); err != nil {
		return err
	}
	for i, s := range invalidators {
		name := subjects[i].Name
		switch wrote, failed := s.wrote.Load(), s.failures.Load(); {
		case float64(failed) > 0.01*float64(wrote) && failed > 1: // as for calls that are measured
			return fmt.Errorf("%s: %d of %d writes failed: %w", name, failed, wrote, *s.lastError.Load())
		case failed > 0:
			x.section.Notes = append(x.section.Notes, fmt.Sprintf("%s, %s: %d of %d writes failed: %v.", t.Case, name, failed, wrote, *s.lastError.Load()))
		}
		for round, loads := range s.loads[1:] { // the first was the warming up
			x.Add(round, t.Case, subjects[i].Name, "loads", float64(loads))
		}
	}
	return nil
}

// invalidator invalidates answers at a constant rate.
type invalidator struct {
	writer, reader *contender[[]byte]
	rate           int
	wrote          atomic.Int64
	failures       atomic.Int64
	lastError      atomic.Pointer[error] // one of them
	loads          []int64               // of the reader, in each turn
}

func (s *invalidator) start(ctx context.Context) (stop func()) {
	before := s.reader.loads.Load()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	if s.rate > 0 {
		wg.Go(func() { s.run(ctx) })
	}
	return func() {
		cancel()
		wg.Wait()
		s.loads = append(s.loads, s.reader.loads.Load()-before)
	}
}

func (s *invalidator) run(ctx context.Context) {
	tick := time.NewTicker(time.Second / time.Duration(s.rate))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		k := &s.writer.keys[rand.IntN(len(s.writer.keys))]
		err := s.writer.cache.Delete(ctx, k)
		if ctx.Err() != nil {
			return
		}
		s.wrote.Add(1)
		if err != nil {
			s.failures.Add(1)
			s.lastError.Store(&err)
		}
	}
}

func (x *experimentRun) tabulateWriters(rates []int, names []string) {
	var cases []string
	plot := report.Plot{
		Name: "growth-writers", Title: "Reads while others write", XLabel: "invalidations each second",
		YLabel: "calls each second", LogY: true, XTick: func(v float64) string { return fmt.Sprintf("%.0f", v) },
	}
	for _, rate := range rates {
		cases = append(cases, fmt.Sprintf("%d/s", rate))
	}
	for _, name := range names {
		line := report.Line{Name: name}
		for i, rate := range rates {
			if v, ok := x.Median(cases[i], name, measure.Rate); ok {
				line.Points = append(line.Points, report.Point{X: float64(rate), Y: v})
			}
		}
		plot.Lines = append(plot.Lines, line)
	}
	c := comparison{
		caption: "Calls each second of two readers, by the invalidations each second (ratio to chainlearn).",
		metric:  measure.Rate, format: report.Count, cases: cases, subjects: names,
	}
	x.tabulate(c)
	c.caption, c.metric, c.format = "99th percentile of the time for a call.", measure.P99, report.Nanoseconds
	x.tabulate(c)
	c.caption, c.metric, c.format = "Loads in one turn.", "loads", report.Count
	x.tabulate(c)
	x.section.Plots = append(x.section.Plots, plot)
}

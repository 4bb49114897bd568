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
		"invalidates so many of them each second, drawn alike. The best there can be is one load for each write that hits an answer before it is asked for again.",
	run: func(ctx context.Context, l *lab) error {
		return withRedis(ctx, func(r *testservers.Redis) error { return runWriters(ctx, l, r) })
	},
}

func runWriters(ctx context.Context, l *lab, r *testservers.Redis) error {
	rates := []int{0, 10, 100, 500}
	entries := []entry{
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
		if err := l.underWrites(ctx, entries, rate); err != nil {
			return fmt.Errorf("%d writes/s: %w", rate, err)
		}
	}
	l.tabulateWriters(rates, names)
	return nil
}

func (l *lab) underWrites(ctx context.Context, entries []entry, rate int) (err error) {
	load := func(ctx context.Context, id uuid.UUID) ([]byte, error) {
		if err := pause(ctx, missLoad); err != nil {
			return nil, err
		}
		return loadBytes(ctx, id)
	}
	var all contest[[]byte]
	defer func() { err = errors.Join(err, all.close()) }()
	t := measure.Turns{
		Case: fmt.Sprintf("%d/s", rate), Workers: 2, Slice: 2 * l.slice, Rounds: l.rounds, Latency: true,
		Sequence: payload.Sequence(payload.Zipf, hitKeys, sequenceLength),
	}
	var subjects []measure.Subject
	var storms []*storm
	for _, e := range entries {
		c, err := enter(ctx, e, hitKeys, load, peers.Raw)
		if err != nil {
			return err
		}
		all = append(all, c)
		w, err := c.another(ctx, false)
		if err != nil {
			return err
		}
		all = append(all, w)
		if err := errors.Join(c.fill(ctx), c.settle(ctx)); err != nil {
			return err
		}
		s := &storm{writer: w, reader: c, rate: rate}
		storms = append(storms, s)
		subject := c.subject(ctx)
		subject.Meanwhile = func() func() { return s.start(ctx) }
		subjects = append(subjects, subject)
	}
	l.say("%s", t.Case)
	if err := t.Run(ctx, subjects, l.Samples); err != nil {
		return err
	}
	for i, s := range storms {
		name := subjects[i].Name
		switch wrote, failed := s.wrote.Load(), s.failures.Load(); {
		case float64(failed) > 0.01*float64(wrote) && failed > 1: // as for calls that are measured
			return fmt.Errorf("%s: %d of %d writes failed: %w", name, failed, wrote, *s.failed.Load())
		case failed > 0:
			l.section.Notes = append(l.section.Notes, fmt.Sprintf("%s, %s: %d of %d writes failed: %v.", t.Case, name, failed, wrote, *s.failed.Load()))
		}
		for round, loads := range s.loads[1:] { // the first was the warming up
			l.Add(round, t.Case, subjects[i].Name, "loads", float64(loads))
		}
	}
	return nil
}

// storm invalidates answers at a constant rate.
type storm struct {
	writer, reader *contestant[[]byte]
	rate           int
	wrote          atomic.Int64
	failures       atomic.Int64
	failed         atomic.Pointer[error] // one of them
	loads          []int64               // of the reader, in each turn
}

func (s *storm) start(ctx context.Context) (stop func()) {
	before := s.reader.loads.Load()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	if s.rate > 0 {
		wg.Go(func() { s.blow(ctx) })
	}
	return func() {
		cancel()
		wg.Wait()
		s.loads = append(s.loads, s.reader.loads.Load()-before)
	}
}

func (s *storm) blow(ctx context.Context) {
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
			s.failed.Store(&err)
		}
	}
}

func (l *lab) tabulateWriters(rates []int, names []string) {
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
			if v, ok := l.Median(cases[i], name, measure.Rate); ok {
				line.Points = append(line.Points, report.Point{X: float64(rate), Y: v})
			}
		}
		plot.Lines = append(plot.Lines, line)
	}
	c := comparison{
		caption: "Calls each second of two readers, by the invalidations each second (ratio to chainlearn).",
		metric:  measure.Rate, format: report.Count, cases: cases, subjects: names,
	}
	l.tabulate(c)
	c.caption, c.metric, c.format = "99th percentile of the time for a call.", measure.P99, report.Nanoseconds
	l.tabulate(c)
	c.caption, c.metric, c.format = "Loads in one turn.", "loads", report.Count
	l.tabulate(c)
	l.section.Plots = append(l.section.Plots, plot)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// missLoad is how long the source takes for one answer.
const missLoad = time.Millisecond

const tripAndLoad = "one round trip and the load"

var misses = experiment{
	name:  "miss",
	title: "Misses",
	about: "An answer that is nowhere, and a source that takes 1 ms (a sleep, which the system makes somewhat longer for all of them); " +
		"each call asks for another key. What cannot be avoided is to look in Redis and to load: that is the first row.",
	run: func(ctx context.Context, x *experimentRun) error {
		return withRedis(ctx, func(r *testservers.Redis) error { return runMisses(ctx, x, r) })
	},
}

func runMisses(ctx context.Context, x *experimentRun, r *testservers.Redis) (err error) {
	load := func(ctx context.Context, id uuid.UUID) ([]byte, error) {
		if err := pause(ctx, missLoad); err != nil {
			return nil, err
		}
		return loadBytes(ctx, id)
	}
	var all contenders[[]byte]
	defer func() { err = errors.Join(err, all.close()) }()
	subjects := make([]measure.Subject, 0, len(peers.All))
	var names []string
	for _, e := range inRedis(r.Addr()) {
		c, err := newContender(ctx, e, 1, load, peers.Raw)
		if err != nil {
			return err
		}
		all = append(all, c)
		if e.library != peers.BareGet {
			if err := c.waitUntilStored(ctx); err != nil {
				return err
			}
		}
		subjects = append(subjects, missing(ctx, c))
		names = append(names, subjects[len(subjects)-1].Name)
	}
	t := measure.Turns{Case: "1 caller", Workers: 1, Latency: true, Sequence: make([]uint32, 1024), Slice: 2 * x.slice, Rounds: x.rounds}
	if err := t.Run(ctx, subjects, x.Samples); err != nil {
		return err
	}
	t16 := t
	t16.Case, t16.Workers = "16 callers", 16
	if err := t16.Run(ctx, subjects, x.Samples); err != nil {
		return err
	}
	c := comparison{
		caption: "Median time for a call (ratio to chainlearn).", metric: measure.P50, format: report.Nanoseconds,
		cases: []string{t.Case, t16.Case}, subjects: names, allocs: true,
	}
	x.tabulate(c)
	x.noteFaster(c)
	mine, _ := x.Median(t.Case, ours, measure.P50)
	least, _ := x.Median(t.Case, tripAndLoad, measure.P50)
	if ratio, ok := x.Ratio(t.Case, measure.P50, ours, tripAndLoad); ok {
		x.section.Bars = append(x.section.Bars, report.Bar{
			Subject: "miss, load of 1 ms", Limit: "at most 1.1 × the load and one round trip",
			Ours: report.Nanoseconds(mine), Alternative: tripAndLoad + " " + report.Nanoseconds(least),
			Ratio: report.Times(ratio), Verdict: report.Judge(ratio <= 1.1),
		})
	}
	return nil
}

// missing asks for another key each time.
func missing(ctx context.Context, c *contender[[]byte]) measure.Subject {
	prefix := c.keys[0].Text[:len(c.keys[0].Text)-36]
	var next atomic.Int64
	name, get := c.name, c.cache.Get
	if c.name == peers.BareGet {
		name = tripAndLoad
		get = func(ctx context.Context, k *payload.Key) ([]byte, error) { return peers.RoundTrip(ctx, c.cache, k) }
	}
	return measure.Subject{Name: name, Op: func(uint32) error {
		k := payload.KeyOf(prefix, int(next.Add(1)))
		b, err := get(ctx, &k)
		if err == nil && len(b) == 0 {
			err = fmt.Errorf("%s answered nothing for %s", name, k.Text)
		}
		return err
	}}
}

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

var namedTags = experiment{
	name:  "named",
	title: "Tags that a load names",
	about: "A hit of an answer with two tags, whose load names fifty more with `cache.DependOn`, as a page does that shows fifty products. " +
		"Beside it the same answer with its two tags alone, and with all fifty-two from the beginning. 1000 answers of 100 bytes, one caller.",
	run: runNamed,
}

// namedCases and what they are measured by: see metricOf.
var namedCases = []struct{ name, metric string }{{"Redis hit", measure.P50}, {"near hit", measure.CPU}}

const (
	twoTags   = "2 tags"
	declared  = "52 tags"
	andNamed  = "2 tags, and 50 that the load names"
	namedMany = 50
)

func runNamed(ctx context.Context, x *experimentRun) error {
	return withRedis(ctx, func(r *testservers.Redis) (err error) {
		var all contenders[[]byte]
		defer func() { err = errors.Join(err, all.close()) }()
		products := make([]string, namedMany)
		names := make([]cache.Tag, namedMany)
		for i := range products {
			products[i] = fmt.Sprintf("product:%d", i)
			names[i] = cache.Tag(products[i])
		}
		two := func(id uuid.UUID) []string { return []string{peers.CatalogTag, peers.CourseTag(id)} }
		small := func(context.Context, uuid.UUID) ([]byte, error) { return smallValue, nil }
		var subjects []measure.Subject
		for _, kind := range []struct {
			name string
			tags func(uuid.UUID) []string
			load func(context.Context, uuid.UUID) ([]byte, error)
		}{
			{twoTags, two, small},
			{declared, func(id uuid.UUID) []string { return append(two(id), products...) }, small},
			{andNamed, two, func(ctx context.Context, id uuid.UUID) ([]byte, error) {
				cache.DependOn(ctx, names...)
				return small(ctx, id)
			}},
		} {
			opened, err := openContenders(ctx, []contenderSpec{{name: kind.name, library: ours, addr: r.Addr(), tags: kind.tags}}, hitKeys, kind.load, peers.Raw)
			all = append(all, opened...)
			if err != nil {
				return err
			}
			near, err := opened[0].secondClient(ctx, true)
			if err != nil {
				return err
			}
			all = append(all, near)
			if err := near.cache.(*peers.Ours[[]byte]).NearWorks(ctx, &near.keys[0], nearTimeout); err != nil {
				return err
			}
			if err := near.fillNear(ctx); err != nil {
				return err
			}
			sequence := payload.Sequence(payload.Uniform, hitKeys, 1<<14)
			for i, c := range []*contender[[]byte]{opened[0], near} {
				s := c.subject(ctx)
				s.Case, s.Sequence, s.Latency = namedCases[i].name, sequence, namedCases[i].metric == measure.P50
				subjects = append(subjects, s)
			}
		}
		t := measure.Turns{Workers: 1, Slice: x.slice, Rounds: x.rounds}
		if err := t.Run(ctx, subjects, x.Samples); err != nil {
			return err
		}
		x.tabulateNamed()
		return nil
	})
}

func (x *experimentRun) tabulateNamed() {
	t := report.Table{Head: []string{"", twoTags, declared, andNamed, "named / declared", "named / two"}}
	for _, c := range namedCases {
		case_, metric := c.name, c.metric
		row := []string{case_}
		for _, name := range []string{twoTags, declared, andNamed} {
			v, ok := x.Median(case_, name, metric)
			row = append(row, orDash(ok, report.Nanoseconds(v)))
		}
		same, ok := x.Ratio(case_, metric, andNamed, declared)
		dearer, okToo := x.Ratio(case_, metric, andNamed, twoTags)
		t.Rows = append(t.Rows, append(row, orDash(ok, report.Times(same)), orDash(okToo, report.Times(dearer))))
		if !ok {
			continue
		}
		took, _ := x.Median(case_, andNamed, metric)
		base, _ := x.Median(case_, declared, metric)
		x.section.Bars = append(x.section.Bars, report.Bar{
			Subject: case_ + ", 2 tags and 50 that its load names", Limit: "at most 1.05 × the same tags from `Query.Tags`", Ours: report.Nanoseconds(took),
			Alternative: "declared " + report.Nanoseconds(base), Ratio: report.Times(same), Verdict: report.Judge(same <= 1.05),
		})
	}
	x.section.Tables = append(x.section.Tables, t)
}

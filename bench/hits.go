package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

const (
	hitKeys        = 1000
	sequenceLength = 1 << 18
	nearTimeout    = 5 * time.Second // for the near tier to begin to serve

	loopName = "(the loop alone)"
)

func loadCourse(_ context.Context, id uuid.UUID) (*payload.Course, error) {
	return payload.CourseOf(id), nil
}

func loadBytes(_ context.Context, id uuid.UUID) ([]byte, error) {
	return payload.EncodedCourse(id), nil
}

var nearHits = experiment{
	name:  "near",
	title: "Hits in process",
	about: "A typed answer (a course with its modules, 1 KB as JSON) that is in this process already; 1000 keys. " +
		"chainlearn checks on every hit that both tags of the answer are unchanged and that the connection that reports changes is alive. " +
		"otter and sturdyc, like chainlearn, hand out the stored value; the others decode it. " +
		"otter is a table and no more, sturdyc never learns of a change made by another process. " +
		"The time of the measuring loop itself is taken off.",
	run: func(ctx context.Context, x *experimentRun) error {
		return withRedis(ctx, func(r *testservers.Redis) error { return runNearHits(ctx, x, r) })
	},
}

// Other forms of ours, for comparison among themselves.
const (
	oursMemNear = "chainlearn over memstore, near"
	oursMem     = "chainlearn over memstore, strict"
)

func runNearHits(ctx context.Context, x *experimentRun, r *testservers.Redis) (err error) {
	var entries []contenderSpec
	for _, name := range peers.NamesWhere(func(lib peers.Library) bool { return lib.Process }) {
		entries = append(entries, contenderSpec{library: name, addr: r.Addr(), near: true})
	}
	entries = append(entries,
		contenderSpec{name: oursMemNear, library: ours, near: true},
		contenderSpec{name: oursMem, library: ours})
	all, err := openContenders(ctx, entries, hitKeys, loadCourse, peers.JSON[*payload.Course]())
	defer func() { err = errors.Join(err, all.close()) }()
	if err != nil {
		return err
	}
	works := true
	for _, c := range all {
		if o, ok := c.cache.(*peers.Ours[*payload.Course]); ok && c.name != oursMem {
			if err := o.NearWorks(ctx, &c.keys[0], nearTimeout); err != nil {
				works = works && c.name != ours
				x.section.Notes = append(x.section.Notes, fmt.Sprintf("%s: the near tier is off (%v), so these are hits of the tier below.", c.name, err))
				continue
			}
			if err := c.fillNear(ctx); err != nil { // now that everything stays near
				return err
			}
		}
	}
	loop := measure.Subject{Name: loopName, Op: func(uint32) error { return nil }}
	cases := []measure.Turns{
		{Case: "zipf, 1 caller", Workers: 1, Sequence: payload.Sequence(payload.Zipf, hitKeys, sequenceLength)},
		{Case: "uniform, 1 caller", Workers: 1, Sequence: payload.Sequence(payload.Uniform, hitKeys, sequenceLength)},
	}
	if n := runtime.GOMAXPROCS(0); n > 1 {
		cases = append(cases, measure.Turns{Case: fmt.Sprintf("zipf, %d callers", n), Workers: n,
			Sequence: payload.Sequence(payload.Zipf, hitKeys, sequenceLength)})
	}
	c := comparison{
		caption: "Processor time of a call (ratio to chainlearn).", metric: measure.CPU, format: report.Nanoseconds,
		subjects: all.names(), less: loopName, allocs: true,
	}
	for _, t := range cases {
		t.Slice, t.Rounds = x.slice, x.rounds
		if err := all.measureHits(ctx, x, t, loop); err != nil {
			return err
		}
		c.cases = append(c.cases, t.Case)
	}
	x.tabulate(c)
	wall := c
	wall.caption, wall.metric, wall.allocs = "Time that passes in a call, which has that of whatever else runs on the machine in it.", measure.PerCall, false
	x.tabulate(wall)
	x.noteFaster(c)
	x.judgeNear(c, works)
	return nil
}

func (x *experimentRun) judgeNear(c comparison, works bool) {
	case_ := c.cases[0]
	remark := ""
	if !works {
		remark = "The near tier did not come to serve; this is the time of a hit in the tier below."
	}
	mine, _ := x.net(case_, ours, c.metric, c.less)
	allocs, _ := x.Median(case_, ours, measure.Allocs)
	for _, bare := range []struct{ name, is string }{
		{peers.Otter, "bare otter whose entries never expire"},
		{peers.OtterTimed, "bare otter whose entries expire, as ours do"},
	} {
		otter, _ := x.net(case_, bare.name, c.metric, c.less)
		ratio, ok := x.netRatio(case_, c.metric, ours, bare.name, c.less)
		if !ok {
			continue
		}
		x.section.Bars = append(x.section.Bars, report.Bar{
			Subject: "near hit, typed struct, 2 tags checked", Limit: "at most 1.5 × " + bare.is + ", 0 allocations",
			Ours:        fmt.Sprintf("%s, %.2f allocations", report.Nanoseconds(mine), allocs),
			Alternative: report.Nanoseconds(otter), Ratio: report.Times(ratio),
			Verdict: report.Judge(ratio <= 1.5 && allocs < 0.05), Remark: remark,
		})
	}
	best, bestTime := "", 0.0
	for _, s := range []string{peers.GoRedis, peers.Aside, peers.Gocache, peers.Jetcache, peers.Sturdyc} {
		if v, ok := x.net(case_, s, c.metric, c.less); ok && (best == "" || v < bestTime) {
			best, bestTime = s, v
		}
	}
	x.section.Bars = append(x.section.Bars, report.Bar{
		Subject: "near hit", Limit: "faster than every peer's typed hit",
		Ours: report.Nanoseconds(mine), Alternative: best + " " + report.Nanoseconds(bestTime),
		Ratio: report.Times(mine / bestTime), Verdict: report.Judge(mine < bestTime), Remark: remark,
	})
}

var redisHits = experiment{
	name:  "hits",
	title: "Hits in Redis",
	about: "An answer that is in Redis and not in process, over loopback; 1000 keys. " +
		"Bytes are not decoded, so these compare the way to Redis and back; typed answers are decoded by each library's own means. " +
		"A hit of chainlearn reads the versions of two tags beside the entry, in the same round trip. " +
		"The libraries on go-redis use its default pool of ten connections for each processor.",
	run: func(ctx context.Context, x *experimentRun) error {
		return withRedis(ctx, func(r *testservers.Redis) error { return runRedisHits(ctx, x, r) })
	},
}

func inRedis(addr string) []contenderSpec {
	var entries []contenderSpec
	for _, name := range peers.NamesWhere(func(lib peers.Library) bool { return lib.Redis }) {
		entries = append(entries, contenderSpec{library: name, addr: addr})
	}
	return entries
}

func runRedisHits(ctx context.Context, x *experimentRun, r *testservers.Redis) error {
	bytes, err := redisHitsOf(ctx, x, r, "bytes", []int{1, 64, 512}, loadBytes, peers.Raw)
	if err != nil {
		return err
	}
	if _, err = redisHitsOf(ctx, x, r, "typed", []int{1, 64}, loadCourse, peers.JSON[*payload.Course]()); err != nil {
		return err
	}
	x.judgeRedis(bytes)
	return nil
}

func redisHitsOf[V any](ctx context.Context, x *experimentRun, r *testservers.Redis, kind string, callers []int,
	load func(context.Context, uuid.UUID) (V, error), codec peers.Codec[V],
) (c comparison, err error) {
	all, err := openContenders(ctx, inRedis(r.Addr()), hitKeys, load, codec)
	defer func() { err = errors.Join(err, all.close()) }()
	if err != nil {
		return c, err
	}
	c = comparison{
		caption: fmt.Sprintf("Answers as %s: time for each call (ratio to chainlearn).", kind),
		metric:  measure.PerCall, format: report.Nanoseconds, subjects: all.names(), allocs: true,
	}
	for _, n := range callers { // ascending: see hold
		for _, d := range []payload.Distribution{payload.Zipf, payload.Uniform} {
			if d == payload.Uniform && n > 64 {
				continue // hot keys make no difference to that many callers in Redis
			}
			t := measure.Turns{
				Case: fmt.Sprintf("%s, %s, %s", kind, d, callersText(n)), Workers: n, Latency: true,
				Sequence: payload.Sequence(d, hitKeys, sequenceLength), Slice: 3 * x.slice / 2, Rounds: x.rounds,
			}
			if err := all.measureHits(ctx, x, t); err != nil {
				return c, err
			}
			c.cases = append(c.cases, t.Case)
		}
	}
	x.tabulate(c)
	rates := c
	rates.caption, rates.metric, rates.format, rates.allocs = "Calls each second (ratio to chainlearn).", measure.Rate, report.Count, false
	x.tabulate(rates)
	tails := c
	tails.caption, tails.metric, tails.allocs = "99th percentile of the time for a call (ratio to chainlearn).", measure.P99, false
	x.tabulate(tails)
	x.noteFaster(c)
	return c, nil
}

func callersText(n int) string {
	if n == 1 {
		return "1 caller"
	}
	return fmt.Sprintf("%d callers", n)
}

func (x *experimentRun) judgeRedis(c comparison) {
	one := c.cases[0]
	mine, _ := x.Median(one, ours, measure.P50)
	bare, _ := x.Median(one, peers.BareGet, measure.P50)
	allocs, _ := x.Median(one, ours, measure.Allocs)
	if ratio, ok := x.Ratio(one, measure.P50, ours, peers.BareGet); ok {
		x.section.Bars = append(x.section.Bars, report.Bar{
			Subject: "Redis hit, one caller, 2 tags (median latency)", Limit: "at most 1.15 × a bare rueidis GET, at most 10 allocations",
			Ours:        fmt.Sprintf("%s, %.1f allocations", report.Nanoseconds(mine), allocs),
			Alternative: "bare GET " + report.Nanoseconds(bare), Ratio: report.Times(ratio),
			Verdict: report.Judge(ratio <= 1.15 && allocs < 10.5),
			Remark:  "Four of the allocations are made by the query's own Key and Tags out of a UUID; the peers are given strings made before the measurement.",
		})
	}
	for _, n := range []int{64, 512} {
		case_ := fmt.Sprintf("bytes, zipf, %s", callersText(n))
		mine, _ := x.Median(case_, ours, measure.Rate)
		for _, bar := range []struct {
			than  string
			least float64
		}{{peers.GoRedis, 2}, {peers.BareGet, 0.85}} {
			theirs, _ := x.Median(case_, bar.than, measure.Rate)
			ratio, ok := x.Ratio(case_, measure.Rate, ours, bar.than)
			if !ok {
				continue
			}
			x.section.Bars = append(x.section.Bars, report.Bar{
				Subject: "Redis hits, " + case_, Limit: fmt.Sprintf("at least %g × the rate of %s", bar.least, bar.than),
				Ours:        report.Count(mine) + "/s",
				Alternative: fmt.Sprintf("%s %s/s", bar.than, report.Count(theirs)), Ratio: report.Times(ratio),
				Verdict: report.Judge(ratio >= bar.least),
			})
		}
	}
}

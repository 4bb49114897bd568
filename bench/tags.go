package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/internal/testservers"
)

var tagInvalidation = experiment{
	name:  "tags",
	title: "Invalidating a tag",
	about: "How long it takes to make every answer that carries a tag invalid, by how many there are. " +
		"Of the peers only eko/gocache has tags. Its answers are put into Redis as it writes them itself, for that is faster; " +
		"with a million it is measured with `-long` only.",
	run: func(ctx context.Context, l *lab) error {
		return withRedis(ctx, func(r *testservers.Redis) error { return runTags(ctx, l, r) })
	},
}

const invalidateNs = "ns"

func runTags(ctx context.Context, l *lab, r *testservers.Redis) error {
	sizes := []int{10, 20_000, 1_000_000}
	for _, n := range sizes {
		if err := l.invalidateOurs(ctx, r, n); err != nil {
			return err
		}
		if n <= 20_000 || l.long {
			if err := l.invalidateGocache(ctx, r, n); err != nil {
				return err
			}
		}
	}
	t := report.Table{Head: []string{"answers with the tag", ours, peers.Gocache}}
	mine, theirs := report.Line{Name: ours}, report.Line{Name: peers.Gocache}
	for _, n := range sizes {
		case_ := fmt.Sprint(n)
		a, _ := l.Median(case_, ours, invalidateNs)
		b, ok := l.Median(case_, peers.Gocache, invalidateNs)
		t.Rows = append(t.Rows, []string{report.Count(float64(n)), report.Nanoseconds(a), orDash(ok, report.Nanoseconds(b))})
		mine.Points = append(mine.Points, report.Point{X: float64(n), Y: a})
		if ok {
			theirs.Points = append(theirs.Points, report.Point{X: float64(n), Y: b})
		}
	}
	l.section.Tables = append(l.section.Tables, t)
	l.section.Plots = append(l.section.Plots, report.Plot{
		Name: "tags", Title: "Invalidating a tag", XLabel: "answers that carry it", YLabel: "time",
		LogX: true, LogY: true, YTick: report.Nanoseconds, Lines: []report.Line{mine, theirs},
	})
	few, _ := l.Median("10", ours, invalidateNs)
	most := l.Summary("1000000", ours, invalidateNs)
	gocache, _ := l.Median("20000", peers.Gocache, invalidateNs)
	l.section.Bars = append(l.section.Bars, report.Bar{
		Subject: "invalidate a tag of 1,000,000 answers", Limit: "under 1 ms, the same as for ten (within 1.3 ×)",
		Ours:        fmt.Sprintf("%s (of ten: %s)", report.Nanoseconds(most.Median), report.Nanoseconds(few)),
		Alternative: "eko/gocache, 20,000: " + report.Nanoseconds(gocache), Ratio: report.Times(most.Median / gocache),
		Verdict: report.Judge(most.Median < 1e6 && most.Median < 1.3*few),
	})
	return nil
}

func (l *lab) invalidateOurs(ctx context.Context, r *testservers.Redis, n int) (err error) {
	tag := fmt.Sprintf("list:%d", n)
	short := make([]byte, 100)
	c, err := enter(ctx, entry{library: ours, addr: r.Addr(), tags: func(uuid.UUID) []string { return []string{tag} }}, n,
		func(context.Context, uuid.UUID) ([]byte, error) { return short, nil }, peers.Raw)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.cache.Close()) }()
	if err := c.fill(ctx); err != nil {
		return err
	}
	tagged := c.cache.(peers.Tagged)
	const each = 20 // of one a caller would not see the difference
	for round := range l.rounds {
		took := make([]float64, each)
		for i := range took {
			start := time.Now()
			if err := tagged.InvalidateTag(ctx, tag); err != nil {
				return err
			}
			took[i] = float64(time.Since(start))
		}
		l.Add(round, fmt.Sprint(n), ours, invalidateNs, measure.Median(took))
	}
	// They are all dead: whichever is asked for is loaded.
	for _, i := range []int{0, n / 2, n - 1} {
		before := c.loads.Load()
		if _, err := c.cache.Get(ctx, &c.keys[i]); err != nil {
			return err
		}
		if c.loads.Load() == before {
			return fmt.Errorf("answer %d of %d survived the invalidation of its tag", i, n)
		}
	}
	l.say("%s: %d answers", ours, n)
	return nil
}

func (l *lab) invalidateGocache(ctx context.Context, r *testservers.Redis, n int) error {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{r.Addr()}, DisableCache: true})
	if err != nil {
		return err
	}
	defer client.Close()
	c, err := peers.Open(ctx, peers.Gocache, peers.Config[[]byte]{Addr: r.Addr(), Codec: peers.Raw, Load: loadBytes})
	if err != nil {
		return err
	}
	tagged := c.(peers.Tagged)
	rounds := l.rounds
	if n > 10 {
		rounds = min(rounds, 3) // seconds each
	}
	keys := payload.Keys("gocache:", n)
	for round := range rounds {
		if err := fillAsGocache(ctx, client, keys); err != nil {
			return errors.Join(err, c.Close())
		}
		start := time.Now()
		if err := tagged.InvalidateTag(ctx, "list"); err != nil {
			return errors.Join(err, c.Close())
		}
		l.Add(round, fmt.Sprint(n), peers.Gocache, invalidateNs, float64(time.Since(start)))
	}
	l.say("%s: %d answers", peers.Gocache, n)
	return c.Close()
}

// fillAsGocache writes what gocache's Redis store does for answers with one tag.
func fillAsGocache(ctx context.Context, client rueidis.Client, keys []payload.Key) error {
	const batch = 1000
	for len(keys) > 0 {
		n := min(batch, len(keys))
		var commands rueidis.Commands
		for i := range keys[:n] {
			commands = append(commands,
				client.B().Set().Key(keys[i].Text).Value("v").Ex(peers.TTL).Build(),
				client.B().Sadd().Key("gocache_tag_list").Member(keys[i].Text).Build())
		}
		for _, r := range client.DoMulti(ctx, commands...) {
			if err := r.Error(); err != nil {
				return err
			}
		}
		keys = keys[n:]
	}
	return nil
}

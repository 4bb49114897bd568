package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

var tagInvalidation = experiment{
	name:  "tags",
	title: "Invalidating a tag",
	about: "How long it takes to make every answer that carries a tag invalid, by how many there are, and by how many others are beside them. " +
		"Afterwards a sample is asked for, to see that all of them are invalid and no others. " +
		"Of the peers only eko/gocache has tags. Its answers are put into Redis as it writes them itself, for that is faster; " +
		"with more than 20,000 it is measured with `-long` only.",
	run: runTags,
}

const invalidateNs = "ns"

// tagged are answers of ours that carry one tag.
type tagged struct {
	case_ string
	tag   string
	*contender[[]byte]
}

const emptyRedis = "10, and nothing else in Redis"

func runTags(ctx context.Context, x *experimentRun) error {
	sizes := []int{10, 100_000, 1_000_000}
	peerSizes := []int{10, 20_000}
	if x.long {
		peerSizes = append(peerSizes, sizes[1:]...)
	}
	err := withRedis(ctx, func(empty *testservers.Redis) error {
		return withRedis(ctx, func(r *testservers.Redis) error { return x.invalidateOurs(ctx, empty, r, sizes) })
	})
	if err != nil {
		return err
	}
	err = withRedis(ctx, func(r *testservers.Redis) error {
		for _, n := range peerSizes {
			if err := x.invalidateGocache(ctx, r, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	x.tabulateTags(sizes, peerSizes)
	x.judgeTags(sizes)
	return nil
}

func (x *experimentRun) tabulateTags(sizes, peerSizes []int) {
	t := report.Table{Head: []string{"answers with the tag", ours, peers.Gocache}}
	lines := map[string]*report.Line{ours: {Name: ours}, peers.Gocache: {Name: peers.Gocache}}
	cell := func(case_, name string, n int) string {
		v, ok := x.Median(case_, name, invalidateNs)
		if ok && n > 0 {
			lines[name].Points = append(lines[name].Points, report.Point{X: float64(n), Y: v})
		}
		return orDash(ok, report.Nanoseconds(v))
	}
	t.Rows = append(t.Rows, []string{emptyRedis, cell(emptyRedis, ours, 0), "–"})
	all := slices.Concat(sizes, peerSizes)
	slices.Sort(all)
	for _, n := range slices.Compact(all) {
		case_ := fmt.Sprint(n)
		t.Rows = append(t.Rows, []string{report.Count(float64(n)), cell(case_, ours, n), cell(case_, peers.Gocache, n)})
	}
	x.section.Tables = append(x.section.Tables, t)
	x.section.Plots = append(x.section.Plots, report.Plot{
		Name: "tags", Title: "Invalidating a tag", XLabel: "answers that carry it", YLabel: "time",
		LogX: true, LogY: true, YTick: report.Nanoseconds, Lines: []report.Line{*lines[ours], *lines[peers.Gocache]},
	})
}

func (x *experimentRun) judgeTags(sizes []int) {
	few := fmt.Sprint(sizes[0])
	gocache, _ := x.Median("20000", peers.Gocache, invalidateNs)
	bar := func(subject, limit, case_, base, against string) {
		took, _ := x.Median(case_, ours, invalidateNs)
		than, _ := x.Median(base, ours, invalidateNs)
		ratio, ok := x.Growth(ours, invalidateNs, case_, base)
		if !ok {
			return
		}
		x.section.Bars = append(x.section.Bars, report.Bar{
			Subject: subject, Limit: limit, Ours: report.Nanoseconds(took),
			Alternative: fmt.Sprintf("%s %s; eko/gocache, 20,000: %s", against, report.Nanoseconds(than), report.Nanoseconds(gocache)),
			Ratio:       report.Times(ratio), Verdict: report.Judge(took < 1e6 && ratio < 1.2),
		})
	}
	for _, n := range sizes[1:] {
		bar(fmt.Sprintf("invalidate a tag of %s answers", report.Count(float64(n))), "under 1 ms, under 1.2 × that of ten",
			fmt.Sprint(n), few, "of ten")
	}
	bar("invalidate a tag of ten, 1.1 million other answers beside them", "under 1 ms, under 1.2 × without them", few, emptyRedis, "without them")
}

// invalidateOurs measures all sizes in the same rounds: in one server, and ten answers also
// alone in another.
func (x *experimentRun) invalidateOurs(ctx context.Context, empty, r *testservers.Redis, sizes []int) (err error) {
	var all []tagged
	defer func() {
		for _, t := range all {
			err = errors.Join(err, t.cache.Close())
		}
	}()
	prepare := func(case_ string, n int, addr string) error {
		tag := "list:" + fmt.Sprint(n)
		c, err := newContender(ctx, contenderSpec{library: ours, addr: addr, tags: func(uuid.UUID) []string { return []string{tag} }}, n,
			func(context.Context, uuid.UUID) ([]byte, error) { return smallValue, nil }, peers.Raw)
		if err != nil {
			return err
		}
		all = append(all, tagged{case_, tag, c})
		x.logf("%s: %s answers", ours, case_)
		return c.fill(ctx)
	}
	if err := prepare(emptyRedis, sizes[0], empty.Addr()); err != nil {
		return err
	}
	for _, n := range sizes {
		if err := prepare(fmt.Sprint(n), n, r.Addr()); err != nil {
			return err
		}
	}
	// Call by call in turns: what one takes is too short for a disturbance to meet all of
	// them otherwise.
	const each = 100
	order := slices.Clone(all)
	for round := range x.rounds {
		took := map[string][]float64{}
		for range each {
			for _, t := range order {
				start := time.Now()
				if err := t.cache.(peers.Tagged).InvalidateTag(ctx, t.tag); err != nil {
					return err
				}
				took[t.case_] = append(took[t.case_], float64(time.Since(start)))
			}
			slices.Reverse(order)
		}
		for case_, values := range took {
			x.Add(round, case_, ours, invalidateNs, measure.Median(values))
		}
	}
	return x.invalidatesNothingElse(ctx, all)
}

// invalidatesNothingElse invalidates each tag once, and looks at a sample: whatever carries
// the tag must be loaded again, and nothing else.
func (x *experimentRun) invalidatesNothingElse(ctx context.Context, all []tagged) error {
	loadsOf := func(t tagged) (loads int64, err error) {
		before := t.loads.Load()
		for _, i := range []int{0, len(t.keys) / 2, len(t.keys) - 1} {
			if _, err := t.cache.Get(ctx, &t.keys[i]); err != nil {
				return 0, err
			}
		}
		return t.loads.Load() - before, nil
	}
	for i, t := range all {
		if err := t.cache.(peers.Tagged).InvalidateTag(ctx, t.tag); err != nil {
			return err
		}
		for j, other := range all {
			loads, err := loadsOf(other)
			switch {
			case err != nil:
				return err
			case i == j && loads < 3:
				return fmt.Errorf("of 3 answers that carry the tag of %s, %d survived its invalidation", t.case_, 3-loads)
			case i != j && loads > 0: // or a call of the store took too long on a busy machine
				x.section.Notes = append(x.section.Notes, fmt.Sprintf("When the tag of %s was invalidated, %d answers without it were loaded again.", t.case_, loads))
			}
		}
	}
	return nil
}

func (x *experimentRun) invalidateGocache(ctx context.Context, r *testservers.Redis, n int) error {
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
	rounds := x.rounds
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
		x.Add(round, fmt.Sprint(n), peers.Gocache, invalidateNs, float64(time.Since(start)))
	}
	x.logf("%s: %d answers", peers.Gocache, n)
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

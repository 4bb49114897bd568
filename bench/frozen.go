package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/bench/internal/child"
	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

const (
	frozenRole = "frozen"

	frozenFor   = 20 * time.Second // how long each process goes on asking
	frozenCalls = 200              // or until it has made that many calls
)

type frozenSpec struct {
	Library, Addr, Prefix string
	Near                  bool // asks for one key that is in process, in place of missing ones
	For                   time.Duration
}

type frozenResult struct {
	First     time.Duration // the first call during the freeze
	Median    time.Duration // of those after it
	Calls     int
	Errors    int
	ServedFor time.Duration // with Near: until when the kept answer was still served
}

var frozen = experiment{
	name:  "frozen",
	title: "Redis accepts, and never answers",
	about: "Redis is stopped (SIGSTOP) with all connections open: what a partition or a host in trouble looks like. " +
		"One caller in a process asks for one key after the other that it has not asked for before; the source takes 1 ms. " +
		"Another process asks all the time for a key that it keeps in process: nothing proves that it is still right, " +
		"so a limit on how long it is served is a promise, and the lack of one is a risk. No call has a deadline of its own.",
	run: runFrozen,
}

func runFrozen(ctx context.Context, x *experimentRun) error {
	rounds := 1
	if x.long {
		rounds = x.rounds
	}
	for round := range rounds {
		err := withRedis(ctx, func(r *testservers.Redis) error { return x.freeze(ctx, round, r) })
		if err != nil {
			return err
		}
	}
	x.tabulateFrozen()
	return nil
}

// freeze has all libraries wait for the same frozen Redis at the same time: they use next
// to no processor while they do.
func (x *experimentRun) freeze(ctx context.Context, round int, r *testservers.Redis) error {
	near := peers.NamesWhere(func(lib peers.Library) bool { return lib.Redis && lib.Process })
	var specs []frozenSpec
	for _, name := range withCallers {
		specs = append(specs, frozenSpec{Library: name, Near: false})
	}
	for _, name := range near {
		specs = append(specs, frozenSpec{Library: name, Near: true})
	}
	for i := range specs {
		specs[i].Addr, specs[i].For = r.Addr(), frozenFor
		specs[i].Prefix = prefixFor(specs[i].Library)
	}
	// Whatever they need to begin has come before the freeze; a moment later they ask.
	results, err := child.RunTogether[frozenResult](ctx, frozenRole, len(specs), func(i int) any { return specs[i] }, r.Freeze)
	if err = errors.Join(err, r.Thaw()); err != nil {
		return err
	}
	for i, s := range specs {
		res := results[i]
		if s.Near {
			x.Add(round, "near", s.Library, "ns served unproven", float64(res.ServedFor))
			continue
		}
		x.Add(round, "calls", s.Library, "first ns", float64(res.First))
		x.Add(round, "calls", s.Library, "median ns", float64(res.Median))
		x.Add(round, "calls", s.Library, "calls", float64(res.Calls))
		x.Add(round, "calls", s.Library, "errors", float64(res.Errors))
	}
	return nil
}

func (x *experimentRun) tabulateFrozen() {
	t := report.Table{Head: []string{"", "first call", "median of those after it", "calls made", "of them failed", "serves what it keeps in process for"}}
	for _, name := range withCallers {
		first, _ := x.Median("calls", name, "first ns")
		median, _ := x.Median("calls", name, "median ns")
		calls, _ := x.Median("calls", name, "calls")
		errs, _ := x.Median("calls", name, "errors")
		stale, near := x.Median("near", name, "ns served unproven")
		after := report.Nanoseconds(median)
		if calls < 2 {
			after = "–"
		}
		t.Rows = append(t.Rows, []string{name, report.Nanoseconds(first), after,
			fmt.Sprintf("%.0f", calls), fmt.Sprintf("%.0f", errs), orDash(near, servedFor(stale))})
	}
	x.section.Tables = append(x.section.Tables, t)

	first, _ := x.Median("calls", ours, "first ns")
	median, _ := x.Median("calls", ours, "median ns")
	theirs, _ := x.Median("calls", peers.GoRedis, "first ns")
	stale, _ := x.Median("near", ours, "ns served unproven")
	asideStale, _ := x.Median("near", peers.Aside, "ns served unproven")
	x.section.Bars = append(x.section.Bars,
		report.Bar{Subject: "Redis accepts and never answers, load of 1 ms", Limit: "at most 50 ms once and the load, then about the load",
			Ours:        report.Nanoseconds(first) + ", then " + report.Nanoseconds(median),
			Alternative: "go-redis/cache " + report.Nanoseconds(theirs), Ratio: report.Times(first / theirs),
			Verdict: report.Judge(first <= 60e6 && median <= 5e6)},
		report.Bar{Subject: "in process during the freeze", Limit: "at most the configured 1 s",
			Ours: servedFor(stale), Alternative: "rueidisaside " + servedFor(asideStale), Ratio: report.Times(stale / asideStale),
			Verdict: report.Judge(stale <= 1.05e9)})
	if bar := &x.section.Bars[1]; stale == 0 {
		bar.Verdict, bar.Remark = report.NotMeasured, "Nothing was kept in process: the near tier is off."
	}
}

func servedFor(ns float64) string {
	if ns >= float64(frozenFor) {
		return "more than " + report.Nanoseconds(float64(frozenFor))
	}
	return report.Nanoseconds(ns)
}

func duringFreeze(ctx context.Context, parent *child.Parent) (any, error) {
	var spec frozenSpec
	if err := parent.Spec(&spec); err != nil {
		return nil, err
	}
	var loads atomic.Int64
	c, err := peers.Open(ctx, spec.Library, peers.Config[[]byte]{
		Addr: spec.Addr, Prefix: spec.Prefix, Codec: peers.Raw, Near: spec.Near,
		Load: func(ctx context.Context, id uuid.UUID) ([]byte, error) {
			loads.Add(1)
			if err := pause(ctx, missLoad); err != nil {
				return nil, err
			}
			return loadBytes(ctx, id)
		},
	})
	if err != nil {
		return nil, err
	}
	kept := payload.KeyOf(spec.Prefix, 0)
	for range 50 { // connections are there, and what can be kept in process is
		if _, err := c.Get(ctx, &kept); err != nil {
			return nil, err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return nil, err
		}
	}
	begin, err := parent.Ready()
	if err != nil {
		return nil, err
	}
	if spec.Near {
		return frozenResult{ServedFor: servedUnproven(ctx, c, &kept, &loads, begin, spec.For)}, nil
	}
	return callFrozen(ctx, c, spec), nil
}

func callFrozen(ctx context.Context, c peers.Cache[[]byte], spec frozenSpec) frozenResult {
	var mu sync.Mutex
	var took []time.Duration
	var result frozenResult
	done := make(chan struct{})
	go func() { // a call may take longer than there is time
		defer close(done)
		began := time.Now()
		for i := 1; i <= frozenCalls && time.Since(began) < spec.For; i++ {
			k := payload.KeyOf(spec.Prefix, i)
			start := time.Now()
			_, err := c.Get(ctx, &k)
			mu.Lock()
			took = append(took, time.Since(start))
			if err != nil {
				result.Errors++
			}
			mu.Unlock()
		}
	}()
	select {
	case <-done:
	case <-time.After(spec.For):
	}
	mu.Lock()
	defer mu.Unlock()
	if len(took) == 0 {
		result.First = spec.For // and it has not returned yet
		return result
	}
	result.First, result.Calls = took[0], len(took)
	rest := slices.Sorted(slices.Values(took[1:]))
	if len(rest) > 0 {
		result.Median = rest[len(rest)/2]
	}
	return result
}

// servedUnproven returns for how long after begin a kept answer was served without
// a load.
func servedUnproven(ctx context.Context, c peers.Cache[[]byte], k *payload.Key, loads *atomic.Int64, begin time.Time, limit time.Duration) time.Duration {
	last := time.Duration(0)
	for time.Since(begin) < limit {
		before := loads.Load()
		done := make(chan error, 1)
		go func() {
			_, err := c.Get(ctx, k)
			done <- err
		}()
		select {
		case err := <-done:
			if err != nil || loads.Load() > before {
				return last
			}
			last = time.Since(begin)
		case <-time.After(limit - time.Since(begin)):
			return last
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return last
		}
	}
	return limit
}

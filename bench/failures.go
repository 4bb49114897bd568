package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/chainlearn/chainlearn/bench/internal/child"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

const (
	failingLoad        = "the load fails"
	firstCallerCancels = "the first caller leaves"
	loaderPanics       = "the loader panics"
	killedLoader       = "the loading process dies"
	failureLimit       = 12 * time.Second // after which a waiting caller gives up
	failureRounds      = 2                // in the short form: some libraries take their limit each time
)

var failures = experiment{
	name:  "failures",
	title: "When loading goes wrong",
	about: "Processes of their own, one missing key each time. " +
		"*" + failingLoad + "*: 8 processes of 4 callers, and a source that fails after 100 ms. " +
		"*" + firstCallerCancels + "*: 6 callers in one process, of which the first one's context ends 50 ms into a load of 130 ms; the others have time. " +
		"*" + loaderPanics + "*: 6 callers in one process; the first load panics, every other one answers; then the key is asked for until it is served. " +
		"*" + killedLoader + "*: a process is killed in the middle of a load, while another waits.",
	run: func(ctx context.Context, x *experimentRun) error {
		return withRedis(ctx, func(r *testservers.Redis) error { return runFailures(ctx, x, r) })
	},
}

func runFailures(ctx context.Context, x *experimentRun, r *testservers.Redis) error {
	rounds := x.rounds
	if !x.long {
		rounds = min(rounds, failureRounds)
	}
	common := callersSpec{Addr: r.Addr(), Timeout: failureLimit}
	for round := range rounds {
		for _, name := range withCallers {
			fails := common
			fails.Library, fails.Callers, fails.Load, fails.Fail = name, 4, 100*time.Millisecond, true
			leaves := common
			leaves.Library, leaves.Callers, leaves.Load = name, 6, stampedeLoad
			leaves.FirstCancel, leaves.OthersDelay = 50*time.Millisecond, 20*time.Millisecond
			panics := common
			panics.Library, panics.Callers, panics.Load, panics.Panics = name, 6, 100*time.Millisecond, 1
			panics.Timeout, panics.Retry = 2*time.Second, failureLimit
			for _, s := range []struct {
				case_     string
				processes int
				spec      callersSpec
			}{{failingLoad, stampedeProcesses, fails}, {firstCallerCancels, 1, leaves}, {loaderPanics, 1, panics}} {
				results, err := x.runCallers(ctx, s.processes, s.spec)
				if crash, ok := errors.AsType[*child.DeathError](err); ok {
					x.Add(round, s.case_, name, "processes lost", 1)
					x.logf("%s, %s: %v", s.case_, name, crash)
					continue
				}
				if err != nil {
					return err
				}
				x.addOutcome(round, s.case_, name, summarize(results))
			}
			took, err := x.loaderKilled(ctx, name, r.Addr())
			if err != nil {
				return err
			}
			x.Add(round, killedLoader, name, backMetric, float64(took))
		}
		x.logf("round %d", round+1)
	}
	x.tabulateFailures()
	return nil
}

// loaderKilled returns how long after the death of a loading process another one that waits
// for the same key is served.
func (x *experimentRun) loaderKilled(ctx context.Context, name, addr string) (time.Duration, error) {
	prefix := prefixFor(name)
	spec := callersSpec{Library: name, Addr: addr, Prefix: prefix, Key: prefix + "key:", Callers: 1, Timeout: failureLimit, Load: time.Minute}
	loader, err := child.Start(ctx, callersRole, spec)
	if err != nil {
		return 0, err
	}
	defer func() { _ = loader.Kill(); _ = loader.Close() }()
	spec.Load = 10 * time.Millisecond
	waiter, err := child.Start(ctx, callersRole, spec)
	if err != nil {
		return 0, err
	}
	defer func() { _ = waiter.Kill(); _ = waiter.Close() }()
	if err := errors.Join(loader.Ready(), waiter.Ready(), loader.Begin(time.Now())); err != nil {
		return 0, err
	}
	// Long enough for the victim to be loading, and then for the other to be waiting, even on
	// a busy machine: neither state can be observed from outside.
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return 0, err
	}
	if err := waiter.Begin(time.Now()); err != nil {
		return 0, err
	}
	if err := pause(ctx, 200*time.Millisecond); err != nil {
		return 0, err
	}
	killed := time.Now()
	if err := loader.Kill(); err != nil {
		return 0, err
	}
	var result callersResult
	if err := waiter.Result(&result); err != nil {
		return 0, err
	}
	c := result.Calls[0]
	if !c.served() {
		return failureLimit, nil
	}
	// Below nought: it had loaded on its own, not waited.
	return max(time.Unix(0, c.End).Sub(killed), 0), nil
}

func (x *experimentRun) tabulateFailures() {
	t := report.Table{Head: []string{"", failingLoad + ": loads, last error after", firstCallerCancels + ": of the 5 others fail",
		loaderPanics + ": of 6 callers", "works again after", killedLoader + ": the other is served after"}}
	for _, name := range withCallers {
		loads, _ := x.Median(failingLoad, name, loadsMetric)
		total, ok := x.Median(failingLoad, name, totalMetric)
		// The first caller, whose context ended, is among those without an answer; where it
		// is served all the same, it did not leave.
		left, leftOK := x.Median(firstCallerCancels, name, failMetric)
		t.Rows = append(t.Rows, []string{name,
			orDash(ok, fmt.Sprintf("%.0f loads, %s", loads, report.Nanoseconds(total))),
			orDash(leftOK, fmt.Sprintf("%.0f", max(left-1, 0))),
			x.afterPanic(name), x.within(loaderPanics, name), x.within(killedLoader, name)})
	}
	x.section.Tables = append(x.section.Tables, t)

	loads, _ := x.Median(failingLoad, ours, loadsMetric)
	left, _ := x.Median(firstCallerCancels, ours, failMetric)
	theirs, _ := x.Median(failingLoad, peers.Aside, loadsMetric)
	panicked, okPanic := x.Median(loaderPanics, ours, backMetric)
	died, _ := x.Median(killedLoader, ours, backMetric)
	asideDied, _ := x.Median(killedLoader, peers.Aside, backMetric)
	x.section.Bars = append(x.section.Bars,
		report.Bar{Subject: "a load that fails, 8 processes of 4 callers", Limit: "1 load",
			Ours: fmt.Sprintf("%.0f loads", loads), Alternative: fmt.Sprintf("rueidisaside %.0f loads", theirs),
			Ratio: report.Times(loads / theirs), Verdict: report.Judge(loads == 1)},
		report.Bar{Subject: "the first caller leaves", Limit: "0 of the others fail",
			Ours: fmt.Sprintf("%.0f fail", left-1), Alternative: "see the section", Ratio: "–", Verdict: report.Judge(left == 1)},
		report.Bar{Subject: "the loader panics, or its process dies", Limit: "next load within 1 s",
			Ours:        report.Nanoseconds(panicked) + ", " + report.Nanoseconds(died),
			Alternative: "rueidisaside " + x.within(loaderPanics, peers.Aside) + ", " + report.Nanoseconds(asideDied),
			Ratio:       report.Times(died / asideDied), Verdict: report.Judge(okPanic && panicked < 1e9 && died < 1e9)})
}

// within returns after how long a key works again.
func (x *experimentRun) within(case_, name string) string {
	back, ok := x.Median(case_, name, backMetric)
	if !ok || back >= float64(failureLimit) {
		return "more than " + report.Nanoseconds(float64(failureLimit))
	}
	return report.Nanoseconds(back)
}

func (x *experimentRun) afterPanic(name string) string {
	if _, lost := x.Median(loaderPanics, name, "processes lost"); lost {
		return "the process crashes"
	}
	var became []string
	left, _ := x.Median(loaderPanics, name, failMetric)
	for _, is := range []struct{ metric, text string }{
		{"panicked callers", "panic"}, {"hung callers", "hang"},
		{"callers with neither answer nor error", "get neither answer nor error"},
	} {
		if v, _ := x.Median(loaderPanics, name, is.metric); v > 0 {
			became = append(became, fmt.Sprintf("%.0f %s", v, is.text))
			left -= v
		}
	}
	if left > 0 {
		became = append(became, fmt.Sprintf("%.0f get an error", left))
	}
	if served, _ := x.Median(loaderPanics, name, "served callers"); served > 0 {
		became = append(became, fmt.Sprintf("%.0f served", served))
	}
	return strings.Join(became, ", ")
}

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
	failingLoad   = "the load fails"
	leaderLeaves  = "the first caller leaves"
	loaderPanics  = "the loader panics"
	processDies   = "the loading process dies"
	failureLimit  = 12 * time.Second // after which whoever waits gives up
	failureRounds = 2                // in the short form: some libraries take their limit each time
)

var failures = experiment{
	name:  "failures",
	title: "When loading goes wrong",
	about: "Processes of their own, one missing key each time. " +
		"*" + failingLoad + "*: 8 processes of 4 callers, and a source that fails after 100 ms. " +
		"*" + leaderLeaves + "*: 6 callers in one process, of which the first one's context ends 50 ms into a load of 130 ms; the others have time. " +
		"*" + loaderPanics + "*: 6 callers in one process; the first load panics, every other one answers; then the key is asked for until it is served. " +
		"*" + processDies + "*: a process is killed in the middle of a load, while another waits.",
	run: func(ctx context.Context, l *lab) error {
		return withRedis(ctx, func(r *testservers.Redis) error { return runFailures(ctx, l, r) })
	},
}

func runFailures(ctx context.Context, l *lab, r *testservers.Redis) error {
	rounds := l.rounds
	if !l.long {
		rounds = min(rounds, failureRounds)
	}
	common := callersSpec{Addr: r.Addr(), Patience: failureLimit}
	for round := range rounds {
		for _, name := range withCallers {
			fails := common
			fails.Library, fails.Callers, fails.Load, fails.Fail = name, 4, 100*time.Millisecond, true
			leaves := common
			leaves.Library, leaves.Callers, leaves.Load = name, 6, stampedeLoad
			leaves.Leave, leaves.Lag = 50*time.Millisecond, 20*time.Millisecond
			panics := common
			panics.Library, panics.Callers, panics.Load, panics.Panics = name, 6, 100*time.Millisecond, 1
			panics.Patience, panics.Retry = 2*time.Second, failureLimit
			for _, s := range []struct {
				case_     string
				processes int
				spec      callersSpec
			}{{failingLoad, stampedeProcesses, fails}, {leaderLeaves, 1, leaves}, {loaderPanics, 1, panics}} {
				results, err := l.together(ctx, s.processes, s.spec)
				if dead, ok := errors.AsType[*child.DeathError](err); ok {
					l.Add(round, s.case_, name, "processes lost", 1)
					l.say("%s, %s: %v", s.case_, name, dead)
					continue
				}
				if err != nil {
					return err
				}
				l.addOutcome(round, s.case_, name, digest(results))
			}
			took, err := l.loaderKilled(ctx, name, r.Addr())
			if err != nil {
				return err
			}
			l.Add(round, processDies, name, backMetric, float64(took))
		}
		l.say("round %d", round+1)
	}
	l.tabulateFailures()
	return nil
}

// loaderKilled returns how long after the death of a loading process another one that waits
// for the same key is served.
func (l *lab) loaderKilled(ctx context.Context, name, addr string) (time.Duration, error) {
	prefix := prefixFor(name)
	spec := callersSpec{Library: name, Addr: addr, Prefix: prefix, Key: prefix + "key:", Callers: 1, Patience: failureLimit, Load: time.Minute}
	victim, err := child.Start(ctx, callersRole, spec)
	if err != nil {
		return 0, err
	}
	defer func() { _ = victim.Kill(); _ = victim.Close() }()
	spec.Load = 10 * time.Millisecond
	heir, err := child.Start(ctx, callersRole, spec)
	if err != nil {
		return 0, err
	}
	defer func() { _ = heir.Kill(); _ = heir.Close() }()
	if err := errors.Join(victim.Ready(), heir.Ready(), victim.Begin(time.Now())); err != nil {
		return 0, err
	}
	// Long enough for the victim to be loading, and then for the other to be waiting, even on
	// a busy machine; nothing tells from outside.
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return 0, err
	}
	if err := heir.Begin(time.Now()); err != nil {
		return 0, err
	}
	if err := pause(ctx, 200*time.Millisecond); err != nil {
		return 0, err
	}
	killed := time.Now()
	if err := victim.Kill(); err != nil {
		return 0, err
	}
	var result callersResult
	if err := heir.Result(&result); err != nil {
		return 0, err
	}
	c := result.Calls[0]
	if !c.served() {
		return failureLimit, nil
	}
	// Below nought: it had loaded on its own, not waited.
	return max(time.Unix(0, c.End).Sub(killed), 0), nil
}

func (l *lab) tabulateFailures() {
	t := report.Table{Head: []string{"", failingLoad + ": loads, last error after", leaderLeaves + ": of the 5 others fail",
		loaderPanics + ": of 6 callers", "works again after", processDies + ": the other is served after"}}
	for _, name := range withCallers {
		loads, _ := l.Median(failingLoad, name, loadsMetric)
		total, ok := l.Median(failingLoad, name, totalMetric)
		// The first caller, whose context ended, is among those without an answer; where it
		// is served all the same, it did not leave.
		left, leftOK := l.Median(leaderLeaves, name, failMetric)
		t.Rows = append(t.Rows, []string{name,
			orDash(ok, fmt.Sprintf("%.0f loads, %s", loads, report.Nanoseconds(total))),
			orDash(leftOK, fmt.Sprintf("%.0f", max(left-1, 0))),
			l.afterPanic(name), l.within(loaderPanics, name), l.within(processDies, name)})
	}
	l.section.Tables = append(l.section.Tables, t)

	loads, _ := l.Median(failingLoad, ours, loadsMetric)
	left, _ := l.Median(leaderLeaves, ours, failMetric)
	theirs, _ := l.Median(failingLoad, peers.Aside, loadsMetric)
	panicked, okPanic := l.Median(loaderPanics, ours, backMetric)
	died, _ := l.Median(processDies, ours, backMetric)
	asideDied, _ := l.Median(processDies, peers.Aside, backMetric)
	l.section.Bars = append(l.section.Bars,
		report.Bar{Subject: "a load that fails, 8 processes of 4 callers", Limit: "1 load",
			Ours: fmt.Sprintf("%.0f loads", loads), Alternative: fmt.Sprintf("rueidisaside %.0f loads", theirs),
			Ratio: report.Times(loads / theirs), Verdict: report.Judge(loads == 1)},
		report.Bar{Subject: "the first caller leaves", Limit: "0 of the others fail",
			Ours: fmt.Sprintf("%.0f fail", left-1), Alternative: "see the section", Ratio: "–", Verdict: report.Judge(left == 1)},
		report.Bar{Subject: "the loader panics, or its process dies", Limit: "next load within 1 s",
			Ours:        report.Nanoseconds(panicked) + ", " + report.Nanoseconds(died),
			Alternative: "rueidisaside " + l.within(loaderPanics, peers.Aside) + ", " + report.Nanoseconds(asideDied),
			Ratio:       report.Times(died / asideDied), Verdict: report.Judge(okPanic && panicked < 1e9 && died < 1e9)})
}

// within tells after how long a key works again.
func (l *lab) within(case_, name string) string {
	back, ok := l.Median(case_, name, backMetric)
	if !ok || back >= float64(failureLimit) {
		return "more than " + report.Nanoseconds(float64(failureLimit))
	}
	return report.Nanoseconds(back)
}

func (l *lab) afterPanic(name string) string {
	if _, lost := l.Median(loaderPanics, name, "processes lost"); lost {
		return "the process crashes"
	}
	var became []string
	left, _ := l.Median(loaderPanics, name, failMetric)
	for _, is := range []struct{ metric, text string }{
		{"panicked callers", "panic"}, {"hung callers", "hang"},
		{"callers with neither answer nor error", "get neither answer nor error"},
	} {
		if v, _ := l.Median(loaderPanics, name, is.metric); v > 0 {
			became = append(became, fmt.Sprintf("%.0f %s", v, is.text))
			left -= v
		}
	}
	if left > 0 {
		became = append(became, fmt.Sprintf("%.0f get an error", left))
	}
	if served, _ := l.Median(loaderPanics, name, "served callers"); served > 0 {
		became = append(became, fmt.Sprintf("%.0f served", served))
	}
	return strings.Join(became, ", ")
}

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/bench/internal/child"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

const (
	stampedeProcesses = 8
	stampedeCallers   = 50
	stampedeLoad      = 130 * time.Millisecond
)

// Metrics of the experiments with callers in processes of their own.
const (
	loadsMetric = "loads"
	afterMetric = "ns after the first load" // until the last caller had its answer
	totalMetric = "ns in all"               // from the first call to the last return
	failMetric  = "failed callers"
	backMetric  = "ns until it works again"
)

var stampede = experiment{
	name:  "stampede",
	title: "A stampede over several processes",
	about: fmt.Sprintf("%d processes with %d callers each ask at one moment for one key that is missing; the source takes %v. "+
		"The best there can be is one load, and an answer for the last caller right after it.", stampedeProcesses, stampedeCallers, stampedeLoad),
	run: func(ctx context.Context, x *experimentRun) error {
		return withRedis(ctx, func(r *testservers.Redis) error { return runStampede(ctx, x, r) })
	},
}

// withCallers are the contenders that processes can share.
var withCallers = peers.NamesWhere(func(lib peers.Library) bool { return lib.Redis && lib.Loads })

func runStampede(ctx context.Context, x *experimentRun, r *testservers.Redis) error {
	const case_ = "stampede"
	for round := range x.rounds {
		for _, name := range withCallers {
			results, err := x.runCallers(ctx, stampedeProcesses, callersSpec{
				Library: name, Addr: r.Addr(), Callers: stampedeCallers, Load: stampedeLoad,
				Timeout: peers.CallTimeout, Near: name == peers.Aside,
			})
			if err != nil {
				return err
			}
			x.addOutcome(round, case_, name, summarize(results))
		}
		x.logf("round %d", round+1)
	}
	x.tabulateOutcome(case_, "")
	mine, _ := x.Median(case_, ours, loadsMetric)
	after := x.Summary(case_, ours, afterMetric)
	least, _ := x.Median(case_, peers.Aside, loadsMetric)
	best, _ := x.Median(case_, peers.Aside, afterMetric)
	ratio, _ := x.Ratio(case_, afterMetric, ours, peers.Aside)
	x.section.Bars = append(x.section.Bars, report.Bar{
		Subject: "stampede, 8 processes of 50 callers", Limit: "1 load, last caller within 10 ms of the load",
		Ours:        fmt.Sprintf("%.0f loads, last caller after %s", mine, report.Nanoseconds(after.Median)),
		Alternative: fmt.Sprintf("rueidisaside %.0f loads, %s", least, report.Nanoseconds(best)),
		Ratio:       report.Times(ratio),
		Verdict:     report.Judge(mine == 1 && after.Median <= 10e6),
	})
	return nil
}

// runCallers runs callers in n processes for a key that has never been asked for.
func (x *experimentRun) runCallers(ctx context.Context, n int, spec callersSpec) ([]callersResult, error) {
	spec.Prefix = prefixFor(spec.Library)
	spec.Key = spec.Prefix + "key:"
	results, err := child.RunTogether[callersResult](ctx, callersRole, n, func(int) any { return spec }, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", spec.Library, err)
	}
	return results, nil
}

// outcome of one run of callers in all processes.
type outcome struct {
	loads     int
	served    int
	failed    int // with an error
	panicked  int
	hung      int
	empty     int
	total     time.Duration // until the last call returned
	after     time.Duration // the same, from the end of the first load
	recovered time.Duration // from the end of the first load; -1 if it did not
}

func summarize(results []callersResult) outcome {
	var o outcome
	var first, last, loaded, back int64
	for _, r := range results {
		o.loads += len(r.Loads)
		for _, s := range r.Loads {
			if s.End > 0 && (loaded == 0 || s.End < loaded) {
				loaded = s.End
			}
		}
		for _, c := range r.Calls {
			if first == 0 || c.Start < first {
				first = c.Start
			}
			last = max(last, c.End)
			switch {
			case c.Hung:
				o.hung++
			case c.Panicked:
				o.panicked++
			case c.Err != "":
				o.failed++
			case c.Empty:
				o.empty++
			default:
				o.served++
			}
		}
		if r.Recovered > 0 && (back == 0 || r.Recovered < back) {
			back = r.Recovered
		}
	}
	o.total = time.Duration(last - first)
	if loaded > 0 {
		o.after = time.Duration(last - loaded)
	}
	o.recovered = -1
	if back > 0 && loaded > 0 {
		o.recovered = time.Duration(back - loaded)
	}
	return o
}

func (x *experimentRun) addOutcome(round int, case_, name string, o outcome) {
	add := func(metric string, v float64) { x.Add(round, case_, name, metric, v) }
	add(loadsMetric, float64(o.loads))
	add(failMetric, float64(o.failed+o.panicked+o.hung+o.empty))
	add("served callers", float64(o.served))
	add("panicked callers", float64(o.panicked))
	add("hung callers", float64(o.hung))
	add("callers with neither answer nor error", float64(o.empty))
	add(totalMetric, float64(o.total))
	add(afterMetric, float64(o.after))
	if o.recovered >= 0 {
		add(backMetric, float64(o.recovered))
	}
}

// tabulateOutcome makes the table of one case.
func (x *experimentRun) tabulateOutcome(case_, caption string) {
	t := report.Table{Caption: caption, Head: []string{"", "loads", "most loads in a round", "last caller after the first load", "slowest round", "callers without an answer"}}
	for _, name := range withCallers {
		loads := x.Summary(case_, name, loadsMetric)
		if loads.N == 0 {
			continue
		}
		after := x.Summary(case_, name, afterMetric)
		failed := x.Summary(case_, name, failMetric)
		t.Rows = append(t.Rows, []string{name,
			fmt.Sprintf("%.0f", loads.Median), fmt.Sprintf("%.0f", loads.Max),
			report.Nanoseconds(after.Median), report.Nanoseconds(after.Max), fmt.Sprintf("%.0f", failed.Median)})
		if ratio, ok := x.Ratio(case_, afterMetric, name, ours); ok && name != ours && ratio < 0.95 {
			x.section.Faster = append(x.section.Faster, report.Faster{
				What: x.section.Title + ", last caller after the load", Peer: name, Ratio: ratio, Why: reasonFor(x.Experiment, name),
			})
		}
	}
	x.section.Tables = append(x.section.Tables, t)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/bench/load"
)

// The metrics of a server.
const (
	serverCPU = "server cpu ns"
	cpuOf     = "cpu ns of " // followed by the name of a process group
	p999      = "p99.9 ns"
)

// processGroup is a group of processes that also work for a request, such as PostgreSQL's.
type processGroup struct {
	name string
	pids func() ([]int, error)
}

const clientName = "the client"

// paths measures every case with all servers in turns: first how much they can do, then how
// long clients wait at a rate that all can take.
func (x *experimentRun) paths(ctx context.Context, cases []serviceCase, s, near, bare *service, others []processGroup) error {
	others = append(others, processGroup{clientName, func() ([]int, error) { return []int{os.Getpid()}, nil }})
	slice := 4 * x.slice
	for round := -1; round < x.rounds; round++ {
		err := eachPath(round, cases, s, near, bare, func(c serviceCase, srv *service) error {
			before, err := cpuOfGroups(others)
			if err != nil {
				return err
			}
			o, cpu, err := drive(srv, func() load.Outcome {
				return load.Closed(ctx, &load.Target{Addr: srv.addr, Requests: c.requests}, connections, slice)
			})
			if err != nil || round < 0 { // warming up
				return err
			}
			after, err := cpuOfGroups(others)
			if err != nil {
				return err
			}
			for i, w := range others {
				x.Add(round, c.name, srv.name, cpuOf+w.name, float64(since(before[i], after[i]))/float64(o.Requests))
			}
			x.Add(round, c.name, srv.name, measure.Rate, o.Rate())
			x.Add(round, c.name, srv.name, serverCPU, float64(cpu)/float64(o.Requests))
			return nil
		})
		if err != nil {
			return err
		}
		x.logf("rates, round %d", round+1)
	}
	const latencyRounds = 3 // in the short form; no bar depends on them
	rounds := x.rounds
	if !x.long {
		rounds = min(rounds, latencyRounds)
	}
	for round := range rounds {
		err := eachPath(round, cases, s, near, bare, func(c serviceCase, srv *service) error {
			rate, _ := x.Median(c.name, serviceName, measure.Rate)
			o, _, err := drive(srv, func() load.Outcome {
				return load.Open(ctx, &load.Target{Addr: srv.addr, Requests: c.requests}, connections, openShare*rate, slice)
			})
			if err != nil {
				return fmt.Errorf("at an even rate: %w", err)
			}
			x.Add(round, c.name, srv.name, measure.P50, float64(o.Latency.ValueAtQuantile(50)))
			x.Add(round, c.name, srv.name, measure.P99, float64(o.Latency.ValueAtQuantile(99)))
			x.Add(round, c.name, srv.name, p999, float64(o.Latency.ValueAtQuantile(99.9)))
			return nil
		})
		if err != nil {
			return err
		}
		x.logf("latencies, round %d", round+1)
	}
	x.tabulatePaths(cases)
	x.tabulateWork(cases, others)
	return nil
}

// eachPath calls f for every case and every server that takes part in it, in one order in
// one round and in the other in the next.
func eachPath(round int, cases []serviceCase, s, near, bare *service, f func(serviceCase, *service) error) error {
	for _, c := range cases {
		servers := []*service{s, bare}
		if c.public {
			servers = []*service{s, near, bare}
		}
		if round%2 != 0 {
			slices.Reverse(servers)
		}
		for _, srv := range servers {
			if err := f(c, srv); err != nil {
				return fmt.Errorf("%s, %s: %w", c.name, srv.name, err)
			}
		}
	}
	return nil
}

// cpuOfGroups returns the processor time that each process of each worker has used so far.
func cpuOfGroups(workers []processGroup) ([]map[int]time.Duration, error) {
	all := make([]map[int]time.Duration, len(workers))
	for i, w := range workers {
		pids, err := w.pids()
		if err != nil {
			return nil, fmt.Errorf("processes of %s: %w", w.name, err)
		}
		all[i] = map[int]time.Duration{}
		for _, pid := range pids {
			if cpu, err := measure.CPUOf(pid); err == nil { // it may have ended
				all[i][pid] = cpu
			}
		}
	}
	return all, nil
}

// since adds up what processes used that were there all the time.
func since(before, after map[int]time.Duration) (sum time.Duration) {
	for pid, cpu := range after {
		if was, ok := before[pid]; ok {
			sum += cpu - was
		}
	}
	return sum
}

// drive runs a load, and returns also the processor time that the server took for it.
func drive(s *service, f func() load.Outcome) (load.Outcome, time.Duration, error) {
	before, err := measure.CPUOf(s.pid)
	if err != nil {
		return load.Outcome{}, 0, err
	}
	o := f()
	after, err := measure.CPUOf(s.pid)
	switch {
	case err != nil:
		return o, 0, err
	case o.Requests == 0:
		return o, 0, errors.New("not one request was sent")
	case float64(o.Failures) > 0.01*float64(o.Requests):
		return o, 0, fmt.Errorf("%d of %d requests failed: %w", o.Failures, o.Requests, o.Err)
	}
	return o, after - before, nil
}

func (x *experimentRun) tabulatePaths(cases []serviceCase) {
	rates := report.Table{
		Caption: "Requests each second, and the server's processor time for one (ratio to the bare handler).",
		Head:    []string{"", "", "rate", "processor time"},
	}
	tails := report.Table{Caption: "Latency at half of the service's rate: 50th, 99th and 99.9th percentile.", Head: []string{"", serviceName, serviceNearName, bareName}}
	for _, c := range cases {
		row := []string{c.name}
		for _, name := range []string{serviceName, serviceNearName, bareName} {
			rate, ok := x.Median(c.name, name, measure.Rate)
			row = append(row, orDash(ok, x.latencies(c.name, name)))
			if !ok {
				continue
			}
			cpu, _ := x.Median(c.name, name, serverCPU)
			ratio, _ := x.Ratio(c.name, measure.Rate, name, bareName)
			cpuRatio, _ := x.Ratio(c.name, serverCPU, name, bareName)
			rates.Rows = append(rates.Rows, []string{c.name, name,
				fmt.Sprintf("%s/s (%s)", report.Count(rate), report.Times(ratio)),
				fmt.Sprintf("%s (%s)", report.Nanoseconds(cpu), report.Times(cpuRatio))})
			if name != bareName {
				x.judgePath(c, name, rate, ratio)
			}
		}
		tails.Rows = append(tails.Rows, row)
	}
	x.section.Tables = append(x.section.Tables, rates, tails)
}

// tabulateWork shows how the processes share the machine's processor time.
func (x *experimentRun) tabulateWork(cases []serviceCase, others []processGroup) {
	t := report.Table{
		Caption: "Processor time of all processes for one request, at full rate. They share the machine, so only a smaller sum makes a path faster.",
		Head:    []string{"", "", "server"},
	}
	for _, w := range others {
		t.Head = append(t.Head, w.name)
	}
	t.Head = append(t.Head, "sum (ratio to the bare handler's)")
	for _, c := range cases {
		sums := map[string]float64{}
		var rows [][]string
		for _, name := range []string{bareName, serviceName, serviceNearName} {
			cpu, ok := x.Median(c.name, name, serverCPU)
			if !ok {
				continue
			}
			row := []string{c.name, name, report.Nanoseconds(cpu)}
			sums[name] = cpu
			for _, w := range others {
				v, _ := x.Median(c.name, name, cpuOf+w.name)
				row = append(row, report.Nanoseconds(v))
				sums[name] += v
			}
			rows = append(rows, append(row, fmt.Sprintf("%s (%s)", report.Nanoseconds(sums[name]), report.Times(sums[name]/sums[bareName]))))
		}
		t.Rows = append(t.Rows, rows...)
	}
	x.section.Tables = append(x.section.Tables, t)
}

func (x *experimentRun) latencies(case_, name string) string {
	var three []string
	for _, metric := range []string{measure.P50, measure.P99, p999} {
		v, _ := x.Median(case_, name, metric)
		three = append(three, report.Nanoseconds(v))
	}
	return strings.Join(three, ", ")
}

func (x *experimentRun) judgePath(c serviceCase, name string, rate, ratio float64) {
	bare, _ := x.Median(c.name, bareName, measure.Rate)
	x.section.Bars = append(x.section.Bars, report.Bar{
		Subject: "service" + strings.TrimPrefix(name, serviceName) + ": " + c.name,
		Limit:   fmt.Sprintf("at least %g × the requests/s of a bare net/http handler", c.least),
		Ours:    report.Count(rate) + "/s", Alternative: report.Count(bare) + "/s", Ratio: report.Times(ratio),
		Verdict: report.Judge(ratio >= c.least),
	})
}

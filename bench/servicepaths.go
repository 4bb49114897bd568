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
	cpuOf     = "cpu ns of " // followed by who else works for a request
	p999      = "p99.9 ns"
)

// worker is who else works for a request.
type worker struct {
	name string
	pids func() ([]int, error)
}

const theClient = "the client"

// paths measures every case with all servers in turns: first how much they can do, then how
// long clients wait at a rate that all can take.
func (l *lab) paths(ctx context.Context, cases []serviceCase, s, near, bare *service, others []worker) error {
	others = append(others, worker{theClient, func() ([]int, error) { return []int{os.Getpid()}, nil }})
	slice := 4 * l.slice
	for round := -1; round < l.rounds; round++ {
		err := eachPath(round, cases, s, near, bare, func(c serviceCase, srv *service) error {
			before, err := spent(others)
			if err != nil {
				return err
			}
			o, cpu, err := drive(srv, func() load.Outcome {
				return load.Closed(ctx, &load.Target{Addr: srv.addr, Requests: c.requests}, connections, slice)
			})
			if err != nil || round < 0 { // warming up
				return err
			}
			after, err := spent(others)
			if err != nil {
				return err
			}
			for i, w := range others {
				l.Add(round, c.name, srv.name, cpuOf+w.name, float64(since(before[i], after[i]))/float64(o.Requests))
			}
			l.Add(round, c.name, srv.name, measure.Rate, o.Rate())
			l.Add(round, c.name, srv.name, serverCPU, float64(cpu)/float64(o.Requests))
			return nil
		})
		if err != nil {
			return err
		}
		l.say("rates, round %d", round+1)
	}
	const latencyRounds = 3 // in the short form; no bar depends on them
	rounds := l.rounds
	if !l.long {
		rounds = min(rounds, latencyRounds)
	}
	for round := range rounds {
		err := eachPath(round, cases, s, near, bare, func(c serviceCase, srv *service) error {
			rate, _ := l.Median(c.name, theService, measure.Rate)
			o, _, err := drive(srv, func() load.Outcome {
				return load.Open(ctx, &load.Target{Addr: srv.addr, Requests: c.requests}, connections, openShare*rate, slice)
			})
			if err != nil {
				return fmt.Errorf("at an even rate: %w", err)
			}
			l.Add(round, c.name, srv.name, measure.P50, float64(o.Latency.ValueAtQuantile(50)))
			l.Add(round, c.name, srv.name, measure.P99, float64(o.Latency.ValueAtQuantile(99)))
			l.Add(round, c.name, srv.name, p999, float64(o.Latency.ValueAtQuantile(99.9)))
			return nil
		})
		if err != nil {
			return err
		}
		l.say("latencies, round %d", round+1)
	}
	l.tabulatePaths(cases)
	l.tabulateWork(cases, others)
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

// spent returns the processor time that each process of each worker has used so far.
func spent(workers []worker) ([]map[int]time.Duration, error) {
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

func (l *lab) tabulatePaths(cases []serviceCase) {
	rates := report.Table{
		Caption: "Requests each second, and the server's processor time for one (ratio to the bare handler).",
		Head:    []string{"", "", "rate", "processor time"},
	}
	tails := report.Table{Caption: "Latency at half of the service's rate: 50th, 99th and 99.9th percentile.", Head: []string{"", theService, keepingNear, theBare}}
	for _, c := range cases {
		row := []string{c.name}
		for _, name := range []string{theService, keepingNear, theBare} {
			rate, ok := l.Median(c.name, name, measure.Rate)
			row = append(row, orDash(ok, l.latencies(c.name, name)))
			if !ok {
				continue
			}
			cpu, _ := l.Median(c.name, name, serverCPU)
			ratio, _ := l.Ratio(c.name, measure.Rate, name, theBare)
			cpuRatio, _ := l.Ratio(c.name, serverCPU, name, theBare)
			rates.Rows = append(rates.Rows, []string{c.name, name,
				fmt.Sprintf("%s/s (%s)", report.Count(rate), report.Times(ratio)),
				fmt.Sprintf("%s (%s)", report.Nanoseconds(cpu), report.Times(cpuRatio))})
			if name != theBare {
				l.judgePath(c, name, rate, ratio)
			}
		}
		tails.Rows = append(tails.Rows, row)
	}
	l.section.Tables = append(l.section.Tables, rates, tails)
}

// tabulateWork tells where the time of the machine's processors goes, of which all have a share.
func (l *lab) tabulateWork(cases []serviceCase, others []worker) {
	t := report.Table{
		Caption: "Processor time of everybody who works for one request, at full rate. As all of them share the machine, nothing makes a path faster but what makes its sum smaller.",
		Head:    []string{"", "", "server"},
	}
	for _, w := range others {
		t.Head = append(t.Head, w.name)
	}
	t.Head = append(t.Head, "sum (ratio to the bare handler's)")
	for _, c := range cases {
		sums := map[string]float64{}
		var rows [][]string
		for _, name := range []string{theBare, theService, keepingNear} {
			cpu, ok := l.Median(c.name, name, serverCPU)
			if !ok {
				continue
			}
			row := []string{c.name, name, report.Nanoseconds(cpu)}
			sums[name] = cpu
			for _, w := range others {
				v, _ := l.Median(c.name, name, cpuOf+w.name)
				row = append(row, report.Nanoseconds(v))
				sums[name] += v
			}
			rows = append(rows, append(row, fmt.Sprintf("%s (%s)", report.Nanoseconds(sums[name]), report.Times(sums[name]/sums[theBare]))))
		}
		t.Rows = append(t.Rows, rows...)
	}
	l.section.Tables = append(l.section.Tables, t)
}

func (l *lab) latencies(case_, name string) string {
	var three []string
	for _, metric := range []string{measure.P50, measure.P99, p999} {
		v, _ := l.Median(case_, name, metric)
		three = append(three, report.Nanoseconds(v))
	}
	return strings.Join(three, ", ")
}

func (l *lab) judgePath(c serviceCase, name string, rate, ratio float64) {
	bare, _ := l.Median(c.name, theBare, measure.Rate)
	l.section.Bars = append(l.section.Bars, report.Bar{
		Subject: "service" + strings.TrimPrefix(name, theService) + ": " + c.name,
		Limit:   fmt.Sprintf("at least %g × the requests/s of a bare net/http handler", c.least),
		Ours:    report.Count(rate) + "/s", Alternative: report.Count(bare) + "/s", Ratio: report.Times(ratio),
		Verdict: report.Judge(ratio >= c.least),
	})
}

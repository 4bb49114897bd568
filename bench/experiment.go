package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
	"github.com/chainlearn/chainlearn/bench/internal/report"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// experiment is one section of the report.
type experiment struct {
	name, title string
	about       string // what is measured, and how; Markdown
	run         func(ctx context.Context, l *experimentRun) error
}

// experimentRun is what an experiment works with.
type experimentRun struct {
	settings
	*measure.Samples
	section  *report.Section
	progress *log.Logger
}

func (x *experimentRun) logf(format string, args ...any) { x.progress.Printf("   "+format, args...) }

// runExperiments runs experiments and writes the report, also when some of them fail.
func runExperiments(ctx context.Context, s settings, chosen []experiment, command string, progress *log.Logger) error {
	raw := filepath.Join(s.out, "raw")
	if err := os.MkdirAll(raw, 0o755); err != nil {
		return err
	}
	began := time.Now()
	page := &report.Report{When: began, Command: strings.TrimSpace(command), Rounds: s.rounds}
	var errs []error
	for i, e := range chosen {
		progress.Printf("%s (%d of %d, %v so far)", e.name, i+1, len(chosen), time.Since(began).Round(time.Second))
		x := &experimentRun{
			settings: s,
			Samples:  &measure.Samples{Experiment: e.name},
			section:  &report.Section{Name: e.name, Title: e.title, About: e.about},
			progress: progress,
		}
		start := time.Now()
		x.section.Err = x.profiled(raw, func() error { return e.run(ctx, x) })
		x.section.Took = time.Since(start)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if x.section.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.name, x.section.Err))
			x.logf("failed: %v", x.section.Err)
		}
		page.Sections = append(page.Sections, x.section)
		if err := x.write(raw); err != nil {
			return err
		}
	}
	page.Took = time.Since(began)
	page.Machine = report.Machine()
	page.Versions, page.Setups = versions(ctx)
	path := filepath.Join(s.out, "REPORT.md")
	for name, text := range map[string]string{path: page.Markdown(), filepath.Join(s.out, "README-table.md"): page.Summary()} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	progress.Printf("%s written after %v", path, page.Took.Round(time.Second))
	return errors.Join(errs...)
}

// profiled runs f, and writes a profile of it if that is wanted.
func (x *experimentRun) profiled(raw string, f func() error) error {
	if !x.profile {
		return f()
	}
	out, err := os.Create(filepath.Join(raw, x.Experiment+".pprof"))
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return errors.Join(err, out.Close())
	}
	err = f()
	pprof.StopCPUProfile()
	return errors.Join(err, out.Close())
}

// write keeps what was measured and drawn.
func (x *experimentRun) write(raw string) error {
	f, err := os.Create(filepath.Join(raw, x.Experiment+".csv"))
	if err != nil {
		return err
	}
	if err := errors.Join(x.WriteCSV(f), f.Close()); err != nil {
		return err
	}
	for _, p := range x.section.Plots {
		if err := os.WriteFile(filepath.Join(x.out, p.File()), []byte(p.SVG()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func versions(ctx context.Context) (modules, setups []report.Fact) {
	seen := map[string]bool{}
	for _, lib := range peers.All {
		setups = append(setups, report.Fact{Name: lib.Name, Value: lib.Setup})
		for _, m := range lib.Modules {
			if !seen[m] {
				seen[m] = true
				modules = append(modules, report.Fact{Name: m, Value: peers.Version(m)})
			}
		}
	}
	if r, err := testservers.OpenRedis(ctx, testservers.RedisConfig{}); err == nil {
		if text, err := r.Do(ctx, "INFO", "server").ToString(); err == nil {
			modules = append(modules, report.Fact{Name: "Redis server", Value: info(text, "redis_version")})
		}
		_ = r.Close() // nothing was kept in it
	}
	return modules, setups
}

// info returns one value of the answer of INFO, or "".
func info(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && key == name {
			return value
		}
	}
	return ""
}

// withRedis runs f with a server of its own.
func withRedis(ctx context.Context, f func(*testservers.Redis) error) error {
	r, err := testservers.OpenRedis(ctx, testservers.RedisConfig{})
	if err != nil {
		return err
	}
	return errors.Join(f(r), r.Close())
}

// comparison is a table of one metric: a row for each subject, a column for each case.
type comparison struct {
	caption  string
	metric   string
	format   func(float64) string
	cases    []string
	subjects []string
	less     string // a subject whose value is taken from all others; may be empty
	allocs   bool   // also allocations, of the first case
}

func (x *experimentRun) tabulate(c comparison) {
	t := report.Table{Caption: c.caption, Head: append([]string{""}, c.cases...)}
	if c.allocs {
		t.Head = append(t.Head, "allocations", "bytes")
	}
	for _, s := range c.subjects {
		row := []string{s}
		for _, case_ := range c.cases {
			row = append(row, x.cell(c, case_, s))
		}
		if c.allocs {
			for _, metric := range []string{measure.Allocs, measure.AllocBytes} {
				v, ok := x.Median(c.cases[0], s, metric)
				row = append(row, orDash(ok, fmt.Sprintf("%.0f", v)))
			}
		}
		t.Rows = append(t.Rows, row)
	}
	x.section.Tables = append(x.section.Tables, t)
}

// cell shows the median, and its ratio to ours.
func (x *experimentRun) cell(c comparison, case_, subject string) string {
	v, ok := x.net(case_, subject, c.metric, c.less)
	if !ok {
		return "–"
	}
	text := c.format(v)
	if subject == ours {
		return "**" + text + "**"
	}
	if ratio, ok := x.netRatio(case_, c.metric, subject, ours, c.less); ok {
		text += " (" + report.Times(ratio) + ")"
	}
	return text
}

const ours = peers.Chainlearn

// net is a median, less that of what is common to all.
func (x *experimentRun) net(case_, subject, metric, less string) (float64, bool) {
	v, ok := x.Median(case_, subject, metric)
	if less != "" {
		common, _ := x.Median(case_, less, metric)
		v -= common
	}
	return v, ok
}

func (x *experimentRun) netRatio(case_, metric, subject, base, less string) (float64, bool) {
	if less == "" {
		return x.Ratio(case_, metric, subject, base)
	}
	v, ok := x.net(case_, subject, metric, less)
	b, have := x.net(case_, base, metric, less)
	if !ok || !have || b <= 0 {
		return 0, false
	}
	return v / b, true
}

// noteFaster lists the peers among the subjects whose times are shorter than ours.
func (x *experimentRun) noteFaster(c comparison) {
	for _, s := range c.subjects {
		if s == ours || s == peers.BareGet || !slices.ContainsFunc(peers.All, func(lib peers.Library) bool { return lib.Name == s }) {
			continue // no peer: what is beneath all of them, or we ourselves in another form
		}
		var where []string
		best := 1.0
		for _, case_ := range c.cases {
			if ratio, ok := x.netRatio(case_, c.metric, s, ours, c.less); ok && ratio <= 0.95 {
				where = append(where, case_)
				best = min(best, ratio)
			}
		}
		if where != nil {
			x.section.Faster = append(x.section.Faster, report.Faster{
				What: x.section.Title + ": " + strings.Join(where, "; "), Peer: s, Ratio: best, Why: reasonFor(x.Experiment, s),
			})
		}
	}
}

func orDash(ok bool, s string) string {
	if ok {
		return s
	}
	return "–"
}

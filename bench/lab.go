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
	run         func(ctx context.Context, l *lab) error
}

// lab is what an experiment works with.
type lab struct {
	settings
	*measure.Samples
	section  *report.Section
	progress *log.Logger
}

func (l *lab) say(format string, args ...any) { l.progress.Printf("   "+format, args...) }

// conduct runs experiments and writes the report, also when some of them fail.
func conduct(ctx context.Context, s settings, chosen []experiment, command string, progress *log.Logger) error {
	raw := filepath.Join(s.out, "raw")
	if err := os.MkdirAll(raw, 0o755); err != nil {
		return err
	}
	began := time.Now()
	page := &report.Report{When: began, Command: strings.TrimSpace(command), Rounds: s.rounds}
	var errs []error
	for i, e := range chosen {
		progress.Printf("%s (%d of %d, %v so far)", e.name, i+1, len(chosen), time.Since(began).Round(time.Second))
		l := &lab{
			settings: s,
			Samples:  &measure.Samples{Experiment: e.name},
			section:  &report.Section{Name: e.name, Title: e.title, About: e.about},
			progress: progress,
		}
		start := time.Now()
		l.section.Err = l.profiled(raw, func() error { return e.run(ctx, l) })
		l.section.Took = time.Since(start)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if l.section.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.name, l.section.Err))
			l.say("failed: %v", l.section.Err)
		}
		page.Sections = append(page.Sections, l.section)
		if err := l.write(raw); err != nil {
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
func (l *lab) profiled(raw string, f func() error) error {
	if !l.profile {
		return f()
	}
	out, err := os.Create(filepath.Join(raw, l.Experiment+".pprof"))
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
func (l *lab) write(raw string) error {
	f, err := os.Create(filepath.Join(raw, l.Experiment+".csv"))
	if err != nil {
		return err
	}
	if err := errors.Join(l.WriteCSV(f), f.Close()); err != nil {
		return err
	}
	for _, p := range l.section.Plots {
		if err := os.WriteFile(filepath.Join(l.out, p.File()), []byte(p.SVG()), 0o644); err != nil {
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

func (l *lab) tabulate(c comparison) {
	t := report.Table{Caption: c.caption, Head: append([]string{""}, c.cases...)}
	if c.allocs {
		t.Head = append(t.Head, "allocations", "bytes")
	}
	for _, s := range c.subjects {
		row := []string{s}
		for _, case_ := range c.cases {
			row = append(row, l.cell(c, case_, s))
		}
		if c.allocs {
			for _, metric := range []string{measure.Allocs, measure.AllocBytes} {
				v, ok := l.Median(c.cases[0], s, metric)
				row = append(row, orDash(ok, fmt.Sprintf("%.0f", v)))
			}
		}
		t.Rows = append(t.Rows, row)
	}
	l.section.Tables = append(l.section.Tables, t)
}

// cell shows the median, and its ratio to ours.
func (l *lab) cell(c comparison, case_, subject string) string {
	v, ok := l.net(case_, subject, c.metric, c.less)
	if !ok {
		return "–"
	}
	text := c.format(v)
	if subject == ours {
		return "**" + text + "**"
	}
	if ratio, ok := l.netRatio(case_, c.metric, subject, ours, c.less); ok {
		text += " (" + report.Times(ratio) + ")"
	}
	return text
}

const ours = peers.Chainlearn

// net is a median, less that of what is common to all.
func (l *lab) net(case_, subject, metric, less string) (float64, bool) {
	v, ok := l.Median(case_, subject, metric)
	if less != "" {
		common, _ := l.Median(case_, less, metric)
		v -= common
	}
	return v, ok
}

func (l *lab) netRatio(case_, metric, subject, base, less string) (float64, bool) {
	if less == "" {
		return l.Ratio(case_, metric, subject, base)
	}
	v, ok := l.net(case_, subject, metric, less)
	b, have := l.net(case_, base, metric, less)
	if !ok || !have || b <= 0 {
		return 0, false
	}
	return v / b, true
}

// noteFaster lists the peers among the subjects whose times are shorter than ours.
func (l *lab) noteFaster(c comparison) {
	for _, s := range c.subjects {
		if s == ours || s == peers.BareGet || !slices.ContainsFunc(peers.All, func(lib peers.Library) bool { return lib.Name == s }) {
			continue // no peer: what is beneath all of them, or we ourselves in another form
		}
		var where []string
		best := 1.0
		for _, case_ := range c.cases {
			if ratio, ok := l.netRatio(case_, c.metric, s, ours, c.less); ok && ratio <= 0.95 {
				where = append(where, case_)
				best = min(best, ratio)
			}
		}
		if where != nil {
			l.section.Faster = append(l.section.Faster, report.Faster{
				What: l.section.Title + ": " + strings.Join(where, "; "), Peer: s, Ratio: best, Why: why(l.Experiment, s),
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

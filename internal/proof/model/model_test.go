package model

import (
	"flag"
	"reflect"
	"strings"
	"sync"
	"testing"
)

var fullSystems = flag.Bool("model.full", false, "explore larger systems: minutes and gigabytes instead of seconds")

// three is the usual number of readers: two under the race detector, which are
// enough to reach every violation known.
func three() int {
	if raceEnabled {
		return 2
	}
	return 3
}

// without is the full protocol less the switches named.
func without(t *testing.T, switches ...string) Protocol {
	t.Helper()
	p := Full()
	for _, name := range switches {
		set(t, &p, name, false)
	}
	return p
}

func set(t *testing.T, p *Protocol, name string, on bool) {
	t.Helper()
	field := reflect.ValueOf(p).Elem().FieldByName(name)
	if !field.IsValid() {
		t.Fatalf("Protocol has no switch %q", name)
	}
	if field.Bool() == on && !on {
		t.Fatalf("%s is already off", name)
	}
	field.SetBool(on)
}

func mustCheck(t *testing.T, cfg Config, opt Options) Result {
	t.Helper()
	r, err := Check(cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// resultTable gathers results of parallel subtests and logs them as one table, in
// the order of the test's rows, when all are done.
type resultTable struct {
	mu      sync.Mutex
	results []Result
}

func newResultTable(t *testing.T, rows int) *resultTable {
	r := &resultTable{results: make([]Result, rows)}
	t.Cleanup(func() {
		var b strings.Builder
		if err := Report(&b, r.results); err != nil {
			t.Error(err)
		}
		t.Logf("\n%s", b.String())
	})
	return r
}

func (r *resultTable) set(row int, res Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results[row] = res
}

// wantBroken fails t unless exactly the properties of want are broken.
func wantBroken(t *testing.T, r Result, want Property) {
	t.Helper()
	for _, p := range AllProperties {
		switch {
		case r.Wrong[p] > 0 && want&p == 0:
			t.Errorf("%s: %d times; shortest run:\n%s", p, r.Wrong[p], r.Traces[p])
		case r.Wrong[p] == 0 && want&p != 0:
			t.Errorf("%s: not found in %d states, but it is known to happen", p, r.States)
		}
	}
	if !r.Complete {
		t.Errorf("only %d states visited", r.States)
	}
}

var everyday = Faults{Rollback: true, Crash: true, Expiry: true}

func with(f Faults, change func(*Faults)) Faults {
	change(&f)
	return f
}

// TestProtocolHolds explores the whole protocol under each kind of accident. The
// rows that list something broken are the limits it is known to have; the test
// fails as well when one of them is no longer reached, so that they stay true.
func TestProtocolHolds(t *testing.T) {
	t.Parallel()
	requireFence := Full()
	requireFence.RequireFence = true
	rows := []struct {
		name    string
		readers int
		faults  Faults
		change  func(*Config)
		broken  Property
		because string
		large   bool // one writer less under the race detector
	}{
		{name: "no accidents", readers: 3},
		{name: "crashes, rollbacks, leases running out", readers: 3, faults: everyday},
		{
			name: "+ COMMIT of unknown outcome, marks never expire", readers: 3,
			faults: Faults{Rollback: true, Crash: true, Unknown: true},
		},
		{
			name: "+ COMMIT of unknown outcome", readers: 3,
			faults: with(everyday, func(f *Faults) { f.Unknown = true }),
			broken: UnfencedInversion, because: "a COMMIT no caller waits for may take effect after its lease",
		},
		{
			name: "+ stale-while-revalidate", readers: 3,
			faults: with(everyday, func(f *Faults) { f.Stale = true }),
		},
		{
			name: "+ loss of the tag", readers: 3,
			faults: with(everyday, func(f *Faults) { f.TagEviction = true }),
			broken: UnfencedInversion, because: "the mark is lost with the tag and the writer does not know",
		},
		{
			name: "+ an outage of the store", readers: 2,
			faults: with(everyday, func(f *Faults) { f.Outage, f.Unknown = true, true }),
			broken: UnfencedInversion, because: "writers that cannot fence commit with the outbox alone",
		},
		{
			name: "+ an outage of the store, fences required", readers: 2,
			faults: with(everyday, func(f *Faults) { f.Outage = true }),
			change: func(c *Config) { c.Protocol = requireFence },
		},
		{
			name: "+ a failover to an older copy", readers: 2, large: true,
			faults: with(everyday, func(f *Faults) { f.Failover = true }),
			broken: UnfencedInversion, because: "the older copy does not know the newest marks",
		},
		{
			name: "+ single fences and bumps that fail", readers: 2,
			faults: with(everyday, func(f *Faults) { f.StoreErrors = true }),
			broken: StaleAfterAck | UnfencedInversion, because: "a writer cut off alone: others hit until the relay has delivered",
		},
		{
			name: "+ single fences and bumps that fail, fences required", readers: 3,
			faults: with(everyday, func(f *Faults) { f.StoreErrors = true }),
			change: func(c *Config) { c.Protocol = requireFence },
		},
		{
			name: "a failover that some writers notice late", readers: 2, large: true,
			faults: Faults{Rollback: true, Failover: true, Split: true, Expiry: true},
			broken: StaleAfterAck | UnfencedInversion, because: "fences and bumps go to the old store until it is noticed",
		},
		{
			name: "a failover noticed late, and a crash before it is", readers: 1,
			faults: Faults{Failover: true, Split: true, Expiry: true, Crash: true},
			broken: StaleAfterAck | UnfencedInversion | StuckStale, because: "the memory of the bump died with its process: the lifetime of the entry is the last line",
		},
		{
			name: "two tags, each write touches both", readers: 2, large: true, faults: everyday,
			change: func(c *Config) { c.Tags = 2 },
		},
		{
			name: "two tags, one write touches both, one a single tag", readers: 2, large: true, faults: everyday,
			change: func(c *Config) { c.Tags, c.Touch = 2, [MaxWriters]uint8{0b11, 0b01} },
		},
		{
			name: "two tags, loss of either", readers: 2, large: true,
			faults: Faults{Expiry: true, TagEviction: true},
			change: func(c *Config) { c.Tags, c.Touch = 2, [MaxWriters]uint8{0b11, 0b01} },
			broken: UnfencedInversion, because: "the mark is lost with the tag and the writer does not know",
		},
	}
	out := newResultTable(t, len(rows))
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Name: row.name, Writers: 2, Readers: row.readers, Tags: 1, Protocol: Full(), Faults: row.faults}
			if cfg.Readers == 3 {
				cfg.Readers = three()
			}
			if row.change != nil {
				row.change(&cfg)
			}
			if row.large && raceEnabled {
				cfg.Writers--
			}
			r := mustCheck(t, cfg, Options{})
			out.set(i, r)
			wantBroken(t, r, row.broken)
			if row.because != "" && !t.Failed() {
				t.Logf("known limit: %s", row.because)
			}
		})
	}
}

// TestKnownProtocols compares the ways to keep a cache in step with a database:
// which of them can be wrong, and how.
func TestKnownProtocols(t *testing.T) {
	t.Parallel()
	usual := Protocol{Bump: true}
	early := without(t, "Bypass", "Bump", "Relay") // the fence that is left is a bump inside the transaction
	tags := without(t, "Fence", "Relay")
	tagsRelay := without(t, "Fence")
	fenced := without(t, "Relay")
	rows := []struct {
		name     string
		protocol Protocol
		faults   Faults
		broken   Property
	}{
		{"delete after commit (the usual way)", usual, Faults{}, StaleAfterAck | Inversion | StuckStale},
		{"tag versions, bump before commit", early, Faults{}, StaleAfterAck | Inversion | StuckStale},
		{"tag versions, bump after commit", tags, Faults{}, Inversion},
		{"+ a writer that crashes", tags, Faults{Crash: true}, Inversion | StuckStale},
		{"+ crash, with relay", tagsRelay, Faults{Crash: true}, Inversion},
		{"tag versions, fence before commit, bump after", fenced, Faults{}, 0},
		{"+ crash, fence never expires", fenced, Faults{Crash: true}, 0},
		{"+ crash, fence may expire any time", without(t, "Relay", "LeaseCheck"), Faults{Crash: true, Expiry: true}, UnfencedInversion | StuckStale},
		{"+ crash, fence may expire any time, with relay", without(t, "LeaseCheck"), Faults{Crash: true, Expiry: true}, UnfencedInversion},
		{"+ crash, fence may expire but not during COMMIT, with relay", Full(), Faults{Crash: true, Expiry: true}, 0},
	}
	out := newResultTable(t, len(rows))
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := mustCheck(t, Config{
				Name: row.name, Writers: 2, Readers: three(), Tags: 1,
				Protocol: row.protocol, Faults: row.faults,
			}, Options{})
			out.set(i, r)
			wantBroken(t, r, row.broken)
		})
	}
}

// TestLargerSystems looks for what two writers and three readers are too few to show.
func TestLargerSystems(t *testing.T) {
	if !*fullSystems {
		t.Skip("takes minutes and gigabytes: run with -model.full")
	}
	stale := with(everyday, func(f *Faults) { f.Stale = true })
	rows := []struct {
		cfg    Config
		broken Property
	}{
		{cfg: Config{Name: "three writers", Writers: 3, Readers: 3, Tags: 1, Faults: everyday}},
		{cfg: Config{Name: "three writers, stale-while-revalidate", Writers: 3, Readers: 2, Tags: 1, Faults: stale}},
		{cfg: Config{Name: "three writers, loss of the tag", Writers: 3, Readers: 2, Tags: 1, Faults: Faults{Expiry: true, TagEviction: true}}, broken: UnfencedInversion},
		{cfg: Config{Name: "an outage, three readers", Writers: 2, Readers: 3, Tags: 1, Faults: with(everyday, func(f *Faults) { f.Outage = true })}, broken: UnfencedInversion},
		{cfg: Config{Name: "a failover, three readers", Writers: 2, Readers: 3, Tags: 1, Faults: Faults{Failover: true, Expiry: true}}, broken: UnfencedInversion},
		{cfg: Config{Name: "two tags, three readers", Writers: 2, Readers: 3, Tags: 2, Faults: Faults{Expiry: true}, Touch: [MaxWriters]uint8{0b11, 0b01}}},
		{cfg: Config{Name: "every step on its own", Writers: 2, Readers: 2, Tags: 1, Faults: Faults{Expiry: true}, Fine: true}},
	}
	out := newResultTable(t, len(rows))
	for i, row := range rows { // one at a time: each may need gigabytes
		row.cfg.Protocol = Full()
		r := mustCheck(t, row.cfg, Options{})
		out.set(i, r)
		wantBroken(t, r, row.broken)
	}
}

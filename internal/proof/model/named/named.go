// Package named checks what the protocol adds for tags that a load names (cache.DependOn), by
// visiting every state that a few writers and readers can reach. Package model checks what it is
// added to.
//
// # The system
//
// One answer depends on a tag of its own, and on tag a or tag b: on which, the database says, and a
// write moves it. So what a load names may differ from what the one before it named. The value is
// how often what the answer shows has changed, so "older" is "smaller".
//
// A writer fences its tag (new version, mark), commits, bumps (new version, no mark), and
// acknowledges. A reader reads versions and entry in either order, then hits, goes by what the
// entry's load named, joins a load, or loads. A load that names tags whose versions were not read
// before it is repeated under them. All readers share one process and what it remembers, which it
// may forget at any moment, so that other processes are in it too. An entry may vanish at any
// moment. Crashes, leases and outages are left out: they do not know which tags were named.
//
// # What is wrong
//
// Stale: a read that began after a write was acknowledged returned what was before it. Inversion: a
// read returned older data than another that had ended before it began. Stuck: nothing is under way,
// and the entry is valid and old.
package named

import "github.com/chainlearn/chainlearn/internal/proof/model/explore"

// Protocol lists the rules for named tags. Each is a switch, so that a test can take it away.
type Protocol struct {
	GoByEntry        bool // a reader reads the versions of the tags that the entry names, and judges by them
	Repeat           bool // a load that names others is repeated under their versions; else: stored under those of now
	WaitForRepeat    bool // who came while it ran waits for the repetition; else: gets what it loaded first
	Close            bool // who comes later cannot join the repetition
	StoreOnlyCovered bool // a repetition that names yet another is not stored; else: under the versions of now
}

// Full has all of them.
func Full() Protocol { return Protocol{true, true, true, true, true} }

// The tags. A set of them is a bit mask.
const (
	own = iota
	tagA
	tagB
	tags
)

// Write is what a writer does.
type Write uint8

// The writes there are: to what a or b shows, and of the answer from one to the other.
const (
	WriteA Write = iota
	WriteB
	Move
)

func (w Write) tag() int { return [...]int{WriteA: tagA, WriteB: tagB, Move: own}[w] }

const (
	maxWriters = 3
	maxReaders = 3
)

// Config is one system.
type Config struct {
	Protocol Protocol
	Writes   []Write // by one writer each, at most 3
	Readers  int     // at most 3
	Stop     bool    // when anything is wrong
}

const none = 0xff

type state struct {
	content uint8 // of the database: the value that a load reads
	shows   uint8 // the tag that it names: tagA or tagB
	acked   uint8
	seen    uint8       // the newest value that a read has returned
	ver     [tags]uint8 // names without order; 0: not read
	marks   [tags]uint8 // bit i: writer i's
	entry   entry
	known   uint8 // tags that the process remembers
	w       [maxWriters]writer
	r       [maxReaders]reader
}

// entry has a guard of the versions of own and of what its load named.
type entry struct {
	val   uint8 // none: there is none
	named uint8
	guard [tags]uint8
}

type writer struct {
	pc   uint8
	rank uint8 // the value that its commit made; 0 if it changed nothing that shows
}

const (
	wIdle = iota
	wFenced
	wCommitted
	wEnded
)

type reader struct {
	pc       uint8
	minAcked uint8 // at its beginning
	minSeen  uint8
	reads    uint8 // the named tags whose versions it reads
	got      uint8 // gotTags, gotEntry
	ver      [tags]uint8
	fenced   bool
	entry    entry
	val      uint8 // loaded
	named    uint8 // by the load
	repeated bool
	closed   bool  // to others who would join
	waits    uint8 // rWaiting: for the load of this reader
}

const (
	rIdle = iota
	rReading
	rMissed
	rLoading
	rLoaded  // it has read the database
	rStoring // it has answered its callers
	rWaiting // for another's load
)

const (
	gotTags = 1 << iota
	gotEntry
)

// Wrong is a way to be wrong.
type Wrong string

// The ways there are.
const (
	Stale     Wrong = "stale"
	Inversion Wrong = "inversion"
	Stuck     Wrong = "stuck"
)

// fresh is the version that a step draws, before its state is canonical.
const fresh = 0xfe

// canonicalize renames versions in the order in which they are met, so that states that differ only in
// what was drawn are one.
func canonicalize(s *state, readers int) {
	var names [tags][256]uint8
	var last [tags]uint8
	rename := func(versions *[tags]uint8) {
		for t := range versions {
			v := &versions[t]
			if *v == 0 {
				continue
			}
			if names[t][*v] == 0 {
				last[t]++
				names[t][*v] = last[t]
			}
			*v = names[t][*v]
		}
	}
	rename(&s.ver)
	rename(&s.entry.guard)
	for j := range readers {
		rename(&s.r[j].ver)
		rename(&s.r[j].entry.guard)
	}
}

type machine struct {
	cfg  Config
	emit func(next state, what string, wrong Wrong)
}

// Check visits every state.
func Check(cfg Config) explore.Result[Wrong] {
	first := state{shows: tagA, entry: entry{val: none}, ver: [tags]uint8{1, 1, 1}}
	return explore.All(first, cfg.Stop, func(s state, emit func(next state, what string, wrong Wrong)) {
		m := machine{cfg: cfg, emit: func(next state, what string, wrong Wrong) {
			canonicalize(&next, cfg.Readers)
			emit(next, what, wrong)
		}}
		m.steps(s)
	})
}

// Package strictnear checks a protocol for answers that are served from the memory of a process,
// without asking the store, and are as exact as if it had been asked: it visits every state that a
// few processes and writers can reach. Package model checks what the protocol is added to.
//
// # The protocol
//
// A process that keeps an answer near hears of changes of its tag, some time after they happen. A
// proof tells it that it has heard of all that happened before the proof began. It serves what it
// keeps in two ways. After a proof that began when the caller had arrived: then the answer is as of
// the caller's time, whatever writers do (one small call, shared by all callers). Or without any
// call, while the last proof began less than an interval ago: then writers have to wait. For that,
// the process flags the version that it keeps the answer under as held. A writer that replaces a held
// version, or one that is missing and may have been held, sets a moment on the tag, an interval
// later, and a writer that has fenced commits no earlier than that:
//
//	process                 store                   writer
//	proof begins (t0)
//	                        version 1, held
//	                        version 2, t <--------- fence: wait until t + interval
//	serves what it keeps
//	until t0 + interval
//	                                                commit, at t + interval or later
//
// # The system
//
// One answer, which depends on one tag and on the family of that tag. Its value is the number of
// commits the database has seen, so "older" is "smaller". Time is counted in ticks, which come
// whenever they like, so that a process may be frozen for any time between two of its steps; an
// interval is a few ticks. A process has one reader at a time, its proofs, and what it has yet to
// hear. A writer fences, waits, commits, bumps and acknowledges. A writer that knows nothing of the
// cache commits, and a relay bumps for it. Versions and flags may be lost one by one, the store may
// be replaced by another incarnation with the flags of before, and connections may be lost.
//
// Left out is what package model has and what makes no difference here: entries in the store (what
// is kept near is what was loaded under a version, by whomever), crashes and leases, and that a
// fence is lost while its writer waits.
//
// # What is wrong
//
// Stale: a read that began after a write was acknowledged returned what was before it. Inversion: a
// read returned older data than another that had ended before it began. For the commit of a writer
// that knows nothing of the cache neither is promised.
package strictnear

import "github.com/chainlearn/chainlearn/internal/proof/model/explore"

// Protocol lists the rules. Each is a switch, so that a test can take it away.
type Protocol struct {
	ProofInterval       bool // served without a call only while the last proof is young enough; else: always
	ProofFollows        bool // a proof arrives behind all changes that were executed before it
	ProofFromBeginning  bool // a proof counts from before it was sent; else: from when it arrived
	ProofAfterArrival   bool // a caller waits for a proof that began after it came; else: for the one under way
	SnapshotFirst       bool // what is heard between the read of the versions and the keeping counts
	Hold                bool // the version is flagged before the answer is kept
	HoldThatVersion     bool // and only if it has not moved; else: whatever version there is
	HoldFamily          bool // and the family's version with it
	ReplacedIsWaitedFor bool // who replaces a held version sets the moment
	BumpSetsMoment      bool // a relay's bump too; else: fences only
	MissingIsHeld       bool // a missing version may have been held
	MissingFamilyIsHeld bool // a missing family too; else: a missing tag without a held family is not waited for
	ReaderSetsMoment    bool // a reader that replaces a missing version sets the moment
	MomentStays         bool // through later versions, and binds all who fence; else: only who has set it
	NewIncarnationWaits bool // for an interval after another incarnation was found every fence waits
	MissedOnReconnect   bool // what was kept is dropped when a connection is replaced
}

// Full has all of them.
func Full() Protocol {
	return Protocol{true, true, true, true, true, true, true, true, true, true, true, true, true, true, true, true}
}

const (
	maxProcesses = 2
	maxWriters   = 2
)

// Config is one system.
type Config struct {
	Protocol  Protocol
	Interval  uint8 // of proofs, in ticks; with 0 no answer is served without a call
	Processes int   // at most 2
	Writers   int   // at most 2
	External  bool  // one more, that knows nothing of the cache
	Lose      int   // how many versions and flags are lost
	Replace   bool  // the store, once
	Cut       int   // how many connections are lost
	Stop      bool  // when anything is wrong
}

const none = 0xff

type state struct {
	content  uint8 // of the database
	external uint8 // the value that the external commit made; 0: none yet
	relayed  bool  // it has been bumped
	acked    uint8
	seen     uint8 // the newest promised value that a read has returned
	lost     uint8
	cut      uint8
	replaced bool
	young    uint8 // ticks for which fences wait because of a new incarnation
	tag      tag
	family   tag
	marks    uint8 // of writers, on the tag
	p        [maxProcesses]process
	w        [maxWriters]writer
}

// tag has no version: all that is asked of one is whether it is still that of now, which the readers
// know (reader.current).
type tag struct {
	missing bool
	held    bool  // its version
	rest    uint8 // ticks until the moment
}

type writer struct {
	pc   uint8
	wait uint8
	rank uint8
}

const (
	wIdle = iota
	wFenced
	wCommitted
	wEnded
)

type process struct {
	near  uint8 // the value kept; none: none
	proof uint8 // ticks since the last proof began; the interval: too many

	// What it has not heard yet: a change ahead of its proof under way, the proof, a change
	// behind it. Without a proof under way all changes are ahead.
	ahead, proofExecuted, behind bool
	proving                      bool  // a proof is under way
	begun                        uint8 // ticks since that began
	deaf                         bool  // its connection is lost

	r reader
}

type reader struct {
	pc       uint8
	minAcked uint8 // at its beginning
	minSeen  uint8
	heard    bool  // of a change since its snapshot
	proofs   uint8 // that it waits for
	current  bool  // the versions that it has read are those of now
	val      uint8
}

const (
	rIdle    = iota
	rProving // waits for proofs
	rAsked   // has its snapshot
	rMissed  // has the versions
	rLoaded  // has read the database
)

// Wrong is a way to be wrong.
type Wrong string

// The ways there are.
const (
	Stale     Wrong = "stale"
	Inversion Wrong = "inversion"
)

type machine struct {
	cfg    Config
	emit   func(next state, what string, wrong Wrong)
	served func(way string)
}

// Check visits every state. served is told of each step that answers, where the answer comes from.
func Check(cfg Config, served func(way string)) explore.Result[Wrong] {
	first := state{}
	for i := range first.p {
		first.p[i] = process{near: none, proof: cfg.Interval}
	}
	return explore.All(first, cfg.Stop, func(s state, emit func(next state, what string, wrong Wrong)) {
		m := machine{cfg: cfg, served: served, emit: emit}
		m.steps(s)
	})
}

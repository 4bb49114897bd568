package soak

import (
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// What parent and worker say to each other, as gob streams over the worker's standard input
// and output. A worker may die at any byte of it: what it had said before still counts.

// request asks a worker for one thing.
type request struct {
	ID     int64
	Load   *Load       // begin to read and write at random
	Pause  bool        // stop that, and answer when nothing is under way
	Look   bool        // ask for every strict answer
	Write  *writeOrder // one write
	Crowd  *crowdOrder // many callers of one answer
	Press  *pressOrder // a steady stream of requests
	Clock  *clockOrder // another wall clock
	Vitals bool
}

// reply answers the request of the same ID.
type reply struct {
	ID     int64
	Err    string
	Items  []sight
	Lists  [][]sight // by group
	Crowd  crowdResult
	Press  pressResult
	Vitals Vitals
}

// message is what a worker says: what happened, in order, and then perhaps a reply.
type message struct {
	Events []event
	Reply  *reply
}

// Load says how a worker reads and writes at random.
type Load struct {
	Seed    uint64
	Readers int           // clients that read
	Writers int           // clients that write, and read what they wrote
	Pace    time.Duration // pause of a reader between two reads; a writer's is WritePace
	// WritePace is the pause of a writer between two writes.
	WritePace time.Duration
	Near      bool // also ask for near answers
}

// writeOrder is one write of keys. Unless Die is alive, the worker ends at that step of it.
type writeOrder struct {
	Keys []int
	Die  step
}

// clockOrder sets the wall clock ahead. It is a struct since gob does not send a pointer to a
// zero at all: a clock that was to be right again would stay wrong.
type clockOrder struct{ Ahead time.Duration }

// crowdOrder has Callers ask for one answer, all at the moment At.
type crowdOrder struct {
	At      int64
	Callers int
	Ask     slowAsk
}

// slowAsk is what the slow query is asked with: an answer that takes a while.
type slowAsk struct {
	Name  string
	Takes time.Duration
	Ends  string // "found", "missing" or "failed"
}

type span struct{ Begin, End int64 }

type crowdResult struct {
	Loads []span         // of the slow query, in this process, under this name
	Last  int64          // when the last caller had its answer
	Got   map[string]int // answers, by what they were
}

// pressOrder is Rate requests a second for the time For, whatever becomes of those before.
type pressOrder struct {
	Rate int
	For  time.Duration
}

type pressResult struct {
	Samples   []sample
	PeakLoads int64 // at the same time
}

type sample struct {
	Begin int64
	Took  time.Duration
	Load  time.Duration // of it, reading the database for this caller
	Err   string
}

// Vitals are the measures of a worker that must not grow.
type Vitals struct {
	Goroutines int
	Heap       uint64 // bytes in use after a collection
	State      string // of the cache: "ok" or not
	Watchable  bool   // the store reports changes: there are near answers
	Metrics    map[string]float64
}

type eventKind uint8

const (
	eventRead       eventKind = iota + 1 // Seen was answered between Begin and End
	eventFailedRead                      // there was no answer, but an error
	eventWriteBegins
	eventFenced // the fence of the write stands, and its commit has not begun
	eventWriteEnds
	eventLoadBegins // of the slow query
)

type question uint8

const (
	askItem question = iota + 1
	askMany
	askList
	askNear
)

func (q question) String() string {
	return [...]string{"", "item", "many", "list", "near"}[q]
}

type outcome uint8

const (
	acknowledged outcome = iota + 1
	undone               // the library says that nothing was committed
	unknown              // the library says that it does not know, or the writer died
)

func (o outcome) String() string {
	return [...]string{"", "acknowledged", "undone", "unknown"}[o]
}

// event is something that happened in a worker.
type event struct {
	Kind       eventKind
	Asked      question     // of a read
	Status     cache.Status // of a read
	Begin, End int64
	Seen       []sight // of a read
	Err        string  // of a failed read, or a write that was not acknowledged
	Op         int64   // of a write: unique in the run
	Outcome    outcome
	Bumped     bool   // the write's own bump reached Redis
	Name       string // of the slow answer that is being loaded
}

// sight is the value of a key, as seen; 0 if it was not there.
type sight struct {
	Key   int
	Value int64
}

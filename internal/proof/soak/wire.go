package soak

import (
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// Parent and worker exchange gob streams over the worker's standard input and output. A worker
// may be killed at any byte of them: what it had sent before still counts.

// request asks a worker for one thing.
type request struct {
	ID           int64
	Workload     *Workload        // begin to read and write at random
	StopWorkload bool             // stop that, and answer when nothing is under way
	ReadAll      bool             // ask for every strict answer
	Write        *writeRequest    // one write
	Stampede     *stampedeRequest // many callers of one answer
	OpenLoop     *openLoopRequest // a steady stream of requests
	Clock        *clockRequest    // another wall clock
	Big          *bigRequest      // one read of what is big
	State        bool             // of the cache, alone
	Stats        bool
	Stacks       bool // of all goroutines
}

// reply answers the request of the same ID.
type reply struct {
	ID       int64
	Err      string
	Items    []keyValue
	Lists    [][]keyValue // by group
	Stampede stampedeResult
	OpenLoop openLoopResult
	Stats    Stats
	Stacks   string
}

// message is what a worker sends: what happened, in order, and then perhaps a reply.
type message struct {
	Events []event
	Reply  *reply
}

// Workload describes how a worker reads and writes at random.
type Workload struct {
	Seed    uint64
	Readers int           // clients that read
	Writers int           // clients that write, and read what they wrote
	Pace    time.Duration // pause of a reader between two reads; a writer's is WritePace
	// WritePace is the pause of a writer between two writes.
	WritePace time.Duration
	Near      bool // also ask for near answers
}

// writeRequest is one write of keys. The worker crashes at CrashAt, unless that is noCrash.
type writeRequest struct {
	Keys    []int
	CrashAt crashPoint
}

// clockRequest sets the wall clock ahead. It is a struct since gob does not send a pointer to a
// zero at all: a clock that was to be right again would stay wrong.
type clockRequest struct{ Ahead time.Duration }

// bigRequest is one read of an answer of Bytes about Key, or of a batch of Keys from Key on, most of
// which do not exist.
type bigRequest struct{ Bytes, Keys, Key int }

// stampedeRequest has Callers ask for one answer, all at the moment At.
type stampedeRequest struct {
	At      int64
	Callers int
	Key     slowKey
}

// slowKey is what the slow query is asked with: an answer that takes a while.
type slowKey struct {
	Name     string
	Duration time.Duration
	Result   string // "found", "missing" or "failed"
}

type interval struct{ Begin, End int64 }

type stampedeResult struct {
	Loads      []interval     // of the slow query, in this process, under this name
	LastAnswer int64          // when the last caller had its answer
	Outcomes   map[string]int // answers, by what they were
}

// openLoopRequest is Rate requests a second for the time For, independent of the answers to those before.
type openLoopRequest struct {
	Rate int
	For  time.Duration
}

type openLoopResult struct {
	Samples   []sample
	PeakLoads int64 // at the same time
	// LongestDeadline is the furthest deadline of a store call, counted from its beginning, and
	// Unbounded the number of calls without one.
	LongestDeadline time.Duration
	Unbounded       int
	// TimerDelays are how late timers of StoreTimeout fired in the same process at the same time:
	// what the machine adds to a wait.
	TimerDelays []time.Duration
}

// sample is one request of an open loop.
type sample struct {
	Begin    int64
	Took     time.Duration
	LoadTime time.Duration // of it, reading the database for this caller
	Calls    callCount     // of the store, when the answer was there
	Down     bool          // the breaker was open when the request began, and when it ended
	NoSource bool          // the database, on a busy machine, took no connection in time
	Err      string
}

// Stats are the measures of a worker that must not grow.
type Stats struct {
	Goroutines int
	Heap       uint64 // bytes in use after a collection
	State      string // of the cache: "ok" or not
	Why        string // it is not
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

type readKind uint8

const (
	kindItem readKind = iota + 1
	kindMany
	kindList
	kindNear
	kindLarge
	kindNamed
	kindProven // near, and proven for its caller
)

func (q readKind) String() string {
	return [...]string{"", "item", "many", "list", "near", "large", "named", "proven"}[q]
}

type outcome uint8

const (
	acknowledged outcome = iota + 1
	notCommitted         // the library reports that nothing was committed
	unknown              // the library does not know, or the writer was killed
)

func (o outcome) String() string {
	return [...]string{"", "acknowledged", "undone", "unknown"}[o]
}

// event is something that happened in a worker.
type event struct {
	Kind       eventKind
	ReadKind   readKind     // of a read
	Status     cache.Status // of a read
	Begin, End int64
	Values     []keyValue // of a read
	Err        string     // of a failed read, or a write that was not acknowledged
	Op         int64      // of a write: unique in the run
	Outcome    outcome
	Bumped     bool   // the write's own bump reached Redis
	Name       string // of the slow answer that is being loaded
}

// keyValue is the value of a key, as seen; 0 if it was not there.
type keyValue struct {
	Key   int
	Value int64
}

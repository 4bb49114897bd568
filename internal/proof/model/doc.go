// Package model checks the cache's consistency protocol by trying everything: it
// visits every state that a few writers, a few readers, a relay and a store can
// reach, in whatever order their steps happen, and looks for an answer that
// should not have been given. Tests of the running code can show that a schedule
// goes well; only this shows that none goes wrong, for systems of this size.
//
// Run it with
//
//	go test -v ./internal/proof/model
//	go test -v -timeout 30m ./internal/proof/model -model.full
//
// The first prints what was explored as a table, and for every mechanism of the
// protocol the shortest run that goes wrong without it. The second adds larger
// systems, and takes minutes and gigabytes.
//
// # The system
//
// One cached answer depends on one or two tags. Its value is the number of
// commits the database has seen, so "older" is "smaller".
//
// A writer runs its statements, fences each tag it touches (new version, mark),
// checks its lease, commits, bumps each tag (new version, mark removed),
// acknowledges, and removes its outbox row some time later. It writes once. A
// relay may take any committed row at any moment, a live writer's too, bump and
// delete it. A reader reads tags and entry one by one in any order, then hits,
// joins a running load, or loads; the load stores its value some time later or
// never. A reader slot reads any number of times: three readers means three
// reads or loads at once, not three in all. All readers share one process, which
// is the worst case for joins, since no reader has to join.
//
// An entry may vanish or be found too old at any moment. Faults names what else
// may happen: leases running out, crashes between any two steps, commits that
// are refused or whose answer is lost (the transaction then ends either way, at
// once or much later), a lost tag, an outage, a failover to an older copy, and
// that some processes notice the failover late.
//
// Each mechanism of the protocol is a switch in Protocol. The tests take away
// one at a time and expect the failure it is there to prevent: a mechanism that
// can go without anything breaking is ornament, or the model is blind to it.
//
// # What is wrong
//
// StaleAfterAck: a read that began after a write was acknowledged returned older
// data. Inversion: a read returned older data than another that had ended before
// it began. Since values are ordered like the commits, the two together are
// linearizability. Inversions are counted apart (UnfencedInversion) once some
// transaction has committed without a live mark on every tag it touched: the
// promise is made only while fences live. StuckStale: no process has work left, the
// entry is valid, and it is not what the database holds. RevivedStale: the same
// as StaleAfterAck, for an answer served although time had expired it.
//
// # Abstractions
//
// Versions are random and only ever compared for equality, so states that differ
// in nothing but the bits drawn are one state; likewise states that differ only
// in which of several identical writers or readers is which. That a random
// version never repeats is assumed.
//
// Time is absent. A lease runs out at any moment, an entry expires at any
// moment, a load takes any time; no bound on any of them is relied upon, except
// one: with LeaseCheck, a lease that stood when COMMIT was sent stands when the
// transaction becomes visible, unless the answer to COMMIT was lost.
//
// A load reads the database at one point, the newest committed state. Reading a
// lagging standby, or inside a transaction whose snapshot is older than the
// guard, is outside the model: the library must not do it.
//
// One tag's version and marks are read and written at one instant. A lost
// version is replaced at one instant too, by the next reader or writer (set if absent:
// a plain set could wipe out the mark of a writer that came between). A request
// to the store that fails has had no effect; one that took effect although its
// answer was lost leaves a newer version or one more mark, which only ever makes
// less valid.
//
// A reply has the identity of the connection it came over. After an
// outage, "drained" means that no row committed before the reconnection is left,
// not even one that is young or that some relay has claimed.
//
// # Steps run together
//
// Unless Config.Fine is set, a step that no other process can observe runs together
// with its neighbour, on the side that promises more: a read begins when it
// first looks at the store and ends as soon as its value is known, a write is
// acknowledged with its last bump, a load begins when it reads the database.
// Joining a load that reads the database after the caller's arrival is the same as
// loading at that moment, and is left out. A reader or an entry holding a version
// that was replaced, and that no reader still compares with, is forgotten: it
// could only return the newest data, or overwrite an entry that may vanish anyway.
//
// These are arguments, and arguments can be wrong. A test therefore explores
// small systems with Fine as well and expects the same verdicts, for the whole
// protocol and for each ablated one; another takes random runs in which nothing
// is renamed and expects never to leave the states visited.
//
// # What this does not show
//
// The code is not the model: that each step of the code is one of these is for
// reviews and for the tests of the running system. Systems larger than those
// explored may fail in ways small ones cannot, though none is known to. Whether
// anything ever happens is not asked, only whether it is right: a cache that
// bypasses itself for ever would pass. The in-process tier, fill leases between
// processes, warming, and errors of the loader are not modelled; a caller that
// waits for another process's fill and then reads again is two reads here.
//
// Nor does the protocol promise everything. The tests pin down its limits as
// carefully as its promises: inversions while a fence is lost or refused; stale
// reads while a single writer is cut off from the store and chose to commit all
// the same, or while processes disagree which store is the right one; and a
// stale entry that lives until it expires when a process bumps a store that has
// been replaced, removes its outbox row, and dies before it notices.
package model

package main

import "github.com/chainlearn/chainlearn/bench/internal/peers"

const (
	oneGet = "A hit is one GET of the value. Ours reads the versions of both tags, of their families and of everything beside it, with one MGET: " +
		"without them no tag could invalidate it. Neither this peer's value nor its key is checked against anything."
	noLease = "It looks once, loads and stores: no process knows that another loads the same, and a value that was read before a delete " +
		"is stored after it. Ours takes a lease over all processes first, which is one more round trip, and stores under the versions it read before."
)

// reasons why a peer is faster somewhere, by experiment and peer. They are written by
// hand, from profiles and from what the libraries do; a report shows those that its own
// figures call for.
var reasons = map[[2]string]string{
	{"near", peers.Otter}: "It is the table alone: no tags to check, no proof that invalidations arrive, no lifetime," +
		" no context, no metrics. Two thirds of our hit are spent in the same table; the next largest part is reading the clock.",
	{"near", peers.OtterTimed}: "The table with a lifetime for each entry, and nothing else: no tags, no proof, no context, no metrics.",
	{"near", peers.Sturdyc}:    "It looks up a map and checks a time. It learns of no change made by another process.",

	{"hits", peers.GoRedis}:  oneGet,
	{"hits", peers.Gocache}:  oneGet,
	{"hits", peers.Jetcache}: oneGet,
	{"hits", peers.Rocks}:    "A hit is one script that reads one hash; ours is an MGET of the value and the versions of what it depends on.",
	{"hits", peers.Aside}: "Callers in one process that ask for the same key at the same moment share one GET, which shows with many callers " +
		"and hot keys; and it reads one value, not three. It has no tags.",

	{"miss", peers.GoRedis}:  noLease,
	{"miss", peers.Gocache}:  noLease,
	{"miss", peers.Jetcache}: noLease,
	{"miss", peers.Aside}: "Its first round trip is the claim, so a miss is one trip shorter and a hit no longer. The claim is the process's and not the load's: " +
		"it is how an old value comes to be stored there (see the delete that lands during a load).",
	{"miss", peers.Rocks}: "Its first round trip, a script, is the claim as well; every hit pays for the script.",

	{"stampede", peers.GoRedis}:  "Every process loads for itself and waits for none.",
	{"stampede", peers.Gocache}:  "Every process loads for itself and waits for none.",
	{"stampede", peers.Jetcache}: "Every process loads for itself and waits for none.",
	{"stampede", peers.Aside}:    "It waits by the same means, a push from Redis, and has less to store.",
}

func reasonFor(experiment, peer string) string {
	if reason := reasons[[2]string{experiment, peer}]; reason != "" {
		return reason
	}
	return "Not examined yet."
}

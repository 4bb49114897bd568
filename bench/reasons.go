package main

import "github.com/chainlearn/chainlearn/bench/internal/peers"

// reasons why a peer is faster somewhere, by experiment and peer. They are written by
// hand, from profiles and from what the libraries do; a report shows those that its own
// figures call for.
var reasons = map[[2]string]string{
	{"near", peers.Otter}: "It is the table alone: no tags to check, no proof that invalidations are being heard, no lifetime," +
		" no context, no metrics.",
	{"near", peers.Sturdyc}: "It looks up a map and checks a time. Nothing tells it of changes made elsewhere.",
}

func why(experiment, peer string) string {
	if reason := reasons[[2]string{experiment, peer}]; reason != "" {
		return reason
	}
	return "Not examined yet."
}

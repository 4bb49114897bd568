// Package storetest holds the rules that every driver.Store keeps, as a suite for any
// implementation, and Faulty, a Store that fails on request.
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) driver.Store { return memstore.New(memstore.Config{}) })
//	}
package storetest

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Suite checks a Store. Each rule runs as a subtest on a Store of its own.
type Suite struct {
	// Open returns a Store that holds nothing, and that shares nothing with other Stores
	// it returned. The suite closes it.
	Open func(t *testing.T) driver.Store

	// Peer returns another handle on what store holds, as another process would have, for
	// the rules about what one process does and another sees. The suite closes it.
	// Default: store itself.
	Peer func(t *testing.T, store driver.Store) driver.Store

	// Virtual runs each rule in a testing/synctest bubble: hours pass in no time. It is
	// for Stores in process, which read the time by package time. Default: real time,
	// and rules run in parallel.
	Virtual bool
}

// Run checks the Stores that open returns, in real time.
func Run(t *testing.T, open func(t *testing.T) driver.Store) {
	Suite{Open: open}.Run(t)
}

// RunVirtual checks the Stores that open returns, in virtual time.
func RunVirtual(t *testing.T, open func(t *testing.T) driver.Store) {
	Suite{Open: open, Virtual: true}.Run(t)
}

// Run checks the Stores of s.
func (s Suite) Run(t *testing.T) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			if s.Virtual {
				synctest.Test(t, func(t *testing.T) { r.check(s.newHelpers(t)) })
				return
			}
			t.Parallel() // most rules wait for something to expire
			r.check(s.newHelpers(t))
		})
	}
}

// rule is one promise of the Store interface; its name is the promise.
type rule struct {
	name  string
	check func(h *helpers)
}

var rules = slices.Concat(tagRules, fenceRules, entryRules, leaseRules, failureRules, announcementRules, purgeRules, lifecycleRules, concurrencyRules, watchRules)

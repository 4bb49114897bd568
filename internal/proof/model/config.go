package model

import (
	"errors"
	"fmt"
)

// Limits of a Config: what a state has room for.
const (
	MaxWriters = 3
	MaxReaders = 3
	MaxTags    = 2
)

// Protocol lists the mechanisms of the cache protocol. Each is a switch so that
// a test can take one away and see what it was for. Full has them all; the zero
// value is the usual cache-aside: load, store, delete after commit if Bump is set.
type Protocol struct {
	Versions           bool // an entry is valid while its guard equals the tags' versions; else: while it exists
	GuardBeforeLoad    bool // the guard is captured before the load reads the database; else: when the entry is stored
	Fence              bool // before COMMIT each touched tag gets a new version and a mark
	FenceRenews        bool // the fence changes the version too; else: it only sets the mark
	MarkPerWriter      bool // marks are a set; else: one flag, cleared by the first bump
	Bypass             bool // a reader that sees a mark goes to the database; else: it takes no notice
	FencedStoreNothing bool // what was loaded under a mark is never stored
	LeaseCheck         bool // COMMIT is sent only well inside the lease of the marks
	RequireFence       bool // by choice: a writer that cannot fence rolls back; else: it commits with the outbox alone
	Bump               bool // after COMMIT, before the acknowledgement: new version, mark removed
	UnknownLeavesMark  bool // a COMMIT of unknown outcome leaves mark and row; else: it is treated as rolled back
	RowOutlivesBump    bool // a writer removes its outbox row only once it has bumped
	Relay              bool // committed outbox rows left behind are bumped by someone
	RelayDeletesLast   bool // the relay bumps, then deletes
	FreshAfterLoss     bool // a lost tag version comes back fresh and random; else: as the constant it began with
	MixIdentity        bool // the identity of the store is part of every effective version
	IdentityWithReply  bool // a reply has the identity of the connection it came over; else: one read some time later
	Replay             bool // recent bumps are sent again when the store has changed identity
	RecoveryGate       bool // after an outage no entry is trusted until the outbox is drained past the reconnection
	JoinSameVersions   bool // without a mark: join only a load that began under the versions seen
	JoinAfterArrival   bool // under a mark: join only a load that began after the caller arrived
	FencedLoadsApart   bool // a reader that saw no mark never joins a load that began under one
	StaleNeedsGuard    bool // what time expired is served only if its guard still matches
}

// Full is the protocol with every mechanism on. RequireFence is not one of them:
// it is a choice of the caller, off by default.
func Full() Protocol {
	return Protocol{
		Versions: true, GuardBeforeLoad: true,
		Fence: true, FenceRenews: true, MarkPerWriter: true, Bypass: true, FencedStoreNothing: true,
		LeaseCheck: true, Bump: true, UnknownLeavesMark: true, RowOutlivesBump: true,
		Relay: true, RelayDeletesLast: true,
		FreshAfterLoss: true, MixIdentity: true, IdentityWithReply: true, Replay: true, RecoveryGate: true,
		JoinSameVersions: true, JoinAfterArrival: true, FencedLoadsApart: true, StaleNeedsGuard: true,
	}
}

// Faults lists what may go wrong, or merely happen, at any moment. The zero
// value is a day without accidents. Entries may always vanish or grow old.
type Faults struct {
	Rollback    bool // COMMIT may be refused
	Unknown     bool // the answer to COMMIT may be lost; the transaction ends either way, at once or later
	Crash       bool // a writer or a relay may die between any two steps
	Expiry      bool // the lease of a mark may run out
	StoreErrors bool // any one fence or bump may fail while the rest of the store works
	TagEviction bool // a tag's version and marks may be lost
	Outage      bool // once, the store is unreachable for all processes, then comes back as it was
	Failover    bool // once, the store is replaced by an older copy of itself under a new identity
	Split       bool // with Failover: writers and the relay may go on talking to the old store for a while
	Stale       bool // what time expired may be served while it is refreshed
}

// Config is one system to explore.
type Config struct {
	Name     string
	Writers  int               // each writes once; 1 to MaxWriters
	Readers  int               // reads under way at the same time, each slot reading any number of times; 0 to MaxReaders
	Tags     int               // tags the entry depends on; 1 to MaxTags
	Touch    [MaxWriters]uint8 // bit k: this writer touches tag k; 0 means every tag
	Protocol Protocol
	Faults   Faults

	// Fine explores every step on its own. Without it, steps that no other process
	// can observe run together with the next one that can be observed, and readers
	// that can no longer go wrong are forgotten; doc.go says why that loses
	// no violation, and a test compares the two.
	Fine bool
}

// validate reports everything wrong with c at once.
func (c Config) validate() error {
	var errs []error
	within := func(field string, n, low, high int) {
		if n < low || n > high {
			errs = append(errs, fmt.Errorf("%s is %d, want %d to %d", field, n, low, high))
		}
	}
	within("Writers", c.Writers, 1, MaxWriters)
	within("Readers", c.Readers, 0, MaxReaders)
	within("Tags", c.Tags, 1, MaxTags)
	for i, mask := range c.Touch {
		if int(mask) >= 1<<c.Tags {
			errs = append(errs, fmt.Errorf("Touch[%d] is %#b, but there are %d tags", i, mask, c.Tags))
		}
	}
	if c.Faults.Split && !c.Faults.Failover {
		errs = append(errs, errors.New("Split is set without Failover"))
	}
	if c.Faults.Outage && !c.Protocol.Relay {
		errs = append(errs, errors.New("Outage is set without Relay: nothing would ever deliver what was written meanwhile"))
	}
	return errors.Join(errs...)
}

// touches returns the tags writer i touches, bit k for tag k.
func (c *Config) touches(i int) uint8 {
	if c.Touch[i] != 0 {
		return c.Touch[i]
	}
	return 1<<c.Tags - 1
}

// fencedLoadsMatter reports whether loads begun under a mark can do anything
// but answer their own caller with the newest data.
func (c *Config) fencedLoadsMatter() bool {
	p := &c.Protocol
	return c.Fine || !p.FencedStoreNothing || !p.JoinAfterArrival || !p.FencedLoadsApart
}

// obsoleteStaysObsolete reports whether a reader or an entry whose version has been
// replaced is obsolete: no rule of this configuration can use it again.
func (c *Config) obsoleteStaysObsolete() bool {
	p := &c.Protocol
	return !c.Fine && p.Versions && p.GuardBeforeLoad &&
		p.JoinSameVersions && p.JoinAfterArrival && p.FencedLoadsApart && p.FencedStoreNothing &&
		p.StaleNeedsGuard && p.FreshAfterLoss &&
		(!c.Faults.Failover || p.MixIdentity && p.IdentityWithReply)
}

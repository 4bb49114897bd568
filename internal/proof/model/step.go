package model

// machine generates the steps of one Config.
type machine struct {
	cfg              Config
	identicalWriters bool
	pruneObsolete    bool

	// fresh is the version the next step draws. While exploring it is a name no
	// canonical state uses, so one step may draw it once per tag; canon makes it
	// small again. A trace counts it up instead, so that versions in it are distinct.
	fresh uint8

	from *state // the state whose steps are being generated
	emit func(next *state, a action, broken Property)
}

const freshName = 0xfe

func newMachine(cfg Config) *machine {
	m := &machine{cfg: cfg, pruneObsolete: cfg.obsoleteStaysObsolete(), identicalWriters: true, fresh: freshName}
	for i := range cfg.Writers {
		m.identicalWriters = m.identicalWriters && cfg.touches(i) == cfg.touches(0)
	}
	return m
}

func (m *machine) initial() state {
	s := state{entry: noEntry}
	for k := range m.cfg.Tags {
		s.ver[k] = 2
		if !m.cfg.Protocol.FreshAfterLoss {
			s.ver[k] = 1
		}
	}
	s.old.ver, s.old.entry = s.ver, noEntry
	return s
}

// Property is a set of ways to be wrong.
type Property uint8

const (
	// StaleAfterAck: a read that began after a write was acknowledged returned older data (P1).
	StaleAfterAck Property = 1 << iota
	// Inversion: a read returned older data than a read that had ended before it began (P2).
	Inversion
	// UnfencedInversion: the same, but some transaction had committed without a
	// live mark on every tag it touched: its fence had expired, been lost or refused.
	UnfencedInversion
	// StuckStale: nothing is left that would repair it, and the valid entry differs from the database (P3).
	StuckStale
	// RevivedStale: an answer served although time had expired it had been invalidated
	// by a write acknowledged before the read began (P9).
	RevivedStale
)

// AllProperties in the order of the report's columns.
var AllProperties = []Property{StaleAfterAck, Inversion, UnfencedInversion, StuckStale, RevivedStale}

func (p Property) String() string {
	names := map[Property]string{
		StaleAfterAck: "stale after ack", Inversion: "inversion", UnfencedInversion: "inversion after a lost fence",
		StuckStale: "stuck stale", RevivedStale: "invalidated, yet served",
	}
	out := ""
	for _, q := range AllProperties {
		if p&q == 0 {
			continue
		}
		if out != "" {
			out += ", "
		}
		out += names[q]
	}
	return out
}

// action names a step for the trace.
type action struct {
	kind    uint8
	actor   uint8 // writer or reader
	tag     uint8
	outcome uint8 // what a reader's step led to
	with    uint8 // the reader whose load it joined
}

const (
	aBegin = iota // writer: runs its statements
	aFence
	aFenceFails
	aRefuse // RequireFence: rolls back without a fence
	aCommit
	aRollback
	aUnknown
	aCommitsLate // the transaction of unknown outcome commits after all
	aAborts      // or does not
	aBump
	aBumpFails
	aAck
	aDeleteRow
	aCrash
	aNotice // sees the new identity, replays
	aExpire
	aEvictTag
	aEvictEntry
	aDeliver
	aDeliverCrash
	aRelayDelete
	aRelayCrash
	aRelayNotice
	aDown
	aUp
	aSync
	aFailover
	aLearnIdentity
	aArrive
	aReadTag
	aReadEntry
	aBypass // reads while there is no usable store
	aLoadBegins
	aLoad
	aJoin
	aReturn
	aStore
	aAbandon
)

const (
	oNone = iota
	oHit
	oServeExpired // serves what time expired, refreshes behind
	oServeInvalid // the same without looking at the guard
	oMiss
	oExpired // valid, but too old to serve
	oMarked
	oJoin
	oDropped
)

// successors calls m.emit for every step possible in s. The states emitted are
// not canonical yet.
func (m *machine) successors(s *state, emit func(next *state, a action, broken Property)) {
	m.from, m.emit = s, emit
	for i := range m.cfg.Writers {
		if m.identicalWriters && i > 0 && s.w[i] == s.w[i-1] {
			continue // the same steps again
		}
		m.writerSteps(s, i)
		m.databaseSteps(s, i)
	}
	m.storeSteps(s)
	for i := range m.cfg.Readers {
		if i > 0 && s.r[i].pc == rIdle && s.r[i-1].pc == rIdle {
			continue
		}
		m.readerSteps(s, i)
	}
}

func (m *machine) step(n *state, kind uint8, actor int) {
	m.emit(n, action{kind: kind, actor: uint8(actor)}, 0)
}

func (m *machine) stepTag(n *state, kind uint8, actor, tag int) {
	m.emit(n, action{kind: kind, actor: uint8(actor), tag: uint8(tag)}, 0)
}

// renew gives tag k a version never seen before. Without Versions a bump is
// what it usually is: the entry is deleted.
func (m *machine) renew(s *state, k int) {
	if m.cfg.Protocol.Versions {
		s.ver[k] = m.fresh
	} else {
		s.entry = noEntry
	}
}

// bump renews tag k and removes the mark of writer i.
func (m *machine) bump(s *state, i, k int) {
	m.renew(s, k)
	if m.cfg.Protocol.MarkPerWriter {
		s.w[i].marks &^= 1 << k
		return
	}
	for j := range s.w {
		s.w[j].marks &^= 1 << k
	}
}

// nthTag returns the n-th tag writer i touches, or -1.
func (m *machine) nthTag(i int, n uint8) int {
	mask := m.cfg.touches(i)
	for k := range m.cfg.Tags {
		if mask&(1<<k) == 0 {
			continue
		}
		if n == 0 {
			return k
		}
		n--
	}
	return -1
}

// stuck reports whether s is at rest with a valid entry that is wrong: no writer
// is under way, no row waits for the relay, nothing is left to replay.
func (m *machine) stuck(s *state) bool {
	if s.entry.val == none || s.entry.val == s.db || s.down() || s.gateClosed() ||
		s.flags&(fRelayOld|fIdentityOld) != 0 {
		return false
	}
	for i := range m.cfg.Writers {
		w := &s.w[i]
		atRest := w.pc == wIdle || w.pc == wAcked || w.pc == wDone || w.pc == wEnded
		if !atRest || w.row != 0 && m.cfg.Protocol.Relay || w.flags&fOld != 0 {
			return false
		}
	}
	if !m.cfg.Protocol.Versions {
		return true
	}
	if m.cfg.Protocol.Bypass && s.anyMark(m.cfg.Tags) {
		return false
	}
	return s.entry.guard == s.ver
}

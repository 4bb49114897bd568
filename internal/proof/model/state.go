package model

import (
	"bytes"
	"cmp"
	"slices"
)

// none marks an entry that is not there.
const none = 0xff

// state is one moment of the whole system. It is comparable, and small: millions
// of them are held at once.
//
// Versions are names without order: 0 means "not read", 1 is the constant a lost
// tag comes back as when FreshAfterLoss is off, all others are renamed by canon
// as they come, so that two states that differ in nothing but the random bits
// drawn are one state. The two tags' names are independent of each other.
type state struct {
	db    uint8 // commits the database has seen; also the value a load reads
	acked uint8 // the newest commit a writer has acknowledged
	seen  uint8 // the newest value any read has returned
	flags uint8
	ver   [MaxTags]uint8 // the tags' current effective versions
	entry entry
	old   struct { // the copy a failover would bring back
		ver   [MaxTags]uint8
		entry entry
	}
	w [MaxWriters]writer
	r [MaxReaders]reader
}

const (
	fDown        = 1 << iota // the store is unreachable
	fOutageDone              // the one outage has begun
	fFailedOver              // the one failover has happened
	fIdentityOld             // no process has seen the new identity yet (IdentityWithReply off)
	fUnfenced                // some transaction committed without a live mark on every tag it touched
	fRelayOld                // the relay still talks to the old store, or has yet to replay
	fRelayBumped             // the relay has bumped something it would replay
)

// entry is the cached answer.
type entry struct {
	guard [MaxTags]uint8
	val   uint8 // none: there is no entry
}

var noEntry = entry{val: none}

// writer is one write transaction and the process that runs it.
type writer struct {
	pc    uint8
	at    uint8 // tags fenced or bumped so far, in the phase pc names
	row   uint8 // outbox row: 0 none visible, 1 waiting, 1+n the relay has bumped n of its tags
	rank  uint8 // its commit was the rank-th; 0 before
	marks uint8 // bit k: its mark stands on tag k; bit 4+k: and in the older copy too
	flags uint8
}

const (
	wIdle       = iota
	wTxn        // statements run, outbox row recorded, nothing visible
	wFencing    // at tags fenced
	wFenced     // every touched tag fenced, inside the lease
	wExpired    // a lease ran out before COMMIT
	wUnfenced   // the fence failed; goes on with the outbox alone
	wUnknown    // COMMIT was sent, its answer lost; the database has yet to decide
	wCommitted  // at tags bumped
	wRolledBack // at tags bumped
	wBumped     // not yet acknowledged
	wAcked      // bumped and acknowledged; its row may still be there
	wDone       // will do nothing more by itself, but remembers what it bumped
	wEnded      // will do nothing more: crashed, or ended without a bump
)

const (
	fGate     = 1 << iota // committed before the reconnection: the gate waits for its row to go
	fOld                  // still talks to the old store, or has yet to replay its bump
	fNoDelete             // its bump failed: the row is the relay's to remove
)

// reader is a slot that runs one read after another, each with the load it may start.
type reader struct {
	pc         uint8
	flags      uint8
	mask       uint8 // rProbing: what has been read; rLoading, rLoaded: readers that had arrived when the load began
	val        uint8 // rProbing: the entry's value; rAnswered, rLoaded: the answer
	lowerBound uint8 // at the start of the read: newest acknowledged commit << 4 | newest value returned
	ver        [MaxTags]uint8
	guard      [MaxTags]uint8 // the entry's guard, while probing
}

const (
	rIdle     = iota
	rStarted  // the caller has arrived
	rProbing  // reading the tags and the entry, in any order
	rAnswered // has its answer, has not returned it yet
	rMissed   // must load or join
	rLoading  // the load has begun, the database has not answered
	rLoaded   // the load has its value, which others may still join and which may still be stored
)

const (
	fFenced   = 1 << iota // saw a mark (or no usable store): store nothing
	fReturned             // the caller is gone
	fStored               // the store has been done
	fServed               // what is answered was expired by time
	fRefresh              // goes on to refresh in the background
)

const gotEntry = 1 << MaxTags // in reader.mask, beside one bit per tag

func (s *state) down() bool { return s.flags&fDown != 0 }

// gateClosed reports whether the outbox still holds what was committed before the reconnection.
func (s *state) gateClosed() bool {
	for i := range s.w {
		if s.w[i].flags&fGate != 0 {
			return true
		}
	}
	return false
}

// marked reports whether a writer's mark stands on tag k.
func (s *state) marked(k int) bool {
	for i := range s.w {
		if s.w[i].marks&(1<<k) != 0 {
			return true
		}
	}
	return false
}

func (s *state) anyMark(tags int) bool {
	for k := range tags {
		if s.marked(k) {
			return true
		}
	}
	return false
}

// canonicalize brings s into a form that no longer shows which of several identical
// writers or readers is which, nor what the random versions were. Any choice
// among equals is sound: the result is always a renaming of what tidy leaves.
func (m *machine) canonicalize(s *state) {
	m.tidy(s)
	if m.identicalWriters {
		slices.SortFunc(s.w[:m.cfg.Writers], compareWriters)
	}

	// Shared names first; readers are sorted by those. Only then are versions named
	// that a single reader holds.
	var names [MaxTags][256]uint8
	var next [MaxTags]uint8
	rename := func(k int, v *uint8) {
		if *v <= 1 {
			return
		}
		if names[k][*v] == 0 {
			next[k]++
			names[k][*v] = 1 + next[k]
		}
		*v = names[k][*v]
	}
	for k := range m.cfg.Tags {
		rename(k, &s.ver[k])
		rename(k, &s.entry.guard[k])
		rename(k, &s.old.ver[k])
		rename(k, &s.old.entry.guard[k])
	}
	m.sortReaders(s, &names)
	for i := range m.cfg.Readers {
		for k := range m.cfg.Tags {
			rename(k, &s.r[i].ver[k])
			rename(k, &s.r[i].guard[k])
		}
	}
}

// tidy clears what no step can depend on any more.
func (m *machine) tidy(s *state) {
	if m.pruneObsolete {
		m.prune(s)
	}
	if s.flags&fFailedOver != 0 {
		s.old.entry = noEntry
		if s.flags&fIdentityOld == 0 {
			s.old.ver = [MaxTags]uint8{}
		}
	}
	for i := range m.cfg.Writers {
		w := &s.w[i]
		if w.pc >= wAcked {
			w.rank = 0 // has been acknowledged or never will be
		}
		if w.pc == wAcked && w.row == 0 {
			w.pc = wDone // the relay was faster
		}
		if w.pc == wDone && !m.mayReplay(s, i) {
			w.pc = wEnded
		}
	}
}

func (m *machine) sortReaders(s *state, names *[MaxTags][256]uint8) {
	n := m.cfg.Readers
	var key [MaxReaders]reader
	var order [MaxReaders]int
	for i := range n {
		key[i], order[i] = s.r[i], i
		for k := range m.cfg.Tags {
			for _, v := range []*uint8{&key[i].ver[k], &key[i].guard[k]} {
				if *v <= 1 {
					continue
				}
				if *v = names[k][*v]; *v == 0 {
					*v = none
				}
			}
		}
	}
	slices.SortStableFunc(order[:n], func(a, b int) int { return compareReaders(&key[a], &key[b]) })
	m.reorderReaders(s, order[:n])
}

// reorderReaders puts reader order[i] into place i, and what loads remember of
// readers with them.
func (m *machine) reorderReaders(s *state, order []int) {
	was := s.r
	var place [MaxReaders]int
	for to, from := range order {
		s.r[to] = was[from]
		place[from] = to
	}
	for i := range order {
		r := &s.r[i]
		if r.pc != rLoading && r.pc != rLoaded || r.mask == 0 {
			continue
		}
		moved := uint8(0)
		for from := range order {
			if r.mask&(1<<from) != 0 {
				moved |= 1 << place[from]
			}
		}
		r.mask = moved
	}
}

func compareWriters(a, b writer) int {
	return cmp.Or(cmp.Compare(a.pc, b.pc), cmp.Compare(a.at, b.at), cmp.Compare(a.row, b.row),
		cmp.Compare(a.rank, b.rank), cmp.Compare(a.marks, b.marks), cmp.Compare(a.flags, b.flags))
}

func compareReaders(a, b *reader) int {
	return cmp.Or(cmp.Compare(a.pc, b.pc), cmp.Compare(a.flags, b.flags), cmp.Compare(a.mask, b.mask),
		cmp.Compare(a.val, b.val), cmp.Compare(a.lowerBound, b.lowerBound),
		bytes.Compare(a.ver[:], b.ver[:]), bytes.Compare(a.guard[:], b.guard[:]))
}

// prune forgets readers and entries that hold a version which has been replaced
// and which no step will ever compare with again. Such a reader can still return
// the newest data and overwrite the entry with one that is never valid; an idle
// reader can do the first at any moment, and an entry may vanish at any moment.
func (m *machine) prune(s *state) {
	for changed := true; changed; {
		changed = false
		for i := range m.cfg.Readers {
			if r := &s.r[i]; r.pc != rIdle && m.readerIsObsolete(s, i) {
				*r, changed = reader{}, true
			}
		}
		if s.entry.val != none && m.guardIsObsolete(s, s.entry.guard, none) {
			s.entry, changed = noEntry, true
		}
		if s.old.entry.val != none && m.guardIsObsolete(s, s.old.entry.guard, none) {
			s.old.entry, changed = noEntry, true
		}
	}
}

func (m *machine) readerIsObsolete(s *state, i int) bool {
	r := &s.r[i]
	if r.pc != rProbing {
		return m.guardIsObsolete(s, r.ver, i)
	}
	for k := range m.cfg.Tags {
		if r.mask&gotEntry != 0 && r.guard[k] != s.ver[k] && r.mask&(1<<k) == 0 {
			return true // the tag has moved on: this can only miss
		}
		if r.mask&(1<<k) == 0 || r.ver[k] == s.ver[k] {
			continue
		}
		if r.mask&gotEntry != 0 {
			if r.guard[k] != r.ver[k] {
				return true
			}
			continue
		}
		if !m.offered(s, k, r.ver[k], i) {
			return true
		}
	}
	return false
}

// offered reports whether an entry, or a reader other than i, holds version v of tag k
// and could bring an entry or a load under it.
func (m *machine) offered(s *state, k int, v uint8, i int) bool {
	if s.entry.val != none && s.entry.guard[k] == v || s.old.entry.val != none && s.old.entry.guard[k] == v {
		return true
	}
	for j := range m.cfg.Readers {
		if r := &s.r[j]; j != i && (r.pc >= rMissed || r.pc == rProbing && r.mask&(1<<k) != 0) && r.ver[k] == v {
			return true
		}
	}
	return false
}

// guardIsObsolete reports whether guard (of reader i's load, or of the entry) holds a
// version that is no longer current and that no probing reader still has in hand.
func (m *machine) guardIsObsolete(s *state, guard [MaxTags]uint8, i int) bool {
	for k := range m.cfg.Tags {
		if guard[k] == s.ver[k] {
			continue
		}
		wanted := false
		for j := range m.cfg.Readers {
			r := &s.r[j]
			wanted = wanted || j != i && r.pc == rProbing && r.mask&(1<<k) != 0 && r.ver[k] == guard[k]
		}
		if !wanted {
			return true
		}
	}
	return false
}

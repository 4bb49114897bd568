package model

// readerSteps emits what reader j's caller and load may do next.
func (m *machine) readerSteps(s *state, j int) {
	r := &s.r[j]
	switch r.pc {
	case rIdle:
		n := *s
		n.r[j] = reader{pc: rStarted, lowerBound: s.acked<<4 | s.seen}
		if m.cfg.Fine {
			m.step(&n, aArrive, j)
			return
		}
		m.probe(&n, j) // arriving later only raises what the read must see
	case rStarted, rProbing:
		m.probe(s, j)
	case rAnswered:
		n := *s
		m.returnValue(&n, j, action{kind: aReturn, actor: uint8(j)})
	case rMissed:
		if !m.cfg.Fine {
			m.load(s, j)
			return
		}
		if r.flags&fReturned == 0 {
			m.joins(s, j, action{kind: aJoin, actor: uint8(j)})
		}
		n := *s
		n.r[j].pc = rLoading
		n.r[j].mask = m.waiting(s, j)
		m.step(&n, aLoadBegins, j)
	case rLoading:
		m.load(s, j)
	case rLoaded:
		m.loadedSteps(s, j)
	}
}

// probe reads one more of the tags and the entry. They travel in one pipeline,
// but to as many nodes as there are keys: any order is possible.
func (m *machine) probe(s *state, j int) {
	if s.down() || s.gateClosed() {
		n := *s
		n.r[j].ver = [MaxTags]uint8{}
		m.bypass(&n, j, action{kind: aBypass, actor: uint8(j)})
		return
	}
	got := s.r[j].mask
	if !m.cfg.Protocol.Versions {
		got = 1<<m.cfg.Tags - 1
	}
	for k := range m.cfg.Tags {
		if got&(1<<k) != 0 {
			continue
		}
		n := *s
		r := &n.r[j]
		r.pc, r.mask, r.ver[k] = rProbing, got|1<<k, s.ver[k]
		a := action{kind: aReadTag, actor: uint8(j), tag: uint8(k)}
		if m.cfg.Protocol.Bypass && s.marked(k) {
			r.ver = s.ver // the others came with the same pipeline
			m.bypass(&n, j, a)
			continue
		}
		m.decide(&n, j, a)
	}
	if got&gotEntry != 0 {
		return
	}
	if m.pruneObsolete && got != 1<<m.cfg.Tags-1 && (s.entry.val == none || s.entry.guard != s.ver) {
		return // would miss; reading the tags first and finding the entry expired does, too
	}
	n := *s
	r := &n.r[j]
	r.pc, r.mask, r.guard, r.val = rProbing, got|gotEntry, s.entry.guard, s.entry.val
	if !m.cfg.Protocol.Versions {
		r.ver = s.ver
	}
	m.decide(&n, j, action{kind: aReadEntry, actor: uint8(j)})
}

// decide goes on once all has been read.
func (m *machine) decide(n *state, j int, a action) {
	r := &n.r[j]
	if r.mask != gotEntry|(1<<m.cfg.Tags-1) {
		m.emit(n, a, 0)
		return
	}
	valid := r.val != none && (r.guard == r.ver || !m.cfg.Protocol.Versions)
	val := r.val
	if valid {
		hit := *n
		a.outcome = oHit
		m.answer(&hit, j, val, 0, a)
	}
	if m.cfg.Faults.Stale && r.val != none && (valid || !m.cfg.Protocol.StaleNeedsGuard) {
		served := *n
		a.outcome = oServeExpired
		if !valid {
			a.outcome = oServeInvalid
		}
		m.answer(&served, j, val, fServed|fRefresh, a)
	}
	a.outcome = oMiss
	if valid {
		a.outcome = oExpired
	}
	r.pc, r.mask, r.val, r.guard = rMissed, 0, 0, [MaxTags]uint8{}
	if !m.cfg.Fine {
		m.joins(n, j, a)
		r.lowerBound = 0 // a load answers with the newest data, whatever the bound
	}
	m.emit(n, a, 0)
}

// bypass sends reader j to the database with nothing to store afterwards.
func (m *machine) bypass(n *state, j int, a action) {
	r := &n.r[j]
	a.outcome = oMarked
	r.pc, r.mask, r.val, r.guard = rMissed, 0, 0, [MaxTags]uint8{}
	r.flags |= fFenced
	switch {
	case !m.cfg.fencedLoadsMatter():
		m.answer(n, j, n.db, 0, a)
	case m.cfg.Fine:
		m.emit(n, a, 0)
	default:
		m.joins(n, j, a)
		r.lowerBound = 0
		m.emit(n, a, 0)
	}
}

// joins emits reader j taking the answer of another's load. To wait for a load
// and to take its value when it is there come to the same, and so, without Fine,
// do a load that reads the database later and a separate load at that moment.
func (m *machine) joins(s *state, j int, a action) {
	p := &m.cfg.Protocol
	own := &s.r[j]
	for i := range m.cfg.Readers {
		l := &s.r[i]
		if i == j || l.pc != rLoaded {
			continue
		}
		var may bool
		switch {
		case own.flags&fFenced != 0:
			may = !p.JoinAfterArrival || l.mask&(1<<j) != 0
		case l.flags&fFenced != 0:
			may = !p.FencedLoadsApart && (l.ver == own.ver || !p.JoinSameVersions)
		default:
			may = l.ver == own.ver || !p.JoinSameVersions
		}
		if may {
			n := *s
			a.outcome, a.with = oJoin, uint8(i)
			m.answer(&n, j, l.val, 0, a)
		}
	}
}

// waiting returns the readers other than j whose callers have arrived and have no answer yet.
func (m *machine) waiting(s *state, j int) uint8 {
	mask := uint8(0)
	for i := range m.cfg.Readers {
		r := &s.r[i]
		if i != j && r.flags&fReturned == 0 && r.pc >= rStarted && r.pc <= rMissed && r.pc != rAnswered {
			mask |= 1 << i
		}
	}
	return mask
}

// answer gives reader j its value: without Fine it returns at once, since the
// sooner a value is out, the more later reads must see.
func (m *machine) answer(n *state, j int, val, flags uint8, a action) {
	r := &n.r[j]
	r.pc, r.mask, r.guard, r.val = rAnswered, 0, [MaxTags]uint8{}, val
	r.flags |= flags
	if m.cfg.Fine {
		m.emit(n, a, 0)
		return
	}
	m.returnValue(n, j, a)
}

// returnValue returns reader j's value to its caller and checks it.
func (m *machine) returnValue(n *state, j int, a action) {
	r := &n.r[j]
	var broken Property
	if r.val < r.lowerBound>>4 {
		broken |= StaleAfterAck
		if r.flags&fServed != 0 {
			broken |= RevivedStale
		}
	}
	if r.val < r.lowerBound&0xf {
		if n.flags&fUnfenced != 0 {
			broken |= UnfencedInversion
		} else {
			broken |= Inversion
		}
	}
	n.seen = max(n.seen, r.val)
	for i := range m.cfg.Readers {
		if l := &n.r[i]; l.pc == rLoading || l.pc == rLoaded {
			l.mask &^= 1 << j
		}
	}
	switch {
	case r.pc == rLoaded: // its load goes on
		r.flags |= fReturned
		r.lowerBound = 0
		m.endLoad(n, j)
	case r.flags&fRefresh != 0:
		*r = reader{pc: rMissed, ver: r.ver, flags: fReturned}
	default:
		*r = reader{}
	}
	m.emit(n, a, broken)
}

// load reads the database.
func (m *machine) load(s *state, j int) {
	n := *s
	r := &n.r[j]
	r.pc, r.val = rLoaded, s.db
	a := action{kind: aLoad, actor: uint8(j)}
	if m.cfg.Fine || r.flags&fReturned != 0 {
		m.emit(&n, a, 0)
		return
	}
	m.returnValue(&n, j, a)
}

// loadedSteps emits what may become of a load that has its value.
func (m *machine) loadedSteps(s *state, j int) {
	p := &m.cfg.Protocol
	r := &s.r[j]
	if r.flags&fReturned == 0 {
		n := *s
		m.returnValue(&n, j, action{kind: aReturn, actor: uint8(j)})
	}
	mayStore := r.flags&fStored == 0 && (r.flags&fFenced == 0 || !p.FencedStoreNothing && r.ver != [MaxTags]uint8{})
	if mayStore && !s.down() {
		n := *s
		a := action{kind: aStore, actor: uint8(j)}
		switch {
		case p.GuardBeforeLoad || !p.Versions:
			n.entry = entry{guard: r.ver, val: r.val}
		case p.Bypass && s.anyMark(m.cfg.Tags):
			a.outcome = oDropped
		default:
			n.entry = entry{guard: s.ver, val: r.val}
		}
		n.r[j].flags |= fStored
		m.endLoad(&n, j)
		m.emit(&n, a, 0)
	}
	if r.flags&fReturned != 0 { // the process died, the store refused, or there is nothing to store
		n := *s
		n.r[j] = reader{}
		m.step(&n, aAbandon, j)
	}
}

// endLoad frees the slot of a load that has returned and stored.
func (m *machine) endLoad(n *state, j int) {
	if r := &n.r[j]; r.pc == rLoaded && r.flags&fReturned != 0 && r.flags&fStored != 0 {
		*r = reader{}
	}
}

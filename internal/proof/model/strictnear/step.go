package strictnear

import "fmt"

func (m *machine) steps(s state) {
	for i := range m.cfg.Writers {
		m.write(s, i)
	}
	for j := range m.cfg.Processes {
		m.hear(s, j)
		m.read(s, j)
	}
	m.external(s)
	m.faults(s)
	m.tick(s)
}

// tick lets time pass.
func (m *machine) tick(s state) {
	down := func(n *uint8) {
		if *n > 0 {
			*n--
		}
	}
	down(&s.young)
	down(&s.tag.rest)
	down(&s.family.rest)
	for i := range m.cfg.Writers {
		down(&s.w[i].wait)
	}
	for j := range m.cfg.Processes {
		p := &s.p[j]
		p.proof = min(p.proof+1, m.cfg.Interval)
		if p.proving {
			p.begun = min(p.begun+1, m.cfg.Interval)
		}
	}
	m.emit(s, "time passes", "")
}

func (m *machine) write(s state, i int) {
	w := &s.w[i]
	said := func(what string) string { return fmt.Sprintf("writer %d %s", i, what) }
	switch w.pc {
	case wIdle:
		before := s.tag.rest
		w.pc, w.wait = wFenced, m.replace(&s)
		if m.cfg.Protocol.MomentStays {
			w.wait = max(w.wait, before)
		}
		if m.cfg.Protocol.NewIncarnationWaits {
			w.wait = max(w.wait, s.young)
		}
		s.marks |= 1 << i
		m.emit(s, said(fmt.Sprintf("fences, and waits for %d", w.wait)), "")
	case wFenced:
		if w.wait > 0 {
			return
		}
		s.content++
		w.pc, w.rank = wCommitted, s.content
		m.emit(s, said(fmt.Sprintf("commits %d", s.content)), "")
	case wCommitted:
		m.bump(&s)
		s.marks &^= 1 << i
		s.acked = max(s.acked, w.rank)
		*w = writer{pc: wEnded}
		m.emit(s, said("bumps and acknowledges"), "")
	}
}

// external is a writer that knows nothing of the cache, and the relay that bumps for it.
func (m *machine) external(s state) {
	switch {
	case !m.cfg.External || s.relayed:
	case s.external == 0:
		s.content++
		s.external = s.content
		m.emit(s, fmt.Sprintf("an external writer commits %d", s.content), "")
	default:
		m.bump(&s)
		s.relayed = true
		m.emit(s, "the relay bumps for it", "")
	}
}

// promised is the newest value up to v whose writer knows of the cache.
func (s *state) promised(v uint8) uint8 {
	if v == s.external && v > 0 {
		return v - 1
	}
	return v
}

// replace gives the tag another version, and returns for how long who does so has to wait. A writer
// and a reader that finds it missing do it.
func (m *machine) replace(s *state) (wait uint8) {
	p := m.cfg.Protocol
	switch {
	case s.tag.missing && p.MissingIsHeld:
		if s.family.held || s.family.missing && p.MissingFamilyIsHeld {
			wait = m.cfg.Interval
		} else {
			wait = s.family.rest
		}
	case s.tag.held && p.ReplacedIsWaitedFor:
		wait = m.cfg.Interval
	}
	s.tag = tag{rest: max(s.tag.rest, wait)}
	m.change(s)
	return wait
}

func (m *machine) bump(s *state) {
	rest := s.tag.rest
	m.replace(s)
	if !m.cfg.Protocol.BumpSetsMoment {
		s.tag.rest = rest
	}
}

// change makes versions that were read before others than those of now, and tells every process that
// listens.
func (m *machine) change(s *state) {
	for j := range m.cfg.Processes {
		p := &s.p[j]
		p.r.current = false
		switch {
		case p.deaf:
		case p.proofExecuted:
			p.behind = true
		default:
			p.ahead = true
		}
	}
}

// faults befall the store and the connections. What is lost while a fence stands is left to package
// model.
func (m *machine) faults(s state) {
	if s.marks == 0 && int(s.lost) < m.cfg.Lose {
		for _, t := range []struct {
			name string
			of   func(*state) *tag
		}{{"the tag", func(s *state) *tag { return &s.tag }}, {"the family", func(s *state) *tag { return &s.family }}} {
			if n := s; !t.of(&n).missing {
				n.lost++
				*t.of(&n) = tag{missing: true}
				m.change(&n)
				m.emit(n, t.name+" is lost", "")
			}
		}
	}
	if m.cfg.Replace && !s.replaced && s.marks == 0 {
		for _, missing := range []bool{false, true} {
			n := s
			n.replaced, n.young = true, m.cfg.Interval
			n.tag, n.family = tag{missing: missing}, tag{missing: missing}
			for j := range m.cfg.Processes {
				n.p[j].r.current = false
				n.p[j].cut()
			}
			m.emit(n, fmt.Sprintf("the store is replaced, its versions missing: %v", missing), "")
		}
	}
	for j := range m.cfg.Processes {
		switch n := s; {
		case n.p[j].deaf:
			p := &n.p[j]
			p.deaf = false
			if m.cfg.Protocol.MissedOnReconnect {
				p.near, p.r.heard = none, true
			}
			m.emit(n, fmt.Sprintf("process %d connects again", j), "")
		case int(n.cut) < m.cfg.Cut:
			n.cut++
			n.p[j].cut()
			m.emit(n, fmt.Sprintf("process %d loses its connection", j), "")
		}
	}
}

// cut ends the connection over which a process hears, with all that is on its way.
func (p *process) cut() {
	p.deaf, p.ahead, p.behind = true, false, false
	p.proving, p.proofExecuted, p.begun = false, false, 0
	p.r.proofs = min(p.r.proofs, 1)
}

// hear is what process j's connection brings, and the proofs that it asks for.
func (m *machine) hear(s state, j int) {
	p := &s.p[j]
	said := func(what string) string { return fmt.Sprintf("process %d %s", j, what) }
	switch {
	case p.deaf:
		return
	case !p.proving:
		n := s
		n.p[j].proving = true
		m.emit(n, said("asks for a proof"), "")
	case !p.proofExecuted:
		n := s
		n.p[j].proofExecuted = true
		m.emit(n, said("has its proof executed"), "")
	}
	if p.ahead {
		n := s
		n.p[j].ahead, n.p[j].near, n.p[j].r.heard = false, none, true
		m.emit(n, said("hears of a change"), "")
	}
	if p.proofExecuted && (!p.ahead || !m.cfg.Protocol.ProofFollows) {
		p.proof = 0
		if m.cfg.Protocol.ProofFromBeginning {
			p.proof = p.begun
		}
		p.ahead, p.behind = p.ahead || p.behind, false
		p.proving, p.proofExecuted, p.begun = false, false, 0
		if p.r.proofs > 0 {
			p.r.proofs--
		}
		m.emit(s, said("has its proof"), "")
	}
}

func (m *machine) read(s state, j int) {
	p := &s.p[j]
	r := &p.r
	rules := m.cfg.Protocol
	said := func(format string, args ...any) string {
		return fmt.Sprintf("process %d ", j) + fmt.Sprintf(format, args...)
	}
	if p.near != none && m.cfg.Interval > 0 && (p.proof < m.cfg.Interval || !rules.ProofInterval) {
		n := s
		wrong := n.answer(p.near, s.acked, s.seen)
		m.served("near")
		m.emit(n, said("answers %d at once", p.near), wrong)
	}
	switch r.pc {
	case rIdle:
		n := s
		n.p[j].r = reader{pc: rAsked, minAcked: s.acked, minSeen: s.seen}
		m.emit(n, said("asks the store"), "")
		if p.near == none {
			return
		}
		*r = reader{pc: rProving, minAcked: s.acked, minSeen: s.seen, proofs: 1}
		if p.proving && rules.ProofAfterArrival {
			r.proofs = 2
		}
		m.emit(s, said("waits for a proof"), "")
	case rProving:
		switch {
		case r.proofs > 0:
		case p.near == none:
			*r = reader{pc: rAsked, minAcked: r.minAcked, minSeen: r.minSeen}
			m.emit(s, said("has heard of a change, and asks the store"), "")
		default:
			m.served("after a proof")
			m.finish(s, j, p.near, said("answers %d after the proof", p.near))
		}
	case rAsked:
		m.readVersions(s, j, said)
	case rMissed:
		r.pc, r.val = rLoaded, s.content
		m.emit(s, said("loads %d", s.content), "")
	case rLoaded:
		m.keep(s, j, said)
	}
}

func (m *machine) readVersions(s state, j int, said func(string, ...any) string) {
	r := &s.p[j].r
	if s.marks != 0 {
		m.served("fenced")
		m.finish(s, j, s.content, said("finds the tag fenced, and answers %d", s.content))
		return
	}
	what := said("reads the versions")
	if s.tag.missing {
		rest := s.tag.rest
		m.replace(&s)
		if !m.cfg.Protocol.ReaderSetsMoment {
			s.tag.rest = rest
		}
		what += ", the tag's was missing"
	}
	if s.family.missing {
		s.family = tag{}
		if m.cfg.Protocol.ReaderSetsMoment && m.cfg.Protocol.MissingFamilyIsHeld {
			s.family.rest = m.cfg.Interval
		}
		m.change(&s)
		what += ", the family's was missing"
	}
	r.pc, r.current = rMissed, true
	m.emit(s, what, "")
}

// keep flags the versions, keeps the answer if that is allowed, and gives it to the caller.
func (m *machine) keep(s state, j int, said func(string, ...any) string) {
	p := &s.p[j]
	r, rules := &p.r, m.cfg.Protocol
	holds := true
	if m.cfg.Interval > 0 && rules.Hold {
		if holds = r.current || !rules.HoldThatVersion; holds {
			s.tag.held = !s.tag.missing
			s.family.held = !s.family.missing && (s.family.held || rules.HoldFamily)
		}
	}
	val, what := r.val, said("answers %d", r.val)
	if holds && (!r.heard || !rules.SnapshotFirst) {
		p.near = val
		what += ", and keeps it"
	}
	m.served("loaded")
	m.finish(s, j, val, what)
}

// finish gives process j's reader its answer.
func (m *machine) finish(s state, j int, val uint8, what string) {
	r := &s.p[j].r
	wrong := s.answer(val, r.minAcked, r.minSeen)
	*r = reader{}
	m.emit(s, what, wrong)
}

// answer judges a value that is returned to a caller that came when minAcked was acknowledged and
// minSeen had been returned.
func (s *state) answer(val, minAcked, minSeen uint8) Wrong {
	was := s.seen
	s.seen = max(was, s.promised(val))
	switch {
	case val < minAcked:
		return Stale
	case val < minSeen:
		return Inversion
	}
	return ""
}

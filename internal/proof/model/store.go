package model

// storeSteps emits what the relay does and what befalls the shared store.
func (m *machine) storeSteps(s *state) {
	if m.cfg.Protocol.Relay {
		m.relaySteps(s)
	}
	if s.entry.val != none {
		n := *s
		n.entry = noEntry
		m.step(&n, aEvictEntry, 0)
	}
	if m.cfg.Faults.TagEviction && !s.down() {
		for k := range m.cfg.Tags {
			n := *s
			m.loseTag(&n, k)
			m.stepTag(&n, aEvictTag, 0, k)
		}
	}
	if m.cfg.Faults.Outage {
		m.outageSteps(s)
	}
	if m.cfg.Faults.Failover {
		m.failoverSteps(s)
	}
}

// loseTag drops tag k's version and marks. The next reader or writer makes a new
// version in one step (a set-if-absent), so no step observes the gap.
func (m *machine) loseTag(n *state, k int) {
	for i := range n.w {
		n.w[i].marks &^= 1 << k
	}
	if m.cfg.Protocol.FreshAfterLoss {
		m.renew(n, k)
	} else {
		n.ver[k] = 1
	}
}

// relaySteps emits the deliveries possible. A relay may take a row the moment it
// is visible, while the writer that left it is still alive: the grace period the
// real one grants is a courtesy, not a safeguard.
func (m *machine) relaySteps(s *state) {
	for i := range m.cfg.Writers {
		if s.w[i].row != 0 && !s.down() {
			m.deliver(s, i)
		}
	}
	if s.flags&fRelayOld == 0 {
		return
	}
	n := *s
	n.flags &^= fRelayOld
	if m.cfg.Protocol.Replay && n.flags&fRelayBumped != 0 {
		for k := range m.cfg.Tags {
			m.renew(&n, k)
		}
	}
	m.step(&n, aRelayNotice, 0)
}

func (m *machine) deliver(s *state, i int) {
	p, f := &m.cfg.Protocol, &m.cfg.Faults
	bumped := s.w[i].row - 1
	k := m.nthTag(i, bumped)
	if k < 0 { // all bumped: only in Fine does this show
		n := *s
		m.removeRow(&n, i)
		m.step(&n, aRelayDelete, i)
		if f.Crash {
			n = *s
			n.w[i].row = 1
			m.step(&n, aRelayCrash, i)
		}
		return
	}
	n := *s
	if s.flags&fRelayOld == 0 || !f.Split {
		m.bump(&n, i, k)
	}
	if f.Failover {
		n.flags |= fRelayBumped
	}
	n.w[i].row++
	last := m.nthTag(i, bumped+1) < 0
	if m.cfg.Fine || !last {
		m.stepTag(&n, aDeliver, i, k)
	} else {
		// Between the last bump and the delete no step reads the row.
		done := n
		m.removeRow(&done, i)
		m.stepTag(&done, aDeliver, i, k)
	}
	if f.Crash {
		n.w[i].row = 1
		m.stepTag(&n, aDeliverCrash, i, k)
		if !p.RelayDeletesLast {
			n := *s
			m.removeRow(&n, i)
			m.step(&n, aRelayDelete, i)
		}
	}
}

func (m *machine) outageSteps(s *state) {
	n := *s
	switch {
	case s.flags&fOutageDone == 0:
		n.flags |= fOutageDone | fDown
		m.step(&n, aDown, 0)
	case s.down():
		n.flags &^= fDown
		for i := range m.cfg.Writers {
			if m.cfg.Protocol.RecoveryGate && n.w[i].row != 0 {
				n.w[i].flags |= fGate
			}
		}
		m.step(&n, aUp, 0)
	}
}

// failoverSteps emits the copy falling behind, and its promotion.
func (m *machine) failoverSteps(s *state) {
	p := &m.cfg.Protocol
	if s.flags&fFailedOver == 0 {
		n := *s
		n.old.ver, n.old.entry = s.ver, s.entry
		for i := range m.cfg.Writers {
			n.w[i].marks = s.w[i].marks&0xf | s.w[i].marks<<4
		}
		m.step(&n, aSync, 0)

		n = *s
		n.flags |= fFailedOver
		n.entry, n.old.entry = s.old.entry, noEntry
		for i := range m.cfg.Writers {
			w := &n.w[i]
			w.marks >>= 4
			if w.pc != wEnded && (w.pc != wIdle || m.cfg.Faults.Split) {
				w.flags |= fOld
			}
		}
		if m.cfg.Faults.Split || n.flags&fRelayBumped != 0 {
			n.flags |= fRelayOld
		}
		for k := range m.cfg.Tags {
			n.ver[k] = s.old.ver[k]
			if p.MixIdentity && p.IdentityWithReply {
				m.renew(&n, k) // the same version under a new identity
			}
		}
		if p.MixIdentity && !p.IdentityWithReply {
			n.flags |= fIdentityOld
		}
		m.step(&n, aFailover, 0)
	}
	if s.flags&fIdentityOld != 0 {
		n := *s
		n.flags &^= fIdentityOld
		for k := range m.cfg.Tags {
			m.renew(&n, k)
		}
		m.step(&n, aLearnIdentity, 0)
	}
}

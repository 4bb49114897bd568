package model

// writerSteps emits what writer i's process may do next.
func (m *machine) writerSteps(s *state, i int) {
	p, f := &m.cfg.Protocol, &m.cfg.Faults
	w := &s.w[i]
	switch w.pc {
	case wIdle:
		if m.cfg.Fine {
			n := *s
			n.w[i].pc = wTxn
			m.step(&n, aBegin, i)
			return
		}
		m.inTransaction(s, i) // statements and outbox row are invisible before COMMIT
	case wTxn:
		m.inTransaction(s, i)
	case wFencing:
		m.fence(s, i)
	case wFenced, wUnfenced:
		m.end(s, i)
	case wExpired:
		if !p.LeaseCheck {
			m.end(s, i)
			break
		}
		n := *s
		n.w[i].at = 0
		m.fence(&n, i)
		if f.Rollback {
			m.rollBack(s, i, aRollback)
		}
	case wCommitted, wRolledBack:
		m.bumpNext(s, i)
	case wBumped:
		m.acknowledge(*s, i, action{kind: aAck, actor: uint8(i)})
	case wAcked:
		n := *s
		m.removeRow(&n, i)
		n.w[i].pc = wDone
		m.step(&n, aDeleteRow, i)
	}
	if f.Crash && w.pc != wUnknown && w.pc != wEnded && (w.pc != wIdle && w.pc != wDone || m.mayReplay(s, i)) {
		n := *s
		n.w[i].pc, n.w[i].at = wEnded, 0
		n.w[i].flags &^= fOld
		m.step(&n, aCrash, i)
	}
	if w.flags&fOld != 0 {
		n := *s
		n.w[i].flags &^= fOld
		if p.Replay && (w.pc == wBumped || w.pc == wAcked || w.pc == wDone) {
			for k := range m.cfg.Tags {
				if m.cfg.touches(i)&(1<<k) != 0 {
					m.bump(&n, i, k)
				}
			}
		}
		m.step(&n, aNotice, i)
	}
}

// mayReplay reports whether a process that has finished its write still matters:
// it remembers its bump and would send it again.
func (m *machine) mayReplay(s *state, i int) bool {
	return s.w[i].pc == wDone && m.cfg.Faults.Failover && (s.flags&fFailedOver == 0 || s.w[i].flags&fOld != 0)
}

// databaseSteps emits what happens to writer i's transaction and marks without its doing.
func (m *machine) databaseSteps(s *state, i int) {
	w := &s.w[i]
	if w.pc == wUnknown {
		n := *s
		m.commitNow(&n, i)
		n.w[i].pc = wEnded
		m.step(&n, aCommitsLate, i)
		n = *s
		n.w[i].pc = wEnded
		m.step(&n, aAborts, i)
	}
	if !m.cfg.Faults.Expiry {
		return
	}
	for k := range m.cfg.Tags {
		// The lease runs out by the writer's own clock too, whether or not the
		// store still holds the mark.
		inLease := w.pc == wFenced || w.pc == wFencing && m.fenced(i, w.at, k)
		if w.marks&(1<<k) == 0 && !(inLease && m.cfg.touches(i)&(1<<k) != 0) {
			continue
		}
		n := *s
		n.w[i].marks &^= 1 << k
		if inLease {
			n.w[i].pc, n.w[i].at = wExpired, 0
		}
		m.stepTag(&n, aExpire, i, k)
	}
}

// fenced reports whether tag k is among the first at tags writer i fences.
func (m *machine) fenced(i int, at uint8, k int) bool {
	for n := range at {
		if m.nthTag(i, n) == k {
			return true
		}
	}
	return false
}

func (m *machine) inTransaction(s *state, i int) {
	if m.cfg.Protocol.Fence {
		m.fence(s, i)
		return
	}
	m.end(s, i)
}

// fence marks the next tag. The marks of two tags are two requests to two nodes.
func (m *machine) fence(s *state, i int) {
	if s.down() || m.cfg.Faults.StoreErrors {
		n := *s
		n.w[i].pc, n.w[i].at = wUnfenced, 0
		if m.cfg.Protocol.RequireFence {
			m.rollBack(&n, i, aRefuse)
		} else {
			m.step(&n, aFenceFails, i)
		}
	}
	if s.down() {
		return
	}
	n := *s
	w := &n.w[i]
	k := m.nthTag(i, w.at)
	if w.flags&fOld == 0 || !m.cfg.Faults.Split {
		if m.cfg.Protocol.FenceRenews {
			m.renew(&n, k)
		}
		w.marks |= 1 << k
	}
	w.pc = wFencing
	w.at++
	if m.nthTag(i, w.at) < 0 {
		w.pc, w.at = wFenced, 0
	}
	m.stepTag(&n, aFence, i, k)
}

// end emits the possible outcomes of COMMIT. The lease has been checked: what
// "well inside" means is that it does not run out between here and the commit.
func (m *machine) end(s *state, i int) {
	n := *s
	m.commitNow(&n, i)
	n.w[i].pc, n.w[i].at = wCommitted, 0
	m.step(&n, aCommit, i)
	if m.cfg.Faults.Rollback {
		m.rollBack(s, i, aRollback)
	}
	if m.cfg.Faults.Unknown {
		n := *s
		n.w[i].pc, n.w[i].at = wUnknown, 0
		if !m.cfg.Protocol.UnknownLeavesMark && !n.down() {
			for k := range m.cfg.Tags {
				if m.cfg.touches(i)&(1<<k) != 0 {
					m.bump(&n, i, k)
				}
			}
		}
		m.step(&n, aUnknown, i)
	}
}

// commitNow makes writer i's transaction, outbox row included, visible.
func (m *machine) commitNow(n *state, i int) {
	w := &n.w[i]
	n.db++
	w.rank, w.row = n.db, 1
	if !m.cfg.Protocol.Relay {
		w.row = 0 // without a relay no process reads it
	}
	if m.cfg.Protocol.Fence && w.marks&m.cfg.touches(i) != m.cfg.touches(i) {
		n.flags |= fUnfenced
	}
}

func (m *machine) rollBack(s *state, i int, kind uint8) {
	n := *s
	w := &n.w[i]
	w.pc, w.at = wRolledBack, 0
	if !m.cfg.Protocol.Fence || w.marks == 0 {
		w.pc = wEnded // nothing was fenced
	}
	m.step(&n, kind, i)
}

// bumpNext bumps the next tag of a transaction that has ended.
func (m *machine) bumpNext(s *state, i int) {
	w := &s.w[i]
	rolledBack := w.pc == wRolledBack
	if !rolledBack && !m.cfg.Protocol.Bump {
		n := *s
		n.w[i].flags |= fNoDelete
		m.acknowledge(n, i, action{kind: aAck, actor: uint8(i)})
		return
	}
	if s.down() || m.cfg.Faults.StoreErrors {
		n := *s
		n.w[i].at = 0
		n.w[i].flags |= fNoDelete
		if rolledBack {
			n.w[i].pc = wEnded
			m.step(&n, aBumpFails, i)
		} else {
			m.acknowledge(n, i, action{kind: aBumpFails, actor: uint8(i)})
		}
	}
	if s.down() {
		return
	}
	n := *s
	k := m.nthTag(i, w.at)
	if w.flags&fOld == 0 || !m.cfg.Faults.Split {
		m.bump(&n, i, k)
	}
	n.w[i].at++
	a := action{kind: aBump, actor: uint8(i), tag: uint8(k)}
	switch {
	case m.nthTag(i, n.w[i].at) >= 0:
		m.emit(&n, a, 0)
	case rolledBack:
		n.w[i].pc, n.w[i].at = wDone, 0
		m.emit(&n, a, 0)
	case m.cfg.Fine:
		n.w[i].pc, n.w[i].at = wBumped, 0
		m.emit(&n, a, 0)
	default: // the sooner it is acknowledged, the more is promised
		m.acknowledge(n, i, a)
	}
}

func (m *machine) acknowledge(n state, i int, a action) {
	w := &n.w[i]
	n.acked = max(n.acked, w.rank)
	w.pc, w.at = wAcked, 0
	if w.flags&fNoDelete != 0 && !m.cfg.Protocol.RowOutlivesBump {
		m.removeRow(&n, i)
	}
	switch {
	case w.flags&fNoDelete != 0:
		w.pc, w.flags = wEnded, w.flags&^(fNoDelete|fOld) // nothing was bumped, nothing can be replayed
	case w.row == 0:
		w.pc = wDone
	}
	m.emit(&n, a, 0)
}

// removeRow removes writer i's outbox row; the gate waits for it no longer.
func (m *machine) removeRow(n *state, i int) {
	n.w[i].row = 0
	n.w[i].flags &^= fGate
}

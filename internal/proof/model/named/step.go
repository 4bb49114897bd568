package named

import (
	"fmt"
	"strings"
)

func (m *machine) steps(s state) {
	for i := range m.cfg.Writes {
		m.write(s, i)
	}
	for j := range m.cfg.Readers {
		m.read(s, j)
	}
	if s.entry.val != none {
		n := s
		n.entry = entry{val: none}
		m.emit(n, "the entry vanishes", "")
	}
	if s.known != 0 {
		n := s
		n.known = 0
		m.emit(n, "the process forgets which tags were named", "")
	}
	if m.atRest(s) && s.entry.val != none && s.entry.val < s.content && m.valid(s.entry, s.entry.named, s.ver) {
		m.emit(s, fmt.Sprintf("nothing is under way, and %d stays for %d", s.entry.val, s.content), Stuck)
	}
}

func (m *machine) atRest(s state) bool {
	for i := range m.cfg.Writes {
		if s.w[i].pc != wEnded {
			return false
		}
	}
	for j := range m.cfg.Readers {
		if s.r[j].pc != rIdle {
			return false
		}
	}
	return true
}

func (m *machine) renew(s *state, tag int) {
	s.ver[tag] = fresh
}

func (m *machine) write(s state, i int) {
	w, tag := &s.w[i], m.cfg.Writes[i].tag()
	said := func(what string) string { return fmt.Sprintf("writer %d of %s %s", i, names(1<<tag), what) }
	switch w.pc {
	case wIdle:
		m.renew(&s, tag)
		s.marks[tag] |= 1 << i
		w.pc = wFenced
		m.emit(s, said("fences"), "")
	case wFenced:
		if m.cfg.Writes[i] == Move {
			s.shows = tagA + tagB - s.shows
		}
		if tag == own || tag == int(s.shows) {
			s.content++
			w.rank = s.content
		}
		w.pc = wCommitted
		m.emit(s, said(fmt.Sprintf("commits %d, which shows %s", s.content, names(1<<s.shows))), "")
	case wCommitted:
		m.renew(&s, tag)
		s.marks[tag] &^= 1 << i
		s.acked = max(s.acked, w.rank)
		*w = writer{pc: wEnded}
		m.emit(s, said("bumps and acknowledges"), "")
	}
}

// valid says whether an entry's guard is made of the versions seen of own and of some tags.
func (m *machine) valid(e entry, judgedBy uint8, ver [tags]uint8) bool {
	for t := range tags {
		if (t == own || judgedBy&(1<<t) != 0) && e.guard[t] != ver[t] {
			return false
		}
	}
	return true
}

func (m *machine) read(s state, j int) {
	r := &s.r[j]
	said := func(format string, args ...any) string {
		return fmt.Sprintf("reader %d ", j) + fmt.Sprintf(format, args...)
	}
	switch r.pc {
	case rIdle:
		*r = reader{pc: rReading, minAcked: s.acked, minSeen: s.seen, reads: s.known}
		m.emit(s, said("asks"), "")
	case rReading:
		if r.got&gotTags == 0 {
			n := s
			m.versions(&n, j)
			m.decide(n, j, said("reads the versions of %s", names(r.reads|1<<own)))
		}
		if r.got&gotEntry == 0 {
			n := s
			n.r[j].entry, n.r[j].got = s.entry, r.got|gotEntry
			m.decide(n, j, said("reads the entry"))
		}
	case rMissed:
		for i := range m.cfg.Readers {
			l := &s.r[i]
			if i == j || l.pc < rLoading || l.pc > rStoring || l.closed || l.ver != r.ver || l.reads != r.reads {
				continue
			}
			n := s
			if l.pc == rStoring {
				m.answer(n, j, l.val, said("takes what reader %d has loaded", i))
				continue
			}
			n.r[j].pc, n.r[j].waits = rWaiting, uint8(i)
			m.emit(n, said("joins the load of reader %d", i), "")
		}
		r.pc, r.entry = rLoading, entry{}
		m.emit(s, said("begins to load"), "")
	case rLoading:
		r.pc, r.val, r.named = rLoaded, s.content, 1<<s.shows
		m.emit(s, said("loads %d, which names %s", s.content, names(r.named)), "")
	case rLoaded:
		m.loaded(s, j, said)
	case rStoring:
		n := s
		guard := r.ver
		for t := tagA; t < tags; t++ {
			switch {
			case r.named&(1<<t) == 0:
				guard[t] = 0
			case r.reads&(1<<t) == 0:
				guard[t] = s.ver[t]
			}
		}
		n.entry = entry{r.val, r.named, guard}
		n.r[j] = reader{}
		m.emit(n, said("stores %d", r.val), "")
		s.r[j] = reader{}
		m.emit(s, said("stores nothing"), "")
	}
}

// versions reads them, and whether there are marks.
func (m *machine) versions(s *state, j int) {
	r := &s.r[j]
	r.got |= gotTags
	r.ver, r.fenced = [tags]uint8{}, false
	for t := range tags {
		if t == own || r.reads&(1<<t) != 0 {
			r.ver[t] = s.ver[t]
			r.fenced = r.fenced || s.marks[t] != 0
		}
	}
}

// decide goes on when reader j has read all it wants.
func (m *machine) decide(s state, j int, what string) {
	r := &s.r[j]
	if r.got != gotTags|gotEntry {
		m.emit(s, what, "")
		return
	}
	if r.fenced { // what it loads now is the newest there is, and is stored nowhere
		m.answer(s, j, s.content, what+", finds a mark and loads")
		return
	}
	e := r.entry
	judgedBy := e.named
	switch {
	case e.val == none:
	case e.named&^r.reads != 0 && m.cfg.Protocol.GoByEntry:
		r.reads |= e.named
		r.got, r.entry, r.ver = 0, entry{}, [tags]uint8{}
		m.emit(s, what+", whose load named more", "")
		return
	default:
		judgedBy &= r.reads
		if m.valid(e, judgedBy, r.ver) {
			s.known = e.named
			m.answer(s, j, e.val, what+": a hit")
			return
		}
	}
	r.pc, r.got, r.entry = rMissed, 0, entry{}
	m.emit(s, what+": a miss", "")
}

// loaded is what becomes of a load that has read the database.
func (m *machine) loaded(s state, j int, said func(string, ...any) string) {
	p, r := m.cfg.Protocol, &s.r[j]
	s.known = r.named
	covered := r.named&^r.reads == 0
	switch {
	case covered || !p.Repeat:
		m.finish(s, j, true, said("answers %d", r.val))
	case r.repeated:
		m.finish(s, j, !p.StoreOnlyCovered, said("answers %d, and has named yet another", r.val))
	default:
		what := said("has named more")
		if !p.WaitForRepeat {
			val := r.val
			for i := range m.cfg.Readers {
				if s.r[i].pc == rWaiting && s.r[i].waits == uint8(j) {
					n := s
					m.answer(n, i, val, what+fmt.Sprintf(", and answers %d to reader %d", val, i))
				}
			}
		}
		r.closed, r.repeated = p.Close, true
		r.reads |= r.named
		before := r.ver
		m.versions(&s, j)
		if !p.Close {
			r.ver, r.reads = before, r.reads&^r.named // what others join by
			r.closed = false
		}
		r.got, r.val, r.named = 0, 0, 0
		if r.fenced {
			m.finishWith(s, j, s.content, false, what+", finds a mark and loads")
			return
		}
		r.pc = rLoading
		m.emit(s, what+", reads its versions and loads again", "")
	}
}

func (m *machine) finish(s state, j int, store bool, what string) {
	m.finishWith(s, j, s.r[j].val, store, what)
}

// finishWith answers reader j and all who wait for its load. Then it may store it.
func (m *machine) finishWith(s state, j int, val uint8, store bool, what string) {
	wrong := m.wrong(s, j, val)
	seen := max(s.seen, val)
	for i := range m.cfg.Readers {
		if s.r[i].pc == rWaiting && s.r[i].waits == uint8(j) {
			if w := m.wrong(s, i, val); w != "" {
				wrong, what = w, what+fmt.Sprintf(", also to reader %d, who asked later", i)
			}
			s.r[i] = reader{}
		}
	}
	s.seen = seen
	if store {
		s.r[j].pc, s.r[j].minAcked, s.r[j].minSeen, s.r[j].val = rStoring, 0, 0, val
	} else {
		s.r[j] = reader{}
	}
	m.emit(s, what, wrong)
}

func (m *machine) wrong(s state, j int, val uint8) Wrong {
	switch {
	case val < s.r[j].minAcked:
		return Stale
	case val < s.r[j].minSeen:
		return Inversion
	}
	return ""
}

func (m *machine) answer(s state, j int, val uint8, what string) {
	wrong := m.wrong(s, j, val)
	s.seen = max(s.seen, val)
	s.r[j] = reader{}
	m.emit(s, fmt.Sprintf("%s, and answers %d", what, val), wrong)
}

func names(mask uint8) string {
	var list []string
	for t, name := range [...]string{"own", "a", "b"} {
		if mask&(1<<t) != 0 {
			list = append(list, name)
		}
	}
	return strings.Join(list, " and ")
}

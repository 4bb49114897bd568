package model

import (
	"fmt"
	"strings"
)

// describe puts one step into a sentence.
func (m *machine) describe(before *state, a action, after *state) string {
	w := fmt.Sprintf("writer %d", a.actor+1)
	r := fmt.Sprintf("reader %d", a.actor+1)
	tag, tags := m.tagName(int(a.tag)), "the tag"
	if m.cfg.Tags > 1 {
		tags = "the tags"
	}
	switch a.kind {
	case aBegin:
		return w + " runs its statements; its outbox row is in the transaction"
	case aFence:
		return fmt.Sprintf("%s fences %s: %s, marked%s", w, tag, version(after.ver[a.tag]), lost(before, a.actor, m.cfg.Faults.Split))
	case aFenceFails:
		return w + " cannot fence and goes on with the outbox alone"
	case aRefuse:
		return w + " cannot fence and rolls back"
	case aCommit:
		return fmt.Sprintf("%s commits: the database holds %d%s", w, after.db, m.fencedNote(before, a.actor))
	case aRollback:
		return w + " rolls back"
	case aUnknown:
		return w + " sends COMMIT and gets no answer; its caller gets an error"
	case aCommitsLate:
		return fmt.Sprintf("writer %d's COMMIT lands after all: the database holds %d%s", a.actor+1, after.db, m.fencedNote(before, a.actor))
	case aAborts:
		return fmt.Sprintf("writer %d's transaction is aborted by the database", a.actor+1)
	case aBump:
		text := fmt.Sprintf("%s bumps %s", w, tag)
		if !m.cfg.Protocol.Versions {
			text = w + " deletes the entry"
		} else if after.ver[a.tag] != before.ver[a.tag] {
			text += " to " + version(after.ver[a.tag])
		}
		text += lost(before, a.actor, m.cfg.Faults.Split)
		if before.w[a.actor].pc == wCommitted && after.w[a.actor].pc >= wAcked {
			text += " and acknowledges" + ackNote(before, a.actor)
		}
		return text
	case aBumpFails:
		if before.w[a.actor].pc == wRolledBack {
			return w + " cannot remove its mark"
		}
		return w + " cannot bump, leaves it to the relay and acknowledges" + ackNote(before, a.actor)
	case aAck:
		return w + " acknowledges" + ackNote(before, a.actor)
	case aDeleteRow:
		return w + " removes its outbox row"
	case aCrash:
		return w + " crashes"
	case aNotice:
		return w + " notices the new identity of the store" + replayed(before, after)
	case aExpire:
		return fmt.Sprintf("the lease of writer %d's mark on %s runs out", a.actor+1, tag)
	case aEvictTag:
		return fmt.Sprintf("the store loses %s; it comes back as %s, unmarked", tag, version(after.ver[a.tag]))
	case aEvictEntry:
		return "the entry is evicted"
	case aDeliver, aDeliverCrash:
		text := fmt.Sprintf("the relay bumps %s to %s for writer %d's row", tag, version(after.ver[a.tag]), a.actor+1)
		if before.flags&fRelayOld != 0 && m.cfg.Faults.Split {
			text = fmt.Sprintf("the relay bumps %s for writer %d's row, in the old store", tag, a.actor+1)
		}
		if a.kind == aDeliverCrash {
			return text + " and crashes before it deletes it"
		}
		if after.w[a.actor].row == 0 {
			text += " and deletes it"
		}
		return text
	case aRelayDelete:
		return fmt.Sprintf("the relay deletes writer %d's row", a.actor+1)
	case aRelayCrash:
		return "the relay crashes"
	case aRelayNotice:
		return "the relay notices the new identity of the store" + replayed(before, after)
	case aDown:
		return "the store becomes unreachable"
	case aUp:
		return "the store is back"
	case aSync:
		return "the replica catches up"
	case aFailover:
		return fmt.Sprintf("failover: the older copy takes over, %s %s, %s", tags, versions(after.ver[:m.cfg.Tags]), entryText(m, &after.entry))
	case aLearnIdentity:
		return fmt.Sprintf("the processes see the identity of the store: %s effectively %s", tags, versions(after.ver[:m.cfg.Tags]))
	case aArrive:
		return r + " arrives"
	case aReadTag:
		text := fmt.Sprintf("%s reads %s: %s", r, tag, version(before.ver[a.tag]))
		if before.marked(int(a.tag)) {
			text += ", marked"
		}
		return text + m.outcome(before, a, after)
	case aReadEntry:
		return fmt.Sprintf("%s reads the entry: %s%s", r, entryText(m, &before.entry), m.outcome(before, a, after))
	case aBypass:
		return r + " finds no store it may trust" + m.outcome(before, a, after)
	case aLoadBegins:
		return r + " begins a load"
	case aLoad:
		return fmt.Sprintf("%s loads %d from the database%s", r, before.db, m.loaded(before, a, after))
	case aJoin:
		return strings.TrimPrefix(m.outcome(before, a, after), ", ")
	case aReturn:
		return fmt.Sprintf("%s returns %d", r, before.r[a.actor].val)
	case aStore:
		if a.outcome == oDropped {
			return r + "'s load finds a mark and stores nothing"
		}
		return fmt.Sprintf("%s's load stores %s", r, entryText(m, &after.entry))
	case aAbandon:
		return r + "'s load ends without storing"
	}
	return fmt.Sprintf("step %d", a.kind)
}

func (m *machine) outcome(before *state, a action, after *state) string {
	r := before.r[a.actor]
	val := r.val
	if a.kind == aReadEntry {
		val = before.entry.val
	}
	verb := "returns"
	if m.cfg.Fine {
		verb = "will return"
	}
	switch a.outcome {
	case oHit:
		return fmt.Sprintf(", a hit: %s %d", verb, val)
	case oServeExpired:
		return fmt.Sprintf(", valid but expired by time: %s %d and refreshes behind", verb, val)
	case oServeInvalid:
		return fmt.Sprintf(", invalid, yet %s %d and refreshes behind", verb, val)
	case oMiss:
		return ", a miss"
	case oExpired:
		return ", valid but too old: a miss"
	case oJoin:
		return fmt.Sprintf(", joins reader %d's load: %s %d", a.with+1, verb, before.r[a.with].val)
	case oMarked:
		if after.r[a.actor].pc == rIdle {
			return fmt.Sprintf(", goes to the database: returns %d, stores nothing", before.db)
		}
		return ", will go to the database"
	}
	return ""
}

func (m *machine) loaded(before *state, a action, after *state) string {
	r := after.r[a.actor]
	text := " and returns it"
	if m.cfg.Fine || before.r[a.actor].flags&fReturned != 0 {
		text = ""
	}
	switch {
	case r.flags&fFenced != 0 && m.cfg.Protocol.FencedStoreNothing:
		return text + "; it will not be stored"
	case m.cfg.Protocol.Versions && m.cfg.Protocol.GuardBeforeLoad:
		return fmt.Sprintf("%s; to be stored under %s", text, versions(r.ver[:m.cfg.Tags]))
	}
	return text + "; to be stored"
}

func (m *machine) fencedNote(before *state, i uint8) string {
	if !m.cfg.Protocol.Fence || before.w[i].marks&m.cfg.touches(int(i)) == m.cfg.touches(int(i)) {
		return ""
	}
	return " (no fence stands)"
}

func (m *machine) tagName(k int) string {
	if m.cfg.Tags == 1 {
		return "the tag"
	}
	return "tag " + string(rune('A'+k))
}

func ackNote(before *state, i uint8) string {
	return fmt.Sprintf(" write %d", before.w[i].rank)
}

func lost(before *state, i uint8, split bool) string {
	if split && before.w[i].flags&fOld != 0 {
		return " in the old store"
	}
	return ""
}

func replayed(before, after *state) string {
	if before.ver == after.ver {
		return ""
	}
	return " and replays its bumps: " + versions(after.ver[:])
}

func entryText(m *machine, e *entry) string {
	switch {
	case e.val == none:
		return "no entry"
	case m.cfg.Protocol.Versions:
		return fmt.Sprintf("%d under %s", e.val, versions(e.guard[:m.cfg.Tags]))
	}
	return fmt.Sprint(e.val)
}

// version prints a version; v0 is the constant a lost tag comes back as.
func version(v uint8) string { return fmt.Sprintf("v%d", int(v)-1) }

func versions(vs []uint8) string {
	var parts []string
	for _, v := range vs {
		if v != 0 {
			parts = append(parts, version(v))
		}
	}
	return strings.Join(parts, "/")
}

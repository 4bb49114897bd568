package soak

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"pgregory.net/rapid"
)

// scenario builds the history of one key by hand; times are in milliseconds.
type scenario struct {
	writes map[int64]*write
	rows   []row
	reads  []read
	deaths map[int]int64
	faults []window
}

const (
	key    = 7
	ms     = int64(time.Millisecond)
	near   = 10 * time.Millisecond
	repair = 100 * time.Millisecond
)

func newScenario() *scenario { return &scenario{writes: map[int64]*write{}, deaths: map[int]int64{}} }

// write adds a fenced and bumped write that was acknowledged, and returns it to be changed.
func (s *scenario) write(by int, value, begin, end int64) *write {
	w := &write{by: by, begin: begin * ms, end: end * ms, fenced: true, bumped: true, outcome: acknowledged}
	s.writes[value] = w
	s.rows = append(s.rows, row{keyValue{key, value}, false, value})
	return w
}

func (s *scenario) read(by int, value, begin, end int64) *read {
	s.reads = append(s.reads, read{keyValue{key, value}, begin * ms, end * ms, by, kindItem, 0})
	return &s.reads[len(s.reads)-1]
}

func (s *scenario) check() (Figures, []Violation) { return s.history().check() }

func (s *scenario) history() *segmentHistory {
	h := newHistory()
	h.writes, h.reads = s.writes, slices.Clone(s.reads)
	base := map[int]*commit{key: {
		keyValue: keyValue{key, 1}, Begin: longAgo, End: longAgo, FaultFreeFrom: longAgo, Deadline: longAgo, Outcome: acknowledged, BindsReaders: true,
	}}
	return h.endSegment(base, s.rows, s.deaths, s.faults, near, repair)
}

func (s *scenario) wantViolation(t *testing.T, what string) {
	t.Helper()
	_, wrong := s.check()
	switch {
	case what == "" && len(wrong) > 0:
		t.Errorf("found violations in a history that has none: %v", wrong)
	case what != "" && (len(wrong) == 0 || !strings.Contains(wrong[0].What, what)):
		t.Errorf("found %v, want that something is %q", wrong, what)
	}
}

func TestCheckerFindsWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name  string
		want  string // empty: nothing
		build func(*scenario)
	}{
		{"read after the acknowledgement", "", func(s *scenario) { s.write(1, 2, 0, 10); s.read(2, 2, 11, 12) }},
		{"old after the acknowledgement", "stale after", func(s *scenario) { s.write(1, 2, 0, 10); s.read(2, 1, 11, 12) }},
		{"old while it is written", "", func(s *scenario) { s.write(1, 2, 0, 10); s.read(2, 1, 9, 12) }},
		{"new while it is written", "", func(s *scenario) { s.write(1, 2, 0, 10); s.read(2, 2, 1, 2); s.read(3, 1, 1, 2) }},
		{"new and then old", "what had been read before", func(s *scenario) { s.write(1, 2, 0, 10); s.read(2, 2, 1, 2); s.read(3, 1, 3, 4) }},
		{"before it was begun", "before it was written", func(s *scenario) { s.write(1, 2, 10, 20); s.read(2, 2, 1, 2) }},
		{"never committed", "never committed", func(s *scenario) { s.read(2, 5, 1, 2) }},
		{"own write", "its own write", func(s *scenario) { s.write(1, 2, 0, 10).fenced = false; s.read(1, 1, 11, 12) }},

		{"unfenced, new and then old", "", func(s *scenario) {
			s.write(1, 2, 0, 10).fenced = false
			s.read(2, 2, 1, 2)
			s.read(3, 1, 3, 4)
		}},
		{"unfenced and bumped, old after the acknowledgement", "stale after", func(s *scenario) {
			s.write(1, 2, 0, 10).fenced = false
			s.read(3, 1, 11, 12)
		}},
		{"cut off: old until repaired", "", func(s *scenario) {
			w := s.write(1, 2, 0, 10)
			w.fenced, w.bumped = false, false
			s.read(3, 1, 100, 101)
		}},
		{"cut off: old after that", "longer than repairs", func(s *scenario) {
			w := s.write(1, 2, 0, 10)
			w.fenced, w.bumped = false, false
			s.read(3, 1, 111, 112)
		}},
		{"cut off: its own write", "its own write", func(s *scenario) {
			w := s.write(1, 2, 0, 10)
			w.fenced, w.bumped = false, false
			s.read(1, 1, 12, 13)
		}},
		{"cut off: repairs begin when the fault ends", "", func(s *scenario) {
			w := s.write(1, 2, 0, 10)
			w.fenced, w.bumped = false, false
			s.faults = []window{{"cut", 5 * ms, 500 * ms, false}}
			s.read(3, 1, 599, 601)
		}},
		{"cut off: and have an end", "longer than repairs", func(s *scenario) {
			w := s.write(1, 2, 0, 10)
			w.fenced, w.bumped = false, false
			s.faults = []window{{"cut", 5 * ms, 500 * ms, false}}
			s.read(3, 1, 601, 602)
		}},
		{"fence lost: new and then old", "", func(s *scenario) {
			s.write(1, 2, 0, 10)
			s.faults = []window{{"flush", 3 * ms, 4 * ms, true}}
			s.read(2, 2, 5, 6)
			s.read(3, 1, 7, 8)
		}},
		{"fence lost: old after the acknowledgement", "stale after", func(s *scenario) {
			s.write(1, 2, 0, 10)
			s.faults = []window{{"flush", 3 * ms, 4 * ms, true}}
			s.read(3, 1, 11, 12)
		}},
		{"fence not lost: new and then old", "what had been read", func(s *scenario) {
			s.write(1, 2, 0, 10)
			s.faults = []window{{"freeze", 3 * ms, 4 * ms, false}}
			s.read(2, 2, 5, 6)
			s.read(3, 1, 7, 8)
		}},

		{"killed writer: old, then new", "", func(s *scenario) {
			s.write(1, 2, 0, 0).outcome = 0
			s.deaths[1] = 20 * ms
			s.read(2, 1, 30, 31)
			s.read(2, 2, 32, 33)
		}},
		{"killed writer: new and then old", "what had been read", func(s *scenario) {
			s.write(1, 2, 0, 0).outcome = 0
			s.deaths[1] = 20 * ms
			s.read(2, 2, 30, 31)
			s.read(2, 1, 32, 33)
		}},
		{"killed writer: old for ever", "longer than repairs", func(s *scenario) {
			s.write(1, 2, 0, 0).outcome = 0
			s.deaths[1] = 20 * ms
			s.read(2, 1, 121, 122)
		}},
		{"external writer: old for a while", "", func(s *scenario) {
			w := s.write(externalWriter, 2, 0, 10)
			w.fenced, w.bumped = false, false
			s.read(2, 1, 50, 51)
		}},
		{"external writer: a fenced write follows", "stale after", func(s *scenario) {
			w := s.write(externalWriter, 2, 0, 10)
			w.fenced, w.bumped = false, false
			s.write(1, 3, 20, 30)
			s.read(2, 2, 31, 32)
		}},

		{"near within its bound", "", func(s *scenario) { s.write(1, 2, 0, 10); s.read(2, 1, 19, 21).Kind = kindNear }},
		{"near beyond", "near answer beyond", func(s *scenario) { s.write(1, 2, 0, 10); s.read(2, 1, 21, 22).Kind = kindNear }},
		{"near, its own write", "own write", func(s *scenario) { s.write(1, 2, 0, 10); s.read(1, 1, 11, 12).Kind = kindNear }},
		{"near binds no later read", "", func(s *scenario) {
			s.write(1, 2, 0, 10)
			s.read(2, 2, 1, 2).Kind = kindNear
			s.read(3, 1, 3, 4)
		}},

		{"not found and never removed", "never removed", func(s *scenario) { s.read(2, 0, 1, 2) }},
		{"removed", "", func(s *scenario) { s.write(1, 2, 0, 10); s.rows[0].absent = true; s.read(2, 0, 11, 12) }},
		{"removed, but still there", "stale after", func(s *scenario) { s.write(1, 2, 0, 10); s.rows[0].absent = true; s.read(2, 1, 11, 12) }},
		{"back again, but not found", "stale after", func(s *scenario) {
			s.write(1, 2, 0, 10)
			s.rows[0].absent = true
			s.write(1, 3, 20, 30)
			s.read(2, 0, 31, 32)
		}},
		{"removed twice: not found, found, not found", "", func(s *scenario) {
			s.write(1, 2, 0, 10)
			s.write(1, 3, 20, 30)
			s.write(1, 4, 40, 50)
			s.rows[0].absent, s.rows[2].absent = true, true
			s.read(2, 0, 1, 2)
			s.read(2, 3, 21, 22)
			s.read(2, 0, 41, 42)
		}},

		{"acknowledged and not in the database", "is lost", func(s *scenario) { s.write(1, 2, 0, 10); s.rows = nil }},
		{"failed and in the database", "was committed", func(s *scenario) { s.write(1, 2, 0, 10).outcome = notCommitted }},
		{"in the database and not begun by any writer", "not written by a client", func(s *scenario) { s.write(1, 2, 0, 10); clear(s.writes) }},
		{"never ended", "never ended", func(s *scenario) { s.write(1, 2, 0, 0).outcome = 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScenario()
			c.build(s)
			s.wantViolation(t, c.want)
		})
	}
}

// Porcupine knows nothing of requirements and bounds, only of registers. On strict histories both
// must come to the same verdict, whatever the history.
func TestCheckersAgree(t *testing.T) {
	legal, illegal := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		s := newScenario()
		moment := rapid.Int64Range(0, 60)
		// Writes of one row are committed one after the other, but may be long in being
		// begun and acknowledged.
		last := int64(0)
		for value := range rapid.Int64Range(0, 5).Draw(t, "writes") {
			value += 2
			begin := moment.Draw(t, "begin")
			committed := max(begin, last) + 1
			last = committed
			s.write(1, value, begin, committed+rapid.Int64Range(0, 10).Draw(t, "ack"))
			s.rows[len(s.rows)-1].absent = value%3 == 0
		}
		for range rapid.IntRange(1, 12).Draw(t, "reads") {
			begin := moment.Draw(t, "begin")
			value := rapid.Int64Range(1, 1+int64(len(s.rows))).Draw(t, "value")
			if value%3 == 0 {
				value = 0
			}
			s.read(2, value, begin, begin+rapid.Int64Range(0, 15).Draw(t, "takes"))
		}
		k := keyCheck{segmentHistory: s.history(), key: key, figures: &Figures{}}
		wrong := k.checkReads()
		if want := porcupineAccepts(s); (wrong == nil) != want {
			t.Fatalf("porcupine accepts: %t; found %v", want, wrong)
		}
		if wrong != nil {
			illegal++
			return
		}
		legal++
		if wrong := k.checkLinear(); wrong != nil {
			t.Fatalf("porcupine accepts all operations, but not those that stand for them: %v", wrong)
		}
	})
	if legal < 10 || illegal < 10 {
		t.Errorf("%d histories were linearizable and %d not: too few to compare", legal, illegal)
	}
}

// porcupineAccepts gives porcupine every operation of the scenario, unchanged.
func porcupineAccepts(s *scenario) bool {
	var ops []porcupine.Operation
	for _, r := range s.rows {
		w := s.writes[r.op]
		ops = append(ops, porcupine.Operation{ClientId: 1, Input: registerInput{true, r.Value, r.absent}, Call: w.begin, Return: w.end})
	}
	for _, r := range s.reads {
		ops = append(ops, porcupine.Operation{ClientId: 2, Input: registerInput{false, r.Value, r.Value == 0}, Call: r.Begin, Return: r.End})
	}
	return porcupine.CheckOperations(registerModel(registerState{value: 1}), ops)
}

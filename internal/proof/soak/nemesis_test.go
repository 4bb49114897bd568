package soak

import "testing"

// A seed gives one schedule, in which every fault is injected once before any is injected twice.
func TestScheduleFollowsItsSeed(t *testing.T) {
	draw := func(seed uint64) (list []injection) {
		s, err := newSchedule(seed, nil)
		if err != nil {
			t.Fatal(err)
		}
		for !s.done(3) {
			list = append(list, s.next())
		}
		return list
	}
	a, b, other := draw(42), draw(42), draw(43)
	if len(a) != 3*len(allFaults) {
		t.Fatalf("three rounds are %d injections, want %d", len(a), 3*len(allFaults))
	}
	injected := map[string]int{}
	same := 0
	for i := range a {
		if a[i].name != b[i].name || a[i].seed != b[i].seed || a[i].duration != b[i].duration || (a[i].with == nil) != (b[i].with == nil) {
			t.Errorf("injection %d of the same seed differs: %v and %v", i, a[i], b[i])
		}
		if a[i].name == other[i].name {
			same++
		}
		if w := a[i].with; w != nil && w.harms&a[i].harms != 0 {
			t.Errorf("%q and %q harm the same place at the same time", w.name, a[i].name)
		}
		injected[a[i].name]++
		if injected[a[i].name] > i/len(allFaults)+1 {
			t.Errorf("%q is injected again before all others have been", a[i].name)
		}
	}
	if same == len(a) {
		t.Error("two seeds give the same schedule")
	}
}

func TestUnknownFaultIsRefused(t *testing.T) {
	if _, err := newSchedule(1, []string{"no such thing"}); err == nil {
		t.Error("a fault that does not exist is scheduled")
	}
}

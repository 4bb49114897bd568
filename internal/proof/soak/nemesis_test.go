package soak

import "testing"

// A seed gives one schedule, in which every fault strikes once before any strikes twice.
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
	if len(a) != 3*len(faults) {
		t.Fatalf("three rounds are %d blows, want %d", len(a), 3*len(faults))
	}
	struck := map[string]int{}
	same := 0
	for i := range a {
		if a[i].name != b[i].name || a[i].seed != b[i].seed || a[i].duration != b[i].duration || (a[i].with == nil) != (b[i].with == nil) {
			t.Errorf("blow %d of the same seed differs: %v and %v", i, a[i], b[i])
		}
		if a[i].name == other[i].name {
			same++
		}
		if w := a[i].with; w != nil && target(*w) == target(a[i].fault) {
			t.Errorf("%q and %q strike the same place at the same time", w.name, a[i].name)
		}
		struck[a[i].name]++
		if struck[a[i].name] > i/len(faults)+1 {
			t.Errorf("%q strikes again before all others have struck", a[i].name)
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

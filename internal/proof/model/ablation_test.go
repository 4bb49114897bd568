package model

import (
	"reflect"
	"testing"
)

// ablation takes one mechanism away and names what goes wrong without it.
type ablation struct {
	off    string   // the switch
	also   []string // off in both systems: what would otherwise cover for it
	on     []string // on in both systems
	faults Faults
	broken Property
	needs  string // what the run shows
}

var ablations = []ablation{
	{off: "Versions", broken: StaleAfterAck, needs: "a load that began before the write stores after the delete"},
	{off: "Versions", broken: StuckStale, needs: "and nothing will ever remove it"},
	{off: "GuardBeforeLoad", broken: StaleAfterAck, needs: "the late fill takes the new version for its own"},
	{off: "GuardBeforeLoad", broken: StuckStale, needs: "and keeps it"},
	{off: "Fence", broken: Inversion, needs: "between COMMIT and bump a load sees the new value, a hit the old one"},
	{off: "FenceRenews", faults: Faults{Expiry: true}, broken: Inversion, needs: "the mark expires and the entry it hid is valid again"},
	{off: "MarkPerWriter", broken: UnfencedInversion, needs: "the first bump clears the mark of a writer still in flight"},
	{off: "Bypass", broken: Inversion, needs: "an entry stored under the fenced version is hit after COMMIT"},
	{off: "FencedStoreNothing", faults: Faults{Expiry: true}, broken: Inversion, needs: "what was loaded under the mark is valid once the mark expires"},
	{off: "LeaseCheck", faults: Faults{Expiry: true}, broken: UnfencedInversion, needs: "COMMIT comes after the lease"},
	{off: "RequireFence", on: []string{"RequireFence"}, faults: Faults{StoreErrors: true}, broken: StaleAfterAck, needs: "neither fence nor bump, and yet acknowledged"},
	{
		off: "Bump", also: []string{"LeaseCheck"}, faults: Faults{Expiry: true}, broken: StaleAfterAck,
		needs: "acknowledged while what was stored between the lease and a late COMMIT is valid",
	},
	{off: "UnknownLeavesMark", faults: Faults{Unknown: true}, broken: UnfencedInversion, needs: "the COMMIT given up for lost lands after the mark is gone"},
	{off: "RowOutlivesBump", faults: Faults{StoreErrors: true}, broken: StuckStale, needs: "the row is gone and nothing was bumped"},
	{off: "Relay", faults: Faults{Unknown: true, Expiry: true}, broken: StuckStale, needs: "no process is left to bump"},
	{off: "Relay", also: []string{"Fence"}, faults: Faults{Crash: true}, broken: StuckStale, needs: "the writer dies between COMMIT and bump"},
	{off: "RelayDeletesLast", faults: Faults{Unknown: true, Expiry: true, Crash: true}, broken: StuckStale, needs: "the relay dies between delete and bump"},
	{off: "FreshAfterLoss", faults: Faults{TagEviction: true}, broken: StaleAfterAck, needs: "lost twice, the version is the same twice"},
	{off: "FreshAfterLoss", faults: Faults{TagEviction: true}, broken: StuckStale, needs: "and stays so"},
	{off: "MixIdentity", faults: Faults{Failover: true}, broken: StaleAfterAck, needs: "the older copy brings the old entry and the version it was stored under"},
	{off: "IdentityWithReply", faults: Faults{Failover: true}, broken: StaleAfterAck, needs: "a reply of the new store is read as one of the old"},
	{off: "Replay", faults: Faults{Failover: true, Split: true}, broken: StuckStale, needs: "the bump went to the old store"},
	{off: "RecoveryGate", faults: Faults{Outage: true}, broken: StaleAfterAck, needs: "written during the outage, read from the entry of before"},
	{off: "JoinSameVersions", broken: StaleAfterAck, needs: "a caller that saw the new version joins a load from before the write"},
	{off: "JoinAfterArrival", broken: StaleAfterAck, needs: "under another writer's mark a caller joins a load from before the write"},
	{off: "FencedLoadsApart", faults: Faults{Expiry: true}, broken: Inversion, needs: "a load begun under the mark has its version, but not what it saw"},
	{off: "StaleNeedsGuard", faults: Faults{Stale: true}, broken: RevivedStale, needs: "what a write invalidated is served as if only time had passed"},
}

func (a ablation) configs(t *testing.T) (whole, ablated Config) {
	whole = Config{Writers: 2, Readers: 2, Tags: 1, Protocol: without(t, a.also...), Faults: a.faults}
	if raceEnabled && a.faults.Failover {
		whole.Writers = 1
	}
	for _, name := range a.on {
		set(t, &whole.Protocol, name, true)
	}
	ablated = whole
	set(t, &ablated.Protocol, a.off, false)
	whole.Name, ablated.Name = "with "+a.off, "without "+a.off
	return whole, ablated
}

// TestEveryMechanismIsNeeded takes each mechanism away. If nothing goes wrong
// then, either the mechanism has no purpose or the model misses its purpose.
func TestEveryMechanismIsNeeded(t *testing.T) {
	t.Parallel()
	out := newResultTable(t, len(ablations))
	for i, a := range ablations {
		t.Run("without "+a.off+"/"+a.broken.String(), func(t *testing.T) {
			t.Parallel()
			whole, ablated := a.configs(t)
			if r := mustCheck(t, whole, Options{}); r.Wrong[a.broken] != 0 {
				t.Errorf("%s even %s:\n%s", a.broken, whole.Name, r.Traces[a.broken])
			}
			r := mustCheck(t, ablated, Options{StopAt: a.broken})
			out.set(i, r)
			if r.Wrong[a.broken] == 0 {
				t.Fatalf("%s, and nothing is %s in %d states", ablated.Name, a.broken, r.States)
			}
			t.Logf("%s: %s\n%s", ablated.Name, a.needs, r.Traces[a.broken])
		})
	}
}

// TestNoMechanismIsForgotten: a switch without an ablation proves nothing.
func TestNoMechanismIsForgotten(t *testing.T) {
	covered := map[string]bool{}
	for _, a := range ablations {
		covered[a.off] = true
	}
	for field := range reflect.TypeFor[Protocol]().Fields() {
		if !covered[field.Name] {
			t.Errorf("no ablation takes %s away", field.Name)
		}
	}
}

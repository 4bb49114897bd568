package model

import (
	"fmt"
	"strings"
	"testing"
)

// The usual way to keep a cache in step with a database, and the shortest run
// that shows why it is not enough: the load began before the write, its value
// arrives after the delete, and nothing will ever remove it.
func ExampleCheck() {
	r, err := Check(Config{
		Name: "delete after commit", Writers: 1, Readers: 1, Tags: 1,
		Protocol: Protocol{Bump: true},
	}, Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(r.Traces[StuckStale])
	// Output:
	//   1. reader 1 reads the entry: no entry, a miss
	//   2. reader 1 loads 0 from the database and returns it; to be stored
	//   3. writer 1 commits: the database holds 1
	//   4. writer 1 deletes the entry and acknowledges write 1
	//   5. reader 1's load stores 0
	//   => stuck stale: the entry is valid and holds 0, the database holds 1, and nothing will repair it
}

// With every step on its own, a run is longer and hides nothing.
func ExampleCheck_fine() {
	r, err := Check(Config{
		Name: "delete after commit", Writers: 1, Readers: 1, Tags: 1,
		Protocol: Protocol{Bump: true}, Fine: true,
	}, Options{StopAt: StaleAfterAck})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(r.Traces[StaleAfterAck])
	// Output:
	//   1. writer 1 runs its statements; its outbox row is in the transaction
	//   2. reader 1 arrives
	//   3. reader 1 reads the entry: no entry, a miss
	//   4. reader 1 begins a load
	//   5. reader 1 loads 0 from the database; to be stored
	//   6. writer 1 commits: the database holds 1
	//   7. writer 1 deletes the entry
	//   8. writer 1 acknowledges write 1
	//   9. reader 1 returns 0
	//  10. reader 1's load stores 0
	//  11. reader 1 arrives
	//  12. reader 1 reads the entry: 0, a hit: will return 0
	//  13. reader 1 returns 0
	//   => stale after ack: write 1 was acknowledged before this read began
}

func TestCheckReportsEverythingWrong(t *testing.T) {
	_, err := Check(Config{
		Name: "nonsense", Writers: 9, Readers: -1, Tags: 1, Touch: [MaxWriters]uint8{0b10},
		Faults: Faults{Split: true, Outage: true},
	}, Options{})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`"nonsense"`, "Writers is 9, want 1 to 3", "Readers is -1", "Touch[0] is 0b10", "Split is set without Failover", "Outage is set without Relay"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestCheckGivesUpAtItsBound(t *testing.T) {
	r, err := Check(Config{Name: "bounded", Writers: 2, Readers: 2, Tags: 1, Protocol: Full()}, Options{MaxStates: 100})
	if err == nil || !strings.Contains(err.Error(), "more than 100 states") {
		t.Errorf("err = %v, want it to name the bound", err)
	}
	if r.Complete {
		t.Error("says it is complete")
	}
}

func TestReport(t *testing.T) {
	var b strings.Builder
	err := Report(&b, []Result{
		{Config: Config{Name: "whole", Writers: 2, Readers: 3, Tags: 1}, States: 1234567, Transitions: 999, Complete: true},
		{Config: Config{Name: "cut short", Writers: 1, Readers: 1, Tags: 2}, States: 10, Transitions: 20, Wrong: map[Property]int{Inversion: 3}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| whole | 2 | 3 | 1 | 1,234,567 | 999 | 0 | 0 | 0 | 0 | 0 | 0s |",
		"| cut short | 1 | 1 | 2 | 10+ | 20+ | 0+ | 3+ | 0+ | 0+ | 0+ | 0s |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no row %q in\n%s", want, b.String())
		}
	}
}

package measure_test

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := measure.Median(c.values); got != c.want {
			t.Errorf("the median of %v is %v, want %v", c.values, got, c.want)
		}
	}
}

// A machine that is slow in some rounds must not show in the ratio.
func TestRatioIsTakenWithinRounds(t *testing.T) {
	s := &measure.Samples{}
	for round, slow := range []float64{1, 10, 3, 100} {
		s.Add(round, "case", "a", measure.PerCall, 200*slow)
		s.Add(round, "case", "b", measure.PerCall, 100*slow)
		s.Add(round, "other", "a", measure.PerCall, 600*slow)
	}
	if got, ok := s.Ratio("case", measure.PerCall, "a", "b"); !ok || got != 2 {
		t.Errorf("a takes %v times as long as b (%v), want 2", got, ok)
	}
	if got, ok := s.Growth("a", measure.PerCall, "other", "case"); !ok || got != 3 {
		t.Errorf("a takes %v times as long in the other case (%v), want 3", got, ok)
	}
	if _, ok := s.Ratio("case", measure.PerCall, "a", "absent"); ok {
		t.Error("there is a ratio to what was not measured")
	}
}

func TestTurnsInterleaveAndCount(t *testing.T) {
	var order []string // one worker at a time
	subject := func(name string) measure.Subject {
		return measure.Subject{Name: name, Op: func(i uint32) error {
			if i > 2 {
				t.Errorf("%s is asked for %d, which is not in the sequence", name, i)
			}
			if len(order) == 0 || order[len(order)-1] != name {
				order = append(order, name)
			}
			return nil
		}}
	}
	s := &measure.Samples{}
	turns := measure.Turns{Case: "c", Workers: 1, Sequence: []uint32{0, 1, 2}, Slice: 2 * time.Millisecond, Rounds: 2, Latency: true}
	if err := turns.Run(t.Context(), []measure.Subject{subject("a"), subject("b")}, s); err != nil {
		t.Fatal(err)
	}
	// The first pair is the warming up. Back and forth puts the same subject at the end
	// of one round and at the beginning of the next.
	if got := strings.Join(order, " "); got != "a b a b" {
		t.Errorf("turns were %q, want back and forth", got)
	}
	for _, metric := range []string{measure.PerCall, measure.Rate, measure.P50, measure.P99} {
		if sum := s.Summary("c", "a", metric); sum.N != 2 || sum.Median <= 0 {
			t.Errorf("%s: %+v, want two values above nought", metric, sum)
		}
	}
}

func TestTurnsRefuseWhatFails(t *testing.T) {
	var calls atomic.Int64
	failing := measure.Subject{Name: "bad", Op: func(uint32) error {
		if calls.Add(1)%10 == 0 {
			return errors.New("the tenth fails")
		}
		return nil
	}}
	turns := measure.Turns{Case: "c", Workers: 2, Sequence: []uint32{0, 0}, Slice: 5 * time.Millisecond, Rounds: 1}
	err := turns.Run(t.Context(), []measure.Subject{failing}, &measure.Samples{})
	if err == nil || !strings.Contains(err.Error(), "the tenth fails") {
		t.Errorf("a subject that fails one time in ten is measured: %v", err)
	}
}

func TestMeanwhileRunsDuringItsSubject(t *testing.T) {
	var on atomic.Bool
	s := measure.Subject{
		Name:      "a",
		Meanwhile: func() func() { on.Store(true); return func() { on.Store(false) } },
		Op: func(uint32) error {
			if !on.Load() {
				return errors.New("nothing else goes on")
			}
			return nil
		},
	}
	other := measure.Subject{Name: "b", Op: func(uint32) error {
		if on.Load() {
			return errors.New("what belongs to a goes on")
		}
		return nil
	}}
	turns := measure.Turns{Case: "c", Workers: 1, Sequence: []uint32{0}, Slice: time.Millisecond, Rounds: 2}
	if err := turns.Run(t.Context(), []measure.Subject{s, other}, &measure.Samples{}); err != nil {
		t.Error(err)
	}
}

func TestCSV(t *testing.T) {
	s := &measure.Samples{Experiment: "e"}
	s.Add(1, "a, b", "x", "ns", 1.5)
	var b strings.Builder
	if err := s.WriteCSV(&b); err != nil {
		t.Fatal(err)
	}
	if want := "experiment,case,subject,metric,round,value\ne,\"a, b\",x,ns,1,1.5\n"; b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestProcessorTimeIsReadFromOutside(t *testing.T) {
	before, began := measure.ProcessCPU(), time.Now()
	for i := 0; measure.ProcessCPU()-before < 20*time.Millisecond; i++ {
		if time.Since(began) > time.Minute {
			t.Fatal("this process got no processor")
		}
	}
	own := measure.ProcessCPU()
	other, err := measure.CPUOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if diff := (other - own).Abs(); diff > 10*time.Millisecond {
		t.Errorf("from outside %v, from inside %v", other, own)
	}
	// Linux numbers no process so high.
	if _, err := measure.CPUOf(1 << 22); err == nil {
		t.Error("a process that is not there has used a processor")
	}
}

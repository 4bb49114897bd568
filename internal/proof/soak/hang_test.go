package soak

import (
	"slices"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// Redis accepts and never answers, under 500 requests a second: no request fails, each pays
// for it at most once, and the database is not stormed.
func TestRedisHangsUnderPressure(t *testing.T) {
	const (
		workers  = 4
		rate     = 500
		duration = 4 * time.Second
		budget   = 50 * time.Millisecond
	)
	f := fleet(t, FleetConfig{Workers: workers, StoreTimeout: budget}, nil)
	callAll(t, f, request{ReadAll: true}) // everything is in the cache
	began := now()
	frozen := make(chan int64, 1)
	go func() {
		_ = wait(t.Context(), time.Second)
		at := now()
		if err := f.server().Freeze(); err != nil {
			t.Error(err)
		}
		frozen <- at
	}()
	replies := callAll(t, f, request{OpenLoop: &openLoopRequest{Rate: rate / workers, For: duration}})
	at := <-frozen
	testservers.Must(t, f.server().Thaw())

	var before, first, later []time.Duration
	requests := 0
	for m, answer := range replies {
		for _, s := range answer.OpenLoop.Samples {
			requests++
			if s.Err != "" {
				t.Fatalf("a request failed: %s", s.Err)
			}
			switch added := max(s.Took-s.LoadTime, 0); { // beside reading the database
			case s.Begin < at:
				before = append(before, added)
			case s.Begin < at+int64(time.Second):
				first = append(first, added)
			default:
				later = append(later, added)
			}
		}
		if peak := answer.OpenLoop.PeakLoads; peak > 16 {
			t.Errorf("worker %d had %d loads at the same time, more than MaxLoads", m.number, peak)
		}
	}
	t.Logf("%d requests in %s; added by the cache, p50 and p99: %s before, %s in the first second, %s after that",
		requests, time.Duration(now()-began).Round(time.Millisecond), percentiles(before), percentiles(first), percentiles(later))
	if len(first) < rate/4 || len(later) < rate/2 {
		t.Fatalf("only %d requests came in the first second and %d later", len(first), len(later))
	}
	// The promises are 50 ms and 1 ms on a machine with nothing else to do.
	if p := percentile(first, 99); p > 10*budget {
		t.Errorf("in the first second the cache adds %s, want at most %s", p, budget)
	}
	if p := percentile(later, 50); p > budget {
		t.Errorf("with the breaker open the cache adds %s", p)
	}
}

type pair [2]time.Duration

func (p pair) String() string {
	return p[0].Round(time.Microsecond).String() + " and " + p[1].Round(time.Microsecond).String()
}

func percentiles(d []time.Duration) pair { return pair{percentile(d, 50), percentile(d, 99)} }

func percentile(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)*p/100, len(d)-1)]
}

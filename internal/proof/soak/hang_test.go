package soak

import (
	"slices"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// Redis accepts and never answers, under 500 requests a second. No request fails; each waits for
// at most one store call, and for that at most StoreTimeout; once the breaker is open no request
// waits at all; and the database sees no more loads at a time than MaxLoads.
//
// The test counts store calls and reads their deadlines, since a busy machine makes any request
// slow. The times are logged, and compared only with what timers of the same process were late.
func TestRedisHangsUnderPressure(t *testing.T) {
	const (
		workers      = 4
		rate         = 500
		duration     = 4 * time.Second
		storeTimeout = 50 * time.Millisecond
	)
	// Each request of a worker asks for a row of its own.
	f := startFleet(t, FleetConfig{Workers: workers, StoreTimeout: storeTimeout, Groups: 51, Keys: 10}, nil)
	callAll(t, f, request{ReadAll: true}) // everything is in the cache
	for _, m := range f.processes() {
		testservers.Must(t, f.waitUntilHealthy(t.Context(), m))
	}
	began := now()
	frozen := make(chan int64, 1)
	go func() {
		_ = wait(t.Context(), time.Second)
		if err := f.server().Freeze(); err != nil {
			t.Error(err)
		}
		frozen <- now()
	}()
	replies := callAll(t, f, request{OpenLoop: &openLoopRequest{Rate: rate / workers, For: duration}})
	at := <-frozen
	testservers.Must(t, f.server().Thaw())

	var before, waited, down, hung, delays []time.Duration
	calls, noSource := 0, 0
	for m, answer := range replies {
		result := answer.OpenLoop
		for _, s := range result.Samples {
			if s.Err != "" {
				t.Fatalf("a request failed: %s", s.Err)
			}
			calls += s.Calls.Begun
			if s.NoSource { // says nothing about the cache
				noSource++
				continue
			}
			added := max(s.Took-s.LoadTime, 0) // beside reading the database
			if s.Begin < at {
				before = append(before, added)
				continue
			}
			hung = append(hung, added)
			switch {
			case s.Calls.Failed > 1:
				t.Errorf("worker %d: a request waited for %d store calls that failed, want at most one", m.number, s.Calls.Failed)
			case s.Calls.Failed == 1:
				waited = append(waited, added)
			}
			if s.Down {
				down = append(down, added)
				if s.Calls.Begun > 0 {
					t.Errorf("worker %d: the breaker was open, and a request made %d store calls", m.number, s.Calls.Begun)
				}
			}
		}
		delays = append(delays, result.TimerDelays...)
		if result.LongestDeadline > storeTimeout || result.Unbounded > 0 {
			t.Errorf("worker %d: a store call may take %s, and %d calls have no deadline, want %s for all",
				m.number, result.LongestDeadline, result.Unbounded, storeTimeout)
		}
		if result.PeakLoads > 16 {
			t.Errorf("worker %d had %d loads at the same time, more than MaxLoads", m.number, result.PeakLoads)
		}
	}
	t.Logf("%d requests in %s; added by the cache, p50 and p99: %s before the freeze, %s to %d requests that waited, %s to %d with the breaker open; timers were late by %s; the database took no connection %d times",
		len(before)+len(hung), time.Duration(now()-began).Round(time.Millisecond), percentiles(before),
		percentiles(waited), len(waited), percentiles(down), len(down), percentiles(delays), noSource)
	if calls == 0 { // none need fail: on a busy machine the breaker may open before the freeze
		t.Error("no request made a store call: the calls are not counted")
	}
	if len(down) <= len(hung)/2 {
		t.Errorf("of %d requests during the freeze only %d found the breaker open", len(hung), len(down))
	}
	// The promise is 1 ms on a machine with nothing else to do. A request passes the scheduler
	// several times, a timer once.
	if p, late := percentile(hung, 50), percentile(delays, 50); p > storeTimeout+10*late {
		t.Errorf("half of the requests wait longer than %s for the cache, and timers are late by %s", p, late)
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

package load_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/bench/load"
)

func serve(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestClosedCountsAndTakesTurns(t *testing.T) {
	var a, b, tokens atomic.Int64
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/a":
			a.Add(1)
		case "/b":
			b.Add(1)
			if r.Method == http.MethodPost && r.Header.Get("Authorization") == "Bearer secret" {
				tokens.Add(1)
			}
			w.WriteHeader(http.StatusCreated)
		}
		_, _ = w.Write([]byte("answer"))
	})
	target := &load.Target{Addr: addr, Requests: []load.Request{
		{Path: "/a"}, {Method: "POST", Path: "/b", Token: "secret", Body: "{}", Accept: http.StatusCreated},
	}}
	o := load.Closed(t.Context(), target, 2, 50*time.Millisecond)
	if o.Failures > 0 {
		t.Fatalf("%d of %d requests failed: %v", o.Failures, o.Requests, o.Err)
	}
	if got := a.Load() + b.Load(); got != o.Requests || o.Latency.TotalCount() != got {
		t.Errorf("%d requests arrived, %d were counted and %d timed", got, o.Requests, o.Latency.TotalCount())
	}
	if diff := a.Load() - b.Load(); diff < -1 || diff > 1 {
		t.Errorf("one was asked for %d times, the other %d times, want turns", a.Load(), b.Load())
	}
	if tokens.Load() != b.Load() {
		t.Errorf("%d of %d requests bore the token and the method", tokens.Load(), b.Load())
	}
}

func TestFailuresCount(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusInternalServerError) })
	o := load.Closed(t.Context(), &load.Target{Addr: addr, Requests: []load.Request{{Path: "/"}}}, 1, 10*time.Millisecond)
	if o.Requests == 0 || o.Failures != o.Requests || !strings.Contains(o.Err.Error(), "broken") {
		t.Errorf("%d of %d failed with %v", o.Failures, o.Requests, o.Err)
	}
}

// While a server stands still, requests whose turn comes must be counted as waiting, though
// no connection can send them: that is what coordinated omission leaves out.
func TestOpenCountsTheWaiting(t *testing.T) {
	const rate, d, stop = 500, 400 * time.Millisecond, 200 * time.Millisecond
	var stood atomic.Bool
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if stood.CompareAndSwap(false, true) {
			select {
			case <-time.After(stop):
			case <-t.Context().Done():
			}
		}
		_, _ = w.Write([]byte("answer"))
	})
	o := load.Open(t.Context(), &load.Target{Addr: addr, Requests: []load.Request{{Path: "/"}}}, 1, rate, d)
	if o.Failures > 0 {
		t.Fatalf("%d failed: %v", o.Failures, o.Err)
	}
	if want := int64(rate * d.Seconds()); o.Requests != want {
		t.Errorf("%d requests, want %d whatever the server does", o.Requests, want)
	}
	// Half of the requests fell into the standstill and waited for what was left of
	// it, so that a quarter waited for at least half of it.
	if got := time.Duration(o.Latency.ValueAtQuantile(75)); got < stop/2 {
		t.Errorf("three quarters are answered within %v: the requests behind the slow one are left out", got)
	}
}

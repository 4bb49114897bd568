package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// concurrentGets sends n requests, all of which are waiting for a load before it goes on; what
// happens to the database then, happens while the load has begun.
func (s *testService) concurrentGets(n int, path, held, series string, then func()) []response {
	s.t.Helper()
	s.queries.hold(held)
	responses := make([]response, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			var err error
			if responses[i], err = s.try(request{path: path}); err != nil {
				s.t.Errorf("request %d: %v", i, err)
			}
		})
	}
	eventually(s.t, 30*time.Second, func() string {
		if waiting := s.metric(series); waiting != strconv.Itoa(n) {
			return fmt.Sprintf("%s of %d callers wait", waiting, n)
		}
		return ""
	})
	then()
	s.queries.release()
	wg.Wait()
	return responses
}

const (
	listStatement   = "WITH page AS"
	detailStatement = "content_hash"
	waitingForList  = `cache_waiters{namespace="courses",query="list"}`
	waitingForOne   = `cache_waiters{namespace="courses",query="detail"}`
)

func TestCrowdsCauseOneLoad(t *testing.T) {
	for _, n := range []int{100, 1000} {
		t.Run(fmt.Sprint(n, " for the list"), func(t *testing.T) {
			s := start(t, withCrowd)
			var all []response
			seen := s.queries.during(func() {
				all = s.concurrentGets(n, "/courses", listStatement, waitingForList, func() {})
			})
			if len(seen) != 1 {
				t.Errorf("%d statements, want 1", len(seen))
			}
			misses := 0
			for _, res := range all {
				if res.status != http.StatusOK || string(res.body.Data) != string(all[0].body.Data) {
					t.Fatalf("%d %s", res.status, res.raw)
				}
				if res.cacheStatus() == "fwd=miss" {
					misses++
				} else if res.cacheStatus() != "fwd=miss; collapsed" {
					t.Errorf("Cache-Status is %s", res.header.Get("Cache-Status"))
				}
			}
			if misses != 1 {
				t.Errorf("%d requests say that they caused the load", misses)
			}
			if got := s.metric(`cache_loads_total{namespace="courses",query="list",result="found"}`); got != "1" {
				t.Errorf("%s loads are counted", got)
			}
		})
		t.Run(fmt.Sprint(n, " for an unknown course"), func(t *testing.T) {
			s := start(t, withCrowd)
			seen := s.queries.during(func() {
				for _, res := range s.concurrentGets(n, "/courses/"+unknownID, detailStatement, waitingForOne, func() {}) {
					if res.status != http.StatusNotFound {
						t.Fatalf("%d %s", res.status, res.raw)
					}
				}
			})
			if len(seen) != 1 {
				t.Errorf("%d statements, want 1", len(seen))
			}
		})
		t.Run(fmt.Sprint(n, " for a load that fails"), func(t *testing.T) {
			s := start(t, withCrowd)
			seen := s.queries.during(func() {
				for _, res := range s.concurrentGets(n, "/courses", listStatement, waitingForList, func() { s.externalWrite(`ALTER TABLE courses RENAME TO gone`) }) {
					if res.status != http.StatusInternalServerError || res.body.Error != "INTERNAL_ERROR" || res.body.Message != "Internal error" {
						t.Fatalf("%d %s", res.status, res.raw)
					}
				}
			})
			if len(seen) != 1 {
				t.Errorf("%d statements, want 1", len(seen))
			}
		})
	}
}

// The caller that began the load may cancel. The others still get its result.
func TestCancelledCallerLeavesTheLoad(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.queries.hold(listStatement)
	ctx, hangUp := context.WithCancel(t.Context())
	left := make(chan error, 1)
	seen := s.queries.during(func() {
		go func() {
			_, err := s.try(request{path: "/courses", ctx: ctx})
			left <- err
		}()
		waiting := func(want string) {
			eventually(t, 10*time.Second, func() string {
				if n := s.metric(waitingForList); n != want {
					return n + " callers wait, not " + want
				}
				return ""
			})
		}
		waiting("1") // the load is this one's
		stayed := make(chan response, 1)
		go func() {
			res, err := s.try(request{path: "/courses"})
			if err != nil {
				t.Error(err)
			}
			stayed <- res
		}()
		waiting("2")
		hangUp()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that cancelled got %v", err)
		}
		waiting("1")
		s.queries.release()
		if res := <-stayed; res.status != http.StatusOK || res.cacheStatus() != "fwd=miss; collapsed" {
			t.Errorf("the caller that stayed got %d %s %s", res.status, res.header.Get("Cache-Status"), res.raw)
		}
	})
	if len(seen) != 1 {
		t.Errorf("%d statements, want 1", len(seen))
	}
}

// The database sees a bounded number of loads at a time; further callers are told when to
// retry.
func TestOverload(t *testing.T) {
	t.Parallel()
	s := start(t, withCrowd)
	const capacity = 16 + 256 // loads and queue of a query, by default
	s.queries.hold(detailStatement)
	var wg sync.WaitGroup
	refused := make(chan response, 100)
	for i := range capacity + 20 {
		wg.Go(func() {
			res, err := s.try(request{path: fmt.Sprintf("/courses/00000000-0000-4000-9000-%012d", i)})
			switch {
			case err != nil:
				t.Error(err)
			case res.status == http.StatusServiceUnavailable:
				refused <- res
			case res.status != http.StatusNotFound:
				t.Errorf("%d %s", res.status, res.raw)
			}
		})
	}
	for range 20 {
		select {
		case res := <-refused:
			retry, err := strconv.Atoi(res.header.Get("Retry-After"))
			if err != nil || retry < 1 || res.body.Error != "OVERLOADED" || res.body.StatusCode != res.status {
				t.Errorf("Retry-After %q, %s", res.header.Get("Retry-After"), res.raw)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("too few callers were refused")
		}
	}
	s.queries.release()
	wg.Wait()
	if len(refused) > 0 {
		t.Errorf("%d more were refused than exceeded the limit", len(refused))
	}
}

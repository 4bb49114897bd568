package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

var restartRounds = flag.Int("restart-rounds", 1, "how often TestRollingRestartLosesNothing restarts the fleet")

// A balancer passes requests on to the replicas that last said that they are ready, in turns. It repeats
// no request, and keeps its connections: what a replica loses, a client loses.
type balancer struct {
	client   *http.Client
	replicas sync.Map // API address → true if it is ready
	turn     atomic.Int64
	lost     atomic.Int64
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var ready []string
	b.replicas.Range(func(api, is any) bool {
		if is.(bool) {
			ready = append(ready, api.(string))
		}
		return true
	})
	if len(ready) == 0 {
		b.lost.Add(1)
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	api := ready[int(b.turn.Add(1))%len(ready)]
	// A body that cannot be read twice keeps the transport from repeating the request by itself.
	out, err := http.NewRequestWithContext(r.Context(), r.Method, api+r.URL.RequestURI(), io.NopCloser(r.Body))
	if err == nil {
		out.Header, out.ContentLength = r.Header, r.ContentLength
		if r.ContentLength == 0 {
			out.Body, out.GetBody = http.NoBody, nil
		}
		var res *http.Response
		if res, err = b.client.Do(out); err == nil {
			defer res.Body.Close()
			w.WriteHeader(res.StatusCode)
			_, err = io.Copy(w, res.Body)
		}
	}
	if err != nil && r.Context().Err() == nil {
		b.lost.Add(1)
		w.WriteHeader(http.StatusBadGateway)
	}
}

// check asks the replicas whether they are ready, until ctx ends.
func (b *balancer) check(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		b.replicas.Range(func(api, _ any) bool {
			status, _, _, err := request(ctx, "GET", api.(string)+"/health/ready", "")
			if _, known := b.replicas.Load(api); known {
				b.replicas.Store(api, err == nil && status == http.StatusOK)
			}
			return true
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Three replicas are restarted, one after the other, under reads and writes of clients that keep their
// connections: no request fails, and no client reads less than it has written.
func TestRollingRestartLosesNothing(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 0, nil)
	f.env["SHUTDOWN_DELAY"] = "1s"
	external := f.psql()
	const clients = 6
	external.run(`INSERT INTO courses (id, title) VALUES ('%s', 'Course')`, courseID(1))
	var tokens []string
	for n := range clients {
		external.run(`INSERT INTO users (id, stellar_address) VALUES ('%s', '%[1]s')`, userID(n))
		tokens = append(tokens, f.token(userID(n)))
	}
	b := &balancer{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}}
	defer b.client.CloseIdleConnections()
	for range 3 {
		b.replicas.Store(f.start().api, true)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var checking sync.WaitGroup
	checking.Go(func() { b.check(ctx, 100*time.Millisecond) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testservers.Must(t, err)
	front := &http.Server{Handler: b, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = front.Serve(l) }() // ends with Close
	defer front.Close()

	var sent, failed, stale atomic.Int64
	var load sync.WaitGroup
	stop := make(chan struct{})
	for n, token := range tokens {
		load.Go(func() {
			client := &http.Client{Transport: &http.Transport{}} // one connection, kept
			defer client.CloseIdleConnections()
			do := func(r apiRequest) string {
				sent.Add(1)
				r.token = token
				a := r.sendWith(context.WithoutCancel(t.Context()), client, "http://"+l.Addr().String())
				if a.err != nil || a.status != http.StatusOK {
					if failed.Add(1) <= 10 {
						t.Errorf("%s: %d %s, %v", r.route, a.status, a.body, a.err)
					}
				}
				var v struct{ Data struct{ DisplayName string } }
				_ = json.Unmarshal([]byte(a.body), &v) // then the name differs
				return v.Data.DisplayName
			}
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond): // a client thinks; the tests beside this one go on
				}
				name := fmt.Sprintf("Learner %d, %d", n, i)
				do(apiRequest{route: "PUT /users/me", path: "/users/me", body: fmt.Sprintf(`{"displayName":%q}`, name)})
				for range 3 { // of each replica, as a rule
					if got := do(apiRequest{route: "GET /users/me", path: "/users/me"}); got != name {
						stale.Add(1)
						t.Errorf("read %q after %q was written", got, name)
					}
				}
				do(apiRequest{route: "GET /courses", path: "/courses"})
			}
		})
	}
	for range *restartRounds {
		for range 3 {
			old := f.processes[0]
			f.processes = f.processes[1:]
			old.stopWithin(syscall.SIGTERM, 10*time.Second)
			b.replicas.Delete(old.api)
			next := f.start()
			b.replicas.Store(next.api, false)
			testservers.Eventually(t, visibilityTimeout, func() (bool, string) {
				ready, _ := b.replicas.Load(next.api)
				return ready.(bool), "the new replica is not ready"
			})
		}
	}
	close(stop)
	load.Wait()
	cancel()
	checking.Wait()
	t.Logf("%d requests, %d failed (%d lost on the way), %d stale", sent.Load(), failed.Load(), b.lost.Load(), stale.Load())
	for _, p := range f.processes {
		p.stop(syscall.SIGTERM)
	}
}

// Package load sends requests to an HTTP server and times the answers: as many as it can
// take, or at a rate that does not depend on how fast it is.
package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/valyala/fasthttp"
)

// Request is one request to send.
type Request struct {
	Method string // default GET
	Path   string
	Token  string // of the learner; empty for none
	Body   string
	Accept int // the status that is a success; default 200
}

// Target is a server and what it is asked for, in turns.
type Target struct {
	Addr     string // host:port
	Requests []Request
	next     atomic.Int64 // goes on over several runs, so that nothing is asked for twice before its turn
}

// Outcome of a run.
type Outcome struct {
	Requests, Failures int64
	Elapsed            time.Duration
	// Latency is from when a request was to be sent, in nanoseconds. With Open that is
	// the moment its turn came, where no connection was free for it: the waiting that a
	// slow answer causes for those behind it is counted, not left out. Where one was free,
	// it is the moment when it was sent, for that our timer rings up to a millisecond late
	// is none of the server's doing.
	Latency *hdrhistogram.Histogram
	Err     error // one of the failures
}

// Rate returns successes each second.
func (o *Outcome) Rate() float64 {
	return float64(o.Requests-o.Failures) / o.Elapsed.Seconds()
}

const (
	maxLatency = time.Minute // a histogram's last bucket, and the limit of an answer
	digits     = 3
)

// Closed keeps connections busy for a time: each sends its next request when it has the
// answer to the last. What it finds is how much the server can do, not how long a client
// waits.
func Closed(ctx context.Context, t *Target, connections int, d time.Duration) Outcome {
	until := time.Now().Add(d)
	return t.run(ctx, connections, func(ctx context.Context) (time.Time, bool) {
		now := time.Now()
		return now, now.Before(until) && ctx.Err() == nil
	})
}

// Open sends rate requests each second, evenly, however long the answers take, over at most
// the given number of connections. A request for which no connection is free waits, and its
// waiting counts.
func Open(ctx context.Context, t *Target, connections int, rate float64, d time.Duration) Outcome {
	began := time.Now()
	total := int64(rate * d.Seconds())
	var n atomic.Int64
	return t.run(ctx, connections, func(ctx context.Context) (time.Time, bool) {
		i := n.Add(1) - 1
		if i >= total {
			return time.Time{}, false
		}
		dueAt := began.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		early := time.Until(dueAt)
		if early <= 0 {
			return dueAt, ctx.Err() == nil
		}
		ok := pause(ctx, early)
		return time.Now(), ok
	})
}

// run has connections send what is next at the moments that turn returns, until it says no.
func (t *Target) run(ctx context.Context, connections int, turn func(context.Context) (time.Time, bool)) Outcome {
	client := &fasthttp.HostClient{
		Addr: t.Addr, MaxConns: connections, ReadTimeout: maxLatency, WriteTimeout: maxLatency,
		NoDefaultUserAgentHeader: true, DisablePathNormalizing: true,
	}
	defer client.CloseIdleConnections()
	parts := make([]Outcome, connections)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range parts {
		wg.Go(func() { parts[i] = t.sendLoop(ctx, client, turn) })
	}
	wg.Wait()
	all := Outcome{Elapsed: time.Since(began), Latency: hdrhistogram.New(1000, int64(maxLatency), digits)}
	for _, p := range parts {
		all.Requests += p.Requests
		all.Failures += p.Failures
		all.Latency.Merge(p.Latency)
		if p.Err != nil {
			all.Err = p.Err
		}
	}
	return all
}

func (t *Target) sendLoop(ctx context.Context, client *fasthttp.HostClient, turn func(context.Context) (time.Time, bool)) Outcome {
	o := Outcome{Latency: hdrhistogram.New(1000, int64(maxLatency), digits)}
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	for {
		due, ok := turn(ctx)
		if !ok {
			return o
		}
		r := &t.Requests[int(t.next.Add(1)-1)%len(t.Requests)]
		err := t.send(client, req, resp, r)
		_ = o.Latency.RecordValue(min(int64(time.Since(due)), int64(maxLatency))) // in range
		o.Requests++
		if err != nil {
			o.Failures++
			o.Err = err
		}
	}
}

func (t *Target) send(client *fasthttp.HostClient, req *fasthttp.Request, resp *fasthttp.Response, r *Request) error {
	req.Reset()
	req.Header.SetMethod(fasthttp.MethodGet)
	if r.Method != "" {
		req.Header.SetMethod(r.Method)
	}
	req.SetRequestURI(r.Path)
	req.Header.SetHost(t.Addr)
	if r.Token != "" {
		req.Header.Set(fasthttp.HeaderAuthorization, "Bearer "+r.Token)
	}
	if r.Body != "" {
		req.Header.SetContentType("application/json")
		req.SetBodyString(r.Body)
	}
	if err := client.Do(req, resp); err != nil {
		return fmt.Errorf("%s: %w", r.Path, err)
	}
	if got := resp.StatusCode(); got != cmp.Or(r.Accept, fasthttp.StatusOK) {
		return fmt.Errorf("%s: status %d: %.200s", r.Path, got, resp.Body())
	}
	if len(resp.Body()) == 0 {
		return fmt.Errorf("%s: %w", r.Path, errEmpty)
	}
	return nil
}

var errEmpty = errors.New("an answer without a body")

// pause waits for d, and returns false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

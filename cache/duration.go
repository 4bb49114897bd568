package cache

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

// forever stands for every duration that is longer: a Duration holds some 292 years. A program
// that says "for as long as possible" with math.MaxInt64 must not get a time in the past.
const forever = time.Duration(math.MaxInt64)

// sum returns a + b, neither of which is negative, or forever.
func sum(a, b time.Duration) time.Duration {
	if a > forever-b {
		return forever
	}
	return a + b
}

// jitter returns d, give or take a tenth, so that processes do not march in step.
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return d
	}
	return sum(d-d/10, rand.N(d/5+1))
}

// shorten takes up to a tenth from a lifetime, at random. What is left is what an envelope can
// hold: whole milliseconds, and not none.
func shorten(d time.Duration) time.Duration {
	d -= time.Duration(rand.Float64() * float64(d) / 10)
	return max(d.Truncate(resolution), resolution)
}

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

package ratelimit

import (
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"
)

// local counts in this process.
type local struct {
	// clients holds those that were seen last or most often. One that is dropped has its whole
	// quota again. To be dropped it would take as many others, each with a quota of its own.
	clients *otter.Cache[string, *rate.Limiter]
}

// maxClients are counted at once: some 20 MB.
const maxClients = 100_000

func newLocal() *local {
	return &local{otter.Must(&otter.Options[string, *rate.Limiter]{
		MaximumSize: maxClients,
		Executor:    func(task func()) { task() }, // no goroutine to end
	})}
}

func (l *local) allow(p Policy, key string, now time.Time) Decision {
	perSecond := float64(p.Limit) / p.Window.Seconds()
	client, _ := l.clients.ComputeIfAbsent(key, func() (*rate.Limiter, bool) {
		return rate.NewLimiter(rate.Limit(perSecond), p.Limit), false
	})
	allowed := client.AllowN(now, 1)
	tokens := client.TokensAt(now)
	return Decision{p, allowed, max(0, int(tokens)), time.Duration((float64(p.Limit) - tokens) / perSecond * float64(time.Second))}
}

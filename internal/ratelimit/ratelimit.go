// Package ratelimit counts the requests of clients: in Redis, for all processes together, and in
// this process where there is no Redis or it does not answer. Both follow the generic cell rate
// algorithm: a client may send its whole quota at once, which then comes back bit by bit.
package ratelimit

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"
)

// Policy says how many requests one client may send. Its zero value lets all pass.
type Policy struct {
	Name   string // of a few, in lower case: part of keys and of a header
	Limit  int
	Window time.Duration
}

// Decision about one request.
type Decision struct {
	Policy    Policy
	Allowed   bool
	Remaining int           // requests that would be allowed now
	Reset     time.Duration // until the whole quota is there again
}

// Next is the time until one more request will be allowed; 0 if one is now.
func (d Decision) Next() time.Duration {
	if d.Remaining > 0 {
		return 0
	}
	one := d.Policy.Window / time.Duration(d.Policy.Limit)
	return max(0, d.Reset-d.Policy.Window+one)
}

// Config of a Limiter. Its zero value counts in this process alone.
type Config struct {
	// Redis is where all processes count together. Default nil: each for itself.
	Redis *rueidis.ClientOption
	// Prefix begins the keys in Redis.
	Prefix string
	// Logger is told when Redis cannot be used any more, and when it can again. Default: discarded.
	Logger *slog.Logger
	// Metrics is where the limiter registers its own. Default: nowhere.
	Metrics prometheus.Registerer
}

// Limiter is safe for concurrent use.
type Limiter struct {
	local  *local
	redis  *scripts // nil: none
	shared *redis_rate.Limiter
	log    *slog.Logger
	// timeout is how long a request waits for Redis: callTimeout.
	timeout time.Duration

	unshared prometheus.Counter
	failing  atomic.Bool
	// retryAt is when Redis is asked again, in Unix nanoseconds; 0 while it answers.
	retryAt atomic.Int64
}

const (
	// callTimeout is how long a request waits for Redis.
	callTimeout = 100 * time.Millisecond
	// retryEvery is how often a request tries a Redis that does not answer. All others count in
	// this process and do not wait.
	retryEvery = time.Second
)

// New returns a Limiter. A Redis that is away is no error: it is tried again.
func New(cfg Config) (*Limiter, error) {
	l := &Limiter{
		local:   newLocal(),
		log:     cfg.Logger,
		timeout: callTimeout,
		unshared: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "http_rate_limit_unshared_total",
			Help: "Requests that were counted in this process alone because Redis did not answer.",
		}),
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics != nil && cfg.Redis != nil {
		if err := cfg.Metrics.Register(l.unshared); err != nil {
			return nil, err
		}
	}
	if cfg.Redis != nil {
		l.redis = newScripts(*cfg.Redis, cfg.Prefix)
		l.shared = redis_rate.NewLimiter(l.redis)
		if _, err := l.redis.connect(); err != nil {
			l.fail(context.Background(), err)
		}
	}
	return l, nil
}

// Close ends the connections to Redis.
func (l *Limiter) Close() error {
	if l.redis != nil {
		l.redis.close()
	}
	return nil
}

// Allow counts one request of a client. With Redis away it is counted in this process alone, so a
// client may send as many times its quota as there are processes, and no more.
func (l *Limiter) Allow(ctx context.Context, p Policy, client string) Decision {
	if p.Limit <= 0 {
		return Decision{Policy: p, Allowed: true}
	}
	key := p.Name + ":" + client
	if l.redis == nil {
		return l.local.allow(p, key, time.Now())
	}
	if d, ok := l.allowShared(ctx, p, key); ok {
		return d
	}
	l.unshared.Inc()
	return l.local.allow(p, key, time.Now())
}

func (l *Limiter) allowShared(ctx context.Context, p Policy, key string) (Decision, bool) {
	now := time.Now()
	if at := l.retryAt.Load(); at != 0 {
		// One request tries, after retryEvery; those beside it do not wait.
		if now.UnixNano() < at || !l.retryAt.CompareAndSwap(at, now.Add(retryEvery).UnixNano()) {
			return Decision{}, false
		}
	}
	// A client that leaves is no reason to distrust Redis.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.timeout)
	defer cancel()
	r, err := l.shared.Allow(ctx, key, redis_rate.Limit{Rate: p.Limit, Burst: p.Limit, Period: p.Window})
	if err != nil {
		l.fail(ctx, err)
		return Decision{}, false
	}
	l.retryAt.Store(0)
	if l.failing.CompareAndSwap(true, false) {
		l.log.InfoContext(ctx, "requests are counted for all processes together again")
	}
	return Decision{p, r.Allowed > 0, r.Remaining, r.ResetAfter}, true
}

// fail makes requests be counted in this process, and says so once.
func (l *Limiter) fail(ctx context.Context, err error) {
	l.retryAt.Store(time.Now().Add(retryEvery).UnixNano())
	if l.failing.CompareAndSwap(false, true) {
		l.log.WarnContext(ctx, "requests are counted in each process for itself, because Redis does not count them: see that it answers and takes writes, and that its account may run EVALSHA, EVAL, TIME, GET and SET on all keys with the prefix",
			"prefix", l.redis.prefix, "err", err)
	}
}

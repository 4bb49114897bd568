package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Config says which Redis a Store uses and how. One of URL and Client is needed.
type Config struct {
	// URL is where Redis is; see ParseURL.
	URL string

	// Client says the same in more detail. The Store makes its own client of it, because
	// it must see every connection that is made, and it sets how connections are pooled,
	// retried, cached and watched. Timeouts that are set are kept.
	Client *rueidis.ClientOption

	// Prefix begins every key and channel that the Store touches. Processes that share
	// answers have the same one. No prefix may begin with another that is in use. Default
	// "chainlearn:".
	Prefix string

	// Timeout bounds each call whose context has no deadline, and the waiting for a
	// connection in it. Default 50 ms.
	Timeout time.Duration

	// TagLife is how long the version of a tag is kept that nothing bumps and nothing is
	// stored under. Losing one is safe: answers that depend on it are loaded again. It
	// must exceed the life of most entries. Default 24 h.
	TagLife time.Duration

	// CompressAbove is the size in bytes from which an entry is compressed, if that makes
	// it smaller. Negative: never. Default 4096.
	CompressAbove int

	// Logger is told when Redis is lost or found again, and once what the account or the
	// server does not allow. Default: nobody.
	Logger *slog.Logger
}

const (
	defaultPrefix  = "chainlearn:"
	defaultTimeout = 50 * time.Millisecond
	defaultTagLife = 24 * time.Hour

	// A server is given up after it was silent for about deadAfter: a PING is sent when a
	// connection was idle for half of it, and must be answered within the other half, or
	// within Config.Timeout if that is longer.
	deadAfter = time.Second

	// connectTimeout bounds the parts of a connection that is made in the background,
	// where nobody waits for it.
	connectTimeout = time.Second

	// maxCalls bounds the calls that have not been answered. The queue of a connection
	// holds 1024, and a call that finds it full waits whatever its context says; the rest
	// is for the calls of the store itself. At a round trip of 1 ms the bound allows
	// 768,000 calls each second.
	maxCalls = 768
)

func (c Config) withDefaults() Config {
	c.Prefix = cmp.Or(c.Prefix, defaultPrefix)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.TagLife = cmp.Or(c.TagLife, defaultTagLife)
	c.CompressAbove = cmp.Or(c.CompressAbove, defaultCompressAbove)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

// options checks c, which has its defaults, and returns those of the client.
func (c Config) options() (rueidis.ClientOption, error) {
	var errs []error
	var opt rueidis.ClientOption
	switch {
	case c.URL != "" && c.Client != nil:
		errs = append(errs, errors.New("URL and Client are both set: use one"))
	case c.Client != nil:
		opt = *c.Client
		if len(opt.InitAddress) == 0 {
			errs = append(errs, errors.New("Client.InitAddress is empty: name a server"))
		}
	case c.URL != "":
		var err error
		if opt, err = ParseURL(c.URL); err != nil {
			errs = append(errs, err)
		}
	default:
		errs = append(errs, errors.New("URL is empty: name a Redis server, such as redis://localhost:6379"))
	}
	if err := checkPrefix(c.Prefix); err != nil {
		errs = append(errs, err)
	}
	if c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("Timeout is negative: %v", c.Timeout))
	}
	if c.TagLife < time.Second {
		errs = append(errs, fmt.Errorf("TagLife is %v: must be at least 1s", c.TagLife))
	}
	if len(errs) > 0 {
		return opt, fmt.Errorf("redisstore: %w", errors.Join(errs...))
	}

	// Two connections to each master are enough; see link. More would each be dialled on
	// first use and each need its identity proven, and measured no faster.
	opt.PipelineMultiplex = -1
	opt.AlwaysPipelining = false
	opt.DisableAutoPipelining = false
	opt.BlockingPipeline = -1 // no batch is so large that it gets a connection of its own
	opt.RingScaleEachConn = 0 // 1024; see maxCalls
	opt.ReadBufferEachConn = cmp.Or(opt.ReadBufferEachConn, 128<<10)
	opt.WriteBufferEachConn = cmp.Or(opt.WriteBufferEachConn, 128<<10)
	// No reply may come from another server than the one that was asked for it, and a
	// retry would dial within a call. The store repeats calls itself, after the identity of
	// the new connection is known.
	opt.DisableRetry = true
	opt.SendToReplicas = nil
	opt.ReplicaOnly = false
	// Watch has connections of its own, which it tells to track.
	opt.DisableCache = true
	opt.ConnLifetime = 0
	opt.Dialer.Timeout = cmp.Or(opt.Dialer.Timeout, max(c.Timeout, connectTimeout))
	opt.Dialer.KeepAlive = cmp.Or(opt.Dialer.KeepAlive, deadAfter/2)
	opt.ConnWriteTimeout = cmp.Or(opt.ConnWriteTimeout, max(c.Timeout, deadAfter/2))
	opt.Sentinel.Dialer.Timeout = cmp.Or(opt.Sentinel.Dialer.Timeout, opt.Dialer.Timeout)
	// rueidis hears of a failover from one sentinel, once; it may miss that.
	opt.Sentinel.TopologyRefreshInterval = cmp.Or(opt.Sentinel.TopologyRefreshInterval, 2*time.Second)
	opt.ClusterOption.ShardsRefreshInterval = cmp.Or(opt.ClusterOption.ShardsRefreshInterval, 10*time.Second)
	return opt, nil
}

// errClosed is returned by every method of a closed Store that returns an error.
var errClosed = errors.New("redisstore: store is closed")

// Store is a driver.Watcher in Redis. It is safe for concurrent use.
type Store struct {
	cfg    Config
	opt    rueidis.ClientOption
	names  names
	log    *slog.Logger
	hub    *hub
	calls  chan struct{} // a place for each unanswered call
	giveUp time.Duration // after it, a connection has answered a call or was given up

	ctx  context.Context // ends when the Store closes
	stop context.CancelFunc
	wg   sync.WaitGroup

	writer atomic.Pointer[rueidis.Client] // follows redirections; nil until first connected
	view   atomic.Pointer[view]           // nil until the first master is proven
	down   atomic.Pointer[error]          // why the last survey failed; nil if it did not
	kicks  chan struct{}                  // has room for one: survey now

	mu      sync.Mutex
	next    *outcome      // of the survey that begins next, for who waits for it; guarded by mu
	renewed chan struct{} // closed when there is another view; guarded by mu
}

var _ driver.Watcher = (*Store)(nil)

// Open returns a Store for cfg, or an error that names everything that is wrong with cfg.
// It waits at most cfg.Timeout, or until ctx ends, for Redis to answer. Whether it did
// makes no difference to the Store: it connects as soon as Redis is there, and until then
// every call fails at once.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	opt, err := cfg.options()
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg:     cfg,
		opt:     opt,
		names:   names(cfg.Prefix),
		log:     cfg.Logger,
		hub:     newHub(),
		calls:   make(chan struct{}, maxCalls),
		kicks:   make(chan struct{}, 1),
		renewed: make(chan struct{}),
	}
	// A PING goes out at the second tick after the last answer, at the latest.
	s.giveUp = 2*opt.Dialer.KeepAlive + opt.ConnWriteTimeout + deadAfter/10
	s.ctx, s.stop = context.WithCancel(context.Background())
	first := s.nextSurvey()
	s.wg.Go(func() { s.keep(newLink(s.ctx, opt, s.kick)) })
	s.wg.Go(s.listen)

	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	select {
	case <-first.done:
	case <-ctx.Done():
	}
	return s, nil
}

// Close ends the connections and waits for the goroutines of the Store. Calls that are
// under way fail.
func (s *Store) Close() error {
	s.mu.Lock() // nobody begins to watch from here on
	s.stop()
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// call is one call of a method, between begin and end.
type call struct {
	ctx    context.Context
	cancel context.CancelFunc // nil if ctx is the caller's own
}

// begin fails if ctx has ended or the Store is closed. It gives ctx a deadline if it has
// none, and waits for a place among the unanswered calls. After it, end must be called.
func (s *Store) begin(ctx context.Context) (call, error) {
	if err := ctx.Err(); err != nil {
		return call{}, err
	}
	if s.ctx.Err() != nil {
		return call{}, errClosed
	}
	c := call{ctx: ctx}
	if _, bounded := ctx.Deadline(); !bounded {
		c.ctx, c.cancel = context.WithTimeout(ctx, s.cfg.Timeout)
	}
	select {
	case s.calls <- struct{}{}:
		return c, nil
	default:
	}
	select {
	case s.calls <- struct{}{}:
		return c, nil
	case <-c.ctx.Done():
		err := fmt.Errorf("%d calls wait for an answer: %w", maxCalls, c.ctx.Err())
		c.release()
		return call{}, err
	}
}

// end gives back the place of c. A call that ran out of time may still be in the queue of
// its connection: its place is free when it was answered or the connection was given up.
func (s *Store) end(c call) {
	if c.ctx.Err() == nil {
		<-s.calls
	} else {
		time.AfterFunc(s.giveUp, func() { <-s.calls })
	}
	c.release()
}

func (c call) release() {
	if c.cancel != nil {
		c.cancel()
	}
}

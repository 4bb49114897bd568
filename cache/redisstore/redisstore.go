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

// Config says which Redis a Store uses and how. URL or Client is needed.
type Config struct {
	// URL is where Redis is; see ParseURL.
	URL string

	// Client says the same in more detail. The Store makes its own clients from it, because
	// it must see every connection that is made. It overrides how connections are pooled,
	// retried, cached and watched, and keeps timeouts that are set.
	Client *rueidis.ClientOption

	// Prefix begins every key and channel that the Store touches, such as "shop:". Processes
	// that share answers have the same prefix, and no other program has it: a program would
	// decode the answers of another as its own. No prefix may begin with another one in use.
	// Required.
	Prefix string

	// Timeout bounds each call whose context has no deadline, including its wait for a
	// connection. At most an hour. Default 50 ms.
	Timeout time.Duration

	// TagLife is how long the version of a tag is kept without a bump and without an entry
	// stored under it. Losing a version is safe: answers that depend on it are loaded again.
	// TagLife must exceed the life of most entries. Default 24 h.
	TagLife time.Duration

	// CompressAbove is the size in bytes from which an entry is compressed, if that makes
	// it smaller. Negative: never. Default 4096.
	CompressAbove int

	// Logger reports when Redis becomes unavailable and available again, and once what the
	// account or the server does not allow. Default: discard.
	Logger *slog.Logger
}

const (
	defaultTimeout = 50 * time.Millisecond
	mostTimeout    = time.Hour
	defaultTagLife = 24 * time.Hour

	// A server loses its connection after it was silent for about silenceTimeout. A PING is
	// sent when a connection was idle for half of it, and must be answered within the other
	// half, or within Config.Timeout if that is longer.
	silenceTimeout = time.Second

	// connectTimeout bounds dialling and the first requests of a connection. No caller waits
	// for them longer than its own context.
	connectTimeout = time.Second

	// maxInFlight bounds the calls that have not been answered. The queue of a connection
	// holds 1024, and a call that finds it full waits whatever its context says. The rest of
	// the queue is for requests of the Store itself. At a round trip of 1 ms the bound allows
	// 768,000 calls each second.
	// Decision 16.
	maxInFlight = 768
)

func (c Config) withDefaults() Config {
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.TagLife = cmp.Or(c.TagLife, defaultTagLife)
	c.CompressAbove = cmp.Or(c.CompressAbove, defaultCompressAbove)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

// options checks c, which has its defaults, and returns the options of its clients.
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
	if c.Timeout > mostTimeout {
		errs = append(errs, fmt.Errorf("Timeout is %v: must be at most %v", c.Timeout, mostTimeout))
	}
	if c.TagLife < time.Second {
		errs = append(errs, fmt.Errorf("TagLife is %v: must be at least 1s", c.TagLife))
	}
	if len(errs) > 0 {
		return opt, fmt.Errorf("redisstore: %w", errors.Join(errs...))
	}

	// Two connections to each master are enough; see connections. Each further one would be
	// dialled on first use and need its identity verified, and measured no faster.
	opt.PipelineMultiplex = -1
	opt.AlwaysPipelining = false
	opt.DisableAutoPipelining = false
	opt.BlockingPipeline = -1 // no batch gets a connection of its own
	opt.RingScaleEachConn = 0 // 1024; see maxInFlight
	opt.ReadBufferEachConn = cmp.Or(opt.ReadBufferEachConn, 128<<10)
	opt.WriteBufferEachConn = cmp.Or(opt.WriteBufferEachConn, 128<<10)
	// No reply may come from another server than the one that was asked, and a retry would
	// dial within a call. The Store repeats calls itself, after the new connection is
	// verified.
	opt.DisableRetry = true
	opt.SendToReplicas = nil
	opt.ReplicaOnly = false
	// Watch has tracking connections of its own.
	opt.DisableCache = true
	opt.ConnLifetime = 0
	opt.Dialer.Timeout = cmp.Or(opt.Dialer.Timeout, max(c.Timeout, connectTimeout))
	opt.Dialer.KeepAlive = cmp.Or(opt.Dialer.KeepAlive, silenceTimeout/2)
	opt.ConnWriteTimeout = cmp.Or(opt.ConnWriteTimeout, max(c.Timeout, silenceTimeout/2))
	opt.Sentinel.Dialer.Timeout = cmp.Or(opt.Sentinel.Dialer.Timeout, opt.Dialer.Timeout)
	// rueidis is told of a failover by one sentinel, once, and may miss it.
	opt.Sentinel.TopologyRefreshInterval = cmp.Or(opt.Sentinel.TopologyRefreshInterval, 2*time.Second)
	opt.ClusterOption.ShardsRefreshInterval = cmp.Or(opt.ClusterOption.ShardsRefreshInterval, 10*time.Second)
	return opt, nil
}

// errClosed is returned by every method of a closed Store that returns an error.
var errClosed = errors.New("redisstore: store is closed")

// Store is a driver.Prover in Redis. It is safe for concurrent use.
type Store struct {
	cfg          Config
	opt          rueidis.ClientOption
	names        names
	log          *slog.Logger
	waiters      *waiters
	inFlight     chan struct{} // holds one value for each unanswered call
	abandonAfter time.Duration // by then a call is answered, or its connection has ended

	ctx  context.Context // ends when the Store closes
	stop context.CancelFunc
	wg   sync.WaitGroup

	control  atomic.Pointer[rueidis.Client] // nil until first connected; see connections
	topology atomic.Pointer[topology]       // nil until the first master is verified
	down     atomic.Pointer[error]          // why the last probe failed; nil if it did not
	wakes    chan struct{}                  // has room for one value: probe now

	mu              sync.Mutex
	sessions        map[*watchSession]struct{} // guarded by mu
	next            *probeResult               // of the probe that begins next; nil if no caller waits for it; guarded by mu
	topologyChanged chan struct{}              // closed when the topology is replaced; guarded by mu
}

var _ driver.Prover = (*Store)(nil)

// Open returns a Store for cfg, or an error that names everything that is wrong with cfg.
// It waits at most cfg.Timeout, or until ctx ends, for Redis to answer. If Redis does not
// answer, the Store connects as soon as it does, and until then every call fails at once.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	opt, err := cfg.options()
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg:             cfg,
		opt:             opt,
		names:           names(cfg.Prefix),
		log:             cfg.Logger,
		waiters:         newWaiters(),
		inFlight:        make(chan struct{}, maxInFlight),
		wakes:           make(chan struct{}, 1),
		sessions:        map[*watchSession]struct{}{},
		topologyChanged: make(chan struct{}),
	}
	// A PING goes out at the second tick after the last answer, at the latest.
	s.abandonAfter = 2*opt.Dialer.KeepAlive + opt.ConnWriteTimeout + silenceTimeout/10
	s.ctx, s.stop = context.WithCancel(context.Background())
	first := s.nextProbe()
	s.wg.Go(func() { s.monitor(newConnections(s.ctx, opt, s.wake)) })
	s.wg.Go(s.receiveAnnouncements)

	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	select {
	case <-first.done:
	case <-ctx.Done():
	}
	return s, nil
}

// Close ends the connections and waits for the goroutines of the Store. Calls in flight fail.
func (s *Store) Close() error {
	s.mu.Lock() // no Watch begins from here on
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
// none, and waits while maxInFlight calls are unanswered. After it, end must be called.
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
	case s.inFlight <- struct{}{}:
		return c, nil
	default:
	}
	select {
	case s.inFlight <- struct{}{}:
		return c, nil
	case <-c.ctx.Done():
		err := fmt.Errorf("%d calls wait for an answer: %w", maxInFlight, c.ctx.Err())
		c.release()
		return call{}, err
	}
}

// end counts c as answered. A call that ran out of time may still be in the queue of its
// connection: it counts as unanswered until it was answered or its connection has ended.
func (s *Store) end(c call) {
	if c.ctx.Err() == nil {
		<-s.inFlight
	} else {
		time.AfterFunc(s.abandonAfter, func() { <-s.inFlight })
	}
	c.release()
}

func (c call) release() {
	if c.cancel != nil {
		c.cancel()
	}
}

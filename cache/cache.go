// Package cache keeps answers of a slow source, such as a database, and knows when they became
// wrong.
//
// Describe an answer once, as a Query: its name, how to load it, how long it keeps, and which
// tags it depends on. Ask for it with Get. A writer of the source invalidates the tags of
// what changed; package outbox does so for every committed transaction, of any program. A load
// may name tags as well, with DependOn: what is known only when it is found.
//
//   - Once a write has been acknowledged, no Get that starts later, on any process that shares
//     the store, returns older data.
//   - Any number of callers cause one load of a missing answer.
//   - If the store fails or hangs, answers still come, from the source, which sees a bounded
//     number of loads.
package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/event"
)

// Config of a Cache. Only Store is required.
type Config struct {
	// Store is the tier that processes share: memstore.New for a single process,
	// redisstore.Open for many.
	Store driver.Store

	// Observer is told what the cache does, for metrics and traces. Default nil: nothing is
	// measured.
	Observer Observer

	// Logger receives what an operator should know. Default: discarded.
	Logger *slog.Logger

	// StoreTimeout is what one call of the store may take before the cache goes on without
	// it. A call that carries much, hundreds of keys or large entries, may take more, in
	// proportion. At most an hour. Default 50 ms.
	StoreTimeout time.Duration

	// LoadTimeout bounds one load of a query that sets none itself. Default 10 s.
	LoadTimeout time.Duration

	// MaxEntryBytes bounds what is stored of one answer, encoded. A larger answer is given to its
	// callers and loaded each time. It is counted (TooLarge) and logged once for its query.
	// Default 8 MiB.
	MaxEntryBytes int

	// FenceLease is how long a writer that vanished keeps its tags fenced. No commit may
	// come later than this after its fence: keep the database's own limit on
	// transactions below it. At most a day. Default 5 s.
	FenceLease time.Duration

	// AuditShare is the share of the time for which the source may be asked, by one load at a time, what is in the
	// cache already: now and then, at most once a second and not in the first minute, a fresh answer that was
	// served is compared with what Load says. One that differs for seconds, while nothing tells the cache of
	// a write, is invalidated, counted (event.Audited) and logged. Answers that depend on no tags are left alone.
	// At most 1; negative: never. Default 0.005.
	AuditShare float64
}

const (
	defaultStoreTimeout  = 50 * time.Millisecond
	defaultLoadTimeout   = 10 * time.Second
	defaultMaxEntryBytes = 8 << 20
	defaultFenceLease    = 5 * time.Second
	defaultAuditShare    = 0.005

	// A recovery waits for StoreTimeout, and readers bypass for FenceLease after a writer has
	// died. Beyond these they would never end.
	mostStoreTimeout = time.Hour
	mostFenceLease   = 24 * time.Hour
)

func (c Config) withDefaults() Config {
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.StoreTimeout = cmp.Or(c.StoreTimeout, defaultStoreTimeout)
	c.LoadTimeout = cmp.Or(c.LoadTimeout, defaultLoadTimeout)
	c.MaxEntryBytes = cmp.Or(c.MaxEntryBytes, defaultMaxEntryBytes)
	c.FenceLease = cmp.Or(c.FenceLease, defaultFenceLease)
	c.AuditShare = cmp.Or(c.AuditShare, defaultAuditShare)
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.Store == nil {
		errs = append(errs, errors.New("Store is nil"))
	}
	for _, d := range []struct {
		field string
		value time.Duration
		most  time.Duration
	}{{"StoreTimeout", c.StoreTimeout, mostStoreTimeout}, {"LoadTimeout", c.LoadTimeout, forever}, {"FenceLease", c.FenceLease, mostFenceLease}} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("%s is negative: %v", d.field, d.value))
		}
		if d.value > d.most {
			errs = append(errs, fmt.Errorf("%s is %v: must be at most %v", d.field, d.value, d.most))
		}
	}
	if c.MaxEntryBytes < 0 {
		errs = append(errs, fmt.Errorf("MaxEntryBytes is negative: %d", c.MaxEntryBytes))
	}
	if !(c.AuditShare <= 1) { // or not a number
		errs = append(errs, fmt.Errorf("AuditShare is %v: must be at most 1, a share of the time, or negative for never", c.AuditShare))
	}
	return errors.Join(errs...)
}

// Cache answers queries. It is safe for concurrent use.
type Cache struct {
	cfg     Config
	health  *health
	bumps   recentBumps
	changes *changeTracker
	parts   chan struct{} // holds one value for each call with a part of a large entry

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc

	panics panicLog
	audits *audits
	said   reminders // of queries

	storeName atomic.Pointer[string] // nil until it was asked for

	mu       sync.Mutex
	closed   bool
	watching sync.Once
	running  sync.WaitGroup // every goroutine of the cache; added to under mu while not closed
	names    map[string]definition
	defined  []definition // in order
}

// New returns a Cache, or an error that names everything wrong with the Config. It asks the
// store once whether it is there; if not, the cache works without it and keeps trying.
func New(cfg Config) (*Cache, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	c := &Cache{cfg: cfg.withDefaults(), names: map[string]definition{}, parts: make(chan struct{}, mostParts)}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	if cfg.Observer != nil {
		c.cfg.Observer = safeObserver{cfg.Observer, c}
	}
	c.cfg.Logger = slog.New(safeHandler{c.cfg.Logger.Handler(), func() { c.Observe(c.ctx, event.Panicked{Func: "Logger"}) }})
	c.health = newHealth(c.cfg, c.Observe, c.start, &c.bumps)
	c.changes = newChangeTracker(func() { c.Observe(c.ctx, event.ChangesMissed{}) }, &c.health.validated)
	c.coalesceProofs()
	c.OnRecovery(func(context.Context) error {
		c.changes.forget() // what is near was read before, and may have been written since
		return nil
	})
	c.health.begin(c.ctx)
	c.start(c.health.run)
	if c.audits = newAudits(c.cfg.AuditShare); c.cfg.AuditShare > 0 {
		c.start(c.audits.run)
	}
	return c, nil
}

// Close ends the loads in flight (their callers get an error), waits until every goroutine
// of the cache has ended, and leaves the store open. A loader that ignores its context is
// waited for at most LoadTimeout; Close then returns an error. Close may be
// called again.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel(ErrClosed)
	c.changes.forget()
	done := make(chan struct{})
	go func() {
		c.running.Wait()
		close(done)
	}()
	late := time.NewTimer(c.cfg.LoadTimeout)
	defer late.Stop()
	select {
	case <-done:
		return nil
	case <-late.C:
		return fmt.Errorf("cache: close: a loader still runs %v after its context ended", c.cfg.LoadTimeout)
	}
}

// start runs f on a goroutine that Close waits for. It returns false after Close. The
// context ends with Close. A panic ends the goroutine and not the process.
func (c *Cache) start(f func(context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.running.Go(func() {
		defer func() {
			if v := recover(); v != nil {
				c.uncaught(c.ctx, "", newPanicError("goroutine", v))
			}
		}()
		f(c.ctx)
	})
	return true
}

func (c *Cache) define(name string, d definition) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return ErrClosed
	case c.names[name] != nil:
		return errors.New("defined twice")
	}
	c.names[name] = d
	c.defined = append(c.defined, d)
	return nil
}

// StoreName returns the Name of the store, which it asks for once. It is for adapters: an outbox
// knows by it which data an invalidation is for.
func (c *Cache) StoreName(ctx context.Context) (string, error) {
	if name := c.storeName.Load(); name != nil {
		return *name, nil
	}
	return c.AskStoreName(ctx)
}

// AskStoreName is StoreName of now: a store that has lost its data may have lost its name with it.
func (c *Cache) AskStoreName(ctx context.Context) (string, error) {
	var name string
	err := c.health.call(ctx, "name", func(ctx context.Context) (err error) {
		name, err = c.cfg.Store.Name(ctx)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("name of the store: %w", err)
	}
	c.storeName.Store(&name)
	return name, nil
}

// FenceLease returns the lease of the fences: Config.FenceLease, or its default. It is for
// adapters: a transaction must not outlive the fence of what it touched.
func (c *Cache) FenceLease() time.Duration { return c.cfg.FenceLease }

// Purge removes from the store the entries whose keys match pattern, and returns how many.
// * stands for any characters and ? for one: "courses:list:*". Nothing becomes
// wrong by it; what is removed is loaded again when asked for. It walks the whole
// store, in bounded steps: an operator's tool, never for a request.
func (c *Cache) Purge(ctx context.Context, pattern string) (int, error) {
	n, err := c.cfg.Store.Purge(ctx, pattern)
	if err == nil {
		_, err = c.cfg.Store.Purge(ctx, partNamespace+":*:"+pattern) // the parts of large entries
	}
	if c.keepsValues() {
		c.changes.forget() // they are what the store holds
	}
	if err != nil {
		return n, fmt.Errorf("purge %q: %w", pattern, err)
	}
	return n, nil
}

package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
)

// RelayConfig is the configuration of a Relay. Its zero value is good.
type RelayConfig struct {
	// Grace is how long a row that bears a writer's mark is left to that writer. Default
	// 250 ms.
	Grace time.Duration
	// Poll is the longest pause between two looks at the outbox. Default 200 ms.
	Poll time.Duration
	// Batch is how many rows are delivered at a time. A backlog is delivered in batches
	// that grow to 20 times as many. Default 500.
	Batch int
	// MaxTags bounds how many tags of a batch are bumped by name; of more, families are.
	// Default DefaultMaxTags.
	MaxTags int
	// Logger receives what an operator should know. Default: discarded.
	Logger *slog.Logger
}

func (c RelayConfig) withDefaults() RelayConfig {
	c.Grace = cmp.Or(c.Grace, 250*time.Millisecond)
	c.Poll = cmp.Or(c.Poll, 200*time.Millisecond)
	c.Batch = cmp.Or(c.Batch, 500)
	c.MaxTags = cmp.Or(c.MaxTags, DefaultMaxTags)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

func (c RelayConfig) validate() error {
	var errs []error
	for _, f := range []struct {
		name  string
		value int64
	}{{"Grace", int64(c.Grace)}, {"Poll", int64(c.Poll)}, {"Batch", int64(c.Batch)}, {"MaxTags", int64(c.MaxTags)}} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("%s is negative: %d", f.name, f.value))
		}
	}
	return errors.Join(errs...)
}

const (
	growth     = 20                    // of a batch, under a backlog
	mostMarks  = 64                    // bumped one by one
	bumpAtOnce = 256                   // tags in one call of the shared tier, which has a time limit
	pacing     = 10 * time.Millisecond // at least, between looks that found nothing
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
	drainPause = 20 * time.Millisecond
	drainSlack = 5 * time.Millisecond // ages may be rounded
)

// Relay delivers what is left in an outbox: it bumps the tags and deletes the rows. Every
// process runs one; any can deliver any row, more than once without harm. It is safe
// for concurrent use.
type Relay struct {
	cache  *cache.Cache
	log    Log
	cfg    RelayConfig
	forget forgetter

	life    context.Context // ends with Close
	end     context.CancelCauseFunc
	mu      sync.Mutex
	started bool
	running sync.WaitGroup
}

var errClosed = errors.New("outbox: relay is closed")

// NewRelay returns a relay that delivers the rows of log to c. From now on c, when it
// recovers from an outage, calls Drain before it trusts an entry. Start it, and
// Close it before the cache and the database.
func NewRelay(c *cache.Cache, log Log, cfg RelayConfig) (*Relay, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("outbox: relay: %w", err)
	}
	r := &Relay{cache: c, log: log, cfg: cfg.withDefaults()}
	r.life, r.end = context.WithCancelCause(context.Background())
	r.forget.wake, r.forget.every = make(chan struct{}, 1), min(forgetEvery, r.cfg.Grace/2)
	c.OnRecovery(r.Drain)
	return r, nil
}

// Start begins to deliver in the background. Starting twice, or after Close, does nothing.
func (r *Relay) Start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.started || r.life.Err() != nil {
		return
	}
	r.started = true
	r.running.Go(r.run)
	r.running.Go(func() { r.forget.run(r.life, r.log, r.cfg.Logger) })
}

// Close stops delivering and waits for what is under way. Rows stay where they are, for the
// next process. It may be called again.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.end(errClosed)
	r.mu.Unlock()
	r.running.Wait()
	return nil
}

func (r *Relay) run() {
	ctx := r.life
	retry := firstRetry
	for ctx.Err() == nil {
		n, err := r.deliverAll(ctx)
		if err == nil {
			retry = firstRetry
			r.wait(ctx, n)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		// Retries are spaced out, for neither database nor shared tier gets well by being
		// asked. When the shared tier is back, the cache calls Drain.
		r.cfg.Logger.WarnContext(ctx, "outbox was not delivered, trying again", "err", err, "in", retry)
		pause(ctx, retry)
		retry = min(2*retry, lastRetry)
	}
}

// wait returns when the outbox is worth a look.
func (r *Relay) wait(ctx context.Context, delivered int) {
	poll, cancel := context.WithTimeout(ctx, r.cfg.Poll)
	defer cancel()
	if err := r.log.Wait(poll); err != nil {
		<-poll.Done() // it cannot tell: poll
		return
	}
	if delivered == 0 {
		pause(poll, min(pacing, r.cfg.Poll)) // if it cries wolf
	}
}

// deliverAll delivers in batches until fewer rows are left than one would hold.
func (r *Relay) deliverAll(ctx context.Context) (total int, err error) {
	for most := r.cfg.Batch; ; most = min(2*most, growth*r.cfg.Batch) {
		n, err := r.log.Deliver(ctx, r.cfg.Grace, most, r.bump)
		if err != nil {
			return total, fmt.Errorf("deliver: %w", err)
		}
		if total += n; n < most {
			return total, nil
		}
	}
}

// Backlog returns the number of rows in the outbox, counted up to a bound of the database's
// adapter, and the age of the oldest; 0 and 0 when there are none.
func (r *Relay) Backlog(ctx context.Context) (rows int, oldest time.Duration, err error) {
	return r.log.Backlog(ctx)
}

// Drain returns nil once everything that was committed before the call has been delivered,
// by whomever.
func (r *Relay) Drain(ctx context.Context) error {
	if r.life.Err() != nil {
		return fmt.Errorf("drain: %w", errClosed)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.life, func() { cancel(errClosed) })()
	start := time.Now()
	for most := r.cfg.Batch; ; {
		n, err := r.log.Deliver(ctx, 0, most, r.bump)
		if err != nil {
			return fmt.Errorf("drain: %w", err)
		}
		// What other relays hold at this moment was not ours to deliver, but it is in
		// the table until they have.
		rows, oldest, err := r.log.Backlog(ctx)
		if err != nil {
			return fmt.Errorf("drain: %w", err)
		}
		if rows == 0 || oldest+drainSlack < time.Since(start) {
			return nil
		}
		if n == most {
			most = min(2*most, growth*r.cfg.Batch)
		} else if !pause(ctx, drainPause) {
			return fmt.Errorf("drain: %w", context.Cause(ctx))
		}
	}
}

// bump delivers rows, and forgets nothing: that is the log's business.
func (r *Relay) bump(ctx context.Context, rows []Row) error {
	byMark := map[driver.Mark][]Row{}
	for _, row := range rows {
		byMark[row.Mark] = append(byMark[row.Mark], row)
	}
	if len(byMark) > mostMarks {
		// After an outage there is a mark for each write of it, and no fence behind most of
		// them. New versions are what counts; a fence that does stand will lapse.
		byMark = map[driver.Mark][]Row{driver.NoMark: rows}
	}
	for mark, rows := range byMark {
		for some := range slices.Chunk(tagsOf(rows, r.cfg.MaxTags), bumpAtOnce) {
			if err := r.cache.Bump(ctx, mark, some); err != nil {
				return err
			}
		}
	}
	delivered := Delivered{By: ByRelay, Rows: len(rows), Delays: make([]time.Duration, len(rows))}
	for i, row := range rows {
		delivered.Delays[i] = row.Age
	}
	r.cache.Observe(ctx, delivered)
	return nil
}

// delivered takes note of rows whose own writer has bumped them after delay.
func (r *Relay) delivered(ctx context.Context, rows []Row, delay time.Duration) {
	r.cache.Observe(ctx, Delivered{By: ByWriter, Rows: len(rows), Delays: []time.Duration{delay}})
	r.forget.add(rows)
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

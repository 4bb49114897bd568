package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
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
	// that grow to 20 times as many. At most 1,000,000. Default 500.
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
	if c.Batch > mostBatch {
		errs = append(errs, fmt.Errorf("Batch is %d: must be at most %d", c.Batch, mostBatch))
	}
	return errors.Join(errs...)
}

const (
	growth     = 20 // of a batch, under a backlog
	mostBatch  = 1_000_000
	mostMarks  = 64                    // bumped one by one
	pacing     = 10 * time.Millisecond // at least, between looks that found nothing
	firstRetry = 25 * time.Millisecond
	// A look that fails costs one short query, and nothing tells when a database answers again:
	// what external programs wrote during an outage is to show soon after it.
	lastRetry   = 150 * time.Millisecond
	remindEvery = 5 * time.Minute
	joinEvery   = 10 * time.Second // well within ConsumerLife
	// joinAtLeast is for a recovery: to renew a registration takes several statements, and while
	// nothing stored is served the database has more to do than ever.
	joinAtLeast = ConsumerLife / 2
	drainPause  = 20 * time.Millisecond
	drainSlack  = 5 * time.Millisecond // ages may be rounded
)

// Relay delivers what is left in an outbox to the store of one cache: it bumps the tags, and
// notes that this store has got them. Every process runs one. Any of those that share a store
// can deliver any row, more than once without harm. It is safe for concurrent use.
//
// The story of a row:
//
//	writer                       outbox                      relays of store A and of store B
//	fence in A
//	COMMIT --------------------> row 7, marked as A's
//	bump in A                                          ----> B: not mine to wait for: bump in B
//	done: A has got 7 ---------> A has 7, B has 7, so 7 is deleted
//
// Where the writer dies after its COMMIT, A's relay finds the row older than its grace and
// bumps it. A row of an external writer bears no mark, and every store's relay bumps it at once.
//
// A store is a consumer of the outbox while its relays say so (Join), every few seconds. One
// that was not registered may lack rows that were deleted before it came, so the first row that it
// gets invalidates all it holds (cache.Everything): at its first start, and when it was away for
// longer than ConsumerLife. A store that lost its name with its data joins by its new one, and the old
// one leaves. Until the first Drain has come to its end the
// cache serves nothing stored, for what was touched while no relay ran is in the outbox only.
//
// A relay that fails tries again, at most lastRetry later. It is woken before when the cache
// recovers (Drain), when the outbox says so (Log.Wait), and when it is closed.
type Relay struct {
	cache *cache.Cache
	log   Log
	cfg   RelayConfig
	done  deliveredRows
	woken chan struct{} // by a Drain that succeeded: store and database answer

	leave func() // takes Drain from the cache's recovery

	ctx     context.Context // ends with Close
	cancel  context.CancelCauseFunc
	mu      sync.Mutex
	started bool
	running sync.WaitGroup
	once    sync.Once    // for what is said once
	refused atomic.Int32 // how often in a row the store refused what was bumped

	joining sync.Mutex
	joined  atomic.Pointer[time.Time] // when the consumer was last seen to be registered; nil: it is not
}

var (
	errClosed     = errors.New("outbox: relay is closed")
	errNotDrained = errors.New("the outbox has not been drained yet")
)

// NewRelay returns a relay that delivers the rows of log to c. From now on c serves nothing
// stored until Drain has succeeded, which it calls itself: now, and after each outage of
// the store. Start it, and Close it before the cache and the database.
func NewRelay(c *cache.Cache, log Log, cfg RelayConfig) (*Relay, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("outbox: relay: %w", err)
	}
	r := &Relay{cache: c, log: log, cfg: cfg.withDefaults(), woken: make(chan struct{}, 1)}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	r.done.wake, r.done.every = make(chan struct{}, 1), min(deleteEvery, r.cfg.Grace/2)
	r.leave = c.OnRecovery(r.Drain)
	c.Suspect(errNotDrained)
	return r, nil
}

// Start begins to deliver in the background. Starting twice, or after Close, does nothing.
func (r *Relay) Start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.started || r.ctx.Err() != nil {
		return
	}
	r.started = true
	r.running.Go(r.run)
	r.running.Go(func() { r.done.run(r.ctx, r.deleteDelivered, r.cfg.Logger) })
}

// Started says whether Start was called: whether the relay delivers.
func (r *Relay) Started() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.started
}

// Close stops delivering and waits for what is under way. Rows stay where they are, for the
// next process. It may be called again.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.cancel(errClosed)
	r.mu.Unlock()
	r.running.Wait()
	r.leave() // a recovery must not wait for what is closed
	return nil
}

func (r *Relay) run() {
	ctx := r.ctx
	retry := firstRetry
	var failing, said time.Time // since when, and when it was last said
	for ctx.Err() == nil {
		n, err := r.deliverAll(ctx)
		if err == nil {
			if !failing.IsZero() {
				r.cfg.Logger.InfoContext(ctx, "the outbox is delivered again", "after", time.Since(failing).Round(time.Millisecond))
			}
			retry, failing, said = firstRetry, time.Time{}, time.Time{}
			r.wait(ctx, n)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if failing.IsZero() {
			failing = time.Now()
		}
		if time.Since(said) > remindEvery {
			said = time.Now()
			r.cfg.Logger.WarnContext(ctx, "the outbox cannot be delivered; trying again until it can",
				"err", err, "since", failing, "next_reminder", remindEvery)
		}
		select {
		case <-r.woken:
		case <-time.After(retry - rand.N(retry/4)): // processes must not march in step
			retry = min(2*retry, lastRetry)
		case <-ctx.Done():
		}
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

// consumer returns the name that the store has in the outbox, and registers it again if it was last
// registered longer ago than every.
func (r *Relay) consumer(ctx context.Context, every time.Duration) (string, error) {
	name, err := r.cache.StoreName(ctx)
	if err != nil {
		return "", err
	}
	if r.joinedWithin(every) {
		return name, nil
	}
	r.joining.Lock() // the background and a recovery may both find that it is time
	defer r.joining.Unlock()
	if r.joinedWithin(every) {
		return name, nil
	}
	if now, err := r.cache.AskStoreName(ctx); err == nil && now != name {
		return now, r.rename(ctx, name, now)
	}
	return name, r.join(ctx, name) // without the store too: it is to stay registered while it is away
}

func (r *Relay) joinedWithin(d time.Duration) bool {
	joined := r.joined.Load()
	return joined != nil && time.Since(*joined) < d
}

// rename registers the store under another name than before: it has lost that one, perhaps with its data,
// and processes that were born since know it by the new one. Were the old one left behind, every
// row would be kept for it until it is forgotten, and each look at the outbox would go through them.
// Processes that still deliver for it join again, by the new name. joining is held.
func (r *Relay) rename(ctx context.Context, before, now string) error {
	if err := r.join(ctx, now); err != nil {
		return err
	}
	r.cfg.Logger.WarnContext(ctx, "the store has lost its name, as it does with its data, and takes part in the outbox under another",
		"before", before, "now", now)
	if err := r.log.Leave(ctx, before); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}

// join registers the store. joining is held.
func (r *Relay) join(ctx context.Context, name string) error {
	joined, gone, err := r.log.Join(ctx, name)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	for _, consumer := range gone {
		r.cfg.Logger.WarnContext(ctx, "a store that took part in this outbox has not been heard of for long and is forgotten; if it comes back, all it holds is invalidated",
			"store", consumer, "for", ConsumerLife)
	}
	if joined {
		r.cfg.Logger.InfoContext(ctx, "this store takes part in the outbox from now on; what it held before is invalidated", "store", name)
	}
	now := time.Now()
	r.joined.Store(&now)
	return nil
}

// deliver hands up to most rows to bump.
func (r *Relay) deliver(ctx context.Context, joinEvery, grace time.Duration, most int) (int, error) {
	name, err := r.consumer(ctx, joinEvery)
	if err != nil {
		return 0, err
	}
	n, err := r.log.Deliver(ctx, name, grace, most, r.bump)
	if err != nil {
		if errors.Is(err, ErrNotJoined) {
			r.joined.Store(nil) // so it joins again at the next look
		}
		return n, fmt.Errorf("deliver: %w", err)
	}
	return n, nil
}

// deleteDelivered notes that the store has got rows.
func (r *Relay) deleteDelivered(ctx context.Context, ids []int64) error {
	name, err := r.cache.StoreName(ctx)
	if err != nil {
		return err
	}
	return r.log.Done(ctx, name, ids)
}

// deliverAll delivers in batches until fewer rows are left than one would hold.
func (r *Relay) deliverAll(ctx context.Context) (total int, err error) {
	for most := r.cfg.Batch; ; most = min(2*most, growth*r.cfg.Batch) {
		n, err := r.deliver(ctx, joinEvery, r.cfg.Grace, most)
		if errors.Is(err, ErrNotJoined) {
			n, err = r.deliver(ctx, joinEvery, r.cfg.Grace, most)
		}
		if err != nil {
			return total, err
		}
		if total += n; n < most {
			return total, nil
		}
	}
}

// Backlog returns the number of rows that the store has not got, counted up to a bound of the
// database's adapter, and the age of the oldest; 0 and 0 when there are none.
func (r *Relay) Backlog(ctx context.Context) (rows int, oldest time.Duration, err error) {
	name, err := r.cache.StoreName(ctx)
	if err != nil {
		return 0, 0, err
	}
	return r.log.Backlog(ctx, name)
}

// Drain returns nil once everything that was committed before the call has been delivered,
// by this relay or another.
func (r *Relay) Drain(ctx context.Context) error {
	if r.ctx.Err() != nil {
		return fmt.Errorf("drain: %w", errClosed)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.ctx, func() { cancel(errClosed) })()
	// The row that invalidates everything is older than start, whichever process registered the
	// store.
	if _, err := r.consumer(ctx, joinAtLeast); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	start := time.Now()
	for most := r.cfg.Batch; ; {
		n, err := r.deliver(ctx, joinAtLeast, 0, most)
		if err != nil {
			return fmt.Errorf("drain: %w", err)
		}
		// What other relays hold at this moment was not ours to deliver, but it is in
		// the table until they have.
		rows, oldest, err := r.Backlog(ctx)
		if err != nil {
			return fmt.Errorf("drain: %w", err)
		}
		if rows == 0 || oldest+drainSlack < time.Since(start) {
			select {
			case r.woken <- struct{}{}: // both answer: the background need not wait for longer
			default:
			}
			return nil
		}
		if n == most {
			most = min(2*most, growth*r.cfg.Batch)
		} else if !pause(ctx, drainPause) {
			return fmt.Errorf("drain: %w", context.Cause(ctx))
		}
	}
}

// bump delivers rows, and deletes nothing: that is the log's business.
func (r *Relay) bump(ctx context.Context, rows []Row) error {
	err := r.bumpRows(ctx, rows)
	switch {
	case err == nil:
		r.refused.Store(0)
	case !refusal(ctx, err) || r.refused.Add(1) < refusals:
		return err
	default:
		if err := r.setAside(ctx, rows); err != nil {
			return err
		}
		r.refused.Store(0)
	}
	delivered := Delivered{By: ByRelay, Rows: len(rows), Delays: make([]time.Duration, len(rows))}
	for i, row := range rows {
		delivered.Delays[i] = row.Age
	}
	r.cache.Observe(ctx, delivered)
	return nil
}

const (
	refusals = 3   // in a row, after which the relay looks for rows to blame
	trials   = 500 // rows of which it is found out which one is to blame
)

// refusal says whether an error may be about what was bumped. A store that does not answer says
// nothing about it.
func refusal(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !errors.Is(err, cache.ErrUnavailable) && !errors.Is(err, driver.ErrUnproven) && !errors.Is(err, context.DeadlineExceeded)
}

// setAside delivers rows of which some cannot be bumped, so that they do not hold up the rest. In
// place of those of a kind that fails it bumps their family, and Everything if that fails too.
// Both make at least the same answers invalid. If neither can be bumped, it is the store that
// fails, and nothing is set aside.
func (r *Relay) setAside(ctx context.Context, rows []Row) error {
	byFamily := map[cache.Tag][]Row{}
	for _, row := range rows {
		byFamily[row.Tag.Family()] = append(byFamily[row.Tag.Family()], row)
	}
	for family, rows := range byFamily {
		err := r.bumpRows(ctx, rows)
		if err == nil {
			continue
		}
		if !refusal(ctx, err) {
			return err
		}
		instead := family
		if r.cache.Bump(ctx, driver.NoMark, []cache.Tag{family}) != nil {
			instead = cache.Everything
			if r.cache.Bump(ctx, driver.NoMark, []cache.Tag{instead}) != nil {
				return err
			}
		}
		// They are delivered. What follows finds the row for the people who look into it.
		found := rows[0]
		for _, row := range rows[:min(len(rows), trials)] {
			if failed := r.bumpRows(ctx, []Row{row}); failed != nil {
				found, err = row, failed
				_ = r.cache.Bump(ctx, driver.NoMark, []cache.Tag{instead}) // the cache remembers the failure else
				break
			}
		}
		r.tellAside(ctx, SetAside{Row: found.ID, Rows: len(rows), Instead: instead, Err: err})
	}
	return nil
}

func (r *Relay) tellAside(ctx context.Context, e SetAside) {
	r.cache.Observe(ctx, e)
	r.once.Do(func() {
		r.cfg.Logger.ErrorContext(ctx, "the outbox holds a row that cannot be delivered, so more is invalidated in its place",
			"row", e.Row, "rows", e.Rows, "instead", e.Instead, "err", e.Err,
			"remedy", "record tags with the functions of the outbox, not with INSERT, and see that the store takes every tag")
	})
}

func (r *Relay) bumpRows(ctx context.Context, rows []Row) error {
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
		tags, malformed := tagsOf(rows, r.cfg.MaxTags)
		if err := r.cache.Bump(ctx, mark, tags); err != nil {
			return err
		}
		if malformed {
			bad := rows[slices.IndexFunc(rows, func(row Row) bool { return row.Tag.Check() != nil })]
			r.tellAside(ctx, SetAside{Row: bad.ID, Rows: 1, Instead: cache.Everything, Err: bad.Tag.Check()})
		}
	}
	return nil
}

// delivered takes note of rows whose own writer has bumped them after delay.
func (r *Relay) delivered(ctx context.Context, rows []Row, delay time.Duration) {
	r.cache.Observe(ctx, Delivered{By: ByWriter, Rows: len(rows), Delays: []time.Duration{delay}})
	r.done.add(rows)
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

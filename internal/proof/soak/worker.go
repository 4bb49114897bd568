package soak

import (
	"context"
	"encoding/binary"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/cacheprom"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
	outboxpg "github.com/chainlearn/chainlearn/cache/outbox/postgres"
	"github.com/chainlearn/chainlearn/cache/redisstore"
)

// workerVariable holds the configuration of a worker, in the environment of its process.
const workerVariable = "CHAINLEARN_SOAK_WORKER"

// workerConfig is passed to a worker at its start.
type workerConfig struct {
	Number          int // of this process; no two of a run have the same
	Postgres        string
	Redis           string
	Shape           shape
	StoreTimeout    time.Duration
	Lease           time.Duration
	DelayBeforeBump time.Duration
	Near            time.Duration
}

// BecomeWorker makes this process a worker and ends it, if it was started as one. Call it
// first in main, or in TestMain: a Fleet runs the program it is part of.
func BecomeWorker() {
	text := os.Getenv(workerVariable)
	if text == "" {
		return
	}
	if err := runWorker(text, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// worker is a program that uses the library, and reports what it sees.
type worker struct {
	cfg      workerConfig
	events   *eventSender
	injector *injector
	cache    *cache.Cache
	store    driver.Store
	reg      *prometheus.Registry
	pool     *pgxpool.Pool
	db       *outboxpg.DB
	ops      atomic.Int64

	items, near, proven *cache.Cached[int, int64]
	batches             *cache.Cached[int, int64] // of items, that are loaded together
	large               *cache.Cached[largeKey, []byte]
	lists               *cache.Cached[int, []keyValue]
	named               *cache.Cached[int, []keyValue]
	slow                *cache.Cached[slowKey, string]

	loading, peakLoads atomic.Int64 // loads of items at this moment, and most of them so far

	mu      sync.Mutex
	loads   map[string][]interval // of the slow query, by name; guarded by mu
	stop    context.CancelFunc
	clients sync.WaitGroup // the clients of the load
}

func runWorker(text string, in io.Reader, out io.Writer) (err error) {
	w := &worker{events: newEventSender(out), reg: prometheus.NewRegistry(), loads: map[string][]interval{}, stop: func() {}}
	if err := json.Unmarshal([]byte(text), &w.cfg); err != nil {
		return fmt.Errorf("%s: %w", workerVariable, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go w.events.flushPeriodically(ctx)
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	w.injector = newInjector(func(op int64) { w.events.sendNow(event{Kind: eventFenced, Op: op, Begin: now()}) })

	store, err := redisstore.Open(ctx, redisstore.Config{URL: w.cfg.Redis, Prefix: "soak:", Timeout: w.cfg.StoreTimeout, Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	w.injector.delayBeforeBump = w.cfg.DelayBeforeBump
	w.store = w.injector.wrap(store)
	metrics, err := cacheprom.New(w.reg)
	if err != nil {
		return err
	}
	w.cache, err = cache.New(cache.Config{
		Store: w.store, Observer: metrics, Logger: logger,
		StoreTimeout: w.cfg.StoreTimeout, FenceLease: w.cfg.Lease,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.cache.Close()) }()

	pg, err := pgxpool.ParseConfig(w.cfg.Postgres)
	if err != nil {
		return err
	}
	pg.MaxConns = 12
	pg.ConnConfig.DialFunc = w.injector.dial
	// Longer than the database takes to give every worker its connections again. What is given up sooner
	// is asked for again, and the server works on both: on two cores it never catches up.
	pg.ConnConfig.ConnectTimeout = 10 * time.Second
	if w.pool, err = pgxpool.NewWithConfig(ctx, pg); err != nil {
		return err
	}
	defer w.pool.Close()
	log := outboxpg.NewLog(w.pool, logger)
	defer log.Close()
	relay, err := outbox.NewRelay(w.cache, log, outbox.RelayConfig{Logger: logger})
	if err != nil {
		return err
	}
	relay.Start()
	defer relay.Close()
	w.db, err = outboxpg.NewDB(log, w.cache, outboxpg.Config{
		Options: outbox.Options{Relay: relay, CommitTime: w.cfg.Lease / 2},
	})
	if err != nil {
		return err
	}
	w.define()
	return w.serve(ctx, in)
}

// serve answers requests until the parent has no more.
func (w *worker) serve(ctx context.Context, in io.Reader) error {
	requests := gob.NewDecoder(in)
	var running sync.WaitGroup
	defer running.Wait()
	defer w.stopWorkload()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // runs first: the parent waits for no more answers
	for {
		var r request
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if r.Workload != nil { // in the order of the requests: StopWorkload may follow
			w.startWorkload(ctx, *r.Workload)
			w.events.reply(&reply{ID: r.ID})
			continue
		}
		running.Go(func() {
			answer := &reply{ID: r.ID}
			if err := w.answer(ctx, r, answer); err != nil {
				answer.Err = err.Error()
			}
			w.events.reply(answer)
			if r.Write != nil && r.Write.CrashAt == afterAck {
				crash()
			}
		})
	}
}

func (w *worker) answer(ctx context.Context, r request, answer *reply) (err error) {
	switch {
	case r.StopWorkload:
		w.stopWorkload()
	case r.ReadAll:
		answer.Items, answer.Lists, err = w.readAll(ctx)
	case r.Write != nil:
		return w.write(ctx, r.Write.Keys, false, r.Write.CrashAt)
	case r.Stampede != nil:
		answer.Stampede = w.stampede(ctx, *r.Stampede)
	case r.OpenLoop != nil:
		answer.OpenLoop, err = w.openLoop(ctx, *r.OpenLoop)
	case r.Clock != nil:
		w.injector.clockSkew.Store(int64(r.Clock.Ahead))
	case r.Big != nil && r.Big.Bytes > 0:
		w.readLarge(ctx, largeKey{r.Big.Key, r.Big.Bytes})
	case r.Big != nil:
		w.readBatch(ctx, r.Big.Key, r.Big.Keys)
	case r.State:
		h := w.cache.Health()
		if answer.Stats.State = h.State; h.Err != nil {
			answer.Stats.Why = h.Err.Error()
		}
	case r.Stats:
		answer.Stats, err = w.stats()
	case r.Stacks:
		answer.Stacks = stacks()
	default:
		err = errors.New("the request is empty")
	}
	return err
}

// define declares the queries.
func (w *worker) define() {
	item := cache.Query[int, int64]{
		Name: "soak:item",
		Key:  func(k int) string { return cache.Key(k) },
		Tags: func(k int) []cache.Tag { return []cache.Tag{itemTag(k)} },
		Load: w.loadItem,
		// Short, so that answers become stale by time as well as by writes.
		FreshFor: 2 * time.Second, StaleWhileRevalidate: 5 * time.Second, StaleIfError: 5 * time.Second, NotFound: 2 * time.Second,
		LoadTimeout: 5 * time.Second,
	}
	w.items = cache.Define(w.cache, item)
	if w.watchable() {
		near := item
		near.Name, near.Near = "soak:near", w.cfg.Near
		w.near = cache.Define(w.cache, near)
		proven := item
		proven.Name, proven.NearStrict = "soak:proven", true
		w.proven = cache.Define(w.cache, proven)
	}
	w.lists = cache.Define(w.cache, cache.Query[int, []keyValue]{
		Name: "soak:list",
		Key:  func(g int) string { return cache.Key(g) },
		Tags: func(g int) []cache.Tag { return []cache.Tag{groupTag(g)} },
		Load: w.loadList, FreshFor: 2 * time.Second, StaleWhileRevalidate: 5 * time.Second, LoadTimeout: 5 * time.Second,
	})
	w.named = cache.Define(w.cache, cache.Query[int, []keyValue]{
		Name: "soak:named",
		Tags: func(k int) []cache.Tag { return []cache.Tag{itemTag(k)} },
		Load: w.loadNamed, FreshFor: 2 * time.Second, StaleWhileRevalidate: 5 * time.Second, NotFound: 2 * time.Second, LoadTimeout: 5 * time.Second,
	})
	batch := item
	batch.Name, batch.LoadMany = "soak:batch", w.loadBatch
	batch.StaleWhileRevalidate, batch.StaleIfError = 0, 0 // thousands of them
	w.batches = cache.Define(w.cache, batch)
	w.large = cache.Define(w.cache, cache.Query[largeKey, []byte]{
		Name: "soak:large",
		Tags: func(k largeKey) []cache.Tag { return []cache.Tag{itemTag(k.Item)} },
		Load: w.loadLarge, Codec: unchanged{}, FreshFor: 2 * time.Second, LoadTimeout: 10 * time.Second,
	})
	w.slow = cache.Define(w.cache, cache.Query[slowKey, string]{
		Name: "soak:slow",
		Key:  func(a slowKey) string { return cache.Key(a.Name) },
		Tags: func(a slowKey) []cache.Tag { return cache.Tags("slow", a.Name) },
		Load: w.loadSlow, FreshFor: time.Hour, LoadTimeout: time.Minute,
	})
}

func (w *worker) watchable() bool {
	_, ok := w.store.(driver.Watcher)
	return ok
}

func itemTag(k int) cache.Tag  { return cache.T("item", k) }
func groupTag(g int) cache.Tag { return cache.T("group", g) }

func (w *worker) loadItem(ctx context.Context, k int) (v int64, err error) {
	w.peakLoads.Store(max(w.peakLoads.Load(), w.loading.Add(1))) // an update may be lost; the next one makes up for it
	defer w.loading.Add(-1)
	err = w.pool.QueryRow(ctx, `SELECT value FROM items WHERE id = $1`, k).Scan(&v)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, cache.ErrNotFound
	}
	return v, err
}

// loadList answers with every key of the group, 0 for those that are not there.
func (w *worker) loadList(ctx context.Context, g int) ([]keyValue, error) {
	rows, err := w.pool.Query(ctx, `SELECT id, value FROM items WHERE grp = $1`, g)
	if err != nil {
		return nil, err
	}
	list := make([]keyValue, w.cfg.Shape.Keys)
	for i := range list {
		list[i].Key = w.cfg.Shape.key(g, i)
	}
	var k int
	var v int64
	_, err = pgx.ForEachRow(rows, []any{&k, &v}, func() error {
		list[k-list[0].Key].Value = v
		return nil
	})
	return list, err
}

// loadNamed answers with a row and with another, to which the value of the first points. Only the load can
// know which that is. It names the tag before it reads the row, or after it.
func (w *worker) loadNamed(ctx context.Context, k int) ([]keyValue, error) {
	v, err := w.loadItem(ctx, k)
	if err != nil {
		return nil, err
	}
	other := int(v % int64(w.cfg.Shape.rows()))
	if v%2 == 0 {
		cache.DependOn(ctx, itemTag(other))
	}
	of, err := w.loadItem(ctx, other)
	if v%2 != 0 {
		cache.DependOn(ctx, itemTag(other))
	}
	if errors.Is(err, cache.ErrNotFound) { // is seen as 0
		err = nil
	}
	return []keyValue{{k, v}, {other, of}}, err
}

func (w *worker) loadBatch(ctx context.Context, ks []int) ([]cache.Loaded[int64], error) {
	rows, err := w.pool.Query(ctx, `SELECT id, value FROM items WHERE id = ANY ($1)`, ks)
	if err != nil {
		return nil, err
	}
	values := map[int]int64{}
	var k int
	var v int64
	_, err = pgx.ForEachRow(rows, []any{&k, &v}, func() error { values[k] = v; return nil })
	loaded := make([]cache.Loaded[int64], len(ks))
	for i, k := range ks {
		if v, ok := values[k]; ok {
			loaded[i].Value = v
		} else {
			loaded[i].Err = cache.ErrNotFound
		}
	}
	return loaded, err
}

// largeKey is an item as an answer of many bytes, which cannot be compressed.
type largeKey struct{ Item, Bytes int }

func (w *worker) loadLarge(ctx context.Context, k largeKey) ([]byte, error) {
	v, err := w.loadItem(ctx, k.Item)
	if err != nil {
		return nil, err
	}
	b := make([]byte, k.Bytes)
	_, _ = rand.NewChaCha8([32]byte{byte(v), byte(v >> 8)}).Read(b) // never fails
	binary.BigEndian.PutUint64(b, uint64(v))
	return b, nil
}

// unchanged is the codec of what is bytes already.
type unchanged struct{}

func (unchanged) Encode(b []byte) ([]byte, error) { return b, nil }
func (unchanged) Decode(b []byte) ([]byte, error) { return b, nil }

var errSlow = errors.New("the slow answer fails, as asked")

func (w *worker) loadSlow(ctx context.Context, a slowKey) (string, error) {
	s := interval{Begin: now()}
	w.events.sendNow(event{Kind: eventLoadBegins, Begin: s.Begin, Name: a.Name})
	select {
	case <-time.After(a.Duration):
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	s.End = now()
	w.mu.Lock()
	w.loads[a.Name] = append(w.loads[a.Name], s)
	w.mu.Unlock()
	switch a.Result {
	case "missing":
		return "", cache.ErrNotFound
	case "failed":
		return "", errSlow
	}
	return a.Name, nil
}

// stacks are those of all goroutines, up to a bound.
func stacks() string {
	const most = 256 << 10
	b := make([]byte, most)
	return string(b[:runtime.Stack(b, true)])
}

// stats measures after a collection, so that what is garbage does not count.
func (w *worker) stats() (Stats, error) {
	families, err := w.reg.Gather()
	if err != nil {
		return Stats{}, err
	}
	v := Stats{State: w.cache.Health().State, Watchable: w.watchable(), Metrics: map[string]float64{}}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			v.Metrics[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	v.Heap, v.Goroutines = mem.HeapAlloc, runtime.NumGoroutine()
	return v, nil
}

// eventSender sends what happened to the parent. What must survive the worker is sent at once:
// bytes in a pipe outlive their writer.
type eventSender struct {
	mu     sync.Mutex
	enc    *gob.Encoder
	events []event
}

const maxBufferedEvents = 256

func newEventSender(to io.Writer) *eventSender { return &eventSender{enc: gob.NewEncoder(to)} }

func (o *eventSender) buffer(e event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.events = append(o.events, e); len(o.events) >= maxBufferedEvents {
		o.send(nil)
	}
}

func (o *eventSender) sendNow(e event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, e)
	o.send(nil)
}

func (o *eventSender) reply(r *reply) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.send(r)
}

// send empties the buffer; mu is held. Errors are ignored: they occur when the parent is gone,
// and then the end of the input ends the worker.
func (o *eventSender) send(r *reply) {
	_ = o.enc.Encode(message{Events: o.events, Reply: r})
	o.events = o.events[:0]
}

func (o *eventSender) flushPeriodically(ctx context.Context) {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			o.mu.Lock()
			if len(o.events) > 0 {
				o.send(nil)
			}
			o.mu.Unlock()
		}
	}
}

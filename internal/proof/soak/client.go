package soak

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// The clients of a worker read and write at random, and report what they saw.

// callTimeout is how long a client waits for one answer. It is beyond every fault, so that
// whatever fails sooner fails for a reason of the library's.
const callTimeout = 20 * time.Second

// startWorkload begins a load. The one before must have been paused.
func (w *worker) startWorkload(ctx context.Context, l Workload) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, w.stop = context.WithCancel(ctx)
	for n := range l.Readers {
		w.clients.Go(func() { w.reader(ctx, l, newRand(l.Seed, w.cfg.Number, n)) })
	}
	for n := range l.Writers {
		w.clients.Go(func() { w.writer(ctx, l, newRand(l.Seed, w.cfg.Number, 1000+n)) })
	}
}

// stopWorkload ends the load and waits for what is under way.
func (w *worker) stopWorkload() {
	w.mu.Lock()
	w.stop()
	w.mu.Unlock()
	w.clients.Wait()
}

// newRand returns the random numbers of one client.
func newRand(seed uint64, process, client int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(process)<<32|uint64(client)))
}

// sleepAbout waits for about d, and returns false if ctx ended.
func sleepAbout(ctx context.Context, rnd *rand.Rand, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *worker) reader(ctx context.Context, l Workload, rnd *rand.Rand) {
	ops := context.WithoutCancel(ctx) // an operation under way ends by itself
	s := w.cfg.Shape
	for sleepAbout(ctx, rnd, l.Pace) {
		k := rnd.IntN(s.rows())
		switch n := rnd.IntN(100); {
		case n < 10:
			w.readList(ops, k/s.Keys)
		case n < 16:
			w.readMany(ops, []int{k, (k + 1) % s.rows(), (k + s.Keys) % s.rows()})
		case n < 24:
			w.readNamed(ops, k)
		case n < 28:
			w.readNamed(ops, k, (k+1)%s.rows(), (k+s.Keys)%s.rows())
		case n < 46 && w.near != nil && l.Near:
			w.readItem(ops, kindNear, k)
		case n < 64 && w.near != nil && l.Near:
			w.readItem(ops, kindProven, k)
		default:
			w.readItem(ops, kindItem, k)
		}
	}
}

func (w *worker) writer(ctx context.Context, l Workload, rnd *rand.Rand) {
	ops := context.WithoutCancel(ctx)
	s := w.cfg.Shape
	for sleepAbout(ctx, rnd, l.WritePace) {
		keys := []int{rnd.IntN(s.rows())}
		if rnd.IntN(5) == 0 { // two rows, often of two groups
			if k := rnd.IntN(s.rows()); k != keys[0] {
				keys = append(keys, k)
			}
		}
		if w.write(ops, keys, rnd.IntN(10) == 0, noCrash) != nil {
			continue
		}
		// One's own write is where an inconsistency would be noticed first.
		kind := kindItem
		if w.near != nil && l.Near {
			kind = [...]readKind{kindItem, kindNear, kindProven}[rnd.IntN(3)]
		}
		w.readItem(ops, kind, keys[0])
	}
}

func (w *worker) readItem(ctx context.Context, kind readKind, k int) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	query := w.items
	switch kind {
	case kindNear:
		query = w.near
	case kindProven:
		query = w.proven
	}
	begin := now()
	a, err := query.Lookup(ctx, k)
	if kind == kindProven && a.Detail != cache.DetailNearProven {
		kind = kindItem
	}
	w.recordRead(kind, a.Status, begin, err, keyValue{k, a.Value})
}

func (w *worker) readList(ctx context.Context, g int) []keyValue {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	begin := now()
	a, err := w.lists.Lookup(ctx, g)
	w.recordRead(kindList, a.Status, begin, err, a.Value...)
	return a.Value
}

func (w *worker) readMany(ctx context.Context, ks []int) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	begin := now()
	results, err := w.items.GetMany(ctx, ks)
	end := now()
	for i, r := range results {
		w.recordReadAt(kindMany, r.Status, begin, end, r.Err, keyValue{ks[i], r.Value})
	}
	if err != nil {
		w.recordReadAt(kindMany, 0, begin, end, err)
	}
}

// readNamed asks for rows, each with the one to which it points.
func (w *worker) readNamed(ctx context.Context, ks ...int) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	results := make([]cache.Result[[]keyValue], 1)
	begin := now()
	var err error
	if len(ks) == 1 {
		results[0].Answer, results[0].Err = w.named.Lookup(ctx, ks[0])
	} else {
		results, err = w.named.GetMany(ctx, ks)
	}
	end := now()
	for i, r := range results {
		seen := r.Value
		if errors.Is(r.Err, cache.ErrNotFound) {
			seen = []keyValue{{Key: ks[i]}}
		}
		w.recordReadAt(kindNamed, r.Status, begin, end, r.Err, seen...)
	}
	if err != nil {
		w.recordReadAt(kindNamed, 0, begin, end, err)
	}
}

// readBatch asks for n keys at once. Those beyond the rows do not exist.
func (w *worker) readBatch(ctx context.Context, from, n int) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ks := make([]int, n)
	for i := range ks {
		ks[i] = from + i
	}
	begin := now()
	results, err := w.batches.GetMany(ctx, ks)
	end := now()
	for i, r := range results[:min(len(results), w.cfg.Shape.rows()-from)] {
		w.recordReadAt(kindMany, r.Status, begin, end, r.Err, keyValue{ks[i], r.Value})
	}
	if err != nil {
		w.recordReadAt(kindMany, 0, begin, end, err)
	}
}

func (w *worker) readLarge(ctx context.Context, k largeKey) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	begin := now()
	a, err := w.large.Lookup(ctx, k)
	seen := keyValue{Key: k.Item}
	if err == nil {
		seen.Value = int64(binary.BigEndian.Uint64(a.Value))
	}
	w.recordRead(kindLarge, a.Status, begin, err, seen)
}

func (w *worker) recordRead(kind readKind, status cache.Status, begin int64, err error, values ...keyValue) {
	w.recordReadAt(kind, status, begin, now(), err, values...)
}

func (w *worker) recordReadAt(kind readKind, status cache.Status, begin, end int64, err error, values ...keyValue) {
	e := event{Kind: eventRead, ReadKind: kind, Status: status, Begin: begin, End: end, Values: values}
	if err != nil && !errors.Is(err, cache.ErrNotFound) {
		e.Kind, e.Values, e.Err = eventFailedRead, nil, err.Error()
	}
	w.events.buffer(e)
}

// readAll asks for every strict answer, one after the other.
func (w *worker) readAll(ctx context.Context) (items []keyValue, lists [][]keyValue, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s := w.cfg.Shape
	for k := range s.rows() {
		begin := now()
		a, err := w.items.Lookup(ctx, k)
		w.recordRead(kindItem, a.Status, begin, err, keyValue{k, a.Value})
		if err != nil && !errors.Is(err, cache.ErrNotFound) {
			return nil, nil, err
		}
		items = append(items, keyValue{k, a.Value})
	}
	for g := range s.Groups {
		begin := now()
		a, err := w.lists.Lookup(ctx, g)
		w.recordRead(kindList, a.Status, begin, err, a.Value...)
		if err != nil {
			return nil, nil, err
		}
		lists = append(lists, a.Value)
	}
	return items, lists, nil
}

var errUndone = errors.New("rolled back, as intended")

// write gives keys new values in one transaction, or with undo rolls it back at the end.
func (w *worker) write(ctx context.Context, keys []int, undo bool, at crashPoint) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	op := int64(w.cfg.Number)<<32 | w.ops.Add(1)
	var mark driver.Mark
	w.events.sendNow(event{Kind: eventWriteBegins, Op: op, Begin: now()})
	err := w.db.Write(ctx, func(ctx context.Context, tx pgx.Tx) error {
		w.injector.untrack(mark) // of an attempt that the database asked to repeat
		var bytes []byte
		if err := tx.QueryRow(ctx, `SELECT soak_change($1, $2)`, keys, op).Scan(&bytes); err != nil {
			return err
		}
		copy(mark[:], bytes)
		w.injector.track(mark, op, at)
		if at == afterStatements {
			crash()
		}
		if undo {
			return errUndone
		}
		return nil
	})
	e := event{Kind: eventWriteEnds, Op: op, End: now(), Outcome: acknowledged, Bumped: w.injector.untrack(mark)}
	if err != nil {
		e.Outcome, e.Err = notCommitted, err.Error()
		if errors.Is(err, outbox.ErrUnknownOutcome) {
			e.Outcome = unknown
		}
	}
	w.events.sendNow(e)
	return err
}

// stampede has many callers ask for one slow answer at the same moment.
func (w *worker) stampede(ctx context.Context, o stampedeRequest) stampedeResult {
	result := stampedeResult{Outcomes: map[string]int{}}
	var mu sync.Mutex
	var callers sync.WaitGroup
	for range o.Callers {
		callers.Go(func() {
			time.Sleep(time.Duration(o.At - now()))
			_, err := w.slow.Get(ctx, o.Key)
			end := now()
			got := "found"
			if errors.Is(err, cache.ErrNotFound) {
				got = "missing"
			} else if _, ok := errors.AsType[*cache.LoadError](err); ok {
				got = "failed"
			} else if err != nil {
				got = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			result.Outcomes[got]++
			result.LastAnswer = max(result.LastAnswer, end)
		})
	}
	callers.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	result.Loads = w.loads[o.Key.Name]
	return result
}

// openLoop asks at a steady rate, and does not wait for an answer before it asks again. Each
// request asks for another key, so that the store calls for a key are those of one request.
func (w *worker) openLoop(ctx context.Context, o openLoopRequest) (openLoopResult, error) {
	var result openLoopResult
	var mu sync.Mutex
	var callers sync.WaitGroup
	w.peakLoads.Store(0)
	calls := &w.injector.calls
	calls.reset()
	t := time.NewTicker(time.Second / time.Duration(o.Rate))
	defer t.Stop()
	for n, until := 0, time.Now().Add(o.For); time.Now().Before(until); n++ {
		if n == w.cfg.Shape.rows() {
			callers.Wait()
			return result, fmt.Errorf("%d rows are too few for %d requests a second during %s", n, o.Rate, o.For)
		}
		<-t.C
		callers.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			s := sample{Down: w.cache.Health().State == "down", Begin: now()}
			begin := time.Now()
			a, err := w.items.Lookup(ctx, n)
			s.Took = time.Since(begin)
			s.Calls = calls.of(itemStoreKey(n))
			s.Down = s.Down && w.cache.Health().State == "down"
			if a.Status != cache.Hit && a.Status != cache.Stale {
				s.LoadTime = a.Age // since the source was asked
			}
			if _, source := errors.AsType[*pgconn.ConnectError](err); source {
				s.NoSource = true
			} else if err != nil && !errors.Is(err, cache.ErrNotFound) {
				s.Err = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			result.Samples = append(result.Samples, s)
		})
		callers.Go(func() {
			begin := time.Now()
			time.Sleep(w.cfg.StoreTimeout)
			late := time.Since(begin) - w.cfg.StoreTimeout
			mu.Lock()
			defer mu.Unlock()
			result.TimerDelays = append(result.TimerDelays, late)
		})
	}
	callers.Wait()
	result.PeakLoads = w.peakLoads.Load()
	result.LongestDeadline, result.Unbounded = calls.deadlines()
	return result, nil
}

package soak

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// What the clients of a worker do: read and write at random, and say what they saw.

// patience is how long a client waits for one answer. It is beyond every fault, so that
// whatever fails sooner fails for a reason of the library's.
const patience = 20 * time.Second

// run begins a load. The one before must have been paused.
func (w *worker) run(ctx context.Context, l Load) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, w.stop = context.WithCancel(ctx)
	for n := range l.Readers {
		w.busy.Go(func() { w.reader(ctx, l, dice(l.Seed, w.cfg.Number, n)) })
	}
	for n := range l.Writers {
		w.busy.Go(func() { w.writer(ctx, l, dice(l.Seed, w.cfg.Number, 1000+n)) })
	}
}

// pause ends the load and waits for what is under way.
func (w *worker) pause() {
	w.mu.Lock()
	w.stop()
	w.mu.Unlock()
	w.busy.Wait()
}

// dice returns the random numbers of one client.
func dice(seed uint64, process, client int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(process)<<32|uint64(client)))
}

// rest waits for about d, and returns false if ctx ended.
func rest(ctx context.Context, rnd *rand.Rand, d time.Duration) bool {
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

func (w *worker) reader(ctx context.Context, l Load, rnd *rand.Rand) {
	ops := context.WithoutCancel(ctx) // a pause lets what is under way end by itself
	s := w.cfg.Shape
	for rest(ctx, rnd, l.Pace) {
		k := rnd.IntN(s.all())
		switch n := rnd.IntN(100); {
		case n < 12:
			w.readList(ops, k/s.Keys)
		case n < 20:
			w.readMany(ops, []int{k, (k + 1) % s.all(), (k + s.Keys) % s.all()})
		case n < 40 && w.near != nil && l.Near:
			w.readItem(ops, askNear, k)
		default:
			w.readItem(ops, askItem, k)
		}
	}
}

func (w *worker) writer(ctx context.Context, l Load, rnd *rand.Rand) {
	ops := context.WithoutCancel(ctx)
	s := w.cfg.Shape
	for rest(ctx, rnd, l.WritePace) {
		keys := []int{rnd.IntN(s.all())}
		if rnd.IntN(5) == 0 { // two rows, often of two groups
			if k := rnd.IntN(s.all()); k != keys[0] {
				keys = append(keys, k)
			}
		}
		if w.write(ops, keys, rnd.IntN(10) == 0, alive) != nil {
			continue
		}
		// One's own write is where an inconsistency would be noticed first.
		asked := askItem
		if w.near != nil && l.Near && rnd.IntN(2) == 0 {
			asked = askNear
		}
		w.readItem(ops, asked, keys[0])
	}
}

func (w *worker) readItem(ctx context.Context, asked question, k int) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	query := w.items
	if asked == askNear {
		query = w.near
	}
	begin := now()
	a, err := query.Lookup(ctx, k)
	w.saw(asked, a.Status, begin, err, sight{k, a.Value})
}

func (w *worker) readList(ctx context.Context, g int) []sight {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begin := now()
	a, err := w.lists.Lookup(ctx, g)
	w.saw(askList, a.Status, begin, err, a.Value...)
	return a.Value
}

func (w *worker) readMany(ctx context.Context, ks []int) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begin := now()
	results, err := w.items.GetMany(ctx, ks)
	end := now()
	for i, r := range results {
		w.sawAt(askMany, r.Status, begin, end, r.Err, sight{ks[i], r.Value})
	}
	if err != nil {
		w.sawAt(askMany, 0, begin, end, err)
	}
}

func (w *worker) saw(asked question, status cache.Status, begin int64, err error, seen ...sight) {
	w.sawAt(asked, status, begin, now(), err, seen...)
}

func (w *worker) sawAt(asked question, status cache.Status, begin, end int64, err error, seen ...sight) {
	e := event{Kind: eventRead, Asked: asked, Status: status, Begin: begin, End: end, Seen: seen}
	if err != nil && !errors.Is(err, cache.ErrNotFound) {
		e.Kind, e.Seen, e.Err = eventFailedRead, nil, err.Error()
	}
	w.out.note(e)
}

// look asks for every strict answer, one after the other.
func (w *worker) look(ctx context.Context) (items []sight, lists [][]sight, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s := w.cfg.Shape
	for k := range s.all() {
		begin := now()
		a, err := w.items.Lookup(ctx, k)
		w.saw(askItem, a.Status, begin, err, sight{k, a.Value})
		if err != nil && !errors.Is(err, cache.ErrNotFound) {
			return nil, nil, err
		}
		items = append(items, sight{k, a.Value})
	}
	for g := range s.Groups {
		begin := now()
		a, err := w.lists.Lookup(ctx, g)
		w.saw(askList, a.Status, begin, err, a.Value...)
		if err != nil {
			return nil, nil, err
		}
		lists = append(lists, a.Value)
	}
	return items, lists, nil
}

var errUndone = errors.New("rolled back, as intended")

// write gives keys new values in one transaction, or with undo rolls it back at the end.
func (w *worker) write(ctx context.Context, keys []int, undo bool, at step) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	op := int64(w.cfg.Number)<<32 | w.ops.Add(1)
	var mark driver.Mark
	w.out.urgent(event{Kind: eventWriteBegins, Op: op, Begin: now()})
	err := w.db.Write(ctx, func(ctx context.Context, tx pgx.Tx) error {
		w.trap.forget(mark) // of an attempt that the database asked to repeat
		var bytes []byte
		if err := tx.QueryRow(ctx, `SELECT soak_change($1, $2)`, keys, op).Scan(&bytes); err != nil {
			return err
		}
		copy(mark[:], bytes)
		w.trap.expect(mark, op, at)
		if at == afterStatements {
			die()
		}
		if undo {
			return errUndone
		}
		return nil
	})
	e := event{Kind: eventWriteEnds, Op: op, End: now(), Outcome: acknowledged, Bumped: w.trap.forget(mark)}
	if err != nil {
		e.Outcome, e.Err = undone, err.Error()
		if errors.Is(err, outbox.ErrUnknownOutcome) {
			e.Outcome = unknown
		}
	}
	w.out.urgent(e)
	return err
}

// crowd has many callers ask for one slow answer at the same moment.
func (w *worker) crowd(ctx context.Context, o crowdOrder) crowdResult {
	result := crowdResult{Got: map[string]int{}}
	var mu sync.Mutex
	var callers sync.WaitGroup
	for range o.Callers {
		callers.Go(func() {
			time.Sleep(time.Duration(o.At - now()))
			_, err := w.slow.Get(ctx, o.Ask)
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
			result.Got[got]++
			result.Last = max(result.Last, end)
		})
	}
	callers.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	result.Loads = w.loads[o.Ask.Name]
	return result
}

// press asks at a steady rate, and does not wait for an answer before it asks again.
func (w *worker) press(ctx context.Context, o pressOrder) pressResult {
	var result pressResult
	var mu sync.Mutex
	var callers sync.WaitGroup
	w.peak.Store(0)
	t := time.NewTicker(time.Second / time.Duration(o.Rate))
	defer t.Stop()
	for n, until := 0, time.Now().Add(o.For); time.Now().Before(until); n++ {
		<-t.C
		callers.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			s := sample{Begin: now()}
			begin := time.Now()
			a, err := w.items.Lookup(ctx, n%w.cfg.Shape.all())
			s.Took = time.Since(begin)
			if a.Status != cache.Hit && a.Status != cache.Stale {
				s.Load = a.Age // since the source was asked
			}
			if err != nil && !errors.Is(err, cache.ErrNotFound) {
				s.Err = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			result.Samples = append(result.Samples, s)
		})
	}
	callers.Wait()
	result.PeakLoads = w.peak.Load()
	return result
}

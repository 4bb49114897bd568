package model

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

const row, page, other cache.Tag = "row", "page", "other"

// steppedStore is one process's way to the store. Its calls are steps.
type steppedStore struct {
	driver.Store
	*scheduler
	process       string
	crashed       *atomic.Bool
	separateReads bool // tags and entries are read one after the other
}

var errCrashed = errors.New("the process has crashed")

func (s steppedStore) call(ctx context.Context, op string, do func() error) error {
	if s.crashed.Load() {
		return errCrashed
	}
	err := s.stepped(ctx, s.process+" "+op, do, failsWithoutEffect, failsAfterEffect)
	if s.crashed.Load() {
		return errCrashed
	}
	return err
}

func (s steppedStore) Read(ctx context.Context, tags []cache.Tag, keys []string) (snap driver.Snapshot, err error) {
	if !s.separateReads {
		err = s.call(ctx, "reads", func() error { snap, err = s.Store.Read(ctx, tags, keys); return err })
		return snap, err
	}
	err = s.call(ctx, "reads versions", func() error { snap, err = s.Store.Read(ctx, tags, nil); return err })
	if err != nil {
		return driver.Snapshot{}, err
	}
	var entries driver.Snapshot
	err = s.call(ctx, "reads the entry", func() error { entries, err = s.Store.Read(ctx, nil, keys); return err })
	snap.Entries = entries.Entries
	return snap, err
}

func (s steppedStore) Claim(ctx context.Context, claims []driver.Claim) (claimed []driver.Claimed, err error) {
	err = s.call(ctx, "claims", func() error { claimed, err = s.Store.Claim(ctx, claims); return err })
	return claimed, err
}

func (s steppedStore) Settle(ctx context.Context, fills []driver.Fill) error {
	return s.call(ctx, "stores", func() error { return s.Store.Settle(ctx, fills) })
}

func (s steppedStore) Fence(ctx context.Context, tags []cache.Tag, mark driver.Mark, lease time.Duration) error {
	return s.call(ctx, "fences", func() error { return s.Store.Fence(ctx, tags, mark, lease) })
}

func (s steppedStore) Bump(ctx context.Context, tags []cache.Tag, mark driver.Mark) error {
	return s.call(ctx, "bumps", func() error { return s.Store.Bump(ctx, tags, mark) })
}

// system is a few processes on one store, and one row in a database.
type system struct {
	t       *testing.T
	r       *execution
	store   driver.Store
	value   atomic.Int64
	loads   atomic.Int64
	failing bool // every load fails, without an injected fault
	caches  []*cache.Cache
	queries []*cache.Cached[int, int64]
	crashed []*atomic.Bool
}

// scenario says what is tried.
type scenario struct {
	name          string
	start         initialEntry
	readers       int
	oneProcess    bool // all in one process
	separateReads bool // versions and entries are read one after the other
	slowLoads     bool // loads take time after they have seen the source
	named         bool // the load names the tag of the row; Query.Tags names another, which nothing writes
	moves         bool // and another tag instead when it has seen the new row
	fencedFirst   bool // the write has been fenced before any other step
	faults        int
	notWithRace   bool // not with the race detector, which makes it take minutes, unless -model.full
	onlyFull      bool // only with -model.full
}

// newSystem starts processes, of which the last one writes.
func newSystem(t *testing.T, r *execution, p scenario) *system {
	t.Helper()
	w := &system{t: t, r: r, store: memstore.New(memstore.Config{})}
	processes := 1 + p.readers
	if p.oneProcess {
		processes = 2
	}
	for i := range processes {
		name, crashed := string(rune('A'+i)), &atomic.Bool{}
		c, err := cache.New(cache.Config{Store: steppedStore{w.store, r.scheduler, name, crashed, p.separateReads}})
		if err != nil {
			t.Fatal(err)
		}
		tags := []cache.Tag{row}
		if p.named {
			tags = []cache.Tag{page}
		}
		q := cache.Define(c, cache.Query[int, int64]{
			Name: "model:row", Key: func(id int) string { return cache.Key(id) }, Tags: func(int) []cache.Tag { return tags },
			FreshFor: 10 * time.Second, StaleWhileRevalidate: time.Hour,
			Load: func(ctx context.Context, _ int) (v int64, err error) {
				w.loads.Add(1)
				err = r.stepped(ctx, name+" loads", func() error { v = w.value.Load(); return nil }, failsWithoutEffect)
				if p.slowLoads {
					r.wait(name + " answers")
				}
				if w.failing {
					err = errInjected
				}
				switch {
				case p.moves && v == 1:
					cache.DependOn(ctx, other)
				case p.named:
					cache.DependOn(ctx, row)
				}
				return v, err
			},
		})
		w.caches, w.queries, w.crashed = append(w.caches, c), append(w.queries, q), append(w.crashed, crashed)
	}
	return w
}

// finish ends the schedule: what is under way continues without being stopped at every step.
func (w *system) finish() {
	w.r.releaseAll()
	w.t.Helper()
	time.Sleep(30 * time.Second) // leases, holds and breakers
	synctest.Wait()
}

func (w *system) close() {
	for _, c := range w.caches {
		if err := c.Close(); err != nil {
			w.t.Errorf("close: %v", err)
		}
	}
	if err := w.store.Close(); err != nil {
		w.t.Errorf("close: %v", err)
	}
}

// write is a transaction that makes the row 1.
type write struct {
	system *system
	mark   driver.Mark
}

func (tx *write) Mark() driver.Mark { return tx.mark }
func (tx *write) Touched(context.Context) ([]outbox.Row, error) {
	return []outbox.Row{{ID: 1, Tag: row, Mark: tx.mark}}, nil
}
func (tx *write) Rollback(context.Context) error { return nil }

func (tx *write) Commit(context.Context) error {
	crashed := tx.system.crashed[len(tx.system.crashed)-1]
	switch tx.system.r.wait("W commits", failsWithoutEffect, failsAfterEffect, crashes) {
	case failsWithoutEffect:
		return errInjected
	case failsAfterEffect:
		tx.system.value.Store(1)
		return outbox.ErrUnknownOutcome
	case crashes: // after the commit: before it, nothing has happened
		tx.system.value.Store(1)
		crashed.Store(true)
		return errCrashed
	}
	tx.system.value.Store(1)
	return nil
}

// read is what came of one Get.
type read struct {
	began, ended int // steps; 0: not yet
	value        int64
	err          error
}

// initialEntry is the entry in the store at the beginning.
type initialEntry string

const (
	nothing initialEntry = ""
	fresh   initialEntry = "the old answer"
	stale   initialEntry = "the old answer, and its time is over"
)

// Two reads and a write in every order there is, with one failure or none: once the write is
// acknowledged no read that begins is older; once a read has seen it no later one has not;
// nothing that it invalidated is served as stale; no failure of the store fails a read; and in the
// end every process sees what is in the database.
func TestEverySchedule(t *testing.T) {
	for _, tt := range []scenario{
		{name: "two reads", readers: 2, notWithRace: true},
		{name: "two reads in one process", readers: 2, oneProcess: true},
		{name: "two reads in one process, and loads that take time", readers: 2, oneProcess: true, slowLoads: true, notWithRace: true},
		// Not three: the second and the third share what they read of the store, and then run at the
		// same time, with no step between them that could be ordered.
		{name: "two reads in one process, after the fence", readers: 2, oneProcess: true, fencedFirst: true},
		{name: "two reads of what is cached", readers: 2, start: fresh},
		{name: "two reads of what is stale", readers: 2, start: stale, notWithRace: true},
		{name: "two reads in one process, a failure", readers: 2, oneProcess: true, faults: 1, notWithRace: true},
		{name: "two reads of what is cached, a failure", readers: 2, faults: 1, start: fresh, notWithRace: true},
		{name: "a read in two parts, a failure", readers: 1, separateReads: true, faults: 1},
		{name: "a read in two parts of what is cached, a failure", readers: 1, separateReads: true, faults: 1, start: fresh},
		{name: "a read of what is stale, a failure", readers: 1, faults: 1, start: stale},

		// In processes apart: one read may look at the store twice, and the steps do not say whose they are.
		{name: "a read whose load names the row", readers: 1, named: true},
		{name: "two reads of what is cached, whose loads name the row", readers: 2, named: true, start: fresh, notWithRace: true},
		{name: "a read of what is stale, whose load names the row, a failure", readers: 1, named: true, faults: 1, start: stale},
		{name: "a read whose load names the row, or another tag when that has changed, a failure", readers: 1, named: true, moves: true, faults: 1, notWithRace: true},

		{name: "two reads, a failure", readers: 2, faults: 1, onlyFull: true},
		{name: "two reads of what is stale, a failure", readers: 2, faults: 1, start: stale, onlyFull: true},
		{name: "two reads in one process, two failures", readers: 2, oneProcess: true, faults: 2, start: fresh, onlyFull: true},
		{name: "two reads whose loads name the row", readers: 2, named: true, onlyFull: true},
		{name: "two reads of what is cached, whose loads name another tag when the row has changed", readers: 2, named: true, moves: true, start: fresh, onlyFull: true},
	} {
		if (tt.onlyFull || tt.notWithRace && raceEnabled) && !*fullSystems {
			continue // it takes minutes
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			n := explore(t, tt.faults, func(t *testing.T, r *execution) { newSystem(t, r, tt).run(tt) })
			t.Logf("%d schedules in %s", n, time.Since(began).Round(time.Millisecond))
		})
	}
}

func (w *system) run(p scenario) {
	t, r := w.t, w.r
	defer w.close()
	if p.start != nothing {
		r.open = true
		for _, err := w.queries[0].Get(t.Context(), 1); w.loads.Load() == 0 || err != nil; {
			t.Fatal(err)
		}
		synctest.Wait()
		if p.start == stale {
			time.Sleep(11 * time.Second)
		}
		r.open = false
		w.loads.Store(0)
	}
	reads := make([]read, p.readers)
	ended := make([]atomic.Bool, p.readers)
	var acked int
	var acknowledged error
	var written atomic.Bool
	go func() {
		acknowledged = outbox.Commit(t.Context(), w.caches[len(w.caches)-1], &write{w, driver.Mark{1}}, outbox.Options{})
		written.Store(true)
	}()
	if p.fencedFirst {
		synctest.Wait()
		r.take(0).resume <- ""
	}
	for i := range reads {
		q := w.queries[i%(len(w.queries)-1)]
		go func() {
			reads[i].value, reads[i].err = q.Get(t.Context(), 1)
			ended[i].Store(true)
		}()
		synctest.Wait() // they arrive in this order
	}

	// Reads begin when they look at the store, which they came to in this order.
	begins := map[string][]int{}
	for i := range reads {
		name := string(rune('A' + i%(len(w.queries)-1)))
		begins[name+" reads"] = append(begins[name+" reads"], i)
		begins[name+" reads versions"] = append(begins[name+" reads versions"], i)
	}
	failure := ""
	over := func() bool {
		for i := range ended {
			if !ended[i].Load() {
				return false
			}
		}
		return written.Load()
	}
	r.run(t, over, func(name string, nth int, end string) {
		if end != "" {
			failure = name + ": " + end
		}
		if list := begins[name]; nth < len(list) {
			reads[list[nth]].began = r.step
		}
	}, func() {
		for i := range ended {
			if ended[i].Load() && reads[i].ended == 0 {
				reads[i].ended = r.step
			}
		}
		if written.Load() && acked == 0 && acknowledged == nil {
			acked = r.step
		}
	})
	w.checkReads(reads, acked, acknowledged, failure)
	w.finish()
	if failure != "" {
		// The relay of any process delivers the outbox rows that a crashed or failed writer left.
		if err := w.caches[0].Invalidate(t.Context(), row); err != nil {
			t.Errorf("the relay cannot bump: %v", err)
		}
	}
	for i, q := range w.queries[:len(w.queries)-1] {
		if v, err := q.Get(t.Context(), 1); err != nil || v != w.value.Load() {
			t.Errorf("%s: in the end process %d sees %d, %v, and the database has %d", failure, i, v, err, w.value.Load())
		}
	}
}

// checkReads holds what was read against what had been acknowledged and seen.
func (w *system) checkReads(reads []read, acked int, acknowledged error, failure string) {
	t := w.t
	// What the protocol excuses: see "What is not promised" in docs/consistency.md.
	unfenced := strings.HasSuffix(failure, " fences: "+failsWithoutEffect)
	unbumped := strings.HasSuffix(failure, " bumps: "+failsWithoutEffect)
	loadFailed := strings.HasSuffix(failure, " loads: "+failsWithoutEffect)
	if acknowledged != nil && failure == "" {
		t.Errorf("nothing failed, and the write was not acknowledged: %v", acknowledged)
	}
	for i, r := range reads {
		if r.err != nil && !loadFailed {
			t.Errorf("%s: read %d failed: %v", failure, i, r.err)
		}
		if r.err != nil {
			continue
		}
		if acked > 0 && r.began > acked && r.value != 1 && !unbumped {
			t.Errorf("%s: read %d began after the write was acknowledged and returned the old answer", failure, i)
		}
		if r.value == 1 && w.value.Load() != 1 {
			t.Errorf("%s: read %d returned what was never committed", failure, i)
		}
		for j, other := range reads {
			if other.err == nil && other.value == 1 && other.ended < r.began && r.value != 1 && !unfenced && !unbumped {
				t.Errorf("%s: read %d returned the old answer after read %d had returned the new one", failure, i, j)
			}
		}
	}
}

// Without a write, two reads in every order make one load, whether it succeeds or fails; also
// if one of their callers cancels, at any moment.
func TestEveryScheduleOfOneLoad(t *testing.T) {
	for _, failing := range []bool{false, true} {
		for _, together := range []bool{false, true} {
			t.Run(fmt.Sprintf("failing %t, together %t", failing, together), func(t *testing.T) {
				t.Parallel()
				n := explore(t, 0, func(t *testing.T, r *execution) {
					w := newSystem(t, r, scenario{readers: 2, oneProcess: together})
					w.failing = failing
					w.runWithCancel()
				})
				t.Logf("%d schedules", n)
			})
		}
	}
}

func (w *system) runWithCancel() {
	t, r := w.t, w.r
	defer w.close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var done atomic.Int32
	var values [2]int64
	var errs [2]error
	for i := range values {
		q, ctx := w.queries[i%(len(w.queries)-1)], ctx
		if i == 1 {
			ctx = t.Context()
		}
		go func() {
			values[i], errs[i] = q.Get(ctx, 1)
			done.Add(1)
		}()
		synctest.Wait()
	}
	go func() {
		r.wait("the first caller cancels")
		cancel()
	}()
	r.run(t, func() bool { return done.Load() == 2 }, func(string, int, string) {}, func() {})
	if err := errs[0]; err != nil && !errors.Is(err, context.Canceled) && !w.failing {
		t.Errorf("the caller that may cancel got %v", err)
	}
	if _, failed := errors.AsType[*cache.LoadError](errs[1]); (errs[1] != nil) != w.failing || w.failing && !failed {
		t.Errorf("the other caller got %v", errs[1])
	}
	if n := w.loads.Load(); n != 1 {
		t.Errorf("two callers made %d loads", n)
	}
	w.finish()
}

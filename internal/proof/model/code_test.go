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

const row cache.Tag = "row"

// steppedStore is one process's way to the store. Its calls are steps.
type steppedStore struct {
	driver.Store
	*stage
	process string
	dead    *atomic.Bool
	apart   bool // tags and entries are read one after the other
}

var errDead = errors.New("the process is dead")

func (s steppedStore) call(ctx context.Context, op string, do func() error) error {
	if s.dead.Load() {
		return errDead
	}
	err := s.stepped(ctx, s.process+" "+op, do, refused, silent)
	if s.dead.Load() {
		return errDead
	}
	return err
}

func (s steppedStore) Read(ctx context.Context, tags []cache.Tag, keys []string) (snap driver.Snapshot, err error) {
	if !s.apart {
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

// world is a few processes on one store, and one row in a database.
type world struct {
	t       *testing.T
	r       *rehearsal
	store   driver.Store
	value   atomic.Int64
	loads   atomic.Int64
	failing bool // every load fails, without being told to
	caches  []*cache.Cache
	queries []*cache.Cached[int, int64]
	dead    []*atomic.Bool
}

// plan says what is tried.
type plan struct {
	name     string
	start    cached
	readers  int
	together bool // all in one process
	apart    bool // versions and entries are read one after the other
	slow     bool // loads take time after they have seen the source
	fenced   bool // the write has been fenced before anybody else moves
	faults   int
	many     bool // not with the race detector, which makes it take minutes, unless -model.full
	long     bool // only with -model.full
}

// newWorld starts processes, of which the last one writes.
func newWorld(t *testing.T, r *rehearsal, p plan) *world {
	t.Helper()
	w := &world{t: t, r: r, store: memstore.New(memstore.Config{})}
	processes := 1 + p.readers
	if p.together {
		processes = 2
	}
	for i := range processes {
		name, dead := string(rune('A'+i)), &atomic.Bool{}
		c, err := cache.New(cache.Config{Store: steppedStore{w.store, r.stage, name, dead, p.apart}})
		if err != nil {
			t.Fatal(err)
		}
		q := cache.Define(c, cache.Query[int, int64]{
			Name: "model:row", Key: func(id int) string { return cache.Key(id) }, Tags: func(int) []cache.Tag { return []cache.Tag{row} },
			FreshFor: 10 * time.Second, StaleWhileRevalidate: time.Hour,
			Load: func(ctx context.Context, _ int) (v int64, err error) {
				w.loads.Add(1)
				err = r.stepped(ctx, name+" loads", func() error { v = w.value.Load(); return nil }, refused)
				if p.slow {
					r.wait(name + " answers")
				}
				if w.failing {
					err = errInjected
				}
				return v, err
			},
		})
		w.caches, w.queries, w.dead = append(w.caches, c), append(w.queries, q), append(w.dead, dead)
	}
	return w
}

// rest ends the rehearsal: what is under way goes on without being stopped at every step.
func (w *world) rest() {
	w.r.clear()
	w.t.Helper()
	time.Sleep(30 * time.Second) // leases, holds and breakers
	synctest.Wait()
}

func (w *world) close() {
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
	w    *world
	mark driver.Mark
}

func (tx *write) Mark() driver.Mark { return tx.mark }
func (tx *write) Touched(context.Context) ([]outbox.Row, error) {
	return []outbox.Row{{ID: 1, Tag: row, Mark: tx.mark}}, nil
}
func (tx *write) Rollback(context.Context) error { return nil }

func (tx *write) Commit(context.Context) error {
	dead := tx.w.dead[len(tx.w.dead)-1]
	switch tx.w.r.wait("W commits", refused, silent, dies) {
	case refused:
		return errInjected
	case silent:
		tx.w.value.Store(1)
		return outbox.ErrUnknownOutcome
	case dies: // after the commit: before it, nothing has happened
		tx.w.value.Store(1)
		dead.Store(true)
		return errDead
	}
	tx.w.value.Store(1)
	return nil
}

// read is what came of one Get.
type read struct {
	began, ended int // steps; 0: not yet
	value        int64
	err          error
}

// cached is what there is before anybody begins.
type cached string

const (
	nothing cached = ""
	fresh   cached = "the old answer"
	stale   cached = "the old answer, and its time is over"
)

// Two reads and a write in every order there is, with one failure or none: once the write is
// acknowledged no read that begins is older; once a read has seen it no later one has not;
// nothing that it invalidated is served as stale; no sick store fails a read; and in the
// end everybody sees what is in the database.
func TestEverySchedule(t *testing.T) {
	for _, tt := range []plan{
		{name: "two reads", readers: 2},
		{name: "two reads in one process", readers: 2, together: true},
		{name: "two reads in one process, and loads that take time", readers: 2, together: true, slow: true, many: true},
		// Not three: the second and the third share what they read of the store, and then run at the
		// same time, with no step between them that could be ordered.
		{name: "two reads in one process, after the fence", readers: 2, together: true, fenced: true},
		{name: "two reads of what is cached", readers: 2, start: fresh},
		{name: "two reads of what is stale", readers: 2, start: stale},
		{name: "two reads in one process, a failure", readers: 2, together: true, faults: 1, many: true},
		{name: "two reads of what is cached, a failure", readers: 2, faults: 1, start: fresh},
		{name: "a read in two parts, a failure", readers: 1, apart: true, faults: 1},
		{name: "a read in two parts of what is cached, a failure", readers: 1, apart: true, faults: 1, start: fresh},
		{name: "a read of what is stale, a failure", readers: 1, faults: 1, start: stale},

		{name: "two reads, a failure", readers: 2, faults: 1, long: true},
		{name: "two reads of what is stale, a failure", readers: 2, faults: 1, start: stale, long: true},
		{name: "two reads in one process, two failures", readers: 2, together: true, faults: 2, start: fresh, long: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if (tt.long || tt.many && raceEnabled) && !*full {
				t.Skip("takes minutes: run with -model.full")
			}
			t.Parallel()
			began := time.Now()
			n := explore(t, tt.faults, func(t *testing.T, r *rehearsal) { newWorld(t, r, tt).play(tt) })
			t.Logf("%d schedules in %s", n, time.Since(began).Round(time.Millisecond))
		})
	}
}

func (w *world) play(p plan) {
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
	if p.fenced {
		synctest.Wait()
		r.take(0).let <- ""
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
	harm := ""
	over := func() bool {
		for i := range ended {
			if !ended[i].Load() {
				return false
			}
		}
		return written.Load()
	}
	r.act(t, over, func(name string, nth int, end string) {
		if end != "" {
			harm = name + ": " + end
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
	w.judge(reads, acked, acknowledged, harm)
	w.rest()
	if harm != "" {
		// The relay of any process delivers what a dead or unlucky writer left.
		if err := w.caches[0].Invalidate(t.Context(), row); err != nil {
			t.Errorf("the relay cannot bump: %v", err)
		}
	}
	for i, q := range w.queries[:len(w.queries)-1] {
		if v, err := q.Get(t.Context(), 1); err != nil || v != w.value.Load() {
			t.Errorf("%s: in the end process %d sees %d, %v, and the database has %d", harm, i, v, err, w.value.Load())
		}
	}
}

// judge holds what was read against what had been acknowledged and seen.
func (w *world) judge(reads []read, acked int, acknowledged error, harm string) {
	t := w.t
	// What the protocol excuses: see "What is not promised" in docs/consistency.md.
	unfenced := strings.HasSuffix(harm, " fences: "+refused)
	unbumped := strings.HasSuffix(harm, " bumps: "+refused)
	loadFailed := strings.HasSuffix(harm, " loads: "+refused)
	if acknowledged != nil && harm == "" {
		t.Errorf("nothing failed, and the write was not acknowledged: %v", acknowledged)
	}
	for i, r := range reads {
		if r.err != nil && !loadFailed {
			t.Errorf("%s: read %d failed: %v", harm, i, r.err)
		}
		if r.err != nil {
			continue
		}
		if acked > 0 && r.began > acked && r.value != 1 && !unbumped {
			t.Errorf("%s: read %d began after the write was acknowledged and returned the old answer", harm, i)
		}
		if r.value == 1 && w.value.Load() != 1 {
			t.Errorf("%s: read %d returned what was never committed", harm, i)
		}
		for j, other := range reads {
			if other.err == nil && other.value == 1 && other.ended < r.began && r.value != 1 && !unfenced && !unbumped {
				t.Errorf("%s: read %d returned the old answer after read %d had returned the new one", harm, i, j)
			}
		}
	}
}

// Without a write, two reads in every order make one load, whether it succeeds or fails; also
// if one of their callers leaves, at any moment.
func TestEveryScheduleOfOneLoad(t *testing.T) {
	for _, failing := range []bool{false, true} {
		for _, together := range []bool{false, true} {
			t.Run(fmt.Sprintf("failing %t, together %t", failing, together), func(t *testing.T) {
				t.Parallel()
				n := explore(t, 0, func(t *testing.T, r *rehearsal) {
					w := newWorld(t, r, plan{readers: 2, together: together})
					w.failing = failing
					w.leave()
				})
				t.Logf("%d schedules", n)
			})
		}
	}
}

func (w *world) leave() {
	t, r := w.t, w.r
	defer w.close()
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
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
		r.wait("the first caller leaves")
		hangUp()
	}()
	r.act(t, func() bool { return done.Load() == 2 }, func(string, int, string) {}, func() {})
	if err := errs[0]; err != nil && !errors.Is(err, context.Canceled) && !w.failing {
		t.Errorf("the caller who may leave got %v", err)
	}
	if _, failed := errors.AsType[*cache.LoadError](errs[1]); (errs[1] != nil) != w.failing || w.failing && !failed {
		t.Errorf("the caller who stays got %v", errs[1])
	}
	if n := w.loads.Load(); n != 1 {
		t.Errorf("two callers made %d loads", n)
	}
	w.rest()
}

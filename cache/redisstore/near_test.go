package redisstore_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// bound is cache.Query.Near in these tests.
const bound = time.Second

// process is a cache with an answer that is kept near: the number in row, which is its
// database.
type process struct {
	t     *testing.T
	cache *cache.Cache
	query *cache.Cached[int, int64]
}

// start starts a process that shares answers with those that have the same prefix.
func start(t *testing.T, url, prefix string, row *atomic.Int64, log *logBuffer) process {
	t.Helper()
	cfg := cache.Config{
		Store:        openUnproven(t, redisstore.Config{URL: url, Prefix: prefix, Timeout: 200 * time.Millisecond}),
		StoreTimeout: 200 * time.Millisecond, // the machine may be busy
	}
	if log != nil {
		cfg.Logger = log.logger()
	}
	c, err := cache.New(cfg)
	testservers.Must(t, err)
	t.Cleanup(func() { testservers.Must(t, c.Close()) })
	return process{t, c, cache.Define(c, cache.Query[int, int64]{
		Name:     "courses:detail",
		Key:      func(id int) string { return cache.Key(id) },
		Tags:     func(int) []driver.Tag { return []driver.Tag{tag} },
		Load:     func(context.Context, int) (int64, error) { return row.Load(), nil },
		FreshFor: time.Hour,
		Near:     bound,
	})}
}

// lookup returns the answer, and whether it was near.
func (p process) lookup() (int64, bool) {
	p.t.Helper()
	a, err := p.query.Lookup(p.t.Context(), 1)
	if err != nil {
		p.t.Errorf("lookup: %v", err)
	}
	return a.Value, a.Detail == cache.DetailNear
}

// awaitNear waits until the answer is near, and want.
func (p process) awaitNear(want int64) {
	p.t.Helper()
	testservers.Eventually(p.t, 30*time.Second, func() (bool, string) {
		got, near := p.lookup()
		if near && got > want {
			p.t.Fatalf("the answer is %d: newer than any", got)
		}
		return near && got == want, "the answer is not near"
	})
}

// invalidate waits until the store has taken the invalidation.
func (p process) invalidate() {
	p.t.Helper()
	testservers.Eventually(p.t, 30*time.Second, func() (bool, string) {
		err := p.cache.Invalidate(p.t.Context(), tag)
		return err == nil, "invalidate: " + errText(err)
	})
}

// write is acknowledged when it returns.
func (p process) write(row *atomic.Int64) {
	p.t.Helper()
	row.Add(1)
	p.invalidate()
}

// seen is one answer, and when it was asked for.
type seen struct {
	at    time.Time
	value int64
	near  bool
}

// observe asks without a pause until stop is called, which returns what it saw, in order.
func (p process) observe() (stop func() []seen) {
	ctx, cancel := context.WithCancel(p.t.Context())
	var list []seen
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			s := seen{at: time.Now()}
			s.value, s.near = p.lookup()
			list = append(list, s)
			if s.near { // near answers take no time: one in a while is enough
				select {
				case <-time.After(time.Millisecond):
				case <-ctx.Done():
				}
			}
		}
	})
	p.t.Cleanup(cancel)
	return func() []seen {
		cancel()
		wg.Wait()
		return list
	}
}

// Near answers stop within their bound when no changes are reported, for whatever reason. When
// they are back, none of them is old.
func TestNearAnswersStopWhenNothingIsHeard(t *testing.T) {
	t.Parallel()
	type scene struct {
		server *testservers.Redis
		proxy  *testservers.Proxy // between the reader and the server
	}
	for name, test := range map[string]struct {
		fail, heal func(t *testing.T, s scene)
		readerOnly bool // the writer still reaches the server
	}{
		"the server is frozen": {
			fail: func(t *testing.T, s scene) { testservers.Must(t, s.server.Freeze()) },
			heal: func(t *testing.T, s scene) { testservers.Must(t, s.server.Thaw()) },
		},
		"the server is killed": {
			fail: func(t *testing.T, s scene) { testservers.Must(t, s.server.Kill()) },
			heal: func(t *testing.T, s scene) { testservers.Must(t, s.server.Restart(t.Context())) },
		},
		"the server loses everything": {
			fail: func(t *testing.T, s scene) { testservers.Must(t, s.server.Kill()) },
			heal: func(t *testing.T, s scene) { testservers.Must(t, s.server.RestartEmpty(t.Context())) },
		},
		"the network holds everything": {
			fail:       func(t *testing.T, s scene) { s.proxy.Hold() },
			heal:       func(t *testing.T, s scene) { testservers.Must(t, s.proxy.Heal()) },
			readerOnly: true,
		},
		"the network holds what the server says": {
			fail:       func(t *testing.T, s scene) { s.proxy.Hold(testservers.Replies) },
			heal:       func(t *testing.T, s scene) { testservers.Must(t, s.proxy.Heal()) },
			readerOnly: true,
		},
		"the network is cut": {
			fail:       func(t *testing.T, s scene) { s.proxy.Cut() },
			heal:       func(t *testing.T, s scene) { testservers.Must(t, s.proxy.Heal()) },
			readerOnly: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s scene
			s.server = testservers.StartRedis(t, testservers.RedisConfig{})
			s.proxy = testservers.StartProxy(t, s.server.Addr())
			p := prefix()
			var row atomic.Int64
			reader := start(t, "redis://"+s.proxy.Addr(), p, &row, nil)
			writer := start(t, s.server.URL(), p, &row, nil)
			writer.write(&row)
			reader.awaitNear(1)
			stop := reader.observe()
			test.fail(t, s)
			failed := time.Now()
			row.Add(1)
			if test.readerOnly {
				writer.invalidate()
			}
			// Longer than the bound.
			testservers.Eventually(t, 30*time.Second, func() (bool, string) { return time.Since(failed) > bound+300*time.Millisecond, "" })
			for _, a := range stop() {
				if a.near && a.at.Sub(failed) > bound {
					t.Errorf("an answer was near %v after the last proof, at least", a.at.Sub(failed))
					break
				}
			}

			stop = reader.observe()
			test.heal(t, s)
			writer.write(&row)
			acked, last := time.Now(), row.Load()
			reader.awaitNear(last)
			resumed := time.Since(acked)
			for _, a := range stop() {
				if late := a.at.Sub(acked); a.value != last && (!a.near && late > 0 || late > bound) {
					t.Errorf("an answer from %v after the last write is %d, want %d (near: %t)", late, a.value, last, a.near)
					break
				}
			}
			t.Logf("near again %v after the write that followed", resumed)
		})
	}
}

// What one process writes ends the near answers of another as soon as a message takes.
func TestWriteIsSeenNearElsewhere(t *testing.T) {
	t.Parallel()
	servers := map[string]string{
		"single":  testservers.SharedRedis(t).URL(),
		"cluster": cluster(t),
	}
	for name, url := range servers {
		t.Run(name, func(t *testing.T) {
			p := prefix()
			var row atomic.Int64
			reader, writer := start(t, url, p, &row, nil), start(t, url, p, &row, nil)
			writer.write(&row)
			var delays []time.Duration
			for range 50 {
				reader.awaitNear(row.Load())
				row.Add(1)
				begin := time.Now() // of the acknowledgement: a report may come before it
				writer.invalidate()
				want := row.Load()
				for value := int64(0); value != want && !t.Failed(); value, _ = reader.lookup() {
					if time.Since(begin) > bound+slack {
						t.Fatalf("the answer of another process is %d, %v after it became %d", value, time.Since(begin), want)
					}
				}
				delays = append(delays, time.Since(begin))
			}
			slices.Sort(delays)
			median := delays[len(delays)/2]
			t.Logf("a write was seen near in another process %v after it began (median; p95 %v, most %v)",
				median, delays[len(delays)*95/100], delays[len(delays)-1])
			if median > 100*time.Millisecond {
				t.Errorf("a write was seen near in another process after %v (median)", median)
			}
		})
	}
}

// All near answers are dropped with the tracking connection, because changes may have been missed.
func TestLostTrackingDropsNearAnswers(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	p := prefix()
	var row atomic.Int64
	reader, writer := start(t, r.URL(), p, &row, nil), start(t, r.URL(), p, &row, nil)
	writer.write(&row)
	for range 10 {
		reader.awaitNear(row.Load())
		killConnections(t, r, true)
		writer.write(&row)
		acked, want := time.Now(), row.Load()
		testservers.Eventually(t, 30*time.Second, func() (bool, string) {
			begin := time.Now()
			got, near := reader.lookup()
			if got != want && (!near || begin.Sub(acked) > bound) {
				t.Errorf("%v after the write the answer is %d, want %d (near: %t)", begin.Sub(acked), got, want, near)
			}
			return got == want, "the old answer stays"
		})
	}
}

func TestRefusedTrackingIsLoggedOnce(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{Config: []string{
		"user app on >secret ~* &* +@all -client|tracking",
	}})
	var row atomic.Int64
	var log logBuffer
	p := start(t, userURL(r, "app", "secret"), prefix(), &row, &log)
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		return strings.Contains(log.String(), "near answers are off"), "no log message says that near answers are off"
	})
	for range 50 {
		row.Add(1)
		p.invalidate()
		if got, near := p.lookup(); near || got != row.Load() {
			t.Fatalf("the answer is %d, want %d, near: %t", got, row.Load(), near)
		}
	}
	if got := log.String(); strings.Count(got, "near answers are off") != 1 || !strings.Contains(got, "+client|tracking") {
		t.Errorf("the log does not say once what near answers need:\n%s", got)
	}
}

// Hits, and loads that are stored, leave near answers alone: they change no tag.
func TestReadersLeaveNearAnswersAlone(t *testing.T) {
	t.Parallel()
	url, p := testservers.SharedRedis(t).URL(), prefix()
	var row atomic.Int64
	reader, other := start(t, url, p, &row, nil), start(t, url, p, &row, nil)
	other.write(&row)
	reader.awaitNear(1)
	w := watch(t, open(t, redisstore.Config{URL: url, Prefix: p}))
	w.awaitProof()
	before, _ := w.reported(tag)
	for id := range 100 { // each a miss that is stored, then hits
		for range 3 {
			if _, err := other.query.Get(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.awaitProof()
	if after, _ := w.reported(tag); after != before {
		t.Errorf("readers are reported as %d changes of what they read", after-before)
	}
}

func TestNearInAClusterThatChanges(t *testing.T) {
	t.Parallel()
	c := testservers.StartCluster(t, testservers.ClusterConfig{Replicas: 1})
	p := prefix()
	var row atomic.Int64
	reader, writer := start(t, clusterURL(c), p, &row, nil), start(t, clusterURL(c), p, &row, nil)
	writer.write(&row)
	reader.awaitNear(1)
	slot, err := c.Slot(t.Context(), p+"tag:"+string(tag))
	testservers.Must(t, err)
	to, err := c.Owner(t.Context(), (slot+8192)%16384) // none of three masters holds half of the slots
	testservers.Must(t, err)

	// written checks that no answer is older than what was acknowledged a bound ago.
	written := func(when string) {
		t.Helper()
		writer.write(&row)
		acked, want := time.Now(), row.Load()
		testservers.Eventually(t, 30*time.Second, func() (bool, string) {
			begin := time.Now()
			got, near := reader.lookup()
			if got != want && (!near || begin.Sub(acked) > bound) {
				t.Errorf("%s: %v after the write the answer is %d, want %d (near: %t)", when, begin.Sub(acked), got, want, near)
			}
			return got == want, "the old answer stays"
		})
	}
	testservers.Must(t, c.MoveSlot(t.Context(), slot, to, func() error {
		written("while the slot moves")
		return nil
	}))
	written("after the move")
	reader.awaitNear(row.Load())

	stop := reader.observe()
	testservers.Must(t, to.Kill())
	killed := time.Now()
	row.Add(1)
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		owner, err := c.Owner(t.Context(), slot)
		return err == nil && owner != to, "no replica was promoted"
	})
	written("after a failover")
	reader.awaitNear(row.Load())
	for _, a := range stop() {
		if late := a.at.Sub(killed); late > bound && a.near && a.value < row.Load()-1 {
			t.Errorf("%v after a master was killed the answer is %d, and near", late, a.value)
			break
		}
	}
}

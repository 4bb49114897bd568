package cache_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// A store that answers reads and refuses writes has the entries of before, and no writer can end
// them. A process that only reads stops serving them within a second, however often it happens.
func TestStoreThatRefusesWritesIsNotTrusted(t *testing.T) {
	refuses := func(s *storetest.Faulty) { s.RefuseWrites(errDown) }
	hangs := func(s *storetest.Faulty) { s.PauseWrites() }
	for name, c := range map[string]struct {
		fall   func(*storetest.Faulty)
		outbox bool // a recovery of the reader has something to bump, which fails as well
	}{
		"refuses": {refuses, true}, "hangs": {hangs, true},
		"refuses, and nothing is to be delivered": {refuses, false}, "hangs, and nothing is to be delivered": {hangs, false},
	} {
		fall := c.fall
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, fleet := newSource(), newFleet(t, 2)
				s.delay = 0
				writer, reader := fleet[0], fleet[1]
				query := s.nearQuery()
				query.Name, query.Near = "rows:near", 10*time.Second
				strict, near := cache.Define(reader.Cache, s.query()), defineNear(reader, query)
				// The outbox stands for what the writer could not bump.
				if c.outbox {
					reader.OnRecovery(func(ctx context.Context) error {
						return reader.Bump(ctx, driver.NoMark, []cache.Tag{rowTag(1)})
					})
				}
				row := "one"
				for round := range 5 {
					mustGet(t, strict, 1, row)
					mustLookup(t, strict, 1, cache.Hit)
					keepNear(t, near, 1, row)
					old := row
					row = strings.Repeat("I", round+1)
					fall(writer.store)
					fall(reader.store)
					began := time.Now()
					s.set(1, row)
					if err := writer.Invalidate(t.Context(), rowTag(1)); err == nil {
						t.Fatal("a store that refuses writes took one")
					}
					for time.Since(began) < 3*time.Second {
						for _, q := range []*cache.Cached[int, string]{strict, near} {
							got, err := q.Get(t.Context(), 1)
							if err != nil || got != row && (got != old || time.Since(began) > time.Second) {
								t.Fatalf("%v after the refusal the row is %q, %v", time.Since(began), got, err)
							}
						}
						time.Sleep(10 * time.Millisecond)
					}
					if h := reader.Health(); h.State == "ok" || h.Err == nil {
						t.Errorf("health is %+v", h)
					}
					writer.store.Heal()
					reader.store.Heal()
					if !c.outbox { // then nothing but the writer, which knows that it failed, can deliver
						time.Sleep(2 * time.Second)
					}
					for time.Since(began) < 6*time.Second {
						mustGet(t, strict, 1, row)
						mustGet(t, near, 1, row)
						time.Sleep(10 * time.Millisecond)
					}
					if h := reader.Health(); h.State != "ok" {
						t.Errorf("health is %+v after the store takes writes again", h)
					}
				}
			})
		})
	}
}

// A store that is slow for a moment keeps the trust, and what the checks cost is stated.
func TestCheckOfWritesIsCheapAndPatient(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		before := c.store.Calls(storetest.OpCheckWrites)
		time.Sleep(30 * time.Second)
		if n := c.store.Calls(storetest.OpCheckWrites) - before; n < 60 || n > 90 {
			t.Errorf("%d checks in 30s, want 2.5 a second", n)
		}
		for range 20 {
			c.store.Hang(storetest.OpCheckWrites)
			for range 20 {
				time.Sleep(10 * time.Millisecond)
				mustLookup(t, q, 1, cache.Hit)
			}
			c.store.Heal()
			time.Sleep(500 * time.Millisecond)
			mustLookup(t, q, 1, cache.Hit)
		}
	})
}

// What goes wrong for long is said at the start, with a remedy, and then now and then.
func TestLastingTroubleIsSaidNowAndThen(t *testing.T) {
	for name, test := range map[string]struct {
		fall func(*storetest.Faulty)
		want string
	}{
		"no store":           {func(s *storetest.Faulty) { s.Fail(errDown) }, "see that the store runs at the configured address"},
		"no writes":          {func(s *storetest.Faulty) { s.RefuseWrites(errDown) }, "the rights of the account"},
		"not even the check": {func(s *storetest.Faulty) { s.Fail(errDown, storetest.OpCheckWrites) }, "the rights of the account"},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				store := storetest.NewFaulty(memstore.New(memstore.Config{MaxBytes: 1 << 20, MaxTags: 1000}))
				test.fall(store)
				var log bytes.Buffer
				c := newProcess(t, store, cache.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
				if n := strings.Count(log.String(), test.want); n != 1 {
					t.Errorf("at the start the log says it %d times:\n%s", n, log.String())
				}
				for range 100 {
					_, _ = c.Fence(t.Context(), writer, []cache.Tag{rowTag(1)})
					time.Sleep(6600 * time.Millisecond) // 11 minutes in all
				}
				synctest.Wait()
				if n := strings.Count(log.String(), test.want); n != 3 {
					t.Errorf("in 11 minutes the log says it %d times, want 3:\n%.3000s", n, log.String())
				}
				if n := strings.Count(log.String(), "without a fence"); name != "not even the check" && n != 3 {
					t.Errorf("in 11 minutes the log says 100 times that a write is not fenced, want 3; it was %d", n)
				}
				if n := strings.Count(log.String(), "\n"); n > 9 {
					t.Errorf("the log has %d lines:\n%.3000s", n, log.String())
				}
				if h := c.Health(); h.State == "ok" || h.Err == nil {
					t.Errorf("health is %+v", h)
				}
			})
		})
	}
}

// What goes wrong during a recovery counts: it is not over, and begins again.
func TestTroubleDuringARecoveryBeginsItAgain(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = 0
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		var attempts atomic.Int64
		c.OnRecovery(func(ctx context.Context) error {
			if attempts.Add(1) == 1 { // what was to be delivered has been read by now
				s.set(1, "uno")
				c.Suspect(errDown)
				return nil
			}
			return c.Invalidate(ctx, rowTag(1))
		})
		c.Suspect(errDown)
		for range 1000 {
			time.Sleep(time.Millisecond)
			if got, err := q.Get(t.Context(), 1); attempts.Load() > 0 && (err != nil || got != "uno") {
				t.Fatalf("after %d attempts the row is %q, %v", attempts.Load(), got, err)
			}
		}
		mustLookup(t, q, 1, cache.Hit)
		if attempts.Load() != 2 {
			t.Errorf("%d attempts to recover, want 2", attempts.Load())
		}
	})
}

// A bump of this process that fails is all that is missing then: it is repeated before anything
// stored is served again, and the outbox need not be drained for it, neither after it nor once
// more where that is done already. While nothing stored is served the database has all the load.
func TestBumpThatFailsIsRepeatedAndNothingIsDrained(t *testing.T) {
	for name, during := range map[string]bool{"alone": false, "while the outbox is drained": true} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newSource(), newCache(t)
				s.delay = 0
				q := cache.Define(c.Cache, s.query())
				mustGet(t, q, 1, "one")
				drained := 0
				fail := func() {
					s.set(1, "uno")
					c.store.Fail(errDown, storetest.OpBump)
					if err := c.Invalidate(t.Context(), rowTag(1)); err == nil {
						t.Error("a bump that failed was reported as done")
					}
				}
				c.OnRecovery(func(context.Context) error {
					if drained++; during && drained == 1 { // its own bumps have been repeated by now
						fail()
						time.AfterFunc(2*time.Second, func() { c.store.Heal() })
					}
					return nil
				})
				if during {
					c.Suspect(errDown)
				} else {
					fail()
					time.AfterFunc(2*time.Second, func() { c.store.Heal() })
				}
				synctest.Wait()
				for range 20 {
					if a, err := q.Lookup(t.Context(), 1); err != nil || a.Value != "uno" || a.Status != cache.Bypass {
						t.Fatalf("while the bump fails the answer is %+v, %v", a, err)
					}
					time.Sleep(90 * time.Millisecond)
				}
				time.Sleep(time.Second)
				mustGet(t, q, 1, "uno")
				synctest.Wait()
				mustLookup(t, q, 1, cache.Hit)
				if during && drained != 1 || !during && drained > 0 {
					t.Errorf("the outbox was drained %d times", drained)
				}
			})
		})
	}
}

// The load that an outage leaves behind makes calls slow. Those that run out of time do not open the
// breaker while the store answers what the recovery asks, or there would be no end to it.
func TestSlowCallsDoNotKeepARecoveryFromItsEnd(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = 0
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		c.store.Fail(errDown)
		time.Sleep(time.Second)
		_, _ = q.Get(t.Context(), 1)
		time.Sleep(time.Second)
		if h := c.Health(); h.State == "ok" {
			t.Fatalf("health is %+v without a store", h)
		}
		c.store.Heal()
		c.store.Hang(storetest.OpFence)
		ctx, cancel := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		for range 10 {
			writers.Go(func() {
				for ctx.Err() == nil {
					_, _ = c.Fence(ctx, driver.Mark(driver.NewVersion()), []cache.Tag{rowTag(2)})
					time.Sleep(time.Millisecond)
				}
			})
		}
		serving, stop := context.WithTimeout(t.Context(), 3*time.Second)
		defer stop()
		if err := c.WaitServing(serving); err != nil {
			t.Errorf("health is %+v, 3s after the store has come back", c.Health())
		}
		cancel()
		writers.Wait()
	})
}

// Calls that ran out of time during a recovery say nothing once it has ended: its own probes were
// answered after them. To be judged by them at the moment when the load is at its highest, all
// answers having come from the source, would begin the outage again.
func TestARecoveryAnswersForTheSlowCallsBeforeItsEnd(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = 0
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		var attempts atomic.Int64
		c.OnRecovery(func(ctx context.Context) error {
			if attempts.Add(1) > 1 {
				return nil
			}
			c.store.Hang(storetest.OpFence)
			if _, err := c.Fence(ctx, driver.Mark(driver.NewVersion()), []cache.Tag{rowTag(2)}); err == nil {
				t.Error("a fence that hangs was reported as set")
			}
			c.store.Heal(storetest.OpFence)
			c.store.Delay(800*time.Millisecond, storetest.OpRead) // as long as it does not count as hanging
			return nil
		})
		c.Suspect(errDown)
		if err := c.WaitServing(t.Context()); err != nil {
			t.Fatalf("error %v, health is %+v", err, c.Health())
		}
		time.Sleep(2 * time.Second)
		if h := c.Health(); h.State != "ok" || attempts.Load() != 1 {
			t.Errorf("after %d recoveries the store is %s: %v", attempts.Load(), h.State, h.Err)
		}
	})
}

// A bump that fails while a recovery waits is delivered by it, and does not begin it again.
func TestBumpThatFailsWhileARecoveryWaits(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = 0
		q := cache.Define(c.Cache, s.query())
		mustGet(t, q, 1, "one")
		var attempts atomic.Int64
		c.OnRecovery(func(context.Context) error { attempts.Add(1); return nil })
		c.store.Fail(errDown)
		_, _ = q.Get(t.Context(), 1)
		time.Sleep(2 * time.Second)
		c.store.Heal()
		c.store.Fail(errDown, storetest.OpBump)
		time.Sleep(150 * time.Millisecond) // it waits
		s.set(1, "uno")
		if err := c.Invalidate(t.Context(), rowTag(1)); err == nil {
			t.Error("a bump that failed was reported as done")
		}
		c.store.Heal(storetest.OpBump)
		serving, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := c.WaitServing(serving); err != nil {
			t.Fatalf("health is %+v", c.Health())
		}
		mustGet(t, q, 1, "uno")
		if n := attempts.Load(); n != 1 {
			t.Errorf("%d attempts to recover, want 1", n)
		}
	})
}

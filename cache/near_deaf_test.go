package cache_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

func TestDeafProcessServesNothingNearForLongerThanTheBound(t *testing.T) {
	for name, fall := range map[string]func(*storetest.Faulty){
		"reports alone are lost": func(f *storetest.Faulty) { f.Hang(storetest.OpWatch) },
		"all is lost but the proof that writes are taken": func(f *storetest.Faulty) {
			f.Hang()
			f.Heal(storetest.OpCheckWrites)
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, fleet := newSource(), newFleet(t, 2)
				q := defineNear(fleet[1], s.nearQuery())
				keepNear(t, q, 1, "one")
				keepNear(t, q, 2, "two")
				time.Sleep(10 * time.Second)
				fall(fleet[1].store)
				s.set(1, "uno")
				mustInvalidate(t, fleet[0], rowTag(1))
				time.Sleep(time.Second - proofs)
				mustBeNear(t, q, 1, "one") // wrong, and within the bound
				mustBeNear(t, q, 2, "two")
				time.Sleep(proofs + time.Nanosecond)
				for range 3 { // what is read meanwhile is not near either: who knows how long it is right
					mustNotBeNear(t, q, 1, "uno")
					mustNotBeNear(t, q, 2, "two")
				}
				s.set(1, "eins")
				mustInvalidate(t, fleet[0], rowTag(1))
				fleet[1].store.Heal()
				time.Sleep(5 * time.Second) // until the store is trusted
				mustNotBeNear(t, q, 1, "eins")
				mustBeNear(t, q, 1, "eins")
			})
		})
	}
}

// What was read during a gap was not near then, and must not be once proofs come again.
func TestAnswersReadDuringAGapStayDead(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		q := defineNear(fleet[1], s.nearQuery())
		keepNear(t, q, 1, "one")
		gaps := fleet[1].counts.Total().Gaps
		fleet[1].store.Hang(storetest.OpWatch)
		time.Sleep(2 * time.Second)
		mustNotBeNear(t, q, 1, "one")
		s.set(1, "uno")
		mustInvalidate(t, fleet[0], rowTag(1)) // no process will hear of it
		fleet[1].store.Heal()
		synctest.Wait()
		mustNotBeNear(t, q, 1, "uno")
		mustBeNear(t, q, 1, "uno")
		if n := fleet[1].counts.Total().Gaps - gaps; n != 1 {
			t.Errorf("one gap was counted as %v", n)
		}
	})
}

func TestGapDropsEverythingNear(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := defineNear(c, s.nearQuery())
		for id, row := range s.rows {
			keepNear(t, q, id, row)
		}
		gaps := c.counts.Total().Gaps
		c.store.Hang(storetest.OpWatch)
		c.store.Heal()
		synctest.Wait()
		for id, row := range s.rows {
			mustNotBeNear(t, q, id, row)
			mustBeNear(t, q, id, row)
		}
		if n := c.counts.Total().Gaps - gaps; n != 1 {
			t.Errorf("one gap was counted as %v", n)
		}
	})
}

// Not even in the first moments of the process.
func TestWithoutReportsNothingIsNear(t *testing.T) {
	for name, open := range map[string]func(f *storetest.Faulty) driver.Store{
		"watching is refused": func(f *storetest.Faulty) driver.Store {
			f.Fail(errDown, storetest.OpWatch)
			return f
		},
		"the store is silent": func(f *storetest.Faulty) driver.Store {
			f.Hang(storetest.OpWatch)
			return f
		},
		"there is no watching": func(f *storetest.Faulty) driver.Store { return struct{ driver.Store }{f} },
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, peer := newSource(), newCache(t).store.Peer()
				s.delay = 0
				c, err := cache.New(cache.Config{Store: open(peer)})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					c.Close()
					peer.Close()
				})
				q := cache.Define(c, s.nearQuery())
				for range 20 {
					mustNotBeNear(t, q, 1, "one")
					time.Sleep(100 * time.Millisecond)
				}
			})
		})
	}
}

// A store that stops reporting in the middle takes back what it proved of the future.
func TestNothingIsNearAfterTheStoreIsClosed(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, store := newSource(), memstore.New(memstore.Config{})
		c := process{}
		var err error
		if c.Cache, err = cache.New(cache.Config{Store: store}); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		q := defineNear(c, s.nearQuery())
		keepNear(t, q, 1, "one")
		store.Close()
		synctest.Wait()
		s.set(1, "uno")
		mustNotBeNear(t, q, 1, "uno")
	})
}

package cache_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache/storetest"
)

// An answer that is kept near while the fence is on its way to the store was read before
// the fence: it must not outlive the fence's return.
func TestFenceEndsWhatBecameNearMeanwhile(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		q := defineNear(c, s.nearQuery())
		keepNear(t, q, 1, "one")
		c.store.Delay(500*time.Millisecond, storetest.OpWatch)
		c.store.Delay(20*time.Millisecond, storetest.OpFence)
		var wg sync.WaitGroup
		wg.Go(func() { mustFence(t, c, rowTag(1)) })
		time.Sleep(10 * time.Millisecond)
		mustGet(t, q, 1, "one")
		wg.Wait()
		s.set(1, "uno") // the commit
		mustNotBeNear(t, q, 1, "uno")
	})
}

// A store that is out of reach for reads and writes but goes on proving that it reports:
// no bump gets through, so silence proves nothing.
func TestNothingIsNearWhileTheStoreIsNotTrusted(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		q := defineNear(fleet[1], s.nearQuery())
		keepNear(t, q, 1, "one")
		keepNear(t, q, 2, "two")
		for _, p := range fleet {
			for op := storetest.OpRead; op <= storetest.OpPurge; op++ {
				p.store.Hang(op)
			}
		}
		s.set(1, "uno")
		_ = fleet[0].Invalidate(t.Context(), rowTag(1)) // cannot
		for id := 10; id < 30; id++ {                   // until the breaker opens
			s.set(id, "row")
			mustGet(t, q, id, "row")
		}
		mustNotBeNear(t, q, 1, "uno")
		for _, p := range fleet {
			p.store.Heal()
		}
		time.Sleep(10 * time.Second)
		mustNotBeNear(t, q, 2, "two") // what it was worth is not known
		mustNotBeNear(t, q, 1, "uno")
		mustBeNear(t, q, 1, "uno")
		synctest.Wait()
	})
}

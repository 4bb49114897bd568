package memstore

import (
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/chainlearn/chainlearn/cache/driver"
)

const (
	// maxLeaseBytes bounds what leases and remembered failures take: some 50,000 of them.
	// One that is evicted costs an extra load, no more.
	maxLeaseBytes = 16 << 20
	// leaseOverhead is what one takes beside its key and failure.
	leaseOverhead = 288
)

// leaseTable holds, for each key that is loading or failed lately, the lease of the load and
// the last failure. A value is immutable and replaced under the lock of its slot.
type leaseTable struct {
	leases *otter.Cache[string, lease]
}

type lease struct {
	token driver.Token
	guard driver.Guard // of the load that has the lease, or of the last one
	until time.Time    // the load has the lease; zero when it was given back

	failure  []byte    // of the last load; nil for none
	retry    time.Time // claims under guard fail until then; zero once a later claim was granted
	forgetAt time.Time // the failure is remembered until then
}

func newLeaseTable() *leaseTable {
	return &leaseTable{
		leases: otter.Must(&otter.Options[string, lease]{
			MaximumWeight: maxLeaseBytes,
			Weigher: func(key string, l lease) uint32 {
				return clampWeight(len(key) + cap(l.failure) + leaseOverhead)
			},
			ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, lease]) time.Duration {
				return max(time.Until(e.Value.end()), 1) // otter takes 0 as "keep the old expiry"
			}),
			Executor: inline,
		}),
	}
}

func (l lease) heldBy(token driver.Token, now time.Time) bool {
	return l.token == token && now.Before(l.until)
}

// end is when l expires as a whole.
func (l lease) end() time.Time {
	if l.until.After(l.forgetAt) {
		return l.until
	}
	return l.forgetAt
}

// update replaces the lease of key by what next returns. A failure that is to be forgotten is removed
// before next sees it, and a lease of which all parts have expired is removed.
func (t *leaseTable) update(key string, next func(l lease, now time.Time) lease) {
	t.leases.Compute(key, func(l lease, _ bool) (lease, otter.ComputeOp) {
		now := time.Now()
		if !now.Before(l.forgetAt) {
			l.failure, l.retry, l.forgetAt = nil, time.Time{}, time.Time{}
		}
		l = next(l, now)
		if !now.Before(l.end()) {
			return l, otter.InvalidateOp
		}
		return l, otter.WriteOp
	})
}

// Decision 3 and Decision 4.
func (t *leaseTable) acquire(c driver.Claim) (claimed driver.Claimed) {
	t.update(c.Key, func(l lease, now time.Time) lease {
		switch {
		case now.Before(l.retry) && l.guard == c.Guard:
			claimed = driver.Claimed{State: driver.Failed, Wait: l.retry.Sub(now), Failure: l.failure}
		// A claim under the token that holds the lease repeats one whose answer was lost.
		case now.Before(l.until) && l.guard == c.Guard && l.token != c.Token:
			claimed = driver.Claimed{State: driver.Held, Wait: l.until.Sub(now)}
		default:
			claimed = driver.Claimed{State: driver.Granted, Failure: l.failure}
			l.token, l.guard, l.until, l.retry = c.Token, c.Guard, now.Add(c.TTL), time.Time{}
		}
		return l
	})
	return claimed
}

func (t *leaseTable) extend(key string, token driver.Token, ttl time.Duration) (ok bool) {
	t.update(key, func(l lease, now time.Time) lease {
		if ok = l.heldBy(token, now); ok {
			l.until = now.Add(ttl)
		}
		return l
	})
	return ok
}

func (t *leaseTable) release(f driver.Fill) {
	t.update(f.Key, func(l lease, now time.Time) lease {
		if !l.heldBy(f.Token, now) {
			return l
		}
		l.until = time.Time{}
		switch {
		case f.Entry != nil:
			l.failure, l.retry, l.forgetAt = nil, time.Time{}, time.Time{}
		case f.Failure != nil:
			l.failure, l.retry, l.forgetAt = f.Failure, now.Add(f.Hold), now.Add(2*f.Hold)
		}
		return l
	})
}

func (t *leaseTable) size() int { return t.leases.EstimatedSize() }

func (t *leaseTable) clear() {
	t.leases.StopAllGoroutines()
	t.leases.InvalidateAll()
}

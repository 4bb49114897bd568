package storetest

import (
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var failureRules = []rule{
	{"a failure holds claims off, then is remembered for as long again", checkFailure},
	{"a failure is told to every handle, with the time to wait", checkFailureIsTold},
	{"a failure ends the lease, and stores no entry", checkFailureEndsLease},
	{"a later failure replaces the one before", checkFailureReplaced},
	{"a load that succeeds clears the failure", checkFailureCleared},
	{"an empty failure is a failure", checkEmptyFailure},
	{"only the holder of the lease reports a failure", checkFailureByOthers},
}

// fail claims key and reports a failure. It returns a time before that.
func (k *kit) fail(key string, failure string, hold time.Duration) time.Time {
	k.Helper()
	token := newToken()
	k.lease(key, token, newGuard(), long)
	start := time.Now()
	k.settle(driver.Fill{Key: key, Token: token, Failure: []byte(failure), Hold: hold})
	return start
}

// afterHold claims key until it is granted, and gives the lease back.
func (k *kit) afterHold(key string) driver.Claimed {
	k.Helper()
	var answer driver.Claimed
	k.until(time.Now(), "a grant after the failure", func() bool {
		token := newToken()
		answer = k.claim(key, token, newGuard(), long)
		if answer.State == driver.Granted {
			k.settle(driver.Fill{Key: key, Token: token})
		}
		return answer.State == driver.Granted
	})
	return answer
}

func checkFailure(k *kit) {
	const hold = short
	start := k.fail("k", "down", hold)
	var answer driver.Claimed
	k.ends(start, hold, "the first grant after a failure", func() bool {
		answer = k.afterHoldOnce("k")
		return answer.State == driver.Granted
	})
	// On a machine that stood still for a whole hold there is nothing left to see.
	if time.Since(start) < 2*hold-rounding && string(answer.Failure) != "down" {
		k.Errorf("%v after a failure held for %v a grant shows %s, want \"down\"", time.Since(start), hold, show(answer.Failure))
	}
	k.ends(start, 2*hold, "the end of what is remembered", func() bool {
		answer = k.afterHold("k")
		return answer.Failure == nil
	})
}

// afterHoldOnce claims key, gives the lease back if it got it, and checks a refusal.
func (k *kit) afterHoldOnce(key string) driver.Claimed {
	k.Helper()
	token := newToken()
	answer := k.claim(key, token, newGuard(), long)
	switch answer.State {
	case driver.Granted:
		k.settle(driver.Fill{Key: key, Token: token})
	case driver.Failed:
		if string(answer.Failure) != "down" {
			k.Errorf("a claim after a failure shows %s, want \"down\"", show(answer.Failure))
		}
		if answer.Wait <= 0 || answer.Wait > short {
			k.Errorf("a failure held for %v is said to end in %v", short, answer.Wait)
		}
	default:
		k.wantState(answer, driver.Failed, "a claim after a failure")
	}
	return answer
}

func checkFailureIsTold(k *kit) {
	k.fail("k", "down", long)
	for _, h := range []*kit{k, k.swapped()} {
		answer := h.claim("k", newToken(), newGuard(), long)
		h.wantState(answer, driver.Failed, "a claim after a failure")
		if string(answer.Failure) != "down" {
			h.Errorf("a claim after a failure shows %s, want \"down\"", show(answer.Failure))
		}
		if answer.Wait <= 0 || answer.Wait > long {
			h.Errorf("a failure held for %v is said to end in %v", long, answer.Wait)
		}
	}
	k.lease("k2", newToken(), newGuard(), long) // another key has not failed
}

func checkFailureEndsLease(k *kit) {
	token := newToken()
	k.put("k", "v", long)
	k.lease("k", token, newGuard(), long)
	k.settle(driver.Fill{Key: "k", Token: token, Failure: []byte("down"), Hold: long})
	k.wantLost("k", token, "that was settled as a failure")
	k.wantEntry("k", []byte("v"))
	if got := k.claim("k", newToken(), newGuard(), long).Entry; string(got) != "v" {
		k.Errorf("a claim after a failure shows entry %s, want \"v\"", show(got))
	}
}

func checkFailureReplaced(k *kit) {
	k.fail("k", "first", short)
	k.afterHold("k")
	k.fail("k", "second", long)
	answer := k.claim("k", newToken(), newGuard(), long)
	k.wantState(answer, driver.Failed, "a claim after the second failure")
	if string(answer.Failure) != "second" {
		k.Errorf("a claim after the second failure shows %s", show(answer.Failure))
	}
}

func checkFailureCleared(k *kit) {
	k.fail("k", "down", short)
	k.afterHold("k")
	token, guard := newToken(), newGuard()
	k.lease("k", token, guard, long)
	k.settle(driver.Fill{Key: "k", Token: token, Entry: []byte("v"), Life: long})
	if got := k.lease("k", newToken(), guard, long).Failure; got != nil {
		k.Errorf("a claim after a load that succeeded shows failure %s", show(got))
	}
}

func checkEmptyFailure(k *kit) {
	k.fail("k", "", long)
	answer := k.claim("k", newToken(), newGuard(), long)
	k.wantState(answer, driver.Failed, "a claim after an empty failure")
	if answer.Failure == nil {
		k.Error("an empty failure reads as none")
	}
}

func checkFailureByOthers(k *kit) {
	k.settle(driver.Fill{Key: "k", Token: newToken(), Failure: []byte("down"), Hold: long})
	token, guard := newToken(), newGuard()
	if got := k.lease("k", token, guard, long).Failure; got != nil {
		k.Errorf("a failure reported without a lease is remembered as %s", show(got))
	}
	k.settle(driver.Fill{Key: "k", Token: newToken(), Failure: []byte("down"), Hold: long})
	k.wantState(k.claim("k", newToken(), guard, long), driver.Held, "a claim after a stranger's failure")

	// A failure reported before keeps holding, whoever else succeeds.
	k.settle(driver.Fill{Key: "k", Token: token, Failure: []byte("really down"), Hold: long})
	k.put("k", "late", long)
	answer := k.claim("k", newToken(), guard, long)
	k.wantState(answer, driver.Failed, "a claim after a failure and a late success")
	if string(answer.Entry) != "late" {
		k.Errorf("a claim after a late success shows entry %s", show(answer.Entry))
	}
}

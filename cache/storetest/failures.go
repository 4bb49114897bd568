package storetest

import (
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var failureRules = []rule{
	{"a failure holds claims off, then is remembered for as long again", checkFailure},
	{"a failure is reported to claims by every handle, with the time to wait", checkFailureIsReported},
	{"a failure ends the lease, and stores no entry", checkFailureEndsLease},
	{"a later failure replaces the one before", checkFailureReplaced},
	{"a load that succeeds clears the failure", checkFailureCleared},
	{"an empty failure is a failure", checkEmptyFailure},
	{"only the holder of the lease reports a failure", checkFailureByOthers},
	{"a failure holds off claims under its own guard alone, and none once another was granted", checkFailureOfAnotherGuard},
}

// failing is the guard of loads that fail.
var failing = newGuard()

// fail claims key and reports a failure. It returns a time before that.
func (h *helpers) fail(key string, failure string, hold time.Duration) time.Time {
	h.Helper()
	token := newToken()
	h.lease(key, token, failing, long)
	start := time.Now()
	h.settle(driver.Fill{Key: key, Token: token, Failure: []byte(failure), Hold: hold})
	return start
}

// afterHold claims key until it is granted, and gives the lease back.
func (h *helpers) afterHold(key string) driver.Claimed {
	h.Helper()
	var answer driver.Claimed
	h.eventually(time.Now(), "a grant after the failure", func() bool {
		token := newToken()
		answer = h.claim(key, token, failing, long)
		if answer.State == driver.Granted {
			h.settle(driver.Fill{Key: key, Token: token})
		}
		return answer.State == driver.Granted
	})
	return answer
}

func checkFailure(h *helpers) {
	const hold = short
	start := h.fail("k", "down", hold)
	var answer driver.Claimed
	h.expectAfter(start, hold, "the first grant after a failure", func() bool {
		answer = h.afterHoldOnce("k")
		return answer.State == driver.Granted
	})
	// On a machine that stood still for a whole hold there is nothing left to see.
	if time.Since(start) < 2*hold-rounding && string(answer.Failure) != "down" {
		h.Errorf("%v after a failure held for %v a grant shows %s, want \"down\"", time.Since(start), hold, show(answer.Failure))
	}
	h.expectAfter(start, 2*hold, "the end of what is remembered", func() bool {
		answer = h.afterHold("k")
		return answer.Failure == nil
	})
}

// afterHoldOnce claims key, gives the lease back if it got it, and checks a refusal.
func (h *helpers) afterHoldOnce(key string) driver.Claimed {
	h.Helper()
	token := newToken()
	answer := h.claim(key, token, failing, long)
	switch answer.State {
	case driver.Granted:
		h.settle(driver.Fill{Key: key, Token: token})
	case driver.Failed:
		if string(answer.Failure) != "down" {
			h.Errorf("a claim after a failure shows %s, want \"down\"", show(answer.Failure))
		}
		if answer.Wait <= 0 || answer.Wait > short {
			h.Errorf("a failure held for %v is said to end in %v", short, answer.Wait)
		}
	default:
		h.wantState(answer, driver.Failed, "a claim after a failure")
	}
	return answer
}

func checkFailureIsReported(h *helpers) {
	h.fail("k", "down", long)
	for _, handle := range []*helpers{h, h.swapped()} {
		answer := handle.claim("k", newToken(), failing, long)
		handle.wantState(answer, driver.Failed, "a claim after a failure")
		if string(answer.Failure) != "down" {
			handle.Errorf("a claim after a failure shows %s, want \"down\"", show(answer.Failure))
		}
		if answer.Wait <= 0 || answer.Wait > long {
			handle.Errorf("a failure held for %v is said to end in %v", long, answer.Wait)
		}
	}
	h.lease("k2", newToken(), failing, long) // another key has not failed
}

func checkFailureEndsLease(h *helpers) {
	token := newToken()
	h.put("k", "v", long)
	h.lease("k", token, failing, long)
	h.settle(driver.Fill{Key: "k", Token: token, Failure: []byte("down"), Hold: long})
	h.wantLeaseLost("k", token, "that was settled as a failure")
	h.wantEntry("k", []byte("v"))
	if got := h.claim("k", newToken(), failing, long).Entry; string(got) != "v" {
		h.Errorf("a claim after a failure shows entry %s, want \"v\"", show(got))
	}
}

func checkFailureReplaced(h *helpers) {
	h.fail("k", "first", short)
	h.afterHold("k")
	h.fail("k", "second", long)
	answer := h.claim("k", newToken(), failing, long)
	h.wantState(answer, driver.Failed, "a claim after the second failure")
	if string(answer.Failure) != "second" {
		h.Errorf("a claim after the second failure shows %s", show(answer.Failure))
	}
}

func checkFailureCleared(h *helpers) {
	h.fail("k", "down", short)
	h.afterHold("k")
	token, guard := newToken(), failing
	h.lease("k", token, guard, long)
	h.settle(driver.Fill{Key: "k", Token: token, Entry: []byte("v"), Life: long})
	if got := h.lease("k", newToken(), guard, long).Failure; got != nil {
		h.Errorf("a claim after a load that succeeded shows failure %s", show(got))
	}
}

func checkEmptyFailure(h *helpers) {
	h.fail("k", "", long)
	answer := h.claim("k", newToken(), failing, long)
	h.wantState(answer, driver.Failed, "a claim after an empty failure")
	if answer.Failure == nil {
		h.Error("an empty failure reads as none")
	}
}

func checkFailureByOthers(h *helpers) {
	h.settle(driver.Fill{Key: "k", Token: newToken(), Failure: []byte("down"), Hold: long})
	token, guard := newToken(), failing
	if got := h.lease("k", token, guard, long).Failure; got != nil {
		h.Errorf("a failure reported without a lease is remembered as %s", show(got))
	}
	h.settle(driver.Fill{Key: "k", Token: newToken(), Failure: []byte("down"), Hold: long})
	h.wantState(h.claim("k", newToken(), guard, long), driver.Held, "a claim after a stranger's failure")

	// A failure that was reported before stays, although another load succeeds.
	h.settle(driver.Fill{Key: "k", Token: token, Failure: []byte("really down"), Hold: long})
	h.put("k", "late", long)
	answer := h.claim("k", newToken(), guard, long)
	h.wantState(answer, driver.Failed, "a claim after a failure and a late success")
	if string(answer.Entry) != "late" {
		h.Errorf("a claim after a late success shows entry %s", show(answer.Entry))
	}
}

// A write that came after the load may have ended the cause of its failure.
func checkFailureOfAnotherGuard(h *helpers) {
	h.fail("k", "down", long)
	for _, handle := range []*helpers{h, h.swapped()} {
		handle.wantState(handle.claim("k", newToken(), failing, long), driver.Failed, "a claim under the guard of a failure")
	}
	token, guard := newToken(), newGuard()
	answer := h.swapped().claim("k", token, guard, long)
	h.wantState(answer, driver.Granted, "a claim under another guard than a failure's")
	if string(answer.Failure) != "down" {
		h.Errorf("the claim shows failure %s, want \"down\": the next failure is to know of this one", show(answer.Failure))
	}
	h.wantState(h.claim("k", newToken(), guard, long), driver.Held, "a second claim under that guard")
	h.settle(driver.Fill{Key: "k", Token: token, Failure: []byte("still down"), Hold: long})
	answer = h.claim("k", newToken(), guard, long)
	h.wantState(answer, driver.Failed, "a claim under the guard of the second failure")
	if string(answer.Failure) != "still down" {
		h.Errorf("a claim after the second failure shows %s", show(answer.Failure))
	}

	// A load that gives its lease back leaves no claim held off: the guard of the failure is lost.
	token = newToken()
	h.lease("k", token, newGuard(), long)
	h.settle(driver.Fill{Key: "k", Token: token})
	if got := h.lease("k", newToken(), guard, long).Failure; string(got) != "still down" {
		h.Errorf("a lease that was given back changed the failure to %s", show(got))
	}
}

package storetest

import (
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var leaseRules = []rule{
	{"a lease is granted once, and held against claims under the same guard", checkLeaseHeld},
	{"a lease under another guard does not stand in the way", checkLeaseTakenOver},
	{"a lease ends when its time has passed, and not before", checkLeaseEnds},
	{"a renewed lease lasts from the renewal", checkLeaseRenewed},
	{"only the holder of a lease renews it", checkRenewByOthers},
	{"a claim repeated under its own token is granted again", checkClaimRepeated},
	{"settling an entry ends the lease, and the next claim shows the entry", checkSettleEntry},
	{"settling nothing gives the lease back and leaves the entry", checkSettleNothing},
	{"settling without the lease stores the entry and leaves the lease", checkLateFill},
	{"settling again does no harm", checkSettleRepeated},
	{"a claim that is refused shows the entry too", checkHeldShowsEntry},
	{"claims and fills of one call are each their own", checkManyClaims},
}

func checkLeaseHeld(h *helpers) {
	token, guard := newToken(), newGuard()
	granted := h.lease("k", token, guard, long)
	if granted.Entry != nil || granted.Failure != nil {
		h.Errorf("the first claim of a key shows entry %s and failure %s", show(granted.Entry), show(granted.Failure))
	}
	for _, handle := range []*helpers{h, h.swapped()} {
		held := handle.claim("k", newToken(), guard, long)
		handle.wantState(held, driver.Held, "a second claim under the same guard")
		if held.Wait <= 0 || held.Wait > long {
			handle.Errorf("a lease of %v is said to end in %v", long, held.Wait)
		}
	}
	h.lease("k2", newToken(), guard, long) // another key is free
	h.renew("k", token, long)              // refusing others took nothing from the holder
}

func checkLeaseTakenOver(h *helpers) {
	old, token, guard := newToken(), newToken(), newGuard()
	h.lease("k", old, newGuard(), long)
	h.wantState(h.swapped().claim("k", token, guard, long), driver.Granted, "a claim under another guard")
	h.wantLeaseLost("k", old, "by the token that was overtaken")

	h.settle(driver.Fill{Key: "k", Token: old, Entry: []byte("old"), Life: long})
	h.wantEntry("k", []byte("old")) // its guard protects readers
	h.settle(driver.Fill{Key: "k", Token: old, Failure: []byte("down"), Hold: long})
	h.settle(driver.Fill{Key: "k", Token: old})
	h.wantState(h.claim("k", newToken(), guard, long), driver.Held, "a claim after the overtaken load was settled")
	h.renew("k", token, long)
}

func checkLeaseEnds(h *helpers) {
	token, guard := newToken(), newGuard()
	start := time.Now()
	h.lease("k", token, guard, short)
	var last driver.Claimed
	h.expectAfter(start, short, "the end of the lease", func() bool {
		last = h.claim("k", newToken(), guard, long)
		if last.State == driver.Held && (last.Wait <= 0 || last.Wait > short) {
			h.Errorf("a lease of %v is said to end in %v", short, last.Wait)
		}
		return last.State != driver.Held
	})
	h.wantState(last, driver.Granted, "a claim after the lease ended")
	h.wantLeaseLost("k", token, "by the token whose lease ended")
}

func checkLeaseRenewed(h *helpers) {
	token, guard := newToken(), newGuard()
	h.eventually(time.Now(), "a Renew within the time of the lease", func() bool {
		start := time.Now()
		h.lease("k", token, guard, short)
		err := h.store.Renew(h.Context(), "k", token, long)
		if err != nil && time.Since(start) < short-rounding { // or the machine stood still
			h.Fatalf("Renew by the holder of k failed: %v", err)
		}
		return err == nil
	})
	h.sleep(short + 50*time.Millisecond)
	held := h.claim("k", newToken(), guard, long)
	h.wantState(held, driver.Held, "a claim after the first time of a renewed lease")
	if held.Wait > long || held.Wait < long-waitLimit {
		h.Errorf("a lease renewed for %v is said to end in %v", long, held.Wait)
	}

	start := time.Now()
	h.renew("k", token, short) // from now: also to an earlier end
	h.expectAfter(start, short, "the end of the renewed lease", func() bool {
		return h.claim("k", newToken(), guard, long).State == driver.Granted
	})
}

func checkRenewByOthers(h *helpers) {
	token, guard := newToken(), newGuard()
	h.wantLeaseLost("k", token, "that was not claimed")
	h.wantState(h.claim("k", newToken(), guard, long), driver.Granted, "a claim after a Renew that failed")
	h.wantLeaseLost("k", token, "that another holds")
}

// A load that lost the answer to its claim claims again, and must not wait for itself.
func checkClaimRepeated(h *helpers) {
	token, guard := newToken(), newGuard()
	h.lease("k", token, guard, long)
	h.wantState(h.claim("k", token, guard, long), driver.Granted, "a claim repeated under its own token")
	h.wantState(h.claim("k", newToken(), guard, long), driver.Held, "a claim under another token")
	h.renew("k", token, long)
}

func checkSettleEntry(h *helpers) {
	token, guard := newToken(), newGuard()
	h.lease("k", token, guard, long)
	h.settle(driver.Fill{Key: "k", Token: token, Entry: []byte("v"), Life: long})
	h.wantLeaseLost("k", token, "that was settled")
	granted := h.swapped().claim("k", newToken(), guard, long)
	h.wantState(granted, driver.Granted, "a claim after the load was settled")
	if string(granted.Entry) != "v" {
		h.Errorf("a claim after the load shows entry %s, want \"v\"", show(granted.Entry))
	}
}

func checkSettleNothing(h *helpers) {
	token, guard := newToken(), newGuard()
	h.put("k", "v", long)
	h.lease("k", token, guard, long)
	h.settle(driver.Fill{Key: "k", Token: token})
	h.wantLeaseLost("k", token, "that was given back")
	granted := h.lease("k", newToken(), guard, long)
	if string(granted.Entry) != "v" || granted.Failure != nil {
		h.Errorf("after a lease was given back a claim shows entry %s and failure %s", show(granted.Entry), show(granted.Failure))
	}
}

func checkLateFill(h *helpers) {
	late, token, guard := newToken(), newToken(), newGuard()
	h.lease("k", late, guard, short)
	h.eventually(time.Now(), "the end of the late load's lease", func() bool {
		return h.claim("k", token, guard, long).State == driver.Granted
	})
	h.settle(driver.Fill{Key: "k", Token: late, Entry: []byte("late"), Life: long})
	h.wantEntry("k", []byte("late"))
	held := h.claim("k", newToken(), guard, long)
	h.wantState(held, driver.Held, "a claim after a late load was settled")
	if string(held.Entry) != "late" {
		h.Errorf("a claim after a late load shows entry %s", show(held.Entry))
	}
	h.renew("k", token, long)
}

func checkSettleRepeated(h *helpers) {
	token, next, guard := newToken(), newToken(), newGuard()
	fill := driver.Fill{Key: "k", Token: token, Entry: []byte("v"), Life: long}
	h.lease("k", token, guard, long)
	h.settle(fill)
	h.lease("k", next, guard, long)
	h.settle(fill)
	h.wantEntry("k", []byte("v"))
	h.renew("k", next, long)
}

func checkHeldShowsEntry(h *helpers) {
	guard := newGuard()
	h.put("k", "before", long)
	if got := h.lease("k", newToken(), guard, long).Entry; string(got) != "before" {
		h.Errorf("a granted claim shows entry %s, want \"before\"", show(got))
	}
	h.put("k", "since", long)
	held := h.claim("k", newToken(), guard, long)
	h.wantState(held, driver.Held, "a second claim")
	if string(held.Entry) != "since" {
		h.Errorf("a claim that is held off shows entry %s, want \"since\"", show(held.Entry))
	}
}

func checkManyClaims(h *helpers) {
	const n = 60
	// By key number: every third is held by another, every third has failed.
	kinds := []driver.ClaimState{driver.Granted, driver.Held, driver.Failed}
	guard := newGuard()
	key := func(i int) string { return fmt.Sprint("course:", i) }
	var claims []driver.Claim
	var fails, fills []driver.Fill
	for i := range n {
		if kinds[i%3] != driver.Granted {
			token := newToken()
			h.lease(key(i), token, guard, long)
			if kinds[i%3] == driver.Failed {
				fails = append(fails, driver.Fill{Key: key(i), Token: token, Failure: []byte("failure of " + key(i)), Hold: long})
			}
		}
		claims = append(claims, driver.Claim{Key: key(i), Token: newToken(), Guard: guard, TTL: long})
	}
	h.settle(fails...)
	claims = append(claims, driver.Claim{Key: key(0), Token: newToken(), Guard: guard, TTL: long}) // a key twice
	answers := h.claims(claims...)
	for i := range n {
		h.wantState(answers[i], kinds[i%3], fmt.Sprintf("claim %d of a call of %d", i, n+1))
		failed := kinds[i%3] == driver.Failed
		if want := "failure of " + key(i); failed && string(answers[i].Failure) != want {
			h.Errorf("claim %d shows failure %s, want %q", i, show(answers[i].Failure), want)
		}
		if kinds[i%3] == driver.Granted {
			fills = append(fills, driver.Fill{Key: key(i), Token: claims[i].Token, Entry: []byte("entry of " + key(i)), Life: long})
		}
	}
	h.wantState(answers[n], driver.Held, "the second claim of a key in one call")

	h.settle(fills...)
	for _, f := range fills {
		h.wantEntry(f.Key, f.Entry)
		h.wantLeaseLost(f.Key, f.Token, "that was settled")
	}
}

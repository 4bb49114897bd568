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

func checkLeaseHeld(k *kit) {
	token, guard := newToken(), newGuard()
	granted := k.lease("k", token, guard, long)
	if granted.Entry != nil || granted.Failure != nil {
		k.Errorf("the first claim of a key shows entry %s and failure %s", show(granted.Entry), show(granted.Failure))
	}
	for _, h := range []*kit{k, k.swapped()} {
		held := h.claim("k", newToken(), guard, long)
		h.wantState(held, driver.Held, "a second claim under the same guard")
		if held.Wait <= 0 || held.Wait > long {
			h.Errorf("a lease of %v is said to end in %v", long, held.Wait)
		}
	}
	k.lease("k2", newToken(), guard, long) // another key is free
	k.renew("k", token, long)              // refusing others took nothing from the holder
}

func checkLeaseTakenOver(k *kit) {
	old, token, guard := newToken(), newToken(), newGuard()
	k.lease("k", old, newGuard(), long)
	k.wantState(k.swapped().claim("k", token, guard, long), driver.Granted, "a claim under another guard")
	k.wantLost("k", old, "by the token that was overtaken")

	k.settle(driver.Fill{Key: "k", Token: old, Entry: []byte("old"), Life: long})
	k.wantEntry("k", []byte("old")) // its guard protects readers
	k.settle(driver.Fill{Key: "k", Token: old, Failure: []byte("down"), Hold: long})
	k.settle(driver.Fill{Key: "k", Token: old})
	k.wantState(k.claim("k", newToken(), guard, long), driver.Held, "a claim after the overtaken load was settled")
	k.renew("k", token, long)
}

func checkLeaseEnds(k *kit) {
	token, guard := newToken(), newGuard()
	start := time.Now()
	k.lease("k", token, guard, short)
	var last driver.Claimed
	k.ends(start, short, "the end of the lease", func() bool {
		last = k.claim("k", newToken(), guard, long)
		if last.State == driver.Held && (last.Wait <= 0 || last.Wait > short) {
			k.Errorf("a lease of %v is said to end in %v", short, last.Wait)
		}
		return last.State != driver.Held
	})
	k.wantState(last, driver.Granted, "a claim after the lease ended")
	k.wantLost("k", token, "by the token whose lease ended")
}

func checkLeaseRenewed(k *kit) {
	token, guard := newToken(), newGuard()
	k.until(time.Now(), "a Renew within the time of the lease", func() bool {
		start := time.Now()
		k.lease("k", token, guard, short)
		err := k.store.Renew(k.Context(), "k", token, long)
		if err != nil && time.Since(start) < short-rounding { // or the machine stood still
			k.Fatalf("Renew by the holder of k failed: %v", err)
		}
		return err == nil
	})
	k.pass(short + 50*time.Millisecond)
	held := k.claim("k", newToken(), guard, long)
	k.wantState(held, driver.Held, "a claim after the first time of a renewed lease")
	if held.Wait > long || held.Wait < long-patience {
		k.Errorf("a lease renewed for %v is said to end in %v", long, held.Wait)
	}

	start := time.Now()
	k.renew("k", token, short) // from now: also to an earlier end
	k.ends(start, short, "the end of the renewed lease", func() bool {
		return k.claim("k", newToken(), guard, long).State == driver.Granted
	})
}

func checkRenewByOthers(k *kit) {
	token, guard := newToken(), newGuard()
	k.wantLost("k", token, "that nobody claimed")
	k.wantState(k.claim("k", newToken(), guard, long), driver.Granted, "a claim after a Renew that failed")
	k.wantLost("k", token, "that another holds")
}

// Whoever lost the answer to its claim asks again, and must not wait for itself.
func checkClaimRepeated(k *kit) {
	token, guard := newToken(), newGuard()
	k.lease("k", token, guard, long)
	k.wantState(k.claim("k", token, guard, long), driver.Granted, "a claim repeated under its own token")
	k.wantState(k.claim("k", newToken(), guard, long), driver.Held, "a claim under another token")
	k.renew("k", token, long)
}

func checkSettleEntry(k *kit) {
	token, guard := newToken(), newGuard()
	k.lease("k", token, guard, long)
	k.settle(driver.Fill{Key: "k", Token: token, Entry: []byte("v"), Life: long})
	k.wantLost("k", token, "that was settled")
	granted := k.swapped().claim("k", newToken(), guard, long)
	k.wantState(granted, driver.Granted, "a claim after the load was settled")
	if string(granted.Entry) != "v" {
		k.Errorf("a claim after the load shows entry %s, want \"v\"", show(granted.Entry))
	}
}

func checkSettleNothing(k *kit) {
	token, guard := newToken(), newGuard()
	k.put("k", "v", long)
	k.lease("k", token, guard, long)
	k.settle(driver.Fill{Key: "k", Token: token})
	k.wantLost("k", token, "that was given back")
	granted := k.lease("k", newToken(), guard, long)
	if string(granted.Entry) != "v" || granted.Failure != nil {
		k.Errorf("after a lease was given back a claim shows entry %s and failure %s", show(granted.Entry), show(granted.Failure))
	}
}

func checkLateFill(k *kit) {
	late, token, guard := newToken(), newToken(), newGuard()
	k.lease("k", late, guard, short)
	k.until(time.Now(), "the end of the late load's lease", func() bool {
		return k.claim("k", token, guard, long).State == driver.Granted
	})
	k.settle(driver.Fill{Key: "k", Token: late, Entry: []byte("late"), Life: long})
	k.wantEntry("k", []byte("late"))
	held := k.claim("k", newToken(), guard, long)
	k.wantState(held, driver.Held, "a claim after a late load was settled")
	if string(held.Entry) != "late" {
		k.Errorf("a claim after a late load shows entry %s", show(held.Entry))
	}
	k.renew("k", token, long)
}

func checkSettleRepeated(k *kit) {
	token, next, guard := newToken(), newToken(), newGuard()
	fill := driver.Fill{Key: "k", Token: token, Entry: []byte("v"), Life: long}
	k.lease("k", token, guard, long)
	k.settle(fill)
	k.lease("k", next, guard, long)
	k.settle(fill)
	k.wantEntry("k", []byte("v"))
	k.renew("k", next, long)
}

func checkHeldShowsEntry(k *kit) {
	guard := newGuard()
	k.put("k", "before", long)
	if got := k.lease("k", newToken(), guard, long).Entry; string(got) != "before" {
		k.Errorf("a granted claim shows entry %s, want \"before\"", show(got))
	}
	k.put("k", "since", long)
	held := k.claim("k", newToken(), guard, long)
	k.wantState(held, driver.Held, "a second claim")
	if string(held.Entry) != "since" {
		k.Errorf("a claim that is held off shows entry %s, want \"since\"", show(held.Entry))
	}
}

func checkManyClaims(k *kit) {
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
			k.lease(key(i), token, guard, long)
			if kinds[i%3] == driver.Failed {
				fails = append(fails, driver.Fill{Key: key(i), Token: token, Failure: []byte("failure of " + key(i)), Hold: long})
			}
		}
		claims = append(claims, driver.Claim{Key: key(i), Token: newToken(), Guard: guard, TTL: long})
	}
	k.settle(fails...)
	claims = append(claims, driver.Claim{Key: key(0), Token: newToken(), Guard: guard, TTL: long}) // a key twice
	answers := k.claims(claims...)
	for i := range n {
		k.wantState(answers[i], kinds[i%3], fmt.Sprintf("claim %d of a call of %d", i, n+1))
		failed := kinds[i%3] == driver.Failed
		if want := "failure of " + key(i); failed && string(answers[i].Failure) != want {
			k.Errorf("claim %d shows failure %s, want %q", i, show(answers[i].Failure), want)
		}
		if kinds[i%3] == driver.Granted {
			fills = append(fills, driver.Fill{Key: key(i), Token: claims[i].Token, Entry: []byte("entry of " + key(i)), Life: long})
		}
	}
	k.wantState(answers[n], driver.Held, "the second claim of a key in one call")

	k.settle(fills...)
	for _, f := range fills {
		k.wantEntry(f.Key, f.Entry)
		k.wantLost(f.Key, f.Token, "that was settled")
	}
}

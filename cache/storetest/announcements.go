package storetest

import (
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var announcementRules = []rule{
	{"who was refused a lease hears of a value, a failure and a release", checkAnnounced},
	{"every waiter hears", checkEveryWaiterHears},
	{"who does not listen keeps nobody waiting", checkDeafWaiter},
	{"a subscription that ended takes no other with it", checkUnsubscribe},
	{"subscriptions come and go while loads are settled", checkSubscribeConcurrently},
}

// listen subscribes and waits until the subscription is live: until then, announcements
// may be lost. The channel it returns has said what it heard so far.
func (k *kit) listen(key string) (<-chan struct{}, func()) {
	k.Helper()
	announced, cancel := k.store.Announced(key)
	k.until(time.Now(), "the first announcement", func() bool {
		k.settle(driver.Fill{Key: key, Token: newToken()})
		select {
		case <-announced:
			return true
		case <-time.After(20 * time.Millisecond):
			return false
		}
	})
	// What was settled before may still be under way.
	for {
		select {
		case <-announced:
		case <-time.After(50 * time.Millisecond):
			return announced, cancel
		}
	}
}

func checkAnnounced(k *kit) {
	// A failure last: it would stand in the way of the others.
	settled := map[string]driver.Fill{
		"a value":           {Entry: []byte("v"), Life: long},
		"nothing":           {},
		"an empty value":    {Entry: []byte{}, Life: long},
		"a failure":         {Failure: []byte("down"), Hold: long},
		"a value too large": {Entry: make([]byte, 1<<20), Life: long},
	}
	for what, fill := range settled {
		for _, h := range []*kit{k, k.swapped()} {
			key, token, guard := "k:"+what, newToken(), newGuard()
			if h != k {
				key += ":other handle"
			}
			announced, cancel := h.listen(key)
			k.lease(key, token, guard, long)
			h.wantState(h.claim(key, newToken(), guard, long), driver.Held, "the waiter")
			fill.Key, fill.Token = key, token
			k.settle(fill)
			h.hears(announced, "who waits for "+what)
			cancel()
		}
	}
}

func checkEveryWaiterHears(k *kit) {
	var waiters []<-chan struct{}
	for i := range 20 {
		h := k
		if i%2 == 1 {
			h = k.swapped()
		}
		announced, cancel := h.listen("k")
		defer cancel()
		waiters = append(waiters, announced)
	}
	for range 3 {
		for _, w := range waiters { // those that came first heard the others subscribe
			select {
			case <-w:
			default:
			}
		}
		k.settle(driver.Fill{Key: "k", Token: newToken()})
		for _, w := range waiters {
			k.hears(w, "a waiter among twenty")
		}
	}
}

func checkDeafWaiter(k *kit) {
	_, cancel := k.listen("k")
	defer cancel()
	for range 50 {
		k.settle(driver.Fill{Key: "k", Token: newToken(), Entry: []byte("v"), Life: long})
	}
	announced, cancel := k.listen("k")
	defer cancel()
	k.settle(driver.Fill{Key: "k", Token: newToken()})
	k.hears(announced, "a waiter beside one who does not listen")
}

func checkUnsubscribe(k *kit) {
	stays, cancel := k.listen("k")
	defer cancel()
	for range 3 {
		left, leave := k.listen("k")
		leave()
		leave() // harmless
		for len(stays) > 0 {
			<-stays
		}
		for len(left) > 0 {
			<-left
		}
		k.settle(driver.Fill{Key: "k", Token: newToken()})
		k.hears(stays, "a waiter whose neighbour left")
		if len(left) > 0 {
			k.Error("a subscription that ended heard a later announcement")
		}
	}
	cancel()
	again, cancelAgain := k.listen("k") // also when nobody was left
	defer cancelAgain()
	k.settle(driver.Fill{Key: "k", Token: newToken()})
	k.hears(again, "a waiter who came when all had left")
}

func checkSubscribeConcurrently(k *kit) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				_, cancel := k.store.Announced("k")
				_ = k.store.Settle(k.Context(), []driver.Fill{{Key: "k", Token: newToken()}})
				cancel()
			}
		})
	}
	wg.Wait()
	announced, cancel := k.listen("k")
	defer cancel()
	k.settle(driver.Fill{Key: "k", Token: newToken()})
	k.hears(announced, "a waiter after many came and left")
}

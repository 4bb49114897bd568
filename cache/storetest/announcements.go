package storetest

import (
	"sync"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

var announcementRules = []rule{
	{"a load that was refused the lease receives the announcement of a value, a failure and a release", checkAnnounced},
	{"every waiter receives the announcement", checkEveryWaiterHears},
	{"a waiter that does not receive blocks no other", checkWaiterThatDoesNotReceive},
	{"the end of a subscription ends no other", checkUnsubscribe},
	{"subscriptions come and go while loads are settled", checkSubscribeConcurrently},
}

// subscribe subscribes to key and waits until the subscription works: until then, announcements
// may be lost. The channel that it returns is empty.
func (h *helpers) subscribe(key string) (<-chan struct{}, func()) {
	h.Helper()
	announced, cancel := h.store.Announced(key)
	h.eventually(time.Now(), "the first announcement", func() bool {
		h.settle(driver.Fill{Key: key, Token: newToken()})
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

func checkAnnounced(h *helpers) {
	// A failure last: it would stand in the way of the others.
	settled := map[string]driver.Fill{
		"a value":           {Entry: []byte("v"), Life: long},
		"nothing":           {},
		"an empty value":    {Entry: []byte{}, Life: long},
		"a failure":         {Failure: []byte("down"), Hold: long},
		"a value too large": {Entry: make([]byte, 1<<20), Life: long},
	}
	for what, fill := range settled {
		for _, handle := range []*helpers{h, h.swapped()} {
			key, token, guard := "k:"+what, newToken(), newGuard()
			if handle != h {
				key += ":other handle"
			}
			announced, cancel := handle.subscribe(key)
			h.lease(key, token, guard, long)
			handle.wantState(handle.claim(key, newToken(), guard, long), driver.Held, "the waiter")
			fill.Key, fill.Token = key, token
			h.settle(fill)
			handle.awaitAnnouncement(announced, "the waiter for "+what)
			cancel()
		}
	}
}

func checkEveryWaiterHears(h *helpers) {
	var waiters []<-chan struct{}
	for i := range 20 {
		handle := h
		if i%2 == 1 {
			handle = h.swapped()
		}
		announced, cancel := handle.subscribe("k")
		defer cancel()
		waiters = append(waiters, announced)
	}
	for range 3 {
		for _, w := range waiters { // the first ones received what the subscriptions of the others announced
			select {
			case <-w:
			default:
			}
		}
		h.settle(driver.Fill{Key: "k", Token: newToken()})
		for _, w := range waiters {
			h.awaitAnnouncement(w, "a waiter among twenty")
		}
	}
}

func checkWaiterThatDoesNotReceive(h *helpers) {
	_, cancel := h.subscribe("k")
	defer cancel()
	for range 50 {
		h.settle(driver.Fill{Key: "k", Token: newToken(), Entry: []byte("v"), Life: long})
	}
	announced, cancel := h.subscribe("k")
	defer cancel()
	h.settle(driver.Fill{Key: "k", Token: newToken()})
	h.awaitAnnouncement(announced, "a waiter beside one that does not receive")
}

func checkUnsubscribe(h *helpers) {
	stays, cancel := h.subscribe("k")
	defer cancel()
	for range 3 {
		left, leave := h.subscribe("k")
		leave()
		leave() // harmless
		for len(stays) > 0 {
			<-stays
		}
		for len(left) > 0 {
			<-left
		}
		h.settle(driver.Fill{Key: "k", Token: newToken()})
		h.awaitAnnouncement(stays, "a waiter whose neighbour left")
		if len(left) > 0 {
			h.Error("a subscription that ended received a later announcement")
		}
	}
	cancel()
	again, cancelAgain := h.subscribe("k") // also after the last subscription has ended
	defer cancelAgain()
	h.settle(driver.Fill{Key: "k", Token: newToken()})
	h.awaitAnnouncement(again, "a waiter after the last subscription had ended")
}

func checkSubscribeConcurrently(h *helpers) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				_, cancel := h.store.Announced("k")
				_ = h.store.Settle(h.Context(), []driver.Fill{{Key: "k", Token: newToken()}})
				cancel()
			}
		})
	}
	wg.Wait()
	announced, cancel := h.subscribe("k")
	defer cancel()
	h.settle(driver.Fill{Key: "k", Token: newToken()})
	h.awaitAnnouncement(announced, "a waiter after many came and left")
}

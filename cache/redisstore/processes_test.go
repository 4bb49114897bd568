package redisstore_test

import (
	"crypto/rand"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func newToken() (t driver.Token) {
	_, _ = rand.Read(t[:])
	return t
}

// fleet returns stores of n processes that share answers.
func fleet(t *testing.T, url string, n int) []*redisstore.Store {
	t.Helper()
	p := prefix()
	stores := make([]*redisstore.Store, n)
	for i := range stores {
		stores[i] = open(t, redisstore.Config{URL: url, Prefix: p})
	}
	return stores
}

func claim(t *testing.T, s driver.Store, key string, token driver.Token, ttl time.Duration) driver.Claimed {
	t.Helper()
	got, err := s.Claim(t.Context(), []driver.Claim{{Key: key, Token: token, TTL: ttl}})
	if err != nil {
		t.Fatal(err)
	}
	return got[0]
}

func TestOneLeaseInTheFleet(t *testing.T) {
	t.Parallel()
	stores := fleet(t, testservers.SharedRedis(t).URL(), 4)
	for round := range 20 {
		key := fmt.Sprint("k", round)
		states := make([]driver.ClaimState, len(stores))
		var wg sync.WaitGroup
		for i, s := range stores {
			wg.Go(func() { states[i] = claim(t, s, key, newToken(), time.Minute).State })
		}
		wg.Wait()
		granted := 0
		for _, st := range states {
			if st == driver.Granted {
				granted++
			}
		}
		if granted != 1 {
			t.Fatalf("%d of %d processes hold the lease of one key", granted, len(stores))
		}
	}
}

func TestAnnouncementsCrossProcesses(t *testing.T) {
	t.Parallel()
	servers := map[string]string{
		"single":  testservers.SharedRedis(t).URL(),
		"cluster": cluster(t),
	}
	for name, url := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stores := fleet(t, url, 3)
			for round := range 10 {
				key := fmt.Sprint("k", round)
				token := newToken()
				claim(t, stores[0], key, token, time.Minute)
				var waiting []<-chan struct{}
				for _, s := range stores[1:] {
					ch, cancel := s.Announced(key)
					defer cancel()
					if got := claim(t, s, key, newToken(), time.Minute); got.State != driver.Held {
						t.Fatalf("a second claim is in state %d", got.State)
					}
					waiting = append(waiting, ch)
				}
				err := stores[0].Settle(t.Context(), []driver.Fill{{Key: key, Token: token, Entry: []byte("v"), Life: time.Minute}})
				testservers.Must(t, err)
				for i, ch := range waiting {
					select {
					case <-ch:
					case <-time.After(30 * time.Second):
						t.Fatalf("process %d received no announcement", i+1)
					}
					if string(entry(t, stores[i+1], key)) != "v" {
						t.Errorf("process %d received the announcement of an entry and did not find it", i+1)
					}
				}
			}
		})
	}
}

// All waiters are woken when announcements may have been missed.
func TestLostSubscriptionWakesAllWaiters(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	proxy := testservers.StartProxy(t, r.Addr())
	s := open(t, redisstore.Config{URL: "redis://" + proxy.Addr()})
	ch, cancel := s.Announced("k")
	defer cancel()
	heard := func(ch <-chan struct{}, what string) {
		t.Helper()
		select {
		case <-ch:
		case <-time.After(30 * time.Second):
			t.Fatal("no announcement after " + what)
		}
	}
	// The beginning of the subscription wakes all waiters once.
	testservers.Eventually(t, 30*time.Second, func() (bool, string) { return subscribers(t, r) > 0, "there is no subscription" })
	awaitAnnouncements(t, s)
	drain(ch)

	proxy.Cut()
	heard(ch, "the connection was lost")
	testservers.Must(t, proxy.Heal())
	heard(ch, "the new subscription")
}

func subscribers(t *testing.T, r *testservers.Redis) int {
	t.Helper()
	channels, err := r.Do(t.Context(), "PUBSUB", "CHANNELS").AsStrSlice()
	testservers.Must(t, err)
	return len(channels)
}

func TestLeaseOfAClosedProcessExpires(t *testing.T) {
	t.Parallel()
	stores := fleet(t, testservers.SharedRedis(t).URL(), 2)
	claim(t, stores[0], "k", newToken(), 300*time.Millisecond)
	testservers.Must(t, stores[0].Close())
	token := newToken()
	start := time.Now()
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		return claim(t, stores[1], "k", token, time.Minute).State == driver.Granted, "the lease of a closed process stands"
	})
	if took := time.Since(start); took < 100*time.Millisecond {
		t.Errorf("the lease was taken over after %v, which is before it expired", took)
	}
}

func TestTwoPrefixesShareNothing(t *testing.T) {
	t.Parallel()
	url := testservers.SharedRedis(t).URL()
	a := open(t, redisstore.Config{URL: url, Prefix: "a*[b]:" + rand.Text() + ":"})
	b := open(t, redisstore.Config{URL: url, Prefix: "aXb:" + rand.Text() + ":"})
	put(t, a, "k", "of a", tag)
	put(t, b, "k", "of b", tag)
	before := state(t, a, tag)
	bump(t, b, tag)
	claim(t, b, "k", newToken(), time.Minute)
	if state(t, a, tag) != before {
		t.Error("a bump under one prefix changed the tag of another")
	}
	if got := claim(t, a, "k", newToken(), time.Minute); got.State != driver.Granted || string(got.Entry) != "of a" {
		t.Errorf("a claim met that of another prefix: %+v", got)
	}
	if n, err := a.Purge(t.Context(), "*"); n != 1 || err != nil {
		t.Errorf("purge of the only entry of a prefix removed %d: %v", n, err)
	}
	if string(entry(t, b, "k")) != "of b" {
		t.Error("purge removed an entry of another prefix")
	}
}

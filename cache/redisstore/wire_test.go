package redisstore_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// sent returns the commands that the server runs on behalf of clients while f does, and
// how often. What the Store does by itself (its probes, pings of the client) and what this
// function does is left out.
func sent(t *testing.T, r *testservers.Redis, f func()) map[string]int {
	t.Helper()
	before := commandCounts(t, r)
	f()
	counts := commandCounts(t, r)
	for name, n := range before {
		counts[name] -= n
	}
	maps.DeleteFunc(counts, func(name string, n int) bool {
		switch name {
		case "info", "hello", "ping", "acl", "client|setinfo", "subscribe":
			return true
		}
		return n == 0
	})
	return counts
}

func commandCounts(t *testing.T, r *testservers.Redis) map[string]int {
	t.Helper()
	text, err := r.Do(t.Context(), "INFO", "commandstats").ToString()
	testservers.Must(t, err)
	counts := map[string]int{}
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "cmdstat_")
		if !ok {
			continue
		}
		name, stats, _ := strings.Cut(rest, ":")
		var n int
		if _, err := fmt.Sscanf(stats, "calls=%d", &n); err != nil {
			t.Fatalf("INFO commandstats: %q: %v", line, err)
		}
		counts[name] = n
	}
	return counts
}

func TestHitIsOneRead(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	s := open(t, redisstore.Config{URL: r.URL()})
	tags, keys := []driver.Tag{"course:1", "course:2"}, []string{"k"}
	read(t, s, tags, keys)
	put(t, s, "k", "v", tags...)
	const hits = 25
	got := sent(t, r, func() {
		for range hits {
			if snap, err := s.Read(t.Context(), tags, keys); err != nil || snap.Entries[0] == nil {
				t.Fatalf("no hit: %v, %v", snap, err)
			}
		}
	})
	if want := map[string]int{"mget": hits}; !maps.Equal(got, want) {
		t.Errorf("%d hits with two tags sent %v, want %v", hits, got, want)
	}
}

func TestMarksCostOneScriptAndGoAway(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	s := open(t, redisstore.Config{URL: r.URL()})
	tags := []driver.Tag{"course:1", "course:2"}
	read(t, s, tags, nil)
	testservers.Must(t, s.Fence(t.Context(), tags[:1], driver.Mark{1}, 50*time.Millisecond))
	got := sent(t, r, func() { _, err := s.Read(t.Context(), tags, nil); testservers.Must(t, err) })
	if got["evalsha"] != 1 || got["eval"] != 0 {
		t.Errorf("a read that met one marked tag sent %v", got)
	}
	testservers.Eventually(t, 30*time.Second, func() (bool, string) { return !state(t, s, tags[0]).Fenced, "the mark stands" })
	got = sent(t, r, func() { _, err := s.Read(t.Context(), tags, nil); testservers.Must(t, err) })
	if want := map[string]int{"mget": 1}; !maps.Equal(got, want) {
		t.Errorf("a read after the mark was found to have expired sent %v, want %v", got, want)
	}
}

// Invalidation and everything else of a request cost the same however much is stored.
func TestNothingScans(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	s := open(t, redisstore.Config{URL: r.URL()})
	request := func() {
		tags, token, mark := []driver.Tag{tag}, newToken(), driver.Mark{1}
		read(t, s, tags, []string{"k"})
		testservers.Must(t, s.Fence(t.Context(), tags, mark, time.Hour))
		read(t, s, tags, []string{"k"})
		testservers.Must(t, s.Bump(t.Context(), tags, mark))
		claim(t, s, "k", token, time.Hour)
		testservers.Must(t, s.Renew(t.Context(), "k", token, time.Hour))
		testservers.Must(t, s.Settle(t.Context(), []driver.Fill{{Key: "k", Token: token, Entry: []byte("v"), Life: time.Hour, Tags: tags}}))
	}
	request() // the scripts are known from here on
	few := sent(t, r, request)
	fills := make([]driver.Fill, 5000)
	for i := range fills {
		fills[i] = driver.Fill{Key: fmt.Sprint("dependent:", i), Entry: []byte("v"), Life: time.Hour, Tags: []driver.Tag{tag}}
	}
	testservers.Must(t, s.Settle(t.Context(), fills))
	many := sent(t, r, request)
	if !maps.Equal(few, many) {
		t.Errorf("with 5000 dependent entries the same requests sent %v, with none %v", many, few)
	}
	for name := range many {
		switch name {
		case "get", "mget", "set", "del", "evalsha", "time", "pttl":
		default:
			t.Errorf("a request sent %s", name)
		}
	}
}

// TestEveryKeyExpires does everything that writes and looks at what is left.
func TestEveryKeyExpires(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	p := prefix()
	s := open(t, redisstore.Config{URL: r.URL(), Prefix: p, TagLife: time.Hour})
	life := func(key string) time.Duration {
		t.Helper()
		ms, err := r.Do(t.Context(), "PTTL", p+key).AsInt64()
		testservers.Must(t, err)
		return time.Duration(ms) * time.Millisecond
	}
	put(t, s, "long", "v", "looked at", "stored under only", "kept long")
	testservers.Must(t, s.Settle(t.Context(), []driver.Fill{{Key: "longer", Entry: []byte("v"), Life: 5 * time.Hour, Tags: []driver.Tag{"bumped", "fenced"}}}))
	state(t, s, "looked at")
	state(t, s, "kept long")
	bump(t, s, "bumped", "other")
	testservers.Must(t, s.Fence(t.Context(), []driver.Tag{"fenced", "fenced long"}, driver.Mark{1}, 3*time.Hour))
	testservers.Must(t, s.Settle(t.Context(), []driver.Fill{{Key: "longer", Entry: []byte("v"), Life: 5 * time.Hour, Tags: []driver.Tag{"kept long", "fenced"}}}))
	testservers.Must(t, s.Settle(t.Context(), []driver.Fill{{Key: "shorter", Entry: []byte("v"), Life: time.Minute, Tags: []driver.Tag{"kept long"}}}))
	bump(t, s, "kept long")
	claim(t, s, "claimed", newToken(), time.Minute)
	token := newToken()
	claim(t, s, "failed", token, time.Minute)
	testservers.Must(t, s.Settle(t.Context(), []driver.Fill{{Key: "failed", Token: token, Failure: []byte("f"), Hold: time.Minute}}))
	claim(t, s, "given back", token, time.Minute)
	testservers.Must(t, s.Settle(t.Context(), []driver.Fill{{Key: "given back", Token: token}}))

	keys, err := r.Do(t.Context(), "KEYS", "*").AsStrSlice()
	testservers.Must(t, err)
	for _, key := range keys {
		if !strings.HasPrefix(key, p) {
			t.Errorf("a key without the prefix: %q", key)
			continue
		}
		left := life(strings.TrimPrefix(key, p))
		if left <= 0 || left > 10*time.Hour {
			t.Errorf("key %q lives for %v", key, left)
		}
		if strings.Contains(key, "given back") {
			t.Errorf("a lease that was given back left %q", key)
		}
	}
	for key, atLeast := range map[string]time.Duration{
		"tag:looked at":           59 * time.Minute,
		"tag:kept long":           9 * time.Hour, // twice the longest entry, whatever came after
		"tag:fenced long":         179 * time.Minute,
		"lease:{" + p + "failed}": 110 * time.Second,
	} {
		if left := life(key); left < atLeast {
			t.Errorf("%s lives for %v, want %v", key, left, atLeast)
		}
	}
}

func TestScriptsAreSentOnce(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	s := open(t, redisstore.Config{URL: r.URL()})
	token := newToken()
	work := func() {
		bump(t, s, "a", "b")
		state(t, s, driver.Tag("new:"+time.Now().String()))
		put(t, s, "k", "v")
		if got := claim(t, s, "k", token, time.Minute); got.State != driver.Granted || string(got.Entry) != "v" {
			t.Errorf("claimed %+v", got)
		}
		testservers.Must(t, s.Renew(t.Context(), "k", token, time.Minute))
		testservers.Must(t, s.Settle(t.Context(), []driver.Fill{{Key: "k", Token: token}}))
	}
	work()
	if got := sent(t, r, work); got["eval"] != 0 || got["evalsha"] == 0 {
		t.Errorf("once the server knows the scripts they are sent again: %v", got)
	}
	testservers.Must(t, r.Do(t.Context(), "SCRIPT", "FLUSH").Error())
	work() // a server that forgot them
}

package redisstore_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// slack is what a busy machine may add to a duration.
const slack = time.Second

func TestOpenWithoutServer(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	testservers.Must(t, r.Kill())
	start := time.Now()
	s := openUnproven(t, redisstore.Config{URL: r.URL()})
	if took := time.Since(start); took > slack {
		t.Errorf("Open took %v without a server", took)
	}
	for name, call := range calls(s) {
		start := time.Now()
		if err := call(t.Context()); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s without a server returned %v", name, err)
		}
		if took := time.Since(start); took > slack {
			t.Errorf("%s took %v to fail without a server", name, took)
		}
	}
	testservers.Must(t, r.Restart(t.Context()))
	state(t, s, tag)
}

func TestOpenOnSilentServer(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	testservers.Must(t, r.Freeze())
	start := time.Now()
	s := openUnproven(t, redisstore.Config{URL: r.URL(), Timeout: 50 * time.Millisecond})
	if took := time.Since(start); took > slack {
		t.Errorf("Open took %v on a server that does not answer", took)
	}
	for name, call := range calls(s) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		start := time.Now()
		if err := call(ctx); err == nil {
			t.Errorf("%s succeeded on a server that does not answer", name)
		}
		if took := time.Since(start); took > slack {
			t.Errorf("%s took %v on a server that does not answer", name, took)
		}
		cancel()
	}
	testservers.Must(t, r.Thaw())
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		err := s.Bump(t.Context(), []driver.Tag{tag}, driver.NoMark)
		return err == nil, errText(err)
	})
}

// Many more callers than a connection has room for, on a server that stopped answering.
func TestFrozenServerDelaysNoCallBeyondItsTimeout(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	s := open(t, redisstore.Config{URL: r.URL(), Timeout: time.Second})
	before := state(t, s, tag)
	// Calls that meet make the connection queue them.
	var busy sync.WaitGroup
	for range 64 {
		busy.Go(func() {
			for range 20 {
				state(t, s, tag)
			}
		})
	}
	busy.Wait()
	goroutines := runtime.NumGoroutine()
	testservers.Must(t, r.Freeze())

	const callers, timeout = 3000, 50 * time.Millisecond
	took := make([]time.Duration, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			start := time.Now()
			if _, err := s.Read(ctx, []driver.Tag{tag}, []string{"k"}); err == nil {
				t.Error("a frozen server answered")
			}
			took[i] = time.Since(start)
		})
	}
	wg.Wait()
	if longest := slices.Max(took); longest > timeout+slack {
		t.Errorf("a call with a timeout of %v took %v", timeout, longest)
	}
	// What is left are the calls that the connection still holds.
	if n := runtime.NumGoroutine() - goroutines; n > 1500 {
		t.Errorf("%d goroutines are left of %d calls", n, callers)
	}
	// The connection is closed although no caller asks for that, and then calls do not wait.
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err := s.Read(ctx, []driver.Tag{tag}, nil)
		return err != nil && time.Since(start) < timeout, "a read of a server that is known to be frozen waits"
	})
	testservers.Must(t, r.Thaw())
	if state(t, s, tag) != before {
		t.Error("the version changed while the server was frozen")
	}
}

func TestLostConnectionIsReplacedWithinTheCall(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	proxy := testservers.StartProxy(t, r.Addr())
	s := open(t, redisstore.Config{URL: "redis://" + proxy.Addr()})
	for range 20 {
		proxy.Reset()
		if err := s.Fence(t.Context(), []driver.Tag{tag}, driver.Mark{1}, time.Minute); err != nil {
			t.Errorf("a fence after the connection was lost: %v", err)
		}
		if err := s.Settle(t.Context(), []driver.Fill{{Key: "k", Entry: []byte("v"), Life: time.Minute}}); err != nil {
			t.Errorf("a fill after the connection was lost: %v", err)
		}
	}
}

// A bump whose reply is lost is sent again, and runs twice. In between, another process may have
// stored an entry under the first version and bumped the tag: the first version must not come back.
func TestRepeatedBumpIsAnotherVersion(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	proxy := testservers.StartProxy(t, r.Addr())
	p := prefix()
	s := open(t, redisstore.Config{URL: "redis://" + proxy.Addr(), Prefix: p, Timeout: 30 * time.Second})
	version := func() string { return raw(t, r, p+"tag:"+string(tag)) }
	testservers.Must(t, s.Bump(t.Context(), []driver.Tag{tag}, driver.NoMark)) // the script is known from here on
	before := version()
	proxy.Hold(testservers.Replies)
	done := make(chan error, 1)
	go func() { done <- s.Bump(t.Context(), []driver.Tag{tag}, driver.NoMark) }()
	var first string
	testservers.Eventually(t, 20*time.Second, func() (bool, string) {
		first = version()
		return first != before, "the bump has not run"
	})
	proxy.Reset()
	testservers.Must(t, proxy.Heal())
	testservers.Must(t, <-done)
	if again := version(); again == first || again == before {
		t.Errorf("the versions were %x, %x and %x, want three", before, first, again)
	}
}

// A connection that ends in the middle of the replies gives no half of them.
func TestReplyCutInTheMiddle(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	proxy := testservers.StartProxy(t, r.Addr())
	s := open(t, redisstore.Config{URL: "redis://" + proxy.Addr()})
	tags := []driver.Tag{"course:1", "course:2"}
	want := read(t, s, tags, nil).States
	put(t, s, "k", "value")
	for n := 1; n < 60; n += 7 {
		read(t, s, tags, nil) // connected
		proxy.CutAfter(n, testservers.Replies)
		snap, err := s.Read(t.Context(), tags, []string{"k"})
		if err == nil && (!slices.Equal(snap.States, want) || string(snap.Entries[0]) != "value") {
			t.Errorf("cut after %d bytes: read %v", n, snap)
		}
		testservers.Must(t, proxy.Heal())
	}
}

func TestSlowServerIsNotUnavailable(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	proxy := testservers.StartProxy(t, r.Addr())
	s := open(t, redisstore.Config{URL: "redis://" + proxy.Addr()})
	before := state(t, s, tag)
	id := identify(t, s)
	proxy.Delay(150 * time.Millisecond)
	for i := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		// The first one takes its connection with it, and then the next is being made.
		if _, err := s.Read(ctx, []driver.Tag{tag}, nil); !errors.Is(err, context.DeadlineExceeded) && (i == 0 || !errors.Is(err, driver.ErrUnproven)) {
			t.Errorf("read %d that had too little time returned %v", i, err)
		}
		cancel()
	}
	if got := state(t, s, tag); got != before {
		t.Error("the version changed")
	}
	if identify(t, s) != id {
		t.Error("the identity changed")
	}
}

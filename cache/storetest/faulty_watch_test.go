package storetest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// listener is a driver.Listener that records what is reported to it.
type listener struct {
	mu      sync.Mutex
	changed []driver.Tag
	missed  int
	proven  time.Time
}

func (l *listener) Changed(tags ...driver.Tag) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = append(l.changed, tags...)
}

func (l *listener) Missed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.missed++
}

func (l *listener) Proven(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.proven = at
}

// silence returns how long ago the last proof was.
func (l *listener) silence() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.proven)
}

// want checks what was reported since the last time.
func (l *listener) want(t *testing.T, what string, missed int, changed ...driver.Tag) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.missed != missed || !slices.Equal(l.changed, changed) {
		t.Errorf("%s: reported were %d gaps and changes of %q, want %d and %q", what, l.missed, l.changed, missed, changed)
	}
	l.missed, l.changed = 0, nil
}

func watchFaulty(t *testing.T, f *storetest.Faulty) *listener {
	l := &listener{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Watch(ctx, l); err != nil {
			t.Errorf("Watch returned %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	l.want(t, "at the beginning", 1)
	return l
}

const soon = 50 * time.Millisecond // the least that a proof or a report is late

func mustBump(t *testing.T, s driver.Store, tags ...driver.Tag) {
	t.Helper()
	if err := s.Bump(t.Context(), tags, driver.NoMark); err != nil {
		t.Fatal(err)
	}
}

func TestReportsArePassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty()
		t.Cleanup(func() { f.Close() }) // after the watching
		l := watchFaulty(t, f)
		mustBump(t, f.Peer(), tags...)
		if got := len(l.changed); got != len(tags) { // no wait: within the call
			t.Errorf("a bump was acknowledged with %d of its changes reported", got)
		}
		l.want(t, "a bump", 0, tags...)
		time.Sleep(time.Hour)
		if s := l.silence(); s > soon || s < 0 {
			t.Errorf("the last proof is %v old", s)
		}
	})
}

func TestReportsAreLostAndThatIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty()
		t.Cleanup(func() { f.Close() }) // after the watching
		l := watchFaulty(t, f)
		for what, lose := range map[string]func(){
			"silence":  func() { f.Hang(storetest.OpWatch) },
			"an error": func() { f.Fail(errDown, storetest.OpWatch) },
		} {
			time.Sleep(time.Second)
			lose()
			mustBump(t, f.Peer(), tags[0])
			time.Sleep(time.Minute)
			l.want(t, what, 0)
			if s := l.silence(); s < time.Minute {
				t.Errorf("%s: proven until %v ago", what, s)
			}
			f.Heal()
			l.want(t, what+" that ended", 1)
			mustBump(t, f.Peer(), tags[1])
			l.want(t, what+" that is past", 0, tags[1])
			time.Sleep(soon)
			if s := l.silence(); s > soon {
				t.Errorf("%s that is past: proven until %v ago", what, s)
			}
		}
		f.Hang(storetest.OpWatch)
		f.Heal(storetest.OpWatch)
		l.want(t, "a gap in which nothing happened", 1)
	})
}

func TestReportsAreDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty()
		t.Cleanup(func() { f.Close() }) // after the watching
		l := watchFaulty(t, f)
		f.Delay(time.Second, storetest.OpWatch)
		time.Sleep(time.Minute)
		if s := l.silence(); s < time.Second || s > time.Second+soon {
			t.Errorf("proofs are %v late, want 1s", s)
		}
		mustBump(t, f, tags[0])
		time.Sleep(time.Second - time.Millisecond)
		l.want(t, "before the delay is over", 0)
		time.Sleep(soon)
		l.want(t, "after it", 0, tags[0])
		mustBump(t, f, tags[0])
		f.Heal()
		mustBump(t, f, tags[1])
		l.want(t, "while others are under way", 0)
		time.Sleep(time.Second + soon)
		l.want(t, "in their order", 0, tags...)
	})
}

func TestWatchIsRefused(t *testing.T) {
	f := newFaulty()
	defer f.Close()
	f.Fail(errDown, storetest.OpWatch)
	if err := f.Watch(t.Context(), &listener{}); err != errDown {
		t.Errorf("Watch returned %v", err)
	}
	// A Faulty around a store that is no Watcher cannot report either.
	mute := storetest.NewFaulty(struct{ driver.Store }{f})
	if err := mute.Watch(t.Context(), &listener{}); err == nil {
		t.Error("a store that is not Watchable is watched")
	}
}

func TestWatchEndsWithTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty()
		ended := make(chan error)
		go func() { ended <- f.Watch(context.Background(), &listener{}) }()
		synctest.Wait()
		f.Close()
		if err := <-ended; err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v when the store was closed", err)
		}
	})
}

func TestLossesAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty()
		t.Cleanup(func() { f.Close() }) // after the watching
		l := watchFaulty(t, f)
		p := f.Peer()
		p.LoseTags(tags[0])
		l.want(t, "a tag that was lost", 0, tags[0])
		mustBump(t, f, tags...)
		l.want(t, "a bump of tags of which one was lost", 0, tags...)
		p.Restart()
		time.Sleep(soon)
		l.want(t, "a restart", 1)
		mustBump(t, f, tags...)
		l.want(t, "a bump after a restart", 0, tags...)
		p.ChangeIdentity()
		time.Sleep(soon)
		l.want(t, "a failover", 1)
	})
}

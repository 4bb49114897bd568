package storetest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newFaulty() *storetest.Faulty {
	return storetest.NewFaulty(memstore.New(memstore.Config{}))
}

func peer(_ *testing.T, s driver.Store) driver.Store { return s.(*storetest.Faulty).Peer() }

// The injector itself must be beyond suspicion: a fault that a test sees is one it asked for.
func TestFaultyWithoutFaults(t *testing.T) {
	open := func(*testing.T) driver.Store { return newFaulty() }
	storetest.Suite{Open: open, Peer: peer, Virtual: true}.Run(t)
}

func TestFaultyAfterLosses(t *testing.T) {
	open := func(*testing.T) driver.Store {
		f := newFaulty()
		f.Hang()
		f.Restart()
		f.LoseTags("course:1", "x")
		f.Heal()
		return f
	}
	storetest.Suite{Open: open, Peer: peer, Virtual: true}.Run(t)
}

// virtually runs test on a faulty store in virtual time.
func virtually(t *testing.T, test func(t *testing.T, f *storetest.Faulty)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFaulty()
		defer f.Close()
		test(t, f)
	})
}

var tags = []driver.Tag{"course:1", "course:2"}

func read(t *testing.T, s driver.Store, tags []driver.Tag, keys ...string) driver.Snapshot {
	t.Helper()
	snap, err := s.Read(t.Context(), tags, keys)
	if err != nil {
		t.Fatalf("Read failed: %v", err)
	}
	return snap
}

func put(t *testing.T, s driver.Store, key string) {
	t.Helper()
	if err := s.Settle(t.Context(), []driver.Fill{{Key: key, Entry: []byte("v"), Life: time.Hour}}); err != nil {
		t.Fatalf("Settle failed: %v", err)
	}
}

var errDown = errors.New("down")

func TestFail(t *testing.T) {
	virtually(t, func(t *testing.T, f *storetest.Faulty) {
		before := read(t, f, tags)
		f.Fail(errDown, storetest.OpBump)
		if err := f.Bump(t.Context(), tags, driver.NoMark); err != errDown {
			t.Errorf("Bump returned %v", err)
		}
		if after := read(t, f, tags); after.States[0] != before.States[0] {
			t.Error("a Bump that failed did its work")
		}
		f.Heal(storetest.OpBump)
		if err := f.Bump(t.Context(), tags, driver.NoMark); err != nil {
			t.Errorf("Bump after Heal returned %v", err)
		}
		f.Fail(errDown)
		if _, err := f.Read(t.Context(), tags, nil); err != errDown {
			t.Errorf("Read returned %v", err)
		}
		if err := f.Peer().Bump(t.Context(), tags, driver.NoMark); err != nil {
			t.Errorf("a peer's Bump returned %v", err)
		}
		if n := f.Calls(storetest.OpBump); n != 2 {
			t.Errorf("2 bumps were counted as %d", n)
		}
	})
}

func TestLoseReplies(t *testing.T) {
	virtually(t, func(t *testing.T, f *storetest.Faulty) {
		before := read(t, f, tags)
		f.LoseReplies(errDown, storetest.OpBump)
		if err := f.Bump(t.Context(), tags, driver.NoMark); err != errDown {
			t.Errorf("Bump returned %v", err)
		}
		if after := read(t, f, tags); after.States[0] == before.States[0] {
			t.Error("a Bump whose reply was lost did nothing")
		}
	})
}

func TestHang(t *testing.T) {
	virtually(t, func(t *testing.T, f *storetest.Faulty) {
		f.Hang(storetest.OpRead)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := f.Read(ctx, tags, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Read of a store that hangs returned %v", err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("Read returned after %v", took)
		}

		answered := make(chan error)
		go func() {
			_, err := f.Read(t.Context(), tags, nil)
			answered <- err
		}()
		synctest.Wait()
		f.Heal(storetest.OpBump) // another fault
		synctest.Wait()
		select {
		case err := <-answered:
			t.Errorf("Read returned %v while the store hung", err)
		default:
		}
		f.Heal()
		if err := <-answered; err != nil {
			t.Errorf("Read after Heal returned %v", err)
		}

		f.Hang()
		go func() { answered <- f.Bump(t.Context(), tags, driver.NoMark) }()
		synctest.Wait()
		f.Close()
		if err := <-answered; err == nil {
			t.Error("a Bump that hung until Close succeeded")
		}
	})
}

func TestDelay(t *testing.T) {
	virtually(t, func(t *testing.T, f *storetest.Faulty) {
		f.Delay(time.Second)
		start := time.Now()
		read(t, f, tags)
		if took := time.Since(start); took != time.Second {
			t.Errorf("Read took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := f.Bump(ctx, tags, driver.NoMark); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Bump returned %v", err)
		}

		announced, leave := f.Announced("k")
		defer leave()
		start = time.Now()
		put(t, f.Peer(), "k")
		<-announced
		if took := time.Since(start); took != time.Second {
			t.Errorf("an announcement took %v", took)
		}
	})
}

func TestDropAnnouncements(t *testing.T) {
	virtually(t, func(t *testing.T, f *storetest.Faulty) {
		p := f.Peer()
		defer p.Close()
		dropped, leave := f.Announced("k")
		defer leave()
		received, leavePeer := p.Announced("k")
		defer leavePeer()
		f.DropAnnouncements()
		put(t, f, "k")
		synctest.Wait()
		if len(dropped) != 0 || len(received) != 1 {
			t.Errorf("the handle that drops announcements received %d of them, its peer %d", len(dropped), len(received))
		}
		f.Heal()
		put(t, f, "k")
		synctest.Wait()
		if len(dropped) != 1 {
			t.Error("the handle drops announcements after Heal")
		}
	})
}

func TestLoseTags(t *testing.T) {
	virtually(t, func(t *testing.T, f *storetest.Faulty) {
		p := f.Peer()
		if err := f.Fence(t.Context(), tags, driver.Mark{1}, time.Hour); err != nil {
			t.Fatal(err)
		}
		before := read(t, f, tags)
		f.LoseTags(tags[0])
		for _, s := range []driver.Store{f, p} {
			after := read(t, s, tags)
			if after.States[0].Version == before.States[0].Version || after.States[0].Fenced {
				t.Errorf("%s was lost and is still known", tags[0])
			}
			if after.States[1] != before.States[1] {
				t.Errorf("%s was lost with %s", tags[1], tags[0])
			}
		}
	})
}

func TestLoseEntries(t *testing.T) {
	virtually(t, func(t *testing.T, f *storetest.Faulty) {
		f.Restart()
		_, _ = f.Identity(t.Context())
		put(t, f, "a")
		put(t, f, "b*")
		put(t, f, "bbb")
		f.Fail(errDown, storetest.OpPurge)
		if err := f.LoseEntries(t.Context(), "a", "b*"); err != nil {
			t.Fatal(err)
		}
		snap := read(t, f, nil, "a", "b*", "bbb")
		if snap.Entries[0] != nil || snap.Entries[1] != nil || snap.Entries[2] == nil {
			t.Errorf("after a and b* were lost the entries are %q", snap.Entries)
		}
	})
}

func TestIdentityChanges(t *testing.T) {
	virtually(t, func(t *testing.T, f *storetest.Faulty) {
		p := f.Peer()
		id, _ := f.Identity(t.Context())
		put(t, f, "k")
		before := read(t, f, tags)

		f.Unprove()
		if _, err := f.Read(t.Context(), tags, nil); !errors.Is(err, driver.ErrUnproven) {
			t.Errorf("Read of an unproven store returned %v", err)
		}
		read(t, p, tags)
		if again, _ := f.Identity(t.Context()); again != id {
			t.Errorf("the identity went from %q to %q", id, again)
		}

		f.ChangeIdentity()
		if _, err := p.Read(t.Context(), tags, nil); !errors.Is(err, driver.ErrUnproven) {
			t.Errorf("Read by a peer after the identity changed returned %v", err)
		}
		changed, _ := p.Identity(t.Context())
		if changed == id {
			t.Error("the identity did not change")
		}
		if after := read(t, p, tags, "k"); after.States[0] != before.States[0] || after.Entries[0] == nil {
			t.Error("data was lost with the identity alone")
		}

		f.Restart()
		if again, _ := f.Identity(t.Context()); again == changed || again == id {
			t.Errorf("the identity is %q again", again)
		}
		_, _ = p.Identity(t.Context())
		for _, s := range []driver.Store{f, p} {
			if after := read(t, s, tags, "k"); after.States[0] == before.States[0] || after.Entries[0] != nil {
				t.Error("data survived a restart")
			}
		}
	})
}

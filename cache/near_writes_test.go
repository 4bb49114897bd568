package cache_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// This process's own writes do not wait to be reported.
func TestOwnWriteEndsNearAnswersAtOnce(t *testing.T) {
	for name, write := range map[string]func(t *testing.T, s *source, c process){
		"invalidate": func(t *testing.T, s *source, c process) {
			s.set(1, "uno")
			mustInvalidate(t, c, rowTag(1))
		},
		"fence and bump": func(t *testing.T, s *source, c process) {
			f := mustFence(t, c, rowTag(1))
			s.set(1, "uno")
			if err := f.Bump(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"a bump for another caller": func(t *testing.T, s *source, c process) {
			s.set(1, "uno")
			if err := c.Bump(t.Context(), driver.NoMark, []cache.Tag{rowTag(1)}); err != nil {
				t.Fatal(err)
			}
		},
		"a family": func(t *testing.T, s *source, c process) {
			s.set(1, "uno")
			mustInvalidate(t, c, "rows:*")
		},
		"a fence": func(t *testing.T, s *source, c process) {
			mustFence(t, c, rowTag(1))
			s.set(1, "uno")
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s, c := newSource(), newCache(t)
				q := defineNear(c, s.nearQuery())
				keepNear(t, q, 1, "one")
				c.store.Delay(500*time.Millisecond, storetest.OpWatch)
				write(t, s, c)
				mustNotBeNear(t, q, 1, "uno")
			})
		})
	}
}

func TestEachTagEndsANearAnswer(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.nearQuery()
		var tags []cache.Tag
		for i := range 5 { // more than are kept in the answer itself
			tags = append(tags, cache.Tag(fmt.Sprintf("tag:%d", i)))
		}
		query.Tags = func(int) []cache.Tag { return tags }
		q := defineNear(c, query)
		row := "one"
		for _, tag := range tags {
			keepNear(t, q, 1, row)
			row = "after " + string(tag)
			s.set(1, row)
			mustInvalidate(t, c, tag)
			mustNotBeNear(t, q, 1, row)
		}
	})
}

func TestAnotherProcessesWriteEndsNearAnswersWhenReported(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		q := defineNear(fleet[1], s.nearQuery())
		keepNear(t, q, 1, "one")
		keepNear(t, q, 2, "two")
		s.set(1, "uno")
		mustInvalidate(t, fleet[0], rowTag(1))
		mustNotBeNear(t, q, 1, "uno") // a report that takes no time
		mustBeNear(t, q, 1, "uno")

		fleet[1].store.Delay(300*time.Millisecond, storetest.OpWatch)
		f := mustFence(t, fleet[0], rowTag(1))
		s.set(1, "eins")
		if err := f.Bump(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(299 * time.Millisecond)
		mustBeNear(t, q, 1, "uno") // so late is the report, and within the bound
		time.Sleep(time.Millisecond + proofs)
		mustNotBeNear(t, q, 1, "eins")
		mustBeNear(t, q, 1, "eins")
		mustBeNear(t, q, 2, "two") // whom nothing of this concerned
	})
}

// A write that falls between reading an answer and keeping it must end it, also when its
// report came before the answer was kept: it will not be reported again.
func TestWriteWhileAnAnswerIsReadOrLoaded(t *testing.T) {
	t.Run("loaded", func(t *testing.T) {
		virtual(t, func(t *testing.T) {
			s, fleet := newSource(), newFleet(t, 2)
			q := defineNear(fleet[1], s.nearQuery())
			s.gate = make(chan struct{})
			var slow sync.WaitGroup
			slow.Go(func() { mustGet(t, q, 1, "one") })
			time.Sleep(s.delay)
			synctest.Wait() // it has read
			s.set(1, "uno")
			mustInvalidate(t, fleet[0], rowTag(1))
			close(s.gate)
			slow.Wait()
			s.gate = nil
			mustNotBeNear(t, q, 1, "uno")
		})
	})
	t.Run("read", func(t *testing.T) {
		virtual(t, func(t *testing.T) {
			s, writer := newSource(), newCache(t)
			store := &betweenReads{Faulty: writer.store.Peer()}
			reader, err := cache.New(cache.Config{Store: store})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				reader.Close()
				store.Close()
			})
			mustGet(t, cache.Define(writer.Cache, s.query()), 1, "one")
			q := cache.Define(reader, s.nearQuery())
			synctest.Wait()
			store.then = func() {
				store.then = nil
				s.set(1, "uno")
				mustInvalidate(t, writer, rowTag(1))
			}
			mustLookup(t, q, 1, cache.Hit) // the old row, which was right when this began
			mustNotBeNear(t, q, 1, "uno")
		})
	})
}

// betweenReads lets something happen between the store's answer and its arrival.
type betweenReads struct {
	*storetest.Faulty
	then func()
}

// Nothing is near while a writer is in flight, so nothing from before its write can be after.
func TestNothingReadUnderAFenceIsKeptNear(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, fleet := newSource(), newFleet(t, 2)
		q := defineNear(fleet[1], s.nearQuery())
		keepNear(t, q, 1, "one")
		f := mustFence(t, fleet[0], rowTag(1))
		for range 3 {
			if a := mustLookup(t, q, 1, cache.Bypass); a.Detail != cache.DetailFenced {
				t.Errorf("under a fence the answer is %+v", a)
			}
		}
		s.set(1, "uno")
		if err := f.Bump(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustNotBeNear(t, q, 1, "uno")
	})
}

package cache_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

func TestNearSizeBoundsAnswers(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = 0
		query := s.nearQuery()
		query.NearSize = 100
		q := defineNear(c, query)
		near := 0
		for round := range 4 {
			near = 0
			for id := range 400 {
				s.set(id, "row")
				if a, err := q.Lookup(t.Context(), id); err != nil {
					t.Fatal(err)
				} else if a.Detail == cache.DetailNear {
					near++
				}
				synctest.Wait() // for the upkeep of the table
			}
			if near > 100 {
				t.Errorf("round %d: %d answers are near, want at most 100", round, near)
			}
		}
		if near == 0 {
			t.Error("in four rounds no answer was near")
		}
	})
}

// Tags cannot be counted without bound. Beyond, everything near is dropped, and rightly
// begins again.
func TestTagsOfNearAnswersAreBounded(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, store := newSource(), memstore.New(memstore.Config{})
		t.Cleanup(func() { store.Close() })
		c := newProcess(t, storetest.NewFaulty(store), cache.Config{})
		s.delay = 0
		query := s.nearQuery()
		query.FreshFor = time.Hour
		query.Tags = func(id int) []cache.Tag {
			if id < 10 {
				return []cache.Tag{rowTag(id)}
			}
			tags := make([]cache.Tag, 1000)
			for i := range tags {
				tags[i] = cache.Tag(fmt.Sprint("many:", id, ":", i))
			}
			return tags
		}
		q := defineNear(c, query)
		keepNear(t, q, 1, "one")
		for id := 10; id < 130; id++ {
			s.set(id, "many")
			keepNear(t, q, id, "many")
		}
		mustBeNear(t, q, 1, "one") // 120,001 tags are still counted
		for id := 130; id < 145; id++ {
			s.set(id, "many")
			mustGet(t, q, id, "many")
		}
		mustNotBeNear(t, q, 1, "one")
		mustNotBeNear(t, q, 10, "many")
		mustBeNear(t, q, 1, "one")
		s.set(1, "uno")
		mustInvalidate(t, c, rowTag(1))
		mustNotBeNear(t, q, 1, "uno")
		s.set(10, "new")
		mustInvalidate(t, c, "many:10:999")
		mustNotBeNear(t, q, 10, "new")
	})
}

// Who may keep more answers may keep their tags as well.
func TestRoomForTagsGrowsWithNearSize(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		s.delay = 0
		query := s.nearQuery()
		query.FreshFor, query.NearSize = time.Hour, 20_000
		query.Tags = func(id int) []cache.Tag {
			if id == 1 {
				return []cache.Tag{rowTag(id)}
			}
			tags := make([]cache.Tag, 1000)
			for i := range tags {
				tags[i] = cache.Tag(fmt.Sprint("many:", id, ":", i))
			}
			return tags
		}
		q := defineNear(c, query)
		keepNear(t, q, 1, "one")
		for id := 10; id < 145; id++ { // 135,001 tags, more than a smaller table has room for
			s.set(id, "many")
			mustGet(t, q, id, "many")
		}
		mustBeNear(t, q, 1, "one")
	})
}

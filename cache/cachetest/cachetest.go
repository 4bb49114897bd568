// Package cachetest gives a program's own tests a cache: a real one, on a store in memory
// that can be told to fail.
package cachetest

import (
	"testing"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/storetest"
)

// Cache is a cache.Cache for one test, which ends with it. It works on real time and in the
// bubbles of testing/synctest.
type Cache struct {
	*cache.Cache
	// Store fails, hangs, forgets and changes its identity when told to.
	Store *storetest.Faulty
	// Counts is what the cache did so far.
	Counts *Counts
}

// New returns a cache on an empty store of its own.
func New(t testing.TB) *Cache {
	t.Helper()
	store := storetest.NewFaulty(memstore.New(memstore.Config{}))
	c := start(t, store)
	return c
}

// Peer returns another cache on the same data, as another process has. Its store has
// faults of its own.
func (c *Cache) Peer(t testing.TB) *Cache {
	t.Helper()
	return start(t, c.Store.Peer())
}

func start(t testing.TB, store *storetest.Faulty) *Cache {
	t.Helper()
	c := &Cache{Store: store, Counts: &Counts{}}
	var err error
	if c.Cache, err = cache.New(cache.Config{Store: store, Observer: c.Counts}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Cache.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

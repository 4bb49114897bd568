package cachetest

import (
	"context"
	"errors"
	"sync"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/event"
)

// Counts is a cache.Observer that counts, for tests. Its zero value is ready, and it is safe
// for concurrent use.
type Counts struct {
	mu      sync.Mutex
	total   Tally
	queries map[string]*Tally
	state   event.StoreState
}

// Tally is what was counted.
type Tally struct {
	Hits        int // answers from the store, fresh or stale
	NearHits    int // answers from this process's memory
	Misses      int // answers that were loaded, for this caller or another
	Bypasses    int // of the misses, those that relied on nothing stored
	Loads       int // answers that the source gave, or failed to
	Found       int // of the loads
	NotFound    int // of the loads
	Failed      int // of the loads
	Overloads   int // callers that were refused
	NotStored   int // answers that were loaded and not stored
	TooLarge    int // of these, those that have too many bytes or tags
	Undecodable int // entries that could not be read
	Audited     int // hits that were compared with the source
	Old         int // of these, those that were old, though nothing had told the cache
	Waiting     int // callers that wait at this moment

	// Of the whole cache, not of a query.
	Gaps         int // times that near answers were dropped because changes may have been missed
	Unfenced     int // writes that went on without a fence
	Invalidated  int // tags
	StoreFailure int // failed calls of the store
	Panics       int // of the program's functions, where no caller waited
}

var _ cache.Observer = (*Counts)(nil)

// Of returns the counts of one query so far, by its name.
func (c *Counts) Of(query string) Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.queries[query]; t != nil {
		return *t
	}
	return Tally{}
}

// Total returns the counts of all queries and of the cache so far.
func (c *Counts) Total() Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

// StoreState returns the last state that the cache told of.
func (c *Counts) StoreState() event.StoreState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Observe implements cache.Observer.
func (c *Counts) Observe(_ context.Context, e cache.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := e.(type) {
	case event.ChangesMissed:
		c.total.Gaps++
	case event.Unfenced:
		c.total.Unfenced++
	case event.Invalidated:
		if e.Err == nil {
			c.total.Invalidated += len(e.Tags)
		}
	case event.StoreFailed:
		c.total.StoreFailure++
	case event.Panicked:
		c.total.Panics++
	case event.StoreState:
		c.state = e
	}
}

// Query implements cache.Observer.
func (c *Counts) Query(name string) cache.QueryObserver {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queries == nil {
		c.queries = map[string]*Tally{}
	}
	if c.queries[name] == nil {
		c.queries[name] = &Tally{}
	}
	return queryCounts{c, c.queries[name]}
}

type queryCounts struct {
	counts *Counts
	query  *Tally
}

func (q queryCounts) Served(_ context.Context, s cache.Served) {
	q.both(func(t *Tally) {
		switch {
		case s.Cached() && s.Detail == cache.DetailNear:
			t.NearHits++
		case s.Cached():
			t.Hits++
		default:
			t.Misses++
		}
		if s.Status == cache.Bypass {
			t.Bypasses++
		}
		var overload *cache.OverloadError
		if errors.As(s.Err, &overload) {
			t.Overloads++
		}
	})
}

func (q queryCounts) Observe(_ context.Context, e cache.Event) {
	q.both(func(t *Tally) {
		switch e := e.(type) {
		case event.LoadEnded:
			t.Loads += len(e.Results)
			for _, r := range e.Results {
				switch r {
				case event.LoadFound:
					t.Found++
				case event.LoadNotFound:
					t.NotFound++
				default:
					t.Failed++
				}
			}
		case event.WaitBegan:
			t.Waiting++
		case event.WaitEnded:
			t.Waiting--
		case event.NotStored:
			t.NotStored += e.Answers
		case event.TooLarge:
			t.TooLarge++
		case event.Undecodable:
			t.Undecodable++
		case event.Audited:
			t.Audited++
			if e.Result == event.AuditOld {
				t.Old++
			}
		}
	})
}

func (q queryCounts) both(count func(*Tally)) {
	q.counts.mu.Lock()
	defer q.counts.mu.Unlock()
	count(q.query)
	count(&q.counts.total)
}

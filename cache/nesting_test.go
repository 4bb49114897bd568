package cache_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// treeSize is how many nodes the tree of the tests has; node n has the children 2n and 2n + 1.
const treeSize = 63

// tree returns a query whose load of a node asks for its children, by children, after it has read
// the node from s.
func tree(s *source, children func(ctx context.Context, q *cache.Cached[int, string], ids []int) error) (cache.Query[int, string], *(*cache.Cached[int, string])) {
	var q *cache.Cached[int, string]
	for n := range treeSize + 1 {
		s.set(n, "node")
	}
	query := s.query()
	query.Load = func(ctx context.Context, n int) (string, error) {
		v, err := s.load(ctx, n)
		if err == nil && 2*n < treeSize {
			err = children(ctx, q, []int{2 * n, 2*n + 1})
		}
		return v, err
	}
	return query, &q
}

var waysToAsk = map[string]func(ctx context.Context, q *cache.Cached[int, string], ids []int) error{
	"one after another": func(ctx context.Context, q *cache.Cached[int, string], ids []int) error {
		for _, id := range ids {
			if _, err := q.Get(ctx, id); err != nil {
				return err
			}
		}
		return nil
	},
	"at the same time": func(ctx context.Context, q *cache.Cached[int, string], ids []int) error {
		errs := make([]error, len(ids))
		var wg sync.WaitGroup
		for i, id := range ids {
			wg.Go(func() { _, errs[i] = q.Get(ctx, id) })
		}
		wg.Wait()
		return errors.Join(errs...)
	},
	"as a batch": func(ctx context.Context, q *cache.Cached[int, string], ids []int) error {
		results, err := q.GetMany(ctx, ids)
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
		return err
	},
}

// Loads that wait for loads have no slot, so that a tree is loaded whichever caller asks for which node,
// with one slot or with many, and with no more loads at the source than there are slots.
func TestTreesAreLoadedWithinTheirSlots(t *testing.T) {
	for way, children := range waysToAsk {
		for _, slots := range []int{1, 3, 16} {
			for callers, ask := range map[string]func(caller int) int{
				"callers of the root":      func(int) int { return 1 },
				"callers of all the nodes": func(caller int) int { return caller%treeSize + 1 },
				"callers of other roots":   func(caller int) int { return 16 + caller%16 },
			} {
				t.Run(fmt.Sprintf("%s, %d slots, %s", way, slots, callers), func(t *testing.T) {
					virtual(t, func(t *testing.T) {
						s, c := newSource(), newCache(t)
						s.delay = 10 * time.Millisecond
						query, q := tree(s, children)
						query.MaxLoads = slots
						*q = cache.Define(c.Cache, query)
						var wg sync.WaitGroup
						for caller := range 2 * treeSize {
							wg.Go(func() {
								if _, err := (*q).Get(t.Context(), ask(caller)); err != nil {
									t.Errorf("node %d: %v", ask(caller), err)
								}
							})
						}
						began := time.Now()
						wg.Wait()
						if took := time.Since(began); took > time.Second {
							t.Errorf("it took %v", took)
						}
						if most := s.most.Load(); most > int64(slots) {
							t.Errorf("%d loads at the source at the same time, with %d slots", most, slots)
						}
					})
				})
			}
		}
	}
}

// Two queries that ask each other have two sets of slots, and still wait for none that is held by
// a load which waits for them.
func TestQueriesThatAskEachOther(t *testing.T) {
	virtual(t, func(t *testing.T) {
		c := newCache(t)
		var ping, pong *cache.Cached[int, string]
		define := func(name string, next **cache.Cached[int, string]) *cache.Cached[int, string] {
			s := newSource()
			query := s.query()
			query.Name, query.MaxLoads = name, 2
			query.Load = func(ctx context.Context, n int) (string, error) {
				time.Sleep(10 * time.Millisecond)
				if n <= 0 {
					return "end", nil
				}
				return (*next).Get(ctx, n-10)
			}
			return cache.Define(c.Cache, query)
		}
		ping, pong = define("play:ping", &pong), define("play:pong", &ping)
		var wg sync.WaitGroup
		for n := range 40 {
			for _, q := range []*cache.Cached[int, string]{ping, pong} {
				wg.Go(func() {
					if v, err := q.Get(t.Context(), n); err != nil || v != "end" {
						t.Errorf("%d: %q, error %v", n, v, err)
					}
				})
			}
		}
		wg.Wait()
	})
}

func TestLoadThatWaitsForItselfFailsAtOnce(t *testing.T) {
	for name, next := range map[string]func(int) int{
		"itself":           func(n int) int { return n },
		"one that asks it": func(n int) int { return 1 - n },
		"without end":      func(n int) int { return n + 1 },
	} {
		for _, down := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, store down %v", name, down), func(t *testing.T) {
				virtual(t, func(t *testing.T) {
					s, c := newSource(), newCache(t)
					if down {
						c.store.Fail(errDown)
					}
					query := s.query()
					var q *cache.Cached[int, string]
					var batch bool
					query.Load = func(ctx context.Context, n int) (string, error) {
						if batch {
							results, err := q.GetMany(ctx, []int{next(n)})
							if err == nil {
								err = results[0].Err
							}
							return "", err
						}
						return q.Get(ctx, next(n))
					}
					q = cache.Define(c.Cache, query)
					for i, b := range []bool{false, true} {
						batch = b
						began := time.Now()
						_, err := q.Get(t.Context(), 1000*i*(len(name)%2))
						if !errors.Is(err, cache.ErrLoadCycle) || !strings.Contains(err.Error(), "waits for itself") {
							t.Errorf("got %v, want ErrLoadCycle", err)
						}
						if took := time.Since(began); took > time.Second {
							t.Errorf("told after %v", took)
						}
						time.Sleep(time.Minute) // failures are remembered for a while
					}
				})
			})
		}
	}
}

// A load may ask for its own answer where that needs no load: the stored one, while it is stale.
func TestRefreshMaySeeTheStaleAnswer(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.query()
		query.StaleWhileRevalidate = time.Hour
		var q *cache.Cached[int, string]
		first := true
		query.Load = func(ctx context.Context, n int) (string, error) {
			if first {
				first = false
				return "one", nil
			}
			before, err := q.Get(ctx, n)
			return before + " more", err
		}
		q = cache.Define(c.Cache, query)
		mustGet(t, q, 1, "one")
		time.Sleep(2 * time.Minute)
		mustGet(t, q, 1, "one")
		synctest.Wait()
		mustGet(t, q, 1, "one more")
	})
}

// A batch is one caller: its own loads wait for each other, and no other caller waits for them.
func TestLargeBatchesAreNotRefused(t *testing.T) {
	for _, size := range []int{300, 3_000} {
		for _, down := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d, store down %v", size, down), func(t *testing.T) {
				virtual(t, func(t *testing.T) {
					s, c := newSource(), newCache(t)
					ids := make([]int, size)
					for i := range ids {
						ids[i] = 10 + i
						s.set(ids[i], "row")
					}
					q := cache.Define(c.Cache, s.query())
					if down {
						c.store.Fail(errDown)
						trip(t, q)
					}
					var wg sync.WaitGroup
					for batch := range 3 {
						wg.Go(func() {
							results, err := q.GetMany(t.Context(), ids[batch*size/4:])
							if err != nil {
								t.Error(err)
							}
							failed := 0
							for _, r := range results {
								if r.Err != nil {
									failed++
									err = r.Err
								}
							}
							if failed > 0 {
								t.Errorf("%d of %d failed, such as %v", failed, len(results), err)
							}
						})
					}
					time.Sleep(s.delay / 2)
					for _, id := range []int{1, 2, ids[size-1]} {
						began := time.Now()
						if _, err := q.Get(t.Context(), id); err != nil {
							t.Error(err)
						}
						if took := time.Since(began); took > 3*s.delay {
							t.Errorf("another caller waited %v for row %d, while loads take %v", took, id, s.delay)
						}
					}
					wg.Wait()
					if most := s.most.Load(); most > 16 {
						t.Errorf("%d loads at the same time", most)
					}
				})
			})
		}
	}
}

// A caller that leaves its batch leaves what has not begun undone.
func TestBatchEndsWithItsCaller(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		ids := make([]int, 1000)
		for i := range ids {
			ids[i] = i
		}
		q := cache.Define(c.Cache, s.query())
		ctx, cancel := context.WithTimeout(t.Context(), s.delay/2)
		defer cancel()
		if _, err := q.GetMany(ctx, ids); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
		time.Sleep(time.Minute)
		if n := s.loads.Load(); n > 16 {
			t.Errorf("%d loads for a caller that left during the first 16", n)
		}
	})
}

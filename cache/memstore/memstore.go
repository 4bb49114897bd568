// Package memstore keeps a driver.Store in the memory of one process: the shared tier of a
// program that runs alone.
//
// Everything in it is bounded. Entries, leases and remembered failures are bounded in
// bytes, tags in number. What does not fit is evicted by W-TinyLFU, which also refuses
// room to a flood of names that are seen once. Losing any of it is safe: an entry is
// loaded again, a lost lease costs one more load, and a tag that comes back has a new
// version, so that nothing stored under the lost one is valid. Only the marks of writers
// in flight are never evicted, because their loss would let readers past the fence.
package memstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Config bounds a Store. The zero value is ready to use.
type Config struct {
	// MaxBytes bounds the memory of the entries: of each the length of its key, the
	// capacity of its payload and 160 bytes that the store adds. An entry that is larger
	// alone is not kept. Leases and remembered failures take up to 16 MiB more. Values
	// below 1 mean the default: 256 MiB.
	MaxBytes int64

	// MaxTags bounds the number of tags whose versions are remembered, some 160 bytes
	// each. It should exceed the number of tags in use: entries of an evicted tag are
	// invalid. Values below 1 mean the default: 1,000,000.
	MaxTags int
}

const (
	defaultMaxBytes = 256 << 20
	defaultMaxTags  = 1_000_000
)

func (c Config) withDefaults() Config {
	c.MaxBytes = cmp.Or(max(c.MaxBytes, 0), defaultMaxBytes)
	c.MaxTags = cmp.Or(max(c.MaxTags, 0), defaultMaxTags)
	return c
}

// entryOverhead is what an entry takes beside its key and payload: the node of the cache,
// the slot of the hash table, the sketch, rounding by the allocator. TestWeightsMatchTheHeap
// measures it.
const entryOverhead = 160

// errClosed is returned by every method of a closed Store that returns an error.
var errClosed = errors.New("memstore: store is closed")

// Store is a driver.Store in process memory. It is safe for concurrent use. Reads take no
// lock.
type Store struct {
	entries  *otter.Cache[string, entry]
	tags     *tagTable
	leases   *leaseTable
	waiters  *waiters
	watchers *watchers
	identity string
	closed   atomic.Bool
	done     chan struct{} // closed by Close
}

var _ driver.ExactWatcher = (*Store)(nil)

// entry is a payload and how long it lives from when it was stored.
type entry struct {
	payload []byte
	life    time.Duration
}

// New returns an empty Store. Close stops the goroutines that remove what has expired.
func New(cfg Config) *Store {
	cfg = cfg.withDefaults()
	watchers := &watchers{}
	return &Store{
		entries: otter.Must(&otter.Options[string, entry]{
			MaximumWeight: uint64(cfg.MaxBytes),
			Weigher: func(key string, e entry) uint32 {
				return clampWeight(len(key) + cap(e.payload) + entryOverhead)
			},
			ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, entry]) time.Duration {
				return e.Value.life
			}),
			Executor: inline,
		}),
		tags:     newTagTable(cfg.MaxTags, watchers),
		leases:   newLeaseTable(),
		waiters:  newWaiters(),
		watchers: watchers,
		identity: rand.Text(),
		done:     make(chan struct{}),
	}
}

// inline makes the goroutine that fills a buffer of accesses process the buffer. The default, a
// new goroutine each time, could outlive Close, and lets a burst of writes overshoot the
// bounds. Only one read in some dozens pays for it, and other readers do not wait.
func inline(task func()) { task() }

func clampWeight(n int) uint32 { return uint32(min(n, math.MaxUint32)) }

// check fails if ctx has ended or the store is closed.
func (s *Store) check(ctx context.Context, method string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("memstore: %s: %w", method, err)
	}
	if s.closed.Load() {
		return errClosed
	}
	return nil
}

// Read implements driver.Store. It allocates the two slices of the snapshot and nothing
// else, unless a tag is new.
func (s *Store) Read(ctx context.Context, tags []driver.Tag, keys []string) (driver.Snapshot, error) {
	if err := s.check(ctx, "read"); err != nil {
		return driver.Snapshot{}, err
	}
	snap := driver.Snapshot{
		States:  make([]driver.TagState, len(tags)),
		Entries: make([][]byte, len(keys)),
	}
	for i, tag := range tags {
		snap.States[i] = s.tags.state(tag)
	}
	for i, key := range keys {
		snap.Entries[i] = s.entry(key)
	}
	return snap, nil
}

// entry returns the payload stored under key, or nil.
func (s *Store) entry(key string) []byte {
	e, _ := s.entries.GetIfPresent(key)
	return e.payload
}

// Fence implements driver.Store. It fails when the store holds too many marks already.
func (s *Store) Fence(ctx context.Context, tags []driver.Tag, mark driver.Mark, lease time.Duration) error {
	if err := s.check(ctx, "fence"); err != nil {
		return err
	}
	for i, tag := range tags {
		if err := s.tags.addMark(tag, mark, lease); err != nil {
			s.watchers.changed(tags[:i]...)
			return err
		}
	}
	s.watchers.changed(tags...)
	return nil
}

// Bump implements driver.Store.
func (s *Store) Bump(ctx context.Context, tags []driver.Tag, mark driver.Mark) error {
	if err := s.check(ctx, "bump"); err != nil {
		return err
	}
	for _, tag := range tags {
		s.tags.removeMark(tag, mark)
	}
	s.watchers.changed(tags...)
	return nil
}

// Claim implements driver.Store.
func (s *Store) Claim(ctx context.Context, claims []driver.Claim) ([]driver.Claimed, error) {
	if err := s.check(ctx, "claim"); err != nil {
		return nil, err
	}
	claimed := make([]driver.Claimed, len(claims))
	for i, claim := range claims {
		claimed[i] = s.leases.acquire(claim)
		// The entry is read after the decision. A load that settles stores its entry before
		// it gives the lease back, so a claim that is granted because of that sees the entry.
		claimed[i].Entry = s.entry(claim.Key)
	}
	return claimed, nil
}

// Renew implements driver.Store.
func (s *Store) Renew(ctx context.Context, key string, token driver.Token, ttl time.Duration) error {
	if err := s.check(ctx, "renew"); err != nil {
		return err
	}
	if !s.leases.extend(key, token, ttl) {
		return driver.ErrLeaseLost
	}
	return nil
}

// Settle implements driver.Store. It keeps the slices that it is given.
func (s *Store) Settle(ctx context.Context, fills []driver.Fill) error {
	if err := s.check(ctx, "settle"); err != nil {
		return err
	}
	for _, fill := range fills {
		if fill.Entry != nil {
			s.put(fill.Key, fill.Entry, fill.Life)
		}
		s.leases.release(fill)
		s.waiters.announce(fill.Key)
	}
	return nil
}

func (s *Store) put(key string, payload []byte, life time.Duration) {
	if life <= 0 { // otter takes that as "keep the old expiry"
		s.entries.Invalidate(key)
		return
	}
	s.entries.Set(key, entry{payload, life})
}

// Announced implements driver.Store.
func (s *Store) Announced(key string) (<-chan struct{}, func()) {
	return s.waiters.subscribe(key)
}

// Identity implements driver.Store: each Store has one identity for its whole life.
func (s *Store) Identity(ctx context.Context) (string, error) {
	if err := s.check(ctx, "identity"); err != nil {
		return "", err
	}
	return s.identity, nil
}

// CheckWrites implements driver.Store: a Store takes writes until it is closed.
func (s *Store) CheckWrites(ctx context.Context) error { return s.check(ctx, "check writes") }

// Name implements driver.Store: the data of a Store are its own.
func (s *Store) Name(ctx context.Context) (string, error) {
	if err := s.check(ctx, "name"); err != nil {
		return "", err
	}
	return "memory:" + s.identity, nil
}

// Purge implements driver.Store. After an error it returns how many entries are gone.
func (s *Store) Purge(ctx context.Context, pattern string) (int, error) {
	if err := s.check(ctx, "purge"); err != nil {
		return 0, err
	}
	var purged, scanned int
	for key := range s.entries.Keys() {
		// No lock is held between keys. Checking the context costs more than matching a
		// short key.
		if scanned++; scanned%256 == 0 {
			if err := s.check(ctx, "purge"); err != nil {
				return purged, err
			}
		}
		if !matches(pattern, key) {
			continue
		}
		if _, ok := s.entries.Invalidate(key); ok {
			purged++
		}
	}
	return purged, nil
}

// Close stops the goroutines of the store, ends Watch, and drops what it holds. Every later
// call fails, except Announced, whose channels stay silent. Closing again does nothing.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	close(s.done)
	s.entries.StopAllGoroutines()
	s.entries.InvalidateAll()
	s.leases.clear()
	s.tags.clear()
	return nil
}

// Stats is how full a Store is.
type Stats struct {
	Entries int   // kept, of which some may have expired a moment ago
	Bytes   int64 // that they weigh, at most Config.MaxBytes
	Tags    int   // whose versions are remembered, at most Config.MaxTags
	Leases  int   // held or remembered as failures
	Marks   int   // of writers in flight, and expired ones that are not yet removed
}

// Stats returns how full the store is. The numbers belong to slightly different moments.
func (s *Store) Stats() Stats {
	return Stats{
		Entries: s.entries.EstimatedSize(),
		Bytes:   int64(s.entries.WeightedSize()),
		Tags:    s.tags.size(),
		Leases:  s.leases.size(),
		Marks:   int(s.tags.marks.Load()),
	}
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/chainlearn/chainlearn/bench/internal/measure"
	"github.com/chainlearn/chainlearn/bench/internal/payload"
	"github.com/chainlearn/chainlearn/bench/internal/peers"
)

// contender is one library, set up and filled.
type contender[V any] struct {
	name    string
	library string
	cache   peers.Cache[V]
	config  peers.Config[V]
	keys    []payload.Key
	loads   *atomic.Int64
}

// contenderSpec says how a contender takes part.
type contenderSpec struct {
	name    string // in the tables; default the library
	library string
	addr    string
	near    bool
	tags    func(uuid.UUID) []string
}

func (e contenderSpec) title() string { return cmp.Or(e.name, e.library) }

// newContender opens a contender with keys of its own.
func newContender[V any](ctx context.Context, spec contenderSpec, keys int, load func(context.Context, uuid.UUID) (V, error), codec peers.Codec[V]) (*contender[V], error) {
	prefix := prefixFor(spec.title())
	c := &contender[V]{name: spec.title(), library: spec.library, keys: payload.Keys(prefix, keys), loads: new(atomic.Int64)}
	c.config = peers.Config[V]{
		Addr: spec.addr, Prefix: prefix, Codec: codec, Tags: spec.tags, Near: spec.near, Size: keys,
		Load: func(ctx context.Context, id uuid.UUID) (V, error) {
			c.loads.Add(1)
			return load(ctx, id)
		},
	}
	var err error
	if c.cache, err = peers.Open(ctx, spec.library, c.config); err != nil {
		return nil, fmt.Errorf("set up %s: %w", c.name, err)
	}
	return c, nil
}

// prefixes counts the prefixes handed out: no two contenders share a key in Redis.
var prefixes atomic.Int64

// prefixFor returns a key prefix that no other contender uses.
func prefixFor(name string) string {
	return strings.NewReplacer(" ", "-", ",", "", "/", "-").Replace(fmt.Sprintf("%s:%d:", name, prefixes.Add(1)))
}

// reopen closes the client of c and opens another.
func (c *contender[V]) reopen(ctx context.Context) error {
	err := c.cache.Close()
	if err == nil {
		c.cache, err = peers.Open(ctx, c.library, c.config)
	}
	if err != nil {
		return fmt.Errorf("reopen %s: %w", c.name, err)
	}
	return nil
}

// secondClient opens a second client that shares with c what is in Redis, and the count of
// loads.
func (c *contender[V]) secondClient(ctx context.Context, near bool) (*contender[V], error) {
	other := *c
	other.config.Near = near
	var err error
	if other.cache, err = peers.Open(ctx, c.library, other.config); err != nil {
		return nil, fmt.Errorf("set up %s again: %w", c.name, err)
	}
	return &other, nil
}

// fill puts the answers of all keys into the cache.
func (c *contender[V]) fill(ctx context.Context) error {
	workers, batch := 16, max(1, len(c.keys)/64)
	fetch := func(keys []payload.Key) (err error) {
		for i := range keys {
			if _, err = c.cache.Get(ctx, &keys[i]); err != nil {
				break
			}
		}
		return err
	}
	if b, ok := c.cache.(peers.Batcher); ok {
		workers, batch = 1, 200
		fetch = func(keys []payload.Key) error { return b.Fetch(ctx, keys) }
	}
	var g errgroup.Group
	g.SetLimit(workers)
	for keys := range slices.Chunk(c.keys, batch) {
		g.Go(func() error { return fetch(keys) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("fill %s: %w", c.name, err)
	}
	return nil
}

// waitUntilStored asks for keys until nothing is loaded for them, for some libraries store in the
// background. It asks like one caller, for a sample where there are many.
func (c *contender[V]) waitUntilStored(ctx context.Context) error {
	const passes, sample = 20, 2000
	var loads int64
	for range passes {
		before := c.loads.Load()
		if h, ok := c.cache.(peers.HealthChecker); ok {
			if err := h.Healthy(ctx); err != nil {
				return fmt.Errorf("wait until %s has stored its answers: %w", c.name, err)
			}
		}
		for i := 0; i < len(c.keys); i += max(1, len(c.keys)/sample) {
			if _, err := c.cache.Get(ctx, &c.keys[i]); err != nil {
				return fmt.Errorf("wait until %s has stored its answers: %w", c.name, err)
			}
		}
		if loads = c.loads.Load() - before; loads == 0 {
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s does not keep its answers: %d were loaded once more after they had been asked for %d times", c.name, loads, passes)
}

// fillNear asks once for every key, with many callers, so that all answers are in process.
func (c *contender[V]) fillNear(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(32)
	for keys := range slices.Chunk(c.keys, max(1, len(c.keys)/64)) {
		g.Go(func() error {
			for i := range keys {
				if _, err := c.cache.Get(ctx, &keys[i]); err != nil {
					return fmt.Errorf("fill the near tier of %s: %w", c.name, err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// subject asks for answers that are there.
func (c *contender[V]) subject(ctx context.Context) measure.Subject {
	return measure.Subject{Name: c.name, Op: func(i uint32) error {
		_, err := c.cache.Get(ctx, &c.keys[i])
		return err
	}}
}

// contenders have the same keys.
type contenders[V any] []*contender[V]

// openContenders fills and opens a contender for each entry. They must be closed, also
// after an error.
func openContenders[V any](ctx context.Context, entries []contenderSpec, keys int, load func(context.Context, uuid.UUID) (V, error), codec peers.Codec[V]) (contenders[V], error) {
	var all contenders[V]
	for _, e := range entries {
		c, err := newContender(ctx, e, keys, load, codec)
		if err != nil {
			return all, err
		}
		all = append(all, c)
		if err := c.fill(ctx); err != nil {
			return all, err
		}
		if e.addr != "" && !e.near {
			// Another client finds all of it in Redis. The one that filled it has had many
			// callers at a time, which changes for good how clients that pipeline serve
			// one alone.
			if err := c.waitUntilStored(ctx); err != nil {
				return all, err
			}
			if err := c.reopen(ctx); err != nil {
				return all, err
			}
		}
		if err := c.waitUntilStored(ctx); err != nil {
			return all, err
		}
	}
	return all, nil
}

func (all contenders[V]) close() error {
	var errs []error
	for _, c := range all {
		errs = append(errs, c.cache.Close())
	}
	return errors.Join(errs...)
}

// measureHits measures the contenders in turns, and notes those that loaded during it.
func (all contenders[V]) measureHits(ctx context.Context, x *experimentRun, t measure.Turns, more ...measure.Subject) error {
	subjects := more
	before := make([]int64, len(all))
	for i, c := range all {
		subjects = append(subjects, c.subject(ctx))
		before[i] = c.loads.Load()
	}
	x.logf("%s", t.Case)
	if err := t.Run(ctx, subjects, x.Samples); err != nil {
		return err
	}
	for i, c := range all {
		if loads := c.loads.Load() - before[i]; loads > 0 {
			x.section.Notes = append(x.section.Notes, fmt.Sprintf(
				"%s, %s: %d calls were no hits, they loaded.", t.Case, c.name, loads))
		}
	}
	return nil
}

func (all contenders[V]) names() []string {
	var names []string
	for _, c := range all {
		names = append(names, c.name)
	}
	return names
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/event"
)

// Fence is a writer's announcement that it is about to change what some tags name. From
// before Fence returns until Bump, no reader serves a stored answer that depends on them.
type Fence struct {
	c        *Cache
	mark     driver.Mark
	tags     []Tag
	deadline time.Time // by this process's monotonic clock; never later than the store's
	standing bool
}

// Fence fences tags for the writer that mark identifies: each tag gets a new version, and
// readers that meet the mark ask the source and store nothing. Call it after the last
// statement and before the commit, and Bump after the commit or the rollback.
//
// The Fence is never nil. The error says that the store could not be told: readers may go
// on serving stored answers until Bump, or until another process delivers the
// invalidation. Safe for concurrent use, as are the methods of Fence one after another.
func (c *Cache) Fence(ctx context.Context, mark driver.Mark, tags []Tag) (*Fence, error) {
	f := &Fence{c: c, mark: mark, tags: tags}
	err := f.Renew(ctx)
	if err != nil {
		c.unfenced(ctx, tags, err)
	}
	return f, err
}

// unfenced counts a write that goes on without a fence, and says so now and then: while the
// store is away, every write is one.
func (c *Cache) unfenced(ctx context.Context, tags []Tag, err error) {
	c.Observe(ctx, event.Unfenced{Tags: tags, Err: err})
	if n := c.health.said.due("unfenced"); n > 0 {
		c.cfg.Logger.WarnContext(ctx, "writes go on without a fence: readers may see the old answer until the invalidation is delivered; "+
			"see that the store answers and takes writes, or set RequireFence to refuse such writes",
			"writes", n, "tags", len(tags), "err", err)
	}
}

// Renew fences again, with a whole lease from now.
func (f *Fence) Renew(ctx context.Context) error {
	deadline := time.Now().Add(f.c.cfg.FenceLease) // before the call: the store counts from later
	err := f.c.fenceSome(ctx, f.tags, f.mark)
	// This process need not wait for the store to report it. Not before the call: what
	// is read, and kept near, while it is under way would outlive it.
	f.c.changes.Changed(f.tags...)
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	f.deadline, f.standing = deadline, true
	return nil
}

// Remaining returns how long the fence surely stands; zero or less when it may have
// lapsed or never stood. A commit must come before.
func (f *Fence) Remaining() time.Duration {
	if !f.standing {
		return 0
	}
	return time.Until(f.deadline)
}

// Keep renews the fence three times in a lease until stop is called, which returns when no
// renewal is under way any more. It is for the time of a commit: that may outlast any lease, as
// when a standby that has to confirm it stands still. A renewal that fails is tried again. If
// the fence lapses all the same, that is counted and logged, and the write is as if it had
// never been fenced. No other method of the Fence may be called before stop.
func (f *Fence) Keep(ctx context.Context) (stop func()) {
	if !f.standing {
		return func() {}
	}
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(f.c.cfg.FenceLease / 3)
		defer t.Stop()
		said := false
		for {
			select {
			case <-ended:
				return
			case <-t.C:
			}
			if err := f.Renew(ctx); err != nil && !said && f.Remaining() <= 0 {
				f.c.unfenced(ctx, f.tags, err)
				said = true
			}
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}

// Bump gives the tags new versions and removes the fence. It works even when ctx has
// ended, within the time that one call of the store may take. After an error the
// cache of this process does not trust the store until the bump has been delivered;
// other processes depend on the fence, which still stands, or on the outbox.
func (f *Fence) Bump(ctx context.Context) error { return f.c.Bump(ctx, f.mark, f.tags) }

// Bump gives tags new versions, and removes the fence of the writer that mark identifies.
// It is for what delivers invalidations for others, like the relay of an outbox; see
// also Fence.Bump and Invalidate.
func (c *Cache) Bump(ctx context.Context, mark driver.Mark, tags []Tag) error {
	if len(tags) == 0 {
		return nil
	}
	// What is committed must be delivered: the caller's leaving is no reason to stop.
	upTo := c.bumps.latest()
	err := c.bumpSome(context.WithoutCancel(ctx), tags, mark)
	c.changes.Changed(tags...)
	c.bumps.add(tags, err != nil, upTo)
	if c.cfg.Observer != nil {
		c.Observe(ctx, event.Invalidated{Tags: tags, Err: err})
	}
	if err != nil {
		c.health.bumpFailed(err)
		return fmt.Errorf("bump %d tags: %w", len(tags), err)
	}
	return nil
}

// Invalidate makes every answer that depends on any of tags wrong from now on: no Get that
// starts after Invalidate has returned, on any process, serves one stored before. It is for
// sources that are no database; call it after the change. After an error the
// change is remembered and delivered as soon as the store is back, this process serves
// nothing stored until then, and other processes may.
func (c *Cache) Invalidate(ctx context.Context, tags ...Tag) error {
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	if err := checkTags(tags); err != nil {
		return fmt.Errorf("invalidate: %w", err)
	}
	if err := c.Bump(ctx, driver.NoMark, tags); err != nil {
		return fmt.Errorf("invalidate: %w: %w", ErrUnavailable, err)
	}
	return nil
}

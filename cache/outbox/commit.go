package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// Options of Commit. Their zero value is good.
type Options struct {
	// Relay is that of this process. It deletes the rows that Commit has delivered, lazily
	// and in batches. Without one they stay until a relay delivers them again, which
	// is harmless.
	Relay *Relay

	// RequireFence refuses to commit while the shared tier cannot be told beforehand. By
	// default the transaction is committed and its invalidation delivered as soon as
	// possible; until then other processes may serve the answers of before.
	RequireFence bool

	// CommitTime is how long before the end of its fence's lease a commit may still begin.
	// The lease (cache.Config.FenceLease) must be longer. Default DefaultCommitTime.
	CommitTime time.Duration

	// MaxTags bounds how many tags are fenced by name. A transaction that touched more
	// fences families instead. Default DefaultMaxTags.
	MaxTags int
}

// DefaultCommitTime is Options.CommitTime if that is 0.
const DefaultCommitTime = time.Second

var (
	// ErrNoFence says that nothing was committed because the shared tier could not be told
	// and RequireFence was set.
	ErrNoFence = errors.New("outbox: not committed: the cache could not be told beforehand")
	// ErrLateFence says that nothing was committed because the fence did not stand for
	// long enough.
	ErrLateFence = errors.New("outbox: not committed: the fence would not have outlived the commit")
)

// commitLimit bounds the wait for an answer to COMMIT. It is generous: giving up
// leaves the outcome unknown.
const commitLimit = 30 * time.Second

// Commit ends a transaction whose statements have all run, in the order that leaves no
// moment for a wrong answer:
//
//  1. Fence what the transaction touched. From here on, no reader serves or keeps what it
//     loaded before.
//  2. Commit, if the fence stands for long enough. It is renewed until the outcome is known.
//  3. Bump: what was loaded meanwhile is dead, and readers may keep answers again.
//
// When Commit returns nil, the transaction is committed and no read that starts later is
// older than it, on any process; or, if the shared tier could not be told, on this
// process, while others follow as soon as it can be. An error means that nothing
// happened, unless it matches ErrUnknownOutcome. Once ctx has ended nothing is
// committed any more; a commit that has begun is waited for.
func Commit(ctx context.Context, c *cache.Cache, tx Tx, o Options) error {
	// Nothing that ends the transaction or tells what became of it may stop half way
	// because the caller leaves.
	detached := context.WithoutCancel(ctx)

	rows, err := tx.Touched(ctx)
	if err != nil {
		return errors.Join(err, tx.Rollback(detached))
	}
	recorded := time.Now()
	tags, _ := tagsOf(rows, cmp.Or(o.MaxTags, DefaultMaxTags))
	if len(tags) == 0 {
		return commit(detached, tx, nil)
	}

	fence, err := c.Fence(ctx, tx.Mark(), tags)
	fenced := err == nil
	if err == nil {
		err = longEnough(ctx, fence, cmp.Or(o.CommitTime, DefaultCommitTime))
	} else if o.RequireFence {
		err = fmt.Errorf("%w: %w", ErrNoFence, err)
	} else {
		err = nil // the cache has counted and logged it
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = commit(detached, tx, fence)
	} else {
		err = errors.Join(err, tx.Rollback(detached))
	}

	switch {
	case errors.Is(err, ErrUnknownOutcome):
		// If it was committed, this bump might come too early to cover it: leave the fence,
		// and leave the rows, if there are any, to a relay.
		return err
	case err != nil && !fenced:
		return err // what may stand of the fence lapses
	}
	// Also when nothing was committed: the fence must go. And also when it never stood, for
	// the entries that depend on the tags are to die now, here at the very least.
	if fence.Bump(detached) != nil {
		return err // not delivered: the rows stay for a relay, and the cache knows
	}
	if err == nil && o.Relay != nil {
		o.Relay.delivered(ctx, rows, time.Since(recorded))
	}
	return err
}

// longEnough makes sure that the fence stands for d from now, renewing it once.
func longEnough(ctx context.Context, fence *cache.Fence, d time.Duration) error {
	if fence.Remaining() >= d {
		return nil
	}
	if err := fence.Renew(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrLateFence, err)
	}
	if left := fence.Remaining(); left < d {
		return fmt.Errorf("%w: a renewed lease leaves %v and CommitTime is %v", ErrLateFence, left, d)
	}
	return nil
}

// commit commits under a fence, nil for none. The database may take longer than any lease: no
// limit of a transaction ends a COMMIT that waits for a standby. Its rows become visible when the
// wait is over, so the fence must stand until then.
func commit(ctx context.Context, tx Tx, fence *cache.Fence) error {
	ctx, cancel := context.WithTimeout(ctx, commitLimit)
	defer cancel()
	if fence != nil {
		defer fence.Keep(ctx)() // ended before the bump: a later renewal would fence for good
	}
	return tx.Commit(ctx)
}

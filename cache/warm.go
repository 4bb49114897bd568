package cache

import (
	"context"
	"errors"
	"fmt"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Warm loads what the queries with a Warm function want warm, unless it is in the cache
// and fresh already. It returns when all of it was tried, with every error there was.
// Call it before a process takes requests. What it asks for is no caller's: it is loaded, and not
// counted as a miss.
func (c *Cache) Warm(ctx context.Context) error {
	ctx = asWarmer(ctx)
	c.mu.Lock()
	defined := c.defined
	c.mu.Unlock()
	var errs []error
	for _, d := range defined {
		errs = append(errs, d.warm(ctx))
	}
	return errors.Join(errs...)
}

type warmerKey struct{}

// asWarmer returns a context whose answers no caller gets. Warm may ask for answers with it, too, to
// know which are to be warm.
func asWarmer(ctx context.Context) context.Context { return context.WithValue(ctx, warmerKey{}, true) }

func (d *Cached[P, V]) warm(ctx context.Context) error {
	return d.eachWarm(ctx, func(p P) error {
		_, err := d.Lookup(ctx, p)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	})
}

func (d *Cached[P, V]) eachWarm(ctx context.Context, do func(P) error) error {
	ps, err := d.warmParameters(ctx)
	if err != nil {
		return fmt.Errorf("warm %s: which: %w", d.q.Name, err)
	}
	var errs []error
	for _, p := range ps {
		if err := do(p); err != nil {
			errs = append(errs, fmt.Errorf("warm %s: %w", d.q.Name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// warmParameters calls Warm, if there is one.
func (d *Cached[P, V]) warmParameters(ctx context.Context) ([]P, error) {
	if d.q.Warm == nil {
		return nil, nil
	}
	ps, err := protect(ctx, d.c, "Warm", func() {}, d.q.Warm)
	if err != nil {
		return nil, fmt.Errorf("Warm: %w", err)
	}
	return ps, nil
}

// keepWarm loads the warm answers again every WarmEvery, until ctx ends.
func (d *Cached[P, V]) keepWarm(ctx context.Context) {
	ctx = asWarmer(ctx)
	for pause(ctx, jitter(d.q.WarmEvery)) {
		if !d.myTurn(ctx) {
			continue
		}
		if err := d.eachWarm(ctx, func(p P) error { return d.reload(ctx, p) }); err != nil && ctx.Err() == nil {
			d.c.uncaught(ctx, d.q.Name, err)
			d.c.cfg.Logger.WarnContext(ctx, "warming failed", "query", d.q.Name, "err", err)
		}
	}
}

// myTurn takes the lease of the query's warming for most of a period. It is kept, not given
// back: until it runs out, the fleet's answers are as warm as one warmer makes them.
func (d *Cached[P, V]) myTurn(ctx context.Context) bool {
	claimed, err := d.c.claim(ctx, []driver.Claim{{
		Key: "warm:" + d.q.Name, Token: driver.Token(driver.NewVersion()), TTL: d.q.WarmEvery - d.q.WarmEvery/5,
	}}, 0)
	return err == nil && claimed[0].State == driver.Granted
}

// reload loads one answer again, however fresh the stored one is: at the next turn it might
// be gone.
func (d *Cached[P, V]) reload(ctx context.Context, p P) error {
	r, err := d.request(ctx, p)
	if err != nil {
		return err
	}
	if r.tooMany > 0 {
		return nil // it is stored nowhere
	}
	snapshot, err := d.c.read(ctx, r.tags, []string{r.key}, d.entrySize())
	if err != nil {
		return err
	}
	if anyFenced(snapshot.States) {
		return nil // a write is on its way; the next caller loads what it wrote
	}
	if done := d.refresh(ctx, r.having(snapshot.States), guardOf(r.tags, snapshot.States), true); done != nil {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	return nil
}

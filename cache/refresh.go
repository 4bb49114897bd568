package cache

import (
	"context"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// refresh loads an answer anew in the background, if nobody in the fleet does already and
// there is a place for it; at most MaxQueue refreshes of a query are under way. With evenIfFresh it does so whatever the store holds. It
// returns a channel that is closed when the refresh has ended, nil if there is none.
func (d *Cached[P, V]) refresh(ctx context.Context, p P, key string, tags []Tag, guard driver.Guard, evenIfFresh bool) <-chan struct{} {
	if !d.flights.refresh(key, d.MaxQueue) {
		return nil
	}
	done := make(chan struct{})
	spawned := d.c.spawn(func(context.Context) {
		defer close(done)
		defer d.flights.endRefresh(key)
		ctx, cancel := d.c.detach(ctx)
		defer cancel()
		d.refreshNow(ctx, p, key, tags, guard, evenIfFresh)
	})
	if !spawned {
		d.flights.endRefresh(key)
		return nil
	}
	return done
}

func (d *Cached[P, V]) refreshNow(ctx context.Context, p P, key string, tags []Tag, guard driver.Guard, evenIfFresh bool) {
	if !d.loads.tryEnter() {
		return // busy with answers that somebody waits for
	}
	token := driver.Token(driver.NewVersion())
	announced, unsubscribe := d.c.cfg.Store.Announced(key)
	defer unsubscribe()
	claimed, err := d.c.claim(ctx, []driver.Claim{{Key: key, Token: token, Guard: guard, TTL: leaseTTL}})
	if err != nil {
		d.loads.turnBack()
		return
	}
	if claimed[0].State != driver.Granted {
		d.loads.turnBack()
		// Somebody else is at it, or just failed at it. Until there is news, the callers
		// of this process need not try again.
		await(ctx, announced, claimed[0].Wait, time.Now().Add(d.LoadTimeout))
		return
	}
	if !evenIfFresh && d.examine(claimed[0].Entry, guard, time.Now()).state == entryFresh {
		d.loads.turnBack()
		_ = d.c.settle(ctx, []driver.Fill{{Key: key, Token: token}})
		return
	}
	stop := d.c.keepLeases(ctx, []driver.Claim{{Key: key, Token: token}})
	l := d.loadAdmitted(ctx, []P{p}, []string{key}, nil)[0]
	stop()
	// The guard is the one seen before the load began. If a write came in between, the
	// entry is born invalid, and nothing that was invalidated comes back by it.
	fill, _ := d.fillFor(key, tags, guard, token, l, claimed[0].Failure)
	d.settleAll(ctx, []driver.Fill{fill})
}

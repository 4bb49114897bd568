package cache

import (
	"context"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// refresh loads an answer again in the background, unless some process does already or no
// slot is free; at most MaxQueue refreshes of a query are under way. With evenIfFresh
// it does so whatever the store holds. It returns a channel that is closed when the refresh
// has ended, nil if there is none.
func (d *Cached[P, V]) refresh(ctx context.Context, r *request[P], guard driver.Guard, evenIfFresh bool) <-chan struct{} {
	if !d.calls.beginRefresh(r.key, d.q.MaxQueue) {
		return nil
	}
	done := make(chan struct{})
	started := d.c.start(func(context.Context) {
		defer close(done)
		defer d.calls.endRefresh(r.key)
		ctx, cancel := d.c.detach(asRoot(ctx), d.q.ContextKeys)
		defer cancel()
		d.runRefresh(ctx, r, guard, evenIfFresh)
	})
	if !started {
		d.calls.endRefresh(r.key)
		return nil
	}
	return done
}

func (d *Cached[P, V]) runRefresh(ctx context.Context, r *request[P], guard driver.Guard, evenIfFresh bool) {
	if !d.loads.tryEnter() {
		return // busy with answers that callers wait for
	}
	unused := true
	defer func() {
		if unused {
			d.loads.release()
		}
	}()
	token := driver.Token(driver.NewVersion())
	announced, unsubscribe := d.c.cfg.Store.Announced(r.key)
	defer unsubscribe()
	claimed, err := d.c.claim(ctx, []driver.Claim{{Key: r.key, Token: token, Guard: guard, TTL: leaseTTL}}, d.entrySize())
	if err != nil {
		return
	}
	if claimed[0].State != driver.Granted {
		unused = false
		d.loads.release()
		// Another process is loading, or just failed to. Until there is news, the callers
		// of this process need not try again.
		await(ctx, announced, claimed[0].Wait, time.Now().Add(d.q.LoadTimeout))
		return
	}
	if !evenIfFresh && d.classify(ctx, r, claimed[0].Entry, guard, time.Now()).state == entryFresh {
		_, _ = d.c.settle(ctx, []driver.Fill{{Key: r.key, Token: token}})
		return
	}
	stop := d.c.keepLeases(ctx, []driver.Claim{{Key: r.key, Token: token}})
	defer stop()
	unused = false
	a := d.loadAdmitted(ctx, []*request[P]{r}, nil)[0]
	d.c.uncaught(ctx, d.q.Name, a.err) // no caller waits for it
	// The guard is the one seen before the load began. If a write came in between, the
	// entry is born invalid, and nothing that was invalidated comes back by it.
	fill, _ := d.fillFor(ctx, r, guard, token, a, claimed[0].Failure)
	d.settleAll(ctx, []driver.Fill{fill})
	stop()
	if r.covers(a.named) || r.repeated {
		return
	}
	again := d.naming(r, a.named)
	again.repeated = true
	snapshot, err := d.c.read(ctx, again.tags, []string{r.key}, d.entrySize())
	if err == nil && !anyFenced(snapshot.States) {
		d.runRefresh(ctx, again.having(snapshot.States), guardOf(again.tags, snapshot.States), evenIfFresh)
	}
}

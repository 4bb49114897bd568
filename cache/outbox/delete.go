package outbox

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	deleteEvery  = 100 * time.Millisecond
	deleteMost   = 16384 // rows waiting
	deleteBatch  = 4096
	deleteLimit  = 2 * time.Second
	closingLimit = time.Second
)

// deliveredRows are those that their own writer has delivered. The outbox is told later and of
// many together: the writer's caller does not wait for it. What cannot be told, or has no
// room here, is delivered once more by a relay.
type deliveredRows struct {
	wake  chan struct{}
	every time.Duration // shorter than a relay's grace, or it would deliver them too

	mu  sync.Mutex
	ids []int64
}

func (d *deliveredRows) add(rows []Row) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, row := range rows[:min(len(rows), deleteMost-len(d.ids))] {
		d.ids = append(d.ids, row.ID)
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *deliveredRows) take() []int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(len(d.ids), deleteBatch)
	ids := d.ids[:n:n]
	d.ids = d.ids[n:]
	if len(d.ids) == 0 {
		d.ids = nil
	}
	return ids
}

func (d *deliveredRows) run(ctx context.Context, done func(context.Context, []int64) error, logger *slog.Logger) {
	for ending := false; !ending; {
		select {
		case <-d.wake:
			pause(ctx, d.every)
		case <-ctx.Done():
		}
		limit := deleteLimit
		if ending = ctx.Err() != nil; ending {
			limit = closingLimit // the last ones
		}
		for ids := d.take(); len(ids) > 0; ids = d.take() {
			doneCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
			err := done(doneCtx, ids)
			cancel()
			if err != nil {
				logger.WarnContext(ctx, "delivered outbox rows were not deleted: a relay will deliver them again", "rows", len(ids), "err", err)
				break
			}
		}
	}
}

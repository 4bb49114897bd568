package outbox

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	forgetEvery  = 100 * time.Millisecond
	forgetMost   = 16384 // rows waiting
	forgetBatch  = 4096
	forgetLimit  = 2 * time.Second
	closingLimit = time.Second
)

// forgetter deletes rows that their own writer has delivered, later and together: the
// writer's caller does not wait for it. What it fails to delete, or has no room
// for, is delivered once more by a relay.
type forgetter struct {
	wake  chan struct{}
	every time.Duration // shorter than a relay's grace, or it would deliver them too

	mu  sync.Mutex
	ids []int64
}

func (f *forgetter) add(rows []Row) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, row := range rows[:min(len(rows), forgetMost-len(f.ids))] {
		f.ids = append(f.ids, row.ID)
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *forgetter) take() []int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(len(f.ids), forgetBatch)
	ids := f.ids[:n:n]
	f.ids = f.ids[n:]
	if len(f.ids) == 0 {
		f.ids = nil
	}
	return ids
}

func (f *forgetter) run(ctx context.Context, log Log, logger *slog.Logger) {
	for ending := false; !ending; {
		select {
		case <-f.wake:
			pause(ctx, f.every)
		case <-ctx.Done():
		}
		limit := forgetLimit
		if ending = ctx.Err() != nil; ending {
			limit = closingLimit // the last ones
		}
		for ids := f.take(); len(ids) > 0; ids = f.take() {
			deleteCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
			err := log.Forget(deleteCtx, ids)
			cancel()
			if err != nil {
				logger.WarnContext(ctx, "delivered outbox rows were not deleted: a relay will deliver them again", "rows", len(ids), "err", err)
				break
			}
		}
	}
}

package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

const (
	// purgeStep is how many keys a master scans in one step. All other clients wait for a
	// step, which takes well under a millisecond.
	purgeStep = 500
	// purgeTimeout bounds one step.
	purgeTimeout = time.Second
)

// Purge implements driver.Store. It scans every master in small steps, and unlinks entries, so
// that the server frees their memory in the background. When it fails it returns how many it
// has removed.
func (s *Store) Purge(ctx context.Context, pattern string) (int, error) {
	removed := 0
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("redisstore: purge: %w", err)
	}
	t, err := s.waitForProbe(ctx)
	if err != nil {
		return 0, fmt.Errorf("redisstore: purge: %w", err)
	}
	for i := range t.shards {
		sh := &t.shards[i]
		if sh.err != nil {
			return removed, fmt.Errorf("redisstore: purge: %w", sh.err)
		}
		for _, w := range s.names.scanPasses(pattern) {
			n, err := purgeMaster(ctx, sh.control, w)
			removed += n
			if err != nil {
				return removed, fmt.Errorf("redisstore: purge: redis %s: %w", sh.addr, err)
			}
		}
	}
	return removed, nil
}

// purgeMaster makes one pass over one master.
func purgeMaster(ctx context.Context, client rueidis.Client, w scanPass) (removed int, err error) {
	for cursor := uint64(0); ; {
		next, n, err := purgePage(ctx, client, cursor, w)
		removed += n
		if err != nil || next == 0 {
			return removed, err
		}
		cursor = next
	}
}

// purgePage scans some keys of one master.
func purgePage(ctx context.Context, client rueidis.Client, cursor uint64, w scanPass) (next uint64, removed int, err error) {
	ctx, cancel := context.WithTimeout(ctx, purgeTimeout)
	defer cancel()
	scan := client.B().Scan().Cursor(cursor).Match(w.match).Count(purgeStep).Build()
	page, err := client.Do(ctx, scan).AsScanEntry()
	if err != nil {
		return 0, 0, err
	}
	var unlinks rueidis.Commands
	for _, key := range page.Elements {
		if w.entry(key) {
			// One key each: those of a Cluster are in different slots.
			unlinks = append(unlinks, client.B().Unlink().Key(key).Build())
		}
	}
	for _, r := range client.DoMulti(ctx, unlinks...) {
		n, err := r.AsInt64()
		if re, ok := rueidis.IsRedisErr(err); ok {
			if _, moved := re.IsRedirect(); moved {
				continue // its slot is moving to another master, which has its own pass
			}
		}
		if err != nil {
			return 0, removed, err
		}
		removed += int(n)
	}
	return page.Cursor, removed, nil
}

package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

const (
	// purgeStep is how many keys a master looks at in one step, for which everybody else
	// waits: well under a millisecond.
	purgeStep = 500
	// purgeTimeout bounds one step.
	purgeTimeout = time.Second
)

// Purge implements driver.Store. It walks every master in small steps and removes entries
// without making the server free their memory at once. When it fails it returns how many
// it had removed.
func (s *Store) Purge(ctx context.Context, pattern string) (int, error) {
	removed := 0
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("redisstore: purge: %w", err)
	}
	v, err := s.wait(ctx)
	if err != nil {
		return 0, fmt.Errorf("redisstore: purge: %w", err)
	}
	for i := range v.shards {
		sh := &v.shards[i]
		if sh.err != nil {
			return removed, fmt.Errorf("redisstore: purge: %w", sh.err)
		}
		for _, w := range s.names.walks(pattern) {
			n, err := purge(ctx, sh.ctl, w)
			removed += n
			if err != nil {
				return removed, fmt.Errorf("redisstore: purge: redis %s: %w", sh.addr, err)
			}
		}
	}
	return removed, nil
}

// purge walks one master.
func purge(ctx context.Context, client rueidis.Client, w walk) (removed int, err error) {
	for cursor := uint64(0); ; {
		next, n, err := step(ctx, client, cursor, w)
		removed += n
		if err != nil || next == 0 {
			return removed, err
		}
		cursor = next
	}
}

// step looks at some keys of one master.
func step(ctx context.Context, client rueidis.Client, cursor uint64, w walk) (next uint64, removed int, err error) {
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
				continue // its slot is on its way to a master that is walked too, or was
			}
		}
		if err != nil {
			return 0, removed, err
		}
		removed += int(n)
	}
	return page.Cursor, removed, nil
}

package redisstore

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Claim implements driver.Store.
func (s *Store) Claim(ctx context.Context, claims []driver.Claim) ([]driver.Claimed, error) {
	commands := make([]command, 0, 2*len(claims))
	for _, c := range claims {
		// The entry is read after the decision, from the same slot. Two commands, because a
		// script on two keys fails while the slot is moving.
		entry := s.names.entry(c.Key)
		commands = append(commands,
			command{claimScript, []string{s.names.lease(c.Key)}, []string{string(c.Token[:]), string(c.Guard[:]), millis(c.TTL)}},
			command{nil, []string{entry}, []string{"GET"}})
	}
	replies, err := s.exec(ctx, commands)
	if err != nil {
		return nil, fmt.Errorf("redisstore: claim: %w", err)
	}
	claimed := make([]driver.Claimed, len(claims))
	for i := range claims {
		if err := readClaimed(replies[2*i], &claimed[i]); err != nil {
			return nil, fmt.Errorf("redisstore: claim %q: %w", shorten(claims[i].Key), err)
		}
		claimed[i].Entry = s.decodeEntry(claims[i].Key, replies[2*i+1])
	}
	return claimed, nil
}

// readClaimed reads the reply to claimScript.
func readClaimed(r rueidis.RedisResult, claimed *driver.Claimed) error {
	cols, err := r.ToArray()
	if err != nil {
		return err
	}
	if len(cols) != 3 {
		return fmt.Errorf("the script returned %d values, want 3", len(cols))
	}
	state, err := cols[0].AsInt64()
	if err != nil {
		return err
	}
	wait, err := cols[1].AsInt64()
	if err != nil {
		return err
	}
	claimed.State = driver.ClaimState(state)
	claimed.Wait = time.Duration(wait) * time.Millisecond
	if failure, err := cols[2].AsBytes(); err == nil {
		claimed.Failure = failure
	} else if !rueidis.IsRedisNil(err) {
		return err
	}
	return nil
}

// Renew implements driver.Store.
func (s *Store) Renew(ctx context.Context, key string, token driver.Token, ttl time.Duration) error {
	replies, err := s.exec(ctx, []command{{renewScript, []string{s.names.lease(key)}, []string{string(token[:]), millis(ttl)}}})
	if err != nil {
		return fmt.Errorf("redisstore: renew %q: %w", shorten(key), err)
	}
	if held, err := replies[0].AsInt64(); err != nil {
		return fmt.Errorf("redisstore: renew %q: %w", shorten(key), err)
	} else if held == 0 {
		return driver.ErrLeaseLost
	}
	return nil
}

// Settle implements driver.Store. The announcement follows the entry on the same connection, so
// a waiter that receives it finds the entry.
func (s *Store) Settle(ctx context.Context, fills []driver.Fill) error {
	commands := make([]command, 0, 1+2*len(fills))
	var tags []string
	var life time.Duration
	for _, f := range fills {
		if f.Entry == nil {
			continue
		}
		for _, tag := range f.Tags {
			tags = append(tags, s.names.tag(tag))
		}
		// Twice as long as the entry: extendScript is not exact, and the next entry under
		// the same versions comes later.
		// Neither may overflow: an entry may live for as long as a Duration can say.
		life = max(life, s.cfg.TagLife, 2*min(f.Life, math.MaxInt64/2))
	}
	if len(tags) > 0 {
		slices.Sort(tags)
		commands = append(commands, command{extendScript, slices.Compact(tags), []string{millis(life)}})
	}
	for _, f := range fills {
		outcome := ""
		switch {
		case f.Entry != nil:
			outcome = "filled"
			commands = append(commands, command{nil, []string{s.names.entry(f.Key)}, []string{"SET", s.pack(f.Entry), "PX", millis(f.Life)}})
		case f.Failure != nil:
			outcome = "failed"
		}
		commands = append(commands, command{settleScript, []string{s.names.lease(f.Key)},
			[]string{string(f.Token[:]), outcome, string(f.Failure), millis(f.Hold), s.names.channel(), f.Key}})
	}
	if _, err := s.exec(ctx, commands); err != nil {
		return fmt.Errorf("redisstore: settle: %w", err)
	}
	return nil
}

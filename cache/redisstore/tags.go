package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Fence implements driver.Store.
func (s *Store) Fence(ctx context.Context, tags []driver.Tag, mark driver.Mark, lease time.Duration) error {
	if err := s.turn(ctx, tags, mark, millis(lease)); err != nil {
		return fmt.Errorf("redisstore: fence: %w", err)
	}
	return nil
}

// Bump implements driver.Store.
func (s *Store) Bump(ctx context.Context, tags []driver.Tag, mark driver.Mark) error {
	if err := s.turn(ctx, tags, mark, "0"); err != nil {
		return fmt.Errorf("redisstore: bump: %w", err)
	}
	return nil
}

// turn gives each tag a version of its own: one for all would tell what changed together.
func (s *Store) turn(ctx context.Context, tags []driver.Tag, mark driver.Mark, lease string) error {
	names := make([]string, len(tags))
	for i, tag := range tags {
		names[i] = s.names.tag(tag)
	}
	args := []string{millis(s.cfg.TagLife), string(mark[:]), lease} // and the versions, see build
	_, err := s.exec(ctx, []command{{turnScript, names, args}})
	return err
}

package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// Fence implements driver.Store.
func (s *Store) Fence(ctx context.Context, tags []driver.Tag, mark driver.Mark, lease time.Duration) error {
	if err := s.setVersions(ctx, tags, mark, millis(lease)); err != nil {
		return fmt.Errorf("redisstore: fence: %w", err)
	}
	return nil
}

// Bump implements driver.Store.
func (s *Store) Bump(ctx context.Context, tags []driver.Tag, mark driver.Mark) error {
	if err := s.setVersions(ctx, tags, mark, "0"); err != nil {
		return fmt.Errorf("redisstore: bump: %w", err)
	}
	return nil
}

// setVersions gives each tag a version of its own. One for all would reveal which tags changed
// together.
func (s *Store) setVersions(ctx context.Context, tags []driver.Tag, mark driver.Mark, lease string) error {
	names := make([]string, len(tags))
	for i, tag := range tags {
		names[i] = s.names.tag(tag)
	}
	args := []string{millis(s.cfg.TagLife), string(mark[:]), lease} // build appends the versions
	_, err := s.exec(ctx, []command{{setVersionScript, names, args}})
	return err
}

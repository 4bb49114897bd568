package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// Fence implements cache.Store.
func (s *Store) Fence(ctx context.Context, tags []cache.Tag, mark cache.Mark, lease time.Duration) error {
	if err := s.turn(ctx, tags, mark, millis(lease)); err != nil {
		return fmt.Errorf("redisstore: fence: %w", err)
	}
	return nil
}

// Bump implements cache.Store.
func (s *Store) Bump(ctx context.Context, tags []cache.Tag, mark cache.Mark) error {
	if err := s.turn(ctx, tags, mark, "0"); err != nil {
		return fmt.Errorf("redisstore: bump: %w", err)
	}
	return nil
}

// turn gives each tag a version of its own: one for all would tell what changed together.
func (s *Store) turn(ctx context.Context, tags []cache.Tag, mark cache.Mark, lease string) error {
	life := millis(s.cfg.TagLife)
	commands := make([]command, len(tags))
	for i, tag := range tags {
		commands[i] = command{turnScript, s.names.tag(tag), []string{life, string(mark[:]), lease}} // and a version, see build
	}
	_, err := s.exec(ctx, commands)
	return err
}

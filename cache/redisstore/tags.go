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
		fresh := cache.NewVersion()
		commands[i] = command{turnScript, s.names.tag(tag), []string{string(fresh[:]), life, string(mark[:]), lease}}
	}
	_, err := s.exec(ctx, commands)
	return err
}

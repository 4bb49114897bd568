package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
)

// sharedSettings are those of a command that changes what all processes share. It needs no database.
type sharedSettings struct {
	storeSettings
	logSettings
}

// with calls do with the cache that all processes share.
func (s *sharedSettings) with(env *environment, do func(context.Context, *cache.Cache) error) error {
	wrong := &settingsError{}
	if s.RedisURL == "" {
		wrong.add("REDIS_URL", "is not set: then each process has a cache of its own, which another cannot change; restart the service instead")
	}
	s.check(wrong)
	log := s.logger(env, wrong)
	if err := wrong.err(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(env.ctx)
	defer cancel()
	store, timeout, err := openStore(ctx, s.RedisURL, log)
	if err != nil {
		return err
	}
	c, err := cache.New(cache.Config{Store: store, StoreTimeout: timeout, Logger: log})
	if err != nil {
		return errors.Join(err, store.Close())
	}
	return errors.Join(do(ctx, c), c.Close(), store.Close())
}

type invalidateCommand struct {
	sharedSettings
	Tags []string `arg:"" help:"Tags, as cache explain shows them. course:* is every tag of the kind course, * is everything."`
}

func (s *invalidateCommand) Help() string {
	return `No process serves any more what depends on one of the tags: it is loaded again when it is asked for. A tag that no answer depends on is no error.

Examples:
  chainlearn cache invalidate catalog:all
  chainlearn cache invalidate 'course:*'
  chainlearn cache invalidate '*'

The exit code is 0 when all processes know, 1 if Redis did not take it, and 2 if a tag is malformed: then nothing is invalidated.`
}

func (s *invalidateCommand) Run(env *environment) error {
	return s.with(env, func(ctx context.Context, c *cache.Cache) error {
		tags := make([]cache.Tag, len(s.Tags))
		for i, tag := range s.Tags {
			tags[i] = cache.Tag(tag)
		}
		err := c.Invalidate(ctx, tags...)
		switch {
		case errors.Is(err, driver.ErrTag):
			return &exitError{exitUsage, err}
		case err != nil:
			return err
		}
		_, err = fmt.Fprintf(env.stdout, "invalidated: %s\n", joined(tags))
		return err
	})
}

type purgeCommand struct {
	sharedSettings
	Pattern string `arg:"" help:"Which keys, as cache explain shows them: * stands for any characters, ? for one."`
	Yes     bool   `help:"Do it. Without it nothing is removed."`
}

func (s *purgeCommand) Help() string {
	return `Removes stored answers from Redis. It makes nothing wrong and nothing right: it is for memory. To have answers loaded again, invalidate their tags, which processes that keep them near hear of, too.

Example:
  chainlearn cache purge --yes 'courses:list:*'

It walks all keys in small steps, which takes Redis some seconds for each million. The exit code is 0 when it has seen all of them.`
}

func (s *purgeCommand) Run(env *environment) error {
	if !s.Yes {
		return &exitError{exitUsage, fmt.Errorf("purge removes every stored answer whose key matches %q, and the database is asked for them again: say --yes if that is meant", s.Pattern)}
	}
	return s.with(env, func(ctx context.Context, c *cache.Cache) error {
		n, err := c.Purge(ctx, s.Pattern)
		if err != nil {
			return fmt.Errorf("after %d answers: %w", n, err)
		}
		_, err = fmt.Fprintf(env.stdout, "removed: %d\n", n)
		return err
	})
}

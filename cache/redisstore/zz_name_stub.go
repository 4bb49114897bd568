package redisstore

import "context"

// Name is a stub.
func (s *Store) Name(ctx context.Context) (string, error) { return "redis-stub", nil }

package ratelimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

// scripts runs the scripts of redis_rate by way of rueidis, so that one client library, with one
// way to configure it, speaks to Redis. It implements what redis_rate asks of a client.
type scripts struct {
	options rueidis.ClientOption
	prefix  string

	client atomic.Pointer[rueidis.Client] // nil until Redis was reached

	mu     sync.Mutex // held while connecting
	closed bool       // guarded by mu
}

func newScripts(options rueidis.ClientOption, prefix string) *scripts {
	options.DisableCache = true
	options.DisableRetry = true // a request does not wait for a second attempt
	options.PipelineMultiplex = -1
	options.Dialer.Timeout = cmp.Or(options.Dialer.Timeout, callTimeout)
	options.Sentinel.Dialer.Timeout = cmp.Or(options.Sentinel.Dialer.Timeout, callTimeout)
	options.ConnWriteTimeout = cmp.Or(options.ConnWriteTimeout, time.Second)
	return &scripts{options: options, prefix: prefix}
}

// connect returns the client. It dials if Redis was never reached; later rueidis does.
func (s *scripts) connect() (rueidis.Client, error) {
	if client := s.client.Load(); client != nil {
		return *client, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if client := s.client.Load(); client != nil {
		return *client, nil
	}
	if s.closed {
		return nil, rueidis.ErrClosing
	}
	client, err := rueidis.NewClient(s.options)
	if err != nil {
		return nil, err
	}
	s.client.Store(&client)
	return client, nil
}

func (s *scripts) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if client := s.client.Load(); client != nil {
		(*client).Close()
	}
}

// redisError is an error that redis_rate knows for one of Redis, such as NOSCRIPT.
type redisError struct{ error }

func (redisError) RedisError() {}

func (s *scripts) run(ctx context.Context, command string, script string, keys []string, args []any) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	client, err := s.connect()
	if err != nil {
		cmd.SetErr(err)
		return cmd
	}
	texts := make([]string, len(args))
	for i, arg := range args {
		texts[i] = fmt.Sprint(arg)
	}
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = s.prefix + key
	}
	value, err := client.Do(ctx, client.B().Arbitrary(command, script, fmt.Sprint(len(keys))).Keys(names...).Args(texts...).Build()).ToAny()
	if e, ok := rueidis.IsRedisErr(err); ok {
		err = redisError{e}
	}
	if err != nil {
		cmd.SetErr(err)
	}
	cmd.SetVal(value)
	return cmd
}

func (s *scripts) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return s.run(ctx, "EVAL", script, keys, args)
}

func (s *scripts) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	return s.run(ctx, "EVALSHA", sha, keys, args)
}

// The rest is for uses of redis_rate that there are none of here.

var errUnused = errors.New("not used")

func (s *scripts) EvalRO(ctx context.Context, _ string, _ []string, _ ...any) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	cmd.SetErr(errUnused)
	return cmd
}

func (s *scripts) EvalShaRO(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	return s.EvalRO(ctx, sha, keys, args...)
}

func (s *scripts) ScriptExists(ctx context.Context, _ ...string) *redis.BoolSliceCmd {
	cmd := redis.NewBoolSliceCmd(ctx)
	cmd.SetErr(errUnused)
	return cmd
}

func (s *scripts) ScriptLoad(ctx context.Context, _ string) *redis.StringCmd {
	cmd := redis.NewStringCmd(ctx)
	cmd.SetErr(errUnused)
	return cmd
}

func (s *scripts) Del(ctx context.Context, _ ...string) *redis.IntCmd {
	cmd := redis.NewIntCmd(ctx)
	cmd.SetErr(errUnused)
	return cmd
}

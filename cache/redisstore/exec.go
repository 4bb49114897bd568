package redisstore

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/cache"
)

// command is a script on a key or, if script is nil, a plain command.
type command struct {
	script *script
	key    string
	args   []string // of the script, or the whole plain command
}

// build makes the request. With whole the script is sent in full; the server then knows it.
func (c command) build(b rueidis.Builder, whole bool) rueidis.Completed {
	if c.script == turnScript {
		// A new version each time it is sent: what is sent again because a connection was
		// lost may run twice, with other writes in between, and under the same version
		// would bring back what they have ended.
		v := cache.NewVersion()
		c.args = append([]string{string(v[:])}, c.args...)
	}
	switch {
	case c.script == nil:
		return b.Arbitrary(c.args[0]).Keys(c.key).Args(c.args[1:]...).Build()
	case whole:
		return b.Eval().Script(c.script.source).Numkeys(1).Key(c.key).Arg(c.args...).Build()
	default:
		return b.Evalsha().Sha1(c.script.digest).Numkeys(1).Key(c.key).Arg(c.args...).Build()
	}
}

// exec sends commands to the masters of their keys, in one trip, following redirections,
// and returns the replies in order; it fails if any of them did. Commands for one slot are
// run in order. All of them may be repeated without harm, and together they are: once if a
// server did not know a script, and once if a connection was lost.
func (s *Store) exec(ctx context.Context, commands []command) ([]rueidis.RedisResult, error) {
	if len(commands) == 0 {
		return nil, ctx.Err()
	}
	c, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.end(c)

	whole, waited := false, false // each may become true once
	for {
		client, built, err := s.address(commands, whole)
		if err != nil {
			return nil, err
		}
		if client == nil { // not connected: no call dials
			if waited {
				return nil, errNoConnection
			}
			waited = true
			if _, err := s.wait(c.ctx); err != nil {
				return nil, err
			}
			continue
		}
		replies := client.DoMulti(c.ctx, built...)
		err = firstError(replies)
		if err == nil {
			return replies, nil
		}
		re, answered := rueidis.IsRedisErr(err)
		switch {
		case answered && re.IsNoScript() && !whole:
			whole = true
		case !answered && !waited && c.ctx.Err() == nil:
			waited = true
			if _, err := s.wait(c.ctx); err != nil {
				return nil, err
			}
		default:
			if answered && strings.Contains(err.Error(), "READONLY") {
				s.distrust()
			}
			return nil, err
		}
	}
}

// firstError returns the first error among replies that is not an unknown script, else
// that, else nil.
func firstError(replies []rueidis.RedisResult) error {
	var unknown error
	for _, r := range replies {
		err := r.Error()
		if err == nil || rueidis.IsRedisNil(err) || isWrongType(err) {
			continue
		}
		if re, ok := rueidis.IsRedisErr(err); !ok || !re.IsNoScript() {
			return err
		}
		unknown = err
	}
	return unknown
}

var errNoConnection = errors.New("no connection to redis")

// address builds the commands for the client that they are to go through. It returns no
// client if one of them would find no connection, and fails if it is known that there is
// none to be had.
func (s *Store) address(commands []command, whole bool) (rueidis.Client, []rueidis.Completed, error) {
	if err := s.down.Load(); err != nil {
		return nil, nil, *err
	}
	v, writer := s.view.Load(), s.writer.Load()
	if v == nil || writer == nil {
		return nil, nil, nil
	}
	built := make([]rueidis.Completed, len(commands))
	for i, c := range commands {
		built[i] = c.build((*writer).B(), whole)
		if sh := v.shard(built[i].Slot()); sh != nil && sh.node.live.Load() == 0 {
			if sh.err != nil {
				return nil, nil, sh.err
			}
			return nil, nil, nil
		}
	}
	return *writer, built, nil
}

// millis is d as the scripts take it: whole ms, and at least one, because Redis refuses to
// let a key live for none.
func millis(d time.Duration) string {
	return strconv.FormatInt(max((d+time.Millisecond-1).Milliseconds(), 1), 10)
}

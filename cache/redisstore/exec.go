package redisstore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// command is a script or, if that is nil, a plain command. Those scripts that do the same to
// each of their keys may be given several, and are sent as few times as the server allows.
type command struct {
	script *script
	keys   []string
	args   []string // of the script, or the whole plain command but for its key
}

// mostKeys bounds how long one script keeps all others waiting.
const mostKeys = 64

// build makes the request for some of the command's keys. With whole the script is sent in
// full; the server then knows it.
func (c command) build(b rueidis.Builder, keys []string, whole bool) rueidis.Completed {
	args := c.args
	if c.script == turnScript {
		// New versions each time it is sent: what is sent again because a connection was
		// lost may run twice, with other writes in between, and under the same versions
		// would bring back what they have ended.
		args = slices.Grow(slices.Clone(args), len(keys))
		for range keys {
			v := driver.NewVersion()
			args = append(args, string(v[:]))
		}
	}
	n := int64(len(keys))
	switch {
	case c.script == nil:
		return b.Arbitrary(args[0]).Keys(keys...).Args(args[1:]...).Build()
	case whole:
		return b.Eval().Script(c.script.source).Numkeys(n).Key(keys...).Arg(args...).Build()
	default:
		return b.Evalsha().Sha1(c.script.digest).Numkeys(n).Key(keys...).Arg(args...).Build()
	}
}

// exec sends commands to the masters of their keys, in one trip, following redirections, and
// returns the replies in order, one for each command if all of them have one key; it fails if
// any of them did. Commands for one slot are run in order. All of them may be repeated without
// harm, and together they are: once if a server did not know a script, and once if a connection
// was lost.
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
	together := mostKeys
	if v.slots != nil {
		together = 1 // each key is in a slot of its own
	}
	built := make([]rueidis.Completed, 0, len(commands))
	for _, c := range commands {
		for keys := range slices.Chunk(c.keys, together) {
			request := c.build((*writer).B(), keys, whole)
			if sh := v.shard(request.Slot()); sh != nil && sh.node.live.Load() == 0 {
				return nil, nil, sh.err
			}
			built = append(built, request)
		}
	}
	return *writer, built, nil
}

// millis is d as the scripts take it: whole ms, and at least one, because Redis refuses to
// let a key live for none.
func millis(d time.Duration) string {
	return strconv.FormatInt(max((d+time.Millisecond-1).Milliseconds(), 1), 10)
}

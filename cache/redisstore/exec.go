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

// command is a script or, if that is nil, a plain command. A script that does the same to each
// of its keys may have several, and is sent as few times as the server allows.
type command struct {
	script *script
	keys   []string
	args   []string // of the script, or the whole plain command but for its key
}

// maxScriptKeys bounds how long one script makes all other clients wait.
const maxScriptKeys = 64

// build makes the request for some of the command's keys. With inFull, it sends the source of
// the script; the server knows the script from then on.
func (c command) build(b rueidis.Builder, keys []string, inFull bool) rueidis.Completed {
	args := c.args
	if c.script == setVersionScript {
		// New versions each time it is sent. A command that is repeated because a
		// connection was lost may run twice, with a bump by another process in between.
		// With the same version, the second run would make entries valid again that the
		// bump has invalidated.
		args = slices.Grow(slices.Clone(args), len(keys))
		for range keys {
			v := driver.NewVersion() // Decision 28.
			args = append(args, string(v[:]))
		}
	}
	n := int64(len(keys))
	switch {
	case c.script == nil:
		return b.Arbitrary(args[0]).Keys(keys...).Args(args[1:]...).Build()
	case inFull:
		return b.Eval().Script(c.script.source).Numkeys(n).Key(keys...).Arg(args...).Build()
	default:
		return b.Evalsha().Sha1(c.script.digest).Numkeys(n).Key(keys...).Arg(args...).Build()
	}
}

// exec sends commands over the control connections to the masters of their keys, in one round
// trip, and follows redirections. It returns the replies in order, one for each command if all
// of them have one key, and fails if any command failed. Commands for one slot run in order. All
// commands may be repeated without harm. All of them are repeated together: once if a server did
// not know a script, and once if a connection was lost.
func (s *Store) exec(ctx context.Context, commands []command) ([]rueidis.RedisResult, error) {
	if len(commands) == 0 {
		return nil, ctx.Err()
	}
	c, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.end(c)

	inFull, waited := false, false // each may become true once
	for {
		client, requests, err := s.route(commands, inFull)
		if err != nil {
			return nil, err
		}
		if client == nil { // not connected: no call dials
			if waited {
				return nil, errNoConnection
			}
			waited = true
			if _, err := s.waitForProbe(c.ctx); err != nil {
				return nil, err
			}
			continue
		}
		replies := client.DoMulti(c.ctx, requests...)
		err = firstError(replies)
		if err == nil {
			return replies, nil
		}
		re, answered := rueidis.IsRedisErr(err)
		switch {
		case answered && re.IsNoScript() && !inFull:
			inFull = true
		case !answered && !waited && c.ctx.Err() == nil:
			waited = true
			if _, err := s.waitForProbe(c.ctx); err != nil {
				return nil, err
			}
		default:
			if answered && strings.Contains(err.Error(), "READONLY") {
				s.unverify()
			}
			return nil, err
		}
	}
}

// firstError returns the first error among replies that is not an unknown script. Without one it
// returns an unknown script, or nil.
func firstError(replies []rueidis.RedisResult) error {
	var unknownScript error
	for _, r := range replies {
		err := r.Error()
		if err == nil || rueidis.IsRedisNil(err) || isWrongType(err) {
			continue
		}
		if re, ok := rueidis.IsRedisErr(err); !ok || !re.IsNoScript() {
			return err
		}
		unknownScript = err
	}
	return unknownScript
}

var errNoConnection = errors.New("no connection to redis")

// route builds the requests for commands and returns the client to send them by. It returns no
// client while there is no connection yet, and fails if Redis, or the master of a key, is known
// to be unavailable.
func (s *Store) route(commands []command, inFull bool) (rueidis.Client, []rueidis.Completed, error) {
	if err := s.down.Load(); err != nil {
		return nil, nil, *err
	}
	t, control := s.topology.Load(), s.control.Load()
	if t == nil || control == nil {
		return nil, nil, nil
	}
	perScript := maxScriptKeys
	if t.slots != nil {
		perScript = 1 // keys are in different slots
	}
	requests := make([]rueidis.Completed, 0, len(commands))
	for _, c := range commands {
		for keys := range slices.Chunk(c.keys, perScript) {
			request := c.build((*control).B(), keys, inFull)
			if sh := t.shard(request.Slot()); sh != nil && sh.controlEndpoint.openConns.Load() == 0 {
				return nil, nil, sh.err
			}
			requests = append(requests, request)
		}
	}
	return *control, requests, nil
}

// millis is d as the scripts take it: whole ms, and at least one, because Redis refuses a life
// of none.
func millis(d time.Duration) string {
	n := d.Milliseconds()
	if d%time.Millisecond > 0 { // rounded up; adding first would overflow for the longest
		n++
	}
	return strconv.FormatInt(max(n, 1), 10)
}

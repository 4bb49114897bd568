package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/cache/driver"
)

const (
	versionSize = len(driver.Version{})
	markSize    = len(driver.Mark{}) + 8
)

// wellFormed reports whether s is what the scripts write as the value of a tag.
func wellFormed(s string) bool {
	return len(s) >= versionSize && (len(s)-versionSize)%markSize == 0
}

// Read implements driver.Store.
func (s *Store) Read(ctx context.Context, tags []driver.Tag, keys []string) (driver.Snapshot, error) {
	c, err := s.begin(ctx)
	if err != nil {
		return driver.Snapshot{}, fmt.Errorf("redisstore: read: %w", err)
	}
	defer s.end(c)
	t := s.topology.Load()
	switch {
	case t == nil || s.down.Load() != nil:
		err = s.unavailable()
	case !t.observed.Load():
		err = driver.ErrUnproven
	default:
		var snap driver.Snapshot
		if snap, err = s.readSnapshot(c.ctx, t, tags, keys); err == nil {
			return snap, nil
		}
	}
	return driver.Snapshot{}, fmt.Errorf("redisstore: read: %w", err)
}

// readSnapshot gets everything by one MGET or, in a Cluster, by a GET for each name, all in one
// round trip. Tags that are new, or bear marks, are then read by a script, which knows the time.
func (s *Store) readSnapshot(ctx context.Context, t *topology, tags []driver.Tag, keys []string) (driver.Snapshot, error) {
	snap := driver.Snapshot{States: make([]driver.TagState, len(tags)), Entries: make([][]byte, len(keys))}
	if len(tags)+len(keys) == 0 {
		return snap, nil
	}
	var room [8]string // most answers have a few tags: no allocation
	names := s.appendNames(room[:0], tags, keys)
	var unread []int // tags
	var err error
	if t.slots == nil {
		unread, err = s.readFromMaster(ctx, t, names, snap, keys)
	} else {
		unread, err = s.readFromCluster(ctx, t, names, snap, keys)
	}
	if err != nil || unread == nil {
		return snap, err
	}
	return snap, s.readTags(ctx, t, names, unread, snap.States)
}

// readFromMaster reads from the only master. One command with one reply is faster than as many
// GETs, for the server and for its client: see BenchmarkHit. It returns the indexes of the tags
// that a script must read.
// Decision 27.
func (s *Store) readFromMaster(ctx context.Context, t *topology, names []string, snap driver.Snapshot, keys []string) (unread []int, err error) {
	sh := &t.shards[0]
	if err := s.checkShard(sh); err != nil {
		return nil, err
	}
	reply := sh.read.client.Do(ctx, t.build.Mget().Key(names...).Build())
	if !sh.verified() {
		return nil, s.connectionChanged(ctx, []rueidis.RedisResult{reply})
	}
	values, err := reply.ToArray()
	if err != nil {
		if callErr := s.classifyError(ctx, err); callErr != nil {
			return nil, callErr
		}
		return nil, err
	}
	if len(values) != len(names) {
		return nil, fmt.Errorf("MGET of %d keys returned %d values", len(names), len(values))
	}
	tags := len(names) - len(keys)
	for i := range snap.States {
		if text, err := values[i].ToString(); err == nil && len(text) == versionSize {
			snap.States[i].Version = sh.info.identity.effective(text)
		} else {
			unread = append(unread, i)
		}
	}
	for i, key := range keys {
		snap.Entries[i] = s.decodeEntry(key, &values[tags+i])
	}
	return unread, nil
}

// readFromCluster is readFromMaster for a Cluster.
func (s *Store) readFromCluster(ctx context.Context, t *topology, names []string, snap driver.Snapshot, keys []string) (unread []int, err error) {
	gets := make([]rueidis.Completed, len(names))
	for i, name := range names {
		gets[i] = t.build.Get().Key(name).Build()
	}
	replies, err := s.send(ctx, t, gets)
	if err != nil {
		return nil, err
	}
	for i := range snap.States {
		text, err := replies[i].ToString()
		switch {
		case err == nil && len(text) == versionSize:
			snap.States[i].Version = t.shard(gets[i].Slot()).info.identity.effective(text)
		case isAsk(err):
			snap.States[i] = movingTag()
		default:
			unread = append(unread, i)
		}
	}
	tags := len(names) - len(keys)
	for i, key := range keys {
		snap.Entries[i] = s.decodeEntry(key, replies[tags+i])
	}
	return unread, nil
}

// readTags reads the tags whose indexes among names are given, by readTagScript.
func (s *Store) readTags(ctx context.Context, t *topology, names []string, indexes []int, states []driver.TagState) error {
	life := millis(s.cfg.TagLife)
	scripts := make([]rueidis.Completed, len(indexes))
	unread := make([]string, len(indexes))
	for n, i := range indexes {
		unread[n] = names[i]
	}
	for _, inFull := range []bool{false, true} {
		for n := range unread {
			fresh := driver.NewVersion()
			scripts[n] = command{readTagScript, nil, []string{string(fresh[:]), life}}.build(t.build, unread[n:n+1], inFull)
		}
		replies, err := s.send(ctx, t, scripts)
		if err != nil {
			return err
		}
		unknownScript := false
		for n, i := range indexes {
			text, err := replies[n].ToString()
			switch {
			case err == nil && wellFormed(text):
				states[i] = driver.TagState{
					Version: t.shard(scripts[n].Slot()).info.identity.effective(text),
					Fenced:  len(text) > versionSize,
				}
			case isAsk(err):
				states[i] = movingTag()
			case isNoScript(err) && !inFull:
				unknownScript = true
			case err != nil:
				return err
			default:
				return fmt.Errorf("tag %q: the script returned %d bytes", shorten(unread[n]), len(text))
			}
		}
		if !unknownScript {
			break
		}
	}
	return nil
}

// movingTag is the state of a tag whose slot is moving to another master: a fence, so that no
// answer depends on it until the topology has changed.
func movingTag() driver.TagState {
	return driver.TagState{Version: driver.NewVersion(), Fenced: true}
}

// appendNames appends the names of all tags and keys, cut from one string.
func (s *Store) appendNames(names []string, tags []driver.Tag, keys []string) []string {
	size := 0
	for _, t := range tags {
		size += len(s.names) + len(tagInfix) + len(t)
	}
	for _, k := range keys {
		size += len(s.names) + len(entryInfix(k)) + len(k)
	}
	var b strings.Builder
	b.Grow(size)
	add := func(infix, rest string) {
		start := b.Len()
		b.WriteString(string(s.names))
		b.WriteString(infix)
		b.WriteString(rest)
		names = append(names, b.String()[start:])
	}
	for _, t := range tags {
		add(tagInfix, string(t))
	}
	for _, k := range keys {
		add(entryInfix(k), k)
	}
	return names
}

// send sends commands over the read connections of their masters, all at the same time, and
// returns the replies in order. It returns replies only if all of them came from the
// incarnations in t. Some of them may be errors, but only errors that concern one key alone:
// absent, of another type, moving to another master, unknown script.
func (s *Store) send(ctx context.Context, t *topology, commands []rueidis.Completed) ([]rueidis.RedisResult, error) {
	var replies []rueidis.RedisResult
	if t.slots == nil {
		sh := &t.shards[0]
		if err := s.checkShard(sh); err != nil {
			return nil, err
		}
		replies = sh.read.client.DoMulti(ctx, commands...)
		if !sh.verified() {
			return nil, s.connectionChanged(ctx, replies)
		}
	} else {
		var err error
		if replies, err = s.sendToCluster(ctx, t, commands); err != nil {
			return nil, err
		}
	}
	for i := range replies {
		if err := replies[i].Error(); err != nil {
			if err := s.classifyError(ctx, err); err != nil {
				return nil, err
			}
		}
	}
	return replies, nil
}

// sendToCluster is send for a Cluster.
func (s *Store) sendToCluster(ctx context.Context, t *topology, commands []rueidis.Completed) ([]rueidis.RedisResult, error) {
	groups := make(map[*shard][]int, len(t.shards))
	for i := range commands {
		sh := t.shard(commands[i].Slot())
		if err := s.checkShard(sh); err != nil {
			return nil, err
		}
		groups[sh] = append(groups[sh], i)
	}
	replies := make([]rueidis.RedisResult, len(commands))
	run := func(sh *shard, indexes []int) {
		batch := make([]rueidis.Completed, len(indexes))
		for n, i := range indexes {
			batch[n] = commands[i]
		}
		for n, r := range sh.read.client.DoMulti(ctx, batch...) {
			replies[indexes[n]] = r
		}
	}
	var wg sync.WaitGroup
	rest := len(groups)
	for sh, indexes := range groups {
		if rest--; rest == 0 {
			run(sh, indexes) // in this goroutine: one key alone starts none
		} else {
			wg.Go(func() { run(sh, indexes) })
		}
	}
	wg.Wait()
	for sh := range groups {
		if !sh.verified() {
			return nil, s.connectionChanged(ctx, replies)
		}
	}
	return replies, nil
}

// connectionChanged returns the error for replies that came while the generation of a read
// connection changed. A call that is alone on its connection and runs out of time ends the
// connection itself, possibly a moment before its context ends. Such a call returns its own
// error, and not ErrUnproven.
func (s *Store) connectionChanged(ctx context.Context, replies []rueidis.RedisResult) error {
	for i := range replies {
		if err := replies[i].NonRedisError(); errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.unavailable()
}

// checkShard fails if sh is not verified.
func (s *Store) checkShard(sh *shard) error {
	switch {
	case sh == nil:
		return s.slotUnknown()
	case sh.err != nil:
		return sh.err
	case !sh.verified():
		return s.unavailable()
	}
	return nil
}

// slotUnknown returns the error for a key whose slot no known master has, and wakes monitor.
func (s *Store) slotUnknown() error {
	s.wake()
	return driver.ErrUnproven
}

// classifyError returns nil for errors that concern one key alone, else the error of the call.
func (s *Store) classifyError(ctx context.Context, err error) error {
	if rueidis.IsRedisNil(err) {
		return nil
	}
	re, answered := rueidis.IsRedisErr(err)
	switch {
	case !answered && (ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded)):
		return err
	case !answered:
		return s.unavailable() // the connection
	case isWrongType(err), isAsk(err), re.IsNoScript():
		return nil
	}
	if _, moved := re.IsMoved(); moved {
		return s.slotUnknown()
	}
	if strings.Contains(err.Error(), "READONLY") {
		s.unverify()
	}
	return err
}

func isWrongType(err error) bool {
	re, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(re.Error(), "WRONGTYPE")
}

func isAsk(err error) bool {
	re, ok := rueidis.IsRedisErr(err)
	if !ok {
		return false
	}
	_, ask := re.IsAsk()
	return ask
}

func isNoScript(err error) bool {
	re, ok := rueidis.IsRedisErr(err)
	return ok && re.IsNoScript()
}

// shorten shortens what a message quotes.
func shorten(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "… (" + strconv.Itoa(len(s)) + " bytes)"
	}
	return s
}

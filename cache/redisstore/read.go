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
	v := s.view.Load()
	switch {
	case v == nil || s.down.Load() != nil:
		err = s.lost()
	case !v.told.Load():
		err = driver.ErrUnproven
	default:
		var snap driver.Snapshot
		if snap, err = s.read(c.ctx, v, tags, keys); err == nil {
			return snap, nil
		}
	}
	return driver.Snapshot{}, fmt.Errorf("redisstore: read: %w", err)
}

// read gets everything by one MGET or, in a Cluster, by a GET for each name, all at once. Those
// tags that are new, or bear marks, are looked at once more by a script, which knows the
// time.
func (s *Store) read(ctx context.Context, v *view, tags []driver.Tag, keys []string) (driver.Snapshot, error) {
	snap := driver.Snapshot{States: make([]driver.TagState, len(tags)), Entries: make([][]byte, len(keys))}
	if len(tags)+len(keys) == 0 {
		return snap, nil
	}
	var room [8]string // most answers have a few tags: no allocation
	names := s.appendNames(room[:0], tags, keys)
	var look []int // tags
	var err error
	if v.slots == nil {
		look, err = s.readOne(ctx, v, names, snap, keys)
	} else {
		look, err = s.readShards(ctx, v, names, snap, keys)
	}
	if err != nil || look == nil {
		return snap, err
	}
	return snap, s.look(ctx, v, names, look, snap.States)
}

// readOne reads from the one master there is. The server and its client are done with one
// command and one reply sooner than with as many GETs: see BenchmarkHit.
func (s *Store) readOne(ctx context.Context, v *view, names []string, snap driver.Snapshot, keys []string) (look []int, err error) {
	sh := &v.shards[0]
	if err := s.usable(sh); err != nil {
		return nil, err
	}
	reply := sh.lane.client.Do(ctx, v.build.Mget().Key(names...).Build())
	if !sh.proven() {
		return nil, s.interrupted(ctx, []rueidis.RedisResult{reply})
	}
	values, err := reply.ToArray()
	if err != nil {
		if judged := s.judge(ctx, err); judged != nil {
			return nil, judged
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
			look = append(look, i)
		}
	}
	for i, key := range keys {
		snap.Entries[i] = s.entry(key, &values[tags+i])
	}
	return look, nil
}

func (s *Store) readShards(ctx context.Context, v *view, names []string, snap driver.Snapshot, keys []string) (look []int, err error) {
	gets := make([]rueidis.Completed, len(names))
	for i, name := range names {
		gets[i] = v.build.Get().Key(name).Build()
	}
	replies, err := s.ask(ctx, v, gets)
	if err != nil {
		return nil, err
	}
	for i := range snap.States {
		text, err := replies[i].ToString()
		switch {
		case err == nil && len(text) == versionSize:
			snap.States[i].Version = v.shard(gets[i].Slot()).info.identity.effective(text)
		case isAsk(err):
			snap.States[i] = moving()
		default:
			look = append(look, i)
		}
	}
	tags := len(names) - len(keys)
	for i, key := range keys {
		snap.Entries[i] = s.entry(key, replies[tags+i])
	}
	return look, nil
}

// look has lookScript read those tags of names whose indexes are given.
func (s *Store) look(ctx context.Context, v *view, names []string, indexes []int, states []driver.TagState) error {
	life := millis(s.cfg.TagLife)
	scripts := make([]rueidis.Completed, len(indexes))
	looked := make([]string, len(indexes))
	for n, i := range indexes {
		looked[n] = names[i]
	}
	for _, whole := range []bool{false, true} {
		for n := range looked {
			fresh := driver.NewVersion()
			scripts[n] = command{lookScript, nil, []string{string(fresh[:]), life}}.build(v.build, looked[n:n+1], whole)
		}
		replies, err := s.ask(ctx, v, scripts)
		if err != nil {
			return err
		}
		unknown := false
		for n, i := range indexes {
			text, err := replies[n].ToString()
			switch {
			case err == nil && wellFormed(text):
				states[i] = driver.TagState{
					Version: v.shard(scripts[n].Slot()).info.identity.effective(text),
					Fenced:  len(text) > versionSize,
				}
			case isAsk(err):
				states[i] = moving()
			case isNoScript(err) && !whole:
				unknown = true
			case err != nil:
				return err
			default:
				return fmt.Errorf("tag %q: the script returned %d bytes", name(looked[n]), len(text))
			}
		}
		if !unknown {
			break
		}
	}
	return nil
}

// moving is the state of a tag whose slot is on its way to another master: its version is
// there already, but not yet under that master's identity. Nothing depends on it meanwhile.
func moving() driver.TagState {
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

// ask sends commands to the masters of their slots, all at the same
// time, and returns the replies in order. It returns replies only if all of them came from
// the incarnations in v; among them there may be errors, but only those that concern one
// key alone: absent, of another type, on its way to another master, unknown script.
func (s *Store) ask(ctx context.Context, v *view, commands []rueidis.Completed) ([]rueidis.RedisResult, error) {
	var replies []rueidis.RedisResult
	if v.slots == nil {
		sh := &v.shards[0]
		if err := s.usable(sh); err != nil {
			return nil, err
		}
		replies = sh.lane.client.DoMulti(ctx, commands...)
		if !sh.proven() {
			return nil, s.interrupted(ctx, replies)
		}
	} else {
		var err error
		if replies, err = s.askShards(ctx, v, commands); err != nil {
			return nil, err
		}
	}
	for i := range replies {
		if err := replies[i].Error(); err != nil {
			if err := s.judge(ctx, err); err != nil {
				return nil, err
			}
		}
	}
	return replies, nil
}

// askShards is ask for a Cluster.
func (s *Store) askShards(ctx context.Context, v *view, commands []rueidis.Completed) ([]rueidis.RedisResult, error) {
	groups := make(map[*shard][]int, len(v.shards))
	for i := range commands {
		sh := v.shard(commands[i].Slot())
		if err := s.usable(sh); err != nil {
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
		for n, r := range sh.lane.client.DoMulti(ctx, batch...) {
			replies[indexes[n]] = r
		}
	}
	var wg sync.WaitGroup
	rest := len(groups)
	for sh, indexes := range groups {
		if rest--; rest == 0 {
			run(sh, indexes) // the last one here: a key alone needs no goroutine
		} else {
			wg.Go(func() { run(sh, indexes) })
		}
	}
	wg.Wait()
	for sh := range groups {
		if !sh.proven() {
			return nil, s.interrupted(ctx, replies)
		}
	}
	return replies, nil
}

// interrupted is the error for replies that something came between. A call that is alone
// on its lane and runs out of time ends the connection itself, possibly a moment before
// its context knows: that is no reason to doubt the server's identity.
func (s *Store) interrupted(ctx context.Context, replies []rueidis.RedisResult) error {
	for i := range replies {
		if err := replies[i].NonRedisError(); errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.lost()
}

// usable fails if what sh answers could not be believed.
func (s *Store) usable(sh *shard) error {
	switch {
	case sh == nil:
		return s.stray()
	case sh.err != nil:
		return sh.err
	case !sh.proven():
		return s.lost()
	}
	return nil
}

// stray is the error for a key that nobody known has: the next survey finds out who does.
func (s *Store) stray() error {
	s.kick()
	return driver.ErrUnproven
}

// judge returns nil for errors that concern one key alone.
func (s *Store) judge(ctx context.Context, err error) error {
	if rueidis.IsRedisNil(err) {
		return nil
	}
	re, answered := rueidis.IsRedisErr(err)
	switch {
	case !answered && (ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded)):
		return err
	case !answered:
		return s.lost() // the connection
	case isWrongType(err), isAsk(err), re.IsNoScript():
		return nil
	}
	if _, moved := re.IsMoved(); moved {
		return s.stray()
	}
	if strings.Contains(err.Error(), "READONLY") {
		s.distrust()
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

// name shortens what a message quotes.
func name(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "… (" + strconv.Itoa(len(s)) + " bytes)"
	}
	return s
}

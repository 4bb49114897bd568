package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/cache"
)

const (
	versionSize = len(cache.Version{})
	markSize    = len(cache.Mark{}) + 8
)

// wellFormed reports whether s is what the scripts write as the value of a tag.
func wellFormed(s string) bool {
	return len(s) >= versionSize && (len(s)-versionSize)%markSize == 0
}

// Read implements cache.Store.
func (s *Store) Read(ctx context.Context, tags []cache.Tag, keys []string) (cache.Snapshot, error) {
	c, err := s.begin(ctx)
	if err != nil {
		return cache.Snapshot{}, fmt.Errorf("redisstore: read: %w", err)
	}
	defer s.end(c)
	v := s.view.Load()
	switch {
	case v == nil || s.down.Load() != nil:
		err = s.lost()
	case !v.told.Load():
		err = cache.ErrUnproven
	default:
		var snap cache.Snapshot
		if snap, err = s.read(c.ctx, v, tags, keys); err == nil {
			return snap, nil
		}
	}
	return cache.Snapshot{}, fmt.Errorf("redisstore: read: %w", err)
}

// read gets everything by plain GETs. Those tags that are new, or bear marks, are looked
// at once more by a script, which knows the time.
func (s *Store) read(ctx context.Context, v *view, tags []cache.Tag, keys []string) (cache.Snapshot, error) {
	snap := cache.Snapshot{States: make([]cache.TagState, len(tags)), Entries: make([][]byte, len(keys))}
	names := s.namesOf(tags, keys)
	if len(names) == 0 {
		return snap, nil
	}
	gets := make([]rueidis.Completed, len(names))
	for i, name := range names {
		gets[i] = v.client.B().Get().Key(name).Build()
	}
	replies, err := s.ask(ctx, v, gets, names)
	if err != nil {
		return snap, err
	}
	for i := range keys {
		if text, err := replies[len(tags)+i].ToString(); err == nil {
			snap.Entries[i] = s.unpack(keys[i], text)
		}
	}
	var look []int
	for i := range tags {
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
	if look == nil {
		return snap, nil
	}
	return snap, s.look(ctx, v, names, look, snap.States)
}

// look has lookScript read those tags of names whose indexes are given.
func (s *Store) look(ctx context.Context, v *view, names []string, indexes []int, states []cache.TagState) error {
	life := millis(s.cfg.TagLife)
	scripts := make([]rueidis.Completed, len(indexes))
	looked := make([]string, len(indexes))
	for n, i := range indexes {
		looked[n] = names[i]
	}
	for _, whole := range []bool{false, true} {
		for n, name := range looked {
			fresh := cache.NewVersion()
			scripts[n] = command{lookScript, name, []string{string(fresh[:]), life}}.build(v.client.B(), whole)
		}
		replies, err := s.ask(ctx, v, scripts, looked)
		if err != nil {
			return err
		}
		unknown := false
		for n, i := range indexes {
			text, err := replies[n].ToString()
			switch {
			case err == nil && wellFormed(text):
				states[i] = cache.TagState{
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
func moving() cache.TagState {
	return cache.TagState{Version: cache.NewVersion(), Fenced: true}
}

// namesOf returns the names of all tags and keys, cut from one string.
func (s *Store) namesOf(tags []cache.Tag, keys []string) []string {
	size := 0
	for _, t := range tags {
		size += len(s.names) + len(tagInfix) + len(t)
	}
	for _, k := range keys {
		size += len(s.names) + len(entryInfix(k)) + len(k)
	}
	var b strings.Builder
	b.Grow(size)
	names := make([]string, len(tags)+len(keys))
	cut := func(i int, parts ...string) {
		start := b.Len()
		for _, p := range parts {
			b.WriteString(p)
		}
		names[i] = b.String()[start:]
	}
	for i, t := range tags {
		cut(i, string(s.names), tagInfix, string(t))
	}
	for i, k := range keys {
		cut(len(tags)+i, string(s.names), entryInfix(k), k)
	}
	return names
}

// ask sends commands for the keys in names to the masters of their slots, all at the same
// time, and returns the replies in order. It returns replies only if all of them came from
// the incarnations in v; among them there may be errors, but only those that concern one
// key alone: absent, of another type, on its way to another master, unknown script.
func (s *Store) ask(ctx context.Context, v *view, commands []rueidis.Completed, names []string) ([]rueidis.RedisResult, error) {
	var replies []rueidis.RedisResult
	if v.slots == nil {
		sh := &v.shards[0]
		if err := s.usable(sh, ""); err != nil {
			return nil, err
		}
		replies = sh.client.DoMulti(ctx, commands...)
		if !sh.proven() {
			return nil, s.lost()
		}
	} else {
		var err error
		if replies, err = s.askShards(ctx, v, commands, names); err != nil {
			return nil, err
		}
	}
	for i := range replies {
		if err := replies[i].Error(); err != nil {
			if err := s.judge(ctx, err, names[i]); err != nil {
				return nil, err
			}
		}
	}
	return replies, nil
}

// askShards is ask for a Cluster.
func (s *Store) askShards(ctx context.Context, v *view, commands []rueidis.Completed, names []string) ([]rueidis.RedisResult, error) {
	groups := make(map[*shard][]int, len(v.shards))
	for i := range commands {
		sh := v.shard(commands[i].Slot())
		if err := s.usable(sh, names[i]); err != nil {
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
		for n, r := range sh.client.DoMulti(ctx, batch...) {
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
			return nil, s.lost()
		}
	}
	return replies, nil
}

// usable fails if what sh answers could not be believed.
func (s *Store) usable(sh *shard, name string) error {
	switch {
	case sh == nil || sh.client == nil:
		s.astray.Store(&name)
		s.kick()
		return cache.ErrUnproven
	case sh.err != nil:
		return sh.err
	case !sh.proven():
		return s.lost()
	}
	return nil
}

// judge returns nil for errors that concern one key alone.
func (s *Store) judge(ctx context.Context, err error, name string) error {
	if rueidis.IsRedisNil(err) {
		return nil
	}
	re, answered := rueidis.IsRedisErr(err)
	switch {
	case !answered:
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return s.lost() // the connection
	case isWrongType(err), isAsk(err), re.IsNoScript():
		return nil
	}
	if _, moved := re.IsMoved(); moved {
		s.astray.Store(&name)
		s.kick()
		return cache.ErrUnproven
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

package redisstore

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const slotCount = 16384

// view is where the data is and which incarnation of it, as last seen. It is immutable
// but for told, and replaced as a whole.
type view struct {
	shards []shard
	slots  *[slotCount]uint16 // slot → index of its shard + 1; nil unless a Cluster
	build  rueidis.Builder    // of commands that know their slot, in a Cluster

	identity string
	// told says that somebody asked for this identity. What was read before that could
	// hide from the cache that there is a new one.
	told atomic.Bool
}

// shard is a master and what is known of it.
type shard struct {
	addr string
	lane *lane          // for reading
	ctl  rueidis.Client // for everything else, without following redirections
	node *node          // counts the connections of ctl

	gen  uint64 // of the lane, for which info was proven
	info serverInfo
	err  error // why it is not proven; nil if it is
}

// proven reports that everything read through the lane since the identity was established
// came from that incarnation.
func (s *shard) proven() bool { return s.err == nil && s.lane.node.gen.Load() == s.gen }

// shard returns the shard that holds the slot of a key, or nil if none is known.
func (v *view) shard(slot uint16) *shard {
	if v.slots == nil {
		return &v.shards[0]
	}
	if i := v.slots[slot%slotCount]; i > 0 {
		return &v.shards[i-1]
	}
	return nil
}

// find returns the shard at addr, or nil. v may be nil.
func (v *view) find(addr string) *shard {
	if v == nil {
		return nil
	}
	i := slices.IndexFunc(v.shards, func(s shard) bool { return s.addr == addr })
	if i < 0 {
		return nil
	}
	return &v.shards[i]
}

// pace is how soon to look again.
func (v *view) pace() time.Duration {
	if slices.ContainsFunc(v.shards, func(s shard) bool { return s.err != nil }) {
		return impatience
	}
	return heartbeat
}

// same reports that nothing changed from v to w.
func (v *view) same(w *view) bool {
	return v.sameMasters(w) && slices.EqualFunc(v.shards, w.shards, func(a, b shard) bool {
		return a.lane == b.lane && a.gen == b.gen && a.info == b.info && a.err == nil && b.err == nil
	})
}

// sameMasters reports that the same incarnations of the same masters hold the same slots.
func (v *view) sameMasters(w *view) bool {
	if v.identity != w.identity || (v.slots == nil) != (w.slots == nil) || v.slots != nil && *v.slots != *w.slots {
		return false
	}
	return slices.EqualFunc(v.shards, w.shards, func(a, b shard) bool { return a.addr == b.addr })
}

// probe returns the name of a key that sh holds, or would, if v is of a Cluster; else "".
func (v *view) probe(n names, sh *shard) string {
	if v.slots == nil {
		return ""
	}
	const tries = 1 << 18 // a master of one slot is found by one name in 16384
	for i := range tries {
		name := n.lease(fmt.Sprint(i))
		if get := v.build.Get().Key(name).Build(); v.shard(get.Slot()) == sh {
			return name
		}
	}
	return ""
}

// survey finds the masters and proves each of them. It fails if it can prove none. prev is
// what was seen before, or nil.
func (l *link) survey(ctx context.Context, prev *view) (*view, error) {
	v := &view{build: l.client.B()}
	clients := l.client.Nodes()
	if l.client.Mode() == rueidis.ClientModeCluster {
		ranges, err := l.clusterSlots(ctx, clients, prev)
		if err != nil {
			return nil, err
		}
		v.slots = new([slotCount]uint16)
		for _, r := range ranges {
			i := slices.IndexFunc(v.shards, func(s shard) bool { return s.addr == r.master })
			if i < 0 {
				i = len(v.shards)
				v.shards = append(v.shards, shard{addr: r.master})
			}
			for slot := r.first; slot <= r.last; slot++ {
				v.slots[slot] = uint16(i + 1)
			}
		}
	} else {
		for addr := range clients { // one
			v.shards = append(v.shards, shard{addr: addr})
		}
	}
	if len(v.shards) == 0 {
		return nil, errors.New("no master has a slot: the cluster is not set up")
	}
	var wg sync.WaitGroup
	for i := range v.shards {
		s := &v.shards[i]
		s.lane, s.node = l.lane(s.addr), l.ctl.at(s.addr)
		if s.ctl = clients[s.addr]; s.ctl == nil {
			s.ctl = s.lane.client // until the client has heard of a new master
			s.node = s.lane.node
		}
		wg.Go(func() {
			before := prev.find(s.addr)
			if before != nil && before.err != nil {
				if err := l.revive(ctx, s.lane); err != nil {
					s.info, s.err = before.info, fmt.Errorf("redis %s: %w", s.addr, err)
					return
				}
			}
			s.prove(ctx, before)
			if errors.Is(s.err, errSplit) {
				l.cut(s.addr)
			}
		})
	}
	wg.Wait()
	l.keepLanes(v)
	return v, v.sum()
}

// prove establishes who the server is: over the lane, if that has a new connection; else
// it asks beside it whether anything changed, so that a lone reader has the lane alone. A
// connection that is made meanwhile, perhaps by asking, is the reason to ask again.
func (s *shard) prove(ctx context.Context, prev *shard) {
	if prev != nil && prev.lane == s.lane && prev.proven() {
		info, err := interrogate(ctx, s.ctl, s.lane.node, prev.gen)
		if err == nil && info == prev.info {
			s.gen, s.info = prev.gen, info
			return
		}
	}
	s.err = fmt.Errorf("redis %s: its connections come and go", s.addr)
	for range 5 {
		gen := s.lane.node.gen.Load()
		info, err := interrogate(ctx, s.lane.client, s.lane.node, gen)
		if s.lane.node.gen.Load() != gen {
			if ctx.Err() != nil {
				break
			}
			continue
		}
		s.gen, s.info, s.err = gen, info, nil
		if err == nil && s.split(ctx) {
			err = errSplit
		}
		if err != nil {
			s.err = fmt.Errorf("redis %s: %w", s.addr, err)
		}
		break
	}
	if s.err != nil && prev != nil {
		// Who cannot be asked has not changed as far as anybody knows: the others go on.
		s.info = prev.info
	}
}

var errSplit = errors.New("its connections lead to different servers")

// split reports that what is written goes to another server than what is read comes from: the
// address has come to lead elsewhere, and only some of the connections have ended.
func (s *shard) split(ctx context.Context) bool {
	if s.info.nameless || s.ctl == s.lane.client {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout/5) // who is silent is dealt with elsewhere
	defer cancel()
	info, err := interrogate(ctx, s.ctl, s.node, s.node.gen.Load())
	return err == nil && info.identity != s.info.identity
}

// sum makes the identity of the whole from those of the shards.
func (v *view) sum() error {
	names := make([]string, len(v.shards))
	var failed []error
	for i := range v.shards {
		s := &v.shards[i]
		if s.err != nil {
			failed = append(failed, s.err)
		}
		names[i] = string(s.info.identity[:])
	}
	if len(failed) == len(v.shards) {
		return errors.Join(failed...)
	}
	if mode := v.shards[0].info.mode; mode == "cluster" && v.slots == nil {
		return fmt.Errorf("redis %s: it is part of a cluster: use redis+cluster:// or rediss+cluster://", v.shards[0].addr)
	}
	slices.Sort(names)
	id := digest(names...)
	v.identity = hex.EncodeToString(id[:])
	return nil
}

// slotRange is a run of slots and the address of their master.
type slotRange struct {
	first, last int
	master      string
}

// clusterSlots asks one node after the other until one answers; first those that were
// proven when last seen, last those that were lost. Which one answers does not matter: a
// node that does not own a slot says so when it is asked for a key.
func (l *link) clusterSlots(ctx context.Context, clients map[string]rueidis.Client, prev *view) ([]slotRange, error) {
	rank := func(addr string) int {
		switch sh := prev.find(addr); {
		case sh == nil:
			return 1
		case sh.err != nil:
			return 2
		}
		return 0
	}
	addrs := slices.SortedFunc(maps.Keys(clients), func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	err := errors.New("no node of the cluster is known")
	for _, addr := range addrs {
		var rows []rueidis.RedisMessage
		if rows, err = askSlots(ctx, clients[addr]); err == nil {
			return parseSlots(rows, addr), nil
		}
		err = fmt.Errorf("redis %s: CLUSTER SLOTS: %w", addr, err)
	}
	return nil, err
}

func askSlots(ctx context.Context, c rueidis.Client) ([]rueidis.RedisMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout/5) // a node that is silent leaves time for others
	defer cancel()
	return c.Do(ctx, c.B().ClusterSlots().Build()).ToArray()
}

// parseSlots reads CLUSTER SLOTS as asked of addr. It leaves out what it cannot read: the
// keys there have no shard, which is an error where they are read.
func parseSlots(rows []rueidis.RedisMessage, addr string) []slotRange {
	host, _, _ := net.SplitHostPort(addr)
	var ranges []slotRange
	for _, row := range rows {
		cols, err := row.ToArray()
		if err != nil || len(cols) < 3 {
			continue
		}
		first, err1 := cols[0].AsInt64()
		last, err2 := cols[1].AsInt64()
		master, err3 := cols[2].ToArray()
		if err1 != nil || err2 != nil || err3 != nil || len(master) < 2 || first < 0 || last >= slotCount {
			continue
		}
		endpoint, _ := master[0].ToString() // null: the address that we know it by
		port, err := master[1].AsInt64()
		if err != nil || endpoint == "?" {
			continue
		}
		if endpoint == "" {
			endpoint = host
		}
		ranges = append(ranges, slotRange{int(first), int(last), net.JoinHostPort(endpoint, strconv.FormatInt(port, 10))})
	}
	return ranges
}

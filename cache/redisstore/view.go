package redisstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
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
	client rueidis.Client // follows redirections; for writing
	shards []shard
	slots  *[slotCount]uint16 // slot → index of its shard + 1; nil unless a Cluster

	identity string
	// told says that somebody asked for this identity. What was read before that could
	// hide from the cache that there is a new one.
	told atomic.Bool
}

// shard is a master and what is known of it.
type shard struct {
	node   *node
	client rueidis.Client // of this one server; follows nothing
	gen    uint64         // of the node, for which info was proven
	info   serverInfo
	err    error // why it is not proven; nil if it is
}

// proven reports that everything read through the shard since its identity was
// established came from that incarnation.
func (s *shard) proven() bool { return s.err == nil && s.node.gen.Load() == s.gen }

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

// pace is how soon to look again.
func (v *view) pace() time.Duration {
	if slices.ContainsFunc(v.shards, func(s shard) bool { return s.err != nil }) {
		return impatience
	}
	return heartbeat
}

// same reports that nothing changed from v to w.
func (v *view) same(w *view) bool {
	if v.client != w.client || v.identity != w.identity || (v.slots == nil) != (w.slots == nil) {
		return false
	}
	if v.slots != nil && *v.slots != *w.slots {
		return false
	}
	return slices.EqualFunc(v.shards, w.shards, func(a, b shard) bool {
		return a.node == b.node && a.gen == b.gen && a.info == b.info && a.err == nil && b.err == nil
	})
}

// survey finds the masters behind client and proves each of them. It fails if it can
// prove none. prev is what was seen before, or nil.
func survey(ctx context.Context, client rueidis.Client, nodes *nodes, prev *view) (*view, error) {
	v := &view{client: client}
	clients := client.Nodes()
	if client.Mode() == rueidis.ClientModeCluster {
		ranges, err := clusterSlots(ctx, clients)
		if err != nil {
			return nil, err
		}
		v.slots = new([slotCount]uint16)
		for _, r := range ranges {
			i := slices.IndexFunc(v.shards, func(s shard) bool { return s.node.addr == r.master })
			if i < 0 {
				i = len(v.shards)
				v.shards = append(v.shards, shard{node: nodes.at(r.master), client: clients[r.master]})
			}
			for slot := r.first; slot <= r.last; slot++ {
				v.slots[slot] = uint16(i + 1)
			}
		}
	} else {
		for addr, c := range clients { // one
			v.shards = append(v.shards, shard{node: nodes.at(addr), client: c})
		}
	}
	if len(v.shards) == 0 {
		return nil, errors.New("no master has a slot: the cluster is not set up")
	}
	var wg sync.WaitGroup
	for i := range v.shards {
		wg.Go(func() { v.shards[i].prove(ctx, prev) })
	}
	wg.Wait()
	return v, v.sum()
}

// prove establishes who the server is. A connection that is made meanwhile, perhaps by
// asking, is the reason to ask again.
func (s *shard) prove(ctx context.Context, prev *view) {
	if s.client == nil {
		s.err = fmt.Errorf("redis %s: not connected yet", s.node.addr)
		return
	}
	s.err = fmt.Errorf("redis %s: its connections come and go", s.node.addr)
	for range 5 {
		gen := s.node.gen.Load()
		info, err := interrogate(ctx, s.client, s.node, gen)
		if s.node.gen.Load() != gen {
			if ctx.Err() != nil {
				break
			}
			continue
		}
		s.gen, s.info, s.err = gen, info, nil
		if err != nil {
			s.err = fmt.Errorf("redis %s: %w", s.node.addr, err)
		}
		break
	}
	if s.err == nil || prev == nil {
		return
	}
	// Who cannot be asked has not changed as far as anybody knows: the other shards go on.
	for i := range prev.shards {
		if prev.shards[i].node == s.node {
			s.info = prev.shards[i].info
		}
	}
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
		return fmt.Errorf("redis %s: it is part of a cluster: use redis+cluster:// or rediss+cluster://", v.shards[0].node.addr)
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

// clusterSlots asks one node after the other until one answers. Which one answers does
// not matter: a node that does not own a slot says so when it is asked for a key.
func clusterSlots(ctx context.Context, clients map[string]rueidis.Client) ([]slotRange, error) {
	err := errors.New("no node of the cluster is known")
	for addr, c := range clients {
		var rows []rueidis.RedisMessage
		rows, err = c.Do(ctx, c.B().ClusterSlots().Build()).ToArray()
		if err != nil {
			err = fmt.Errorf("redis %s: CLUSTER SLOTS: %w", addr, err)
			continue
		}
		return parseSlots(rows, addr), nil
	}
	return nil, err
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

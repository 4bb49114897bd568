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

// How the topology of Redis is followed
//
// The cache compares versions of tags, and trusts an entry while they are the same. Redis may
// roll versions back without a word: it restarts with an old snapshot, or a replica is promoted
// that lacks the last writes. So the version that Read returns is the stored one combined with
// the identity of the incarnation that holds it: a digest of the run id of the server process
// and of its replication id. The replication id also changes for a process that was a replica
// for a while, took over the data of another, and is master again. A topology says which
// masters there are, which slots each has, and which incarnation each is. One goroutine,
// monitor, makes topologies: each second, each 100 ms while a master is unavailable, and at
// once when a connection ends, when a reply shows that the topology is old, or when a caller
// asks for the identity. A topology is immutable, but for observed, and replaced as a whole.
//
// What is read is believed only if it came from the incarnation that the topology names.
// Every read goes over the read connection of its master, and each endpoint counts a
// generation that changes when a connection opens and when one ends. monitor notes the
// generation, asks for the identity over that connection, and notes that the generation has
// not changed. A reader checks it before the request and after the reply:
//
//	reader                       server
//	generation is 4, verified
//	MGET           ----------->  is killed, restarts with an old snapshot
//	connection ends: generation 5
//	(rueidis dials: generation 6, and repeats nothing)
//	generation is not 4: the reply is dropped, Read fails with ErrUnproven
//
// Then the cache calls Identity, which waits for a new topology. The new incarnation has
// another identity, so all guards from before it are invalid. If it was only the connection,
// the identity is the same and all of them stay valid. A reply of READONLY ends the
// verification of every master, because it comes from a replica.
//
// The identity of the whole is a digest of all identities. Until a caller has asked for it,
// Read answers ErrUnproven (observed). Otherwise reads under a new identity would hide from the
// cache that marks of writers and recent bumps may be lost.
//
// Finding masters. A single server is its own master. Under Sentinel, rueidis follows the
// master. In a Cluster any node is asked for CLUSTER SLOTS, those first that were verified last
// time. A wrong answer does no harm: a node refuses keys of slots that it does not own.
//
// A master that is unavailable. It stays in the topology with its last identity and an error.
// Reads and writes of its keys fail at once with that error; the identity of the whole is
// unchanged, so answers on other masters stay valid. When it answers again, its connection is
// new and is verified. When a replica is promoted instead, CLUSTER SLOTS names another address
// with another identity, and so the identity of the whole changes. Only if no master is
// available, the probe fails and the store is down.
//
// Slots that move. While slot 7 moves from A to B, A answers ASK for keys that it has given
// away. Their state is a random version and a fence (movingTag): the version is at B already,
// but not yet under the identity of B, so nothing may depend on it. After the move A answers
// MOVED; the read fails with ErrUnproven, and the next topology has slot 7 at B. Every tag of
// the slot then has another version, because it is combined with the identity of B. Writes go
// over the control client, which follows redirections itself. A slot that no known master has
// is unknown: reads of its keys fail with ErrUnproven and wake monitor.
//
// An address may come to lead to another server while some connections to the old one live on.
// Reads would come from one server and writes go to the other, so a bump would change nothing
// that is read. Whenever the read connection is new, both connections are compared; if they
// lead to different servers, both are cut.
//
// A server may tell no run id, because the account may not use INFO. Each generation of its
// connections then has a random identity: safe, but every new connection empties the cache.

const slotCount = 16384

// topology is which masters there are, and which incarnation of its data each has, as of the
// last probe.
type topology struct {
	shards []shard
	slots  *[slotCount]uint16 // slot → index of its shard + 1; nil unless a Cluster
	build  rueidis.Builder    // of commands that know their slot, in a Cluster
	proofs []string           // for each shard, a key that belongs to it; "" if it has no slot

	identity string
	observed atomic.Bool // a caller has asked for this identity
}

// shard is a master and what is known of it.
type shard struct {
	addr            string
	read            *readConn
	control         rueidis.Client // for everything but reads; does not follow redirections
	controlEndpoint *endpoint      // counts the connections of control

	generation uint64 // of read, for which info was verified
	info       serverInfo
	err        error // why it is not verified; nil if it is
}

// verified reports that everything that was read since the identity was verified came from
// that incarnation.
func (s *shard) verified() bool {
	return s.err == nil && s.read.endpoint.generation.Load() == s.generation
}

// shard returns the shard that holds the slot of a key, or nil if none is known.
func (t *topology) shard(slot uint16) *shard {
	if t.slots == nil {
		return &t.shards[0]
	}
	if i := t.slots[slot%slotCount]; i > 0 {
		return &t.shards[i-1]
	}
	return nil
}

// find returns the shard at addr, or nil. t may be nil.
func (t *topology) find(addr string) *shard {
	if t == nil {
		return nil
	}
	i := slices.IndexFunc(t.shards, func(s shard) bool { return s.addr == addr })
	if i < 0 {
		return nil
	}
	return &t.shards[i]
}

// probeInterval is how long after this probe the next one begins.
func (t *topology) probeInterval() time.Duration {
	if slices.ContainsFunc(t.shards, func(s shard) bool { return s.err != nil }) {
		return probeEveryDegraded
	}
	return probeEvery
}

// equal reports that nothing changed from t to u.
func (t *topology) equal(u *topology) bool {
	return t.sameMasters(u) && slices.EqualFunc(t.shards, u.shards, func(a, b shard) bool {
		return a.read == b.read && a.generation == b.generation && a.info == b.info && a.err == nil && b.err == nil
	})
}

// sameMasters reports that the same incarnations of the same masters hold the same slots.
func (t *topology) sameMasters(u *topology) bool {
	if t.identity != u.identity || (t.slots == nil) != (u.slots == nil) || t.slots != nil && *t.slots != *u.slots {
		return false
	}
	return slices.EqualFunc(t.shards, u.shards, func(a, b shard) bool { return a.addr == b.addr })
}

// setProofs chooses proofs.
func (t *topology) setProofs(n names) {
	t.proofs = make([]string, len(t.shards))
	if t.slots == nil {
		t.proofs[0] = n.proof(0)
		return
	}
	missing := map[uint16]bool{} // of the values of slots
	for _, i := range t.slots {
		missing[i] = true
	}
	delete(missing, 0)    // no shard is known
	const tries = 1 << 18 // a master of one slot is found by one name in 16384
	for i := 0; i < tries && len(missing) > 0; i++ {
		get := t.build.Get().Key(n.proof(i)).Build()
		if sh := t.slots[get.Slot()%slotCount]; missing[sh] {
			t.proofs[sh-1] = n.proof(i)
			delete(missing, sh)
		}
	}
}

// probe finds the masters and verifies each of them. It fails if it can verify none. prev is
// the topology before, or nil.
func (c *connections) probe(ctx context.Context, prev *topology) (*topology, error) {
	t := &topology{build: c.control.B()}
	clients := c.control.Nodes()
	if c.control.Mode() == rueidis.ClientModeCluster {
		ranges, err := c.clusterSlots(ctx, clients, prev)
		if err != nil {
			return nil, err
		}
		t.slots = new([slotCount]uint16)
		for _, r := range ranges {
			i := slices.IndexFunc(t.shards, func(s shard) bool { return s.addr == r.master })
			if i < 0 {
				i = len(t.shards)
				t.shards = append(t.shards, shard{addr: r.master})
			}
			for slot := r.first; slot <= r.last; slot++ {
				t.slots[slot] = uint16(i + 1)
			}
		}
	} else {
		for addr := range clients { // exactly one
			t.shards = append(t.shards, shard{addr: addr})
		}
	}
	if len(t.shards) == 0 {
		return nil, errors.New("no master has a slot: the cluster is not set up")
	}
	var wg sync.WaitGroup
	for i := range t.shards {
		s := &t.shards[i]
		s.read, s.controlEndpoint = c.readConn(s.addr), c.controlDialer.endpoint(s.addr)
		if s.control = clients[s.addr]; s.control == nil {
			s.control = s.read.client // until the control client knows a new master
			s.controlEndpoint = s.read.endpoint
		}
		wg.Go(func() {
			before := prev.find(s.addr)
			if before != nil && before.err != nil {
				if err := c.reconnect(ctx, s.read); err != nil {
					s.info, s.err = before.info, fmt.Errorf("redis %s: %w", s.addr, err)
					return
				}
			}
			s.verify(ctx, before)
			if errors.Is(s.err, errDifferentServers) {
				c.cut(s.addr)
			}
		})
	}
	wg.Wait()
	c.forgetOthers(t)
	return t, t.combineIdentities()
}

// verify finds out which incarnation the server is. It asks over the read connection if that is
// new. Otherwise it asks over the control connection whether anything changed, which leaves the
// read connection to a single reader (see connections). If a connection is made meanwhile,
// perhaps by the request itself, it asks again.
func (s *shard) verify(ctx context.Context, prev *shard) {
	if prev != nil && prev.read == s.read && prev.verified() {
		info, err := fetchServerInfo(ctx, s.control, s.read.endpoint, prev.generation)
		if err == nil && info == prev.info {
			s.generation, s.info = prev.generation, info
			return
		}
	}
	s.err = fmt.Errorf("redis %s: its connections come and go", s.addr)
	for range 5 {
		gen := s.read.endpoint.generation.Load()
		info, err := fetchServerInfo(ctx, s.read.client, s.read.endpoint, gen)
		if s.read.endpoint.generation.Load() != gen {
			if ctx.Err() != nil {
				break
			}
			continue
		}
		s.generation, s.info, s.err = gen, info, nil
		if err == nil && s.differentServers(ctx) {
			err = errDifferentServers
		}
		if err != nil {
			s.err = fmt.Errorf("redis %s: %w", s.addr, err)
		}
		break
	}
	if s.err != nil && prev != nil {
		// A server that cannot be asked keeps its identity, so that the other masters go on.
		s.info = prev.info
	}
}

var errDifferentServers = errors.New("its connections lead to different servers")

// differentServers reports that the read and the control connection lead to different servers.
func (s *shard) differentServers(ctx context.Context) bool {
	if s.info.withoutRunID || s.control == s.read.client {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout/5) // the next verify notices a silent server
	defer cancel()
	info, err := fetchServerInfo(ctx, s.control, s.controlEndpoint, s.controlEndpoint.generation.Load())
	return err == nil && info.identity != s.info.identity
}

// combineIdentities makes the identity of the whole from those of the shards. It fails if no
// shard is verified.
func (t *topology) combineIdentities() error {
	ids := make([]string, len(t.shards))
	var failed []error
	for i := range t.shards {
		s := &t.shards[i]
		if s.err != nil {
			failed = append(failed, s.err)
		}
		ids[i] = string(s.info.identity[:])
	}
	if len(failed) == len(t.shards) {
		return errors.Join(failed...)
	}
	if mode := t.shards[0].info.mode; mode == "cluster" && t.slots == nil {
		return fmt.Errorf("redis %s: it is part of a cluster: use redis+cluster:// or rediss+cluster://", t.shards[0].addr)
	}
	slices.Sort(ids)
	id := digest(ids...)
	t.identity = hex.EncodeToString(id[:])
	return nil
}

// slotRange is a run of slots and the address of their master.
type slotRange struct {
	first, last int
	master      string
}

// clusterSlots asks one node after the other until one answers: first the masters that were
// verified last time, last those that were unavailable.
func (c *connections) clusterSlots(ctx context.Context, clients map[string]rueidis.Client, prev *topology) ([]slotRange, error) {
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
		if rows, err = fetchSlots(ctx, clients[addr]); err == nil {
			return parseSlots(rows, addr), nil
		}
		err = fmt.Errorf("redis %s: CLUSTER SLOTS: %w", addr, err)
	}
	return nil, err
}

func fetchSlots(ctx context.Context, c rueidis.Client) ([]rueidis.RedisMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout/5) // leaves time for other nodes if this one is silent
	defer cancel()
	return c.Do(ctx, c.B().ClusterSlots().Build()).ToArray()
}

// parseSlots reads the reply of addr to CLUSTER SLOTS. It leaves out what it cannot read: the
// slots there are unknown.
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
		endpoint, _ := master[0].ToString() // null: the host of the node that was asked
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

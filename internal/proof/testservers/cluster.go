package testservers

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"
)

// ClusterConfig says how a Redis Cluster is set up.
type ClusterConfig struct {
	Redis    RedisConfig // of every node
	Masters  int         // default 3
	Replicas int         // of each master; default 0
}

// Cluster is a Redis Cluster on 127.0.0.1.
type Cluster struct {
	// Nodes are the masters, in the order of their slots, and after them the
	// replicas: with three masters, Nodes[3] follows Nodes[0].
	Nodes []*Redis
}

const slotCount = 16384

// StartCluster starts a cluster for the time of the test.
func StartCluster(tb testing.TB, cfg ClusterConfig) *Cluster {
	tb.Helper()
	c, err := OpenCluster(context.Background(), cfg)
	check(tb, err)
	tb.Cleanup(func() { closeGroupAfter(tb, c.Nodes) })
	return c
}

// OpenCluster starts a cluster and waits until every node of it serves. The
// caller must Close it.
func OpenCluster(ctx context.Context, cfg ClusterConfig) (*Cluster, error) {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	c := new(Cluster)
	if err := c.open(ctx, cfg); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) open(ctx context.Context, cfg ClusterConfig) error {
	cfg.Masters = cmp.Or(cfg.Masters, 3)
	total := cfg.Masters * (1 + cfg.Replicas)
	password := rand.Text()
	extra := []string{
		"cluster-enabled yes",
		// A node receives a change within half of this, and a failed master is
		// replaced after it.
		"cluster-node-timeout 1000",
	}
	for range total {
		node, err := openRedisWith(ctx, cfg.Redis, password, extra)
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, node)
	}

	masters, replicas := c.Nodes[:cfg.Masters], c.Nodes[cfg.Masters:]
	for i, node := range masters {
		first, last := i*slotCount/cfg.Masters, (i+1)*slotCount/cfg.Masters-1
		if err := node.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last)).Error(); err != nil {
			return err
		}
	}
	for i, node := range c.Nodes {
		// Epochs that differ from the start spare the cluster the rounds in
		// which it would make them differ.
		if err := node.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)).Error(); err != nil {
			return err
		}
		if err := c.Nodes[0].Do(ctx, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(node.port.number)).Error(); err != nil {
			return err
		}
	}
	if err := c.WaitUntilOK(ctx); err != nil {
		return err
	}
	for i, node := range replicas {
		id, err := masters[i%cfg.Masters].Do(ctx, "CLUSTER", "MYID").ToString()
		if err != nil {
			return err
		}
		if err := node.Do(ctx, "CLUSTER", "REPLICATE", id).Error(); err != nil {
			return err
		}
		if err := node.waitForMaster(ctx); err != nil {
			return err
		}
	}
	return c.WaitUntilOK(ctx)
}

// WaitUntilOK waits until every node that runs reports cluster_state:ok, knows
// all others, and has the same owner for every slot.
func (c *Cluster) WaitUntilOK(ctx context.Context) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	return Poll(ctx, func() (bool, string) {
		first := ""
		for _, node := range c.Nodes {
			if _, err := node.process(); err != nil {
				continue
			}
			text, err := node.Do(ctx, "CLUSTER", "INFO").ToString()
			if err != nil {
				return false, fmt.Sprintf("%s: %v", node.Addr(), err)
			}
			info := fields(text)
			if info["cluster_state"] != "ok" || info["cluster_known_nodes"] != strconv.Itoa(len(c.Nodes)) {
				return false, fmt.Sprintf("%s is in state %q and knows %s nodes of %d",
					node.Addr(), info["cluster_state"], info["cluster_known_nodes"], len(c.Nodes))
			}
			owners, err := owners(ctx, node)
			if err != nil {
				return false, fmt.Sprintf("%s: %v", node.Addr(), err)
			}
			picture := fmt.Sprint(owners)
			if first == "" {
				first = picture
			}
			if picture != first {
				return false, fmt.Sprintf("%s sees %s, another node sees %s", node.Addr(), picture, first)
			}
		}
		return true, ""
	})
}

// Addrs returns the addresses of all nodes.
func (c *Cluster) Addrs() []string { return addrs(c.Nodes) }

// Owner returns the master that serves a slot, as the first node that answers
// sees it.
func (c *Cluster) Owner(ctx context.Context, slot int) (*Redis, error) {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	var errs []error
	for _, node := range c.Nodes {
		ranges, err := owners(ctx, node)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", node.Addr(), err))
			continue
		}
		for _, r := range ranges {
			if r.first <= slot && slot <= r.last {
				return c.node(r.addr)
			}
		}
		errs = append(errs, fmt.Errorf("%s knows no owner of slot %d", node.Addr(), slot))
	}
	return nil, errors.Join(errs...)
}

// Slot returns the slot of a key.
func (c *Cluster) Slot(ctx context.Context, key string) (int, error) {
	slot, err := c.Nodes[0].Do(ctx, "CLUSTER", "KEYSLOT", key).AsInt64()
	return int(slot), err
}

func (c *Cluster) node(addr string) (*Redis, error) {
	for _, node := range c.Nodes {
		if node.Addr() == addr {
			return node, nil
		}
	}
	return nil, fmt.Errorf("%s is no node of the cluster", addr)
}

// A slotRange is served by one master.
type slotRange struct {
	first, last int
	addr        string
}

// owners returns the slots as node sees them, in ascending order.
func owners(ctx context.Context, node *Redis) ([]slotRange, error) {
	answers, err := node.Do(ctx, "CLUSTER", "SLOTS").ToArray()
	if err != nil {
		return nil, err
	}
	var ranges []slotRange
	for _, answer := range answers {
		parts, err := answer.ToArray()
		if err != nil || len(parts) < 3 {
			return nil, fmt.Errorf("CLUSTER SLOTS answers %s: %w", answer.String(), err)
		}
		first, err1 := parts[0].AsInt64()
		last, err2 := parts[1].AsInt64()
		master, err3 := parts[2].ToArray()
		if err := errors.Join(err1, err2, err3); err != nil || len(master) < 2 {
			return nil, fmt.Errorf("CLUSTER SLOTS answers %s: %w", answer.String(), err)
		}
		host, err1 := master[0].ToString()
		port, err2 := master[1].AsInt64()
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("CLUSTER SLOTS answers %s: %w", answer.String(), err)
		}
		ranges = append(ranges, slotRange{int(first), int(last), net.JoinHostPort(host, strconv.FormatInt(port, 10))})
	}
	return ranges, nil
}

// MoveSlot moves a slot and its keys to another master. During, if not nil, runs
// while the slot is between the two and clients are answered with ASK for what
// is not in its old place; after it keys are moved, and in the end MOVED.
func (c *Cluster) MoveSlot(ctx context.Context, slot int, to *Redis, during func() error) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	from, err := c.Owner(ctx, slot)
	if err != nil {
		return err
	}
	if from == to {
		return fmt.Errorf("slot %d is at %s already", slot, to.Addr())
	}
	number := strconv.Itoa(slot)
	fromID, err1 := from.Do(ctx, "CLUSTER", "MYID").ToString()
	toID, err2 := to.Do(ctx, "CLUSTER", "MYID").ToString()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	// The new owner first: it would refuse what the old one sends it otherwise.
	if err := to.Do(ctx, "CLUSTER", "SETSLOT", number, "IMPORTING", fromID).Error(); err != nil {
		return err
	}
	if err := from.Do(ctx, "CLUSTER", "SETSLOT", number, "MIGRATING", toID).Error(); err != nil {
		return err
	}
	if during != nil {
		if err := during(); err != nil {
			return err
		}
	}
	if err := migrateKeys(ctx, number, from, to); err != nil {
		return err
	}
	// The new owner first again: if only the old one knew, no node would
	// serve the slot until the two had talked.
	for _, node := range []*Redis{to, from} {
		if err := node.Do(ctx, "CLUSTER", "SETSLOT", number, "NODE", toID).Error(); err != nil {
			return err
		}
	}
	return c.WaitUntilOK(ctx)
}

func migrateKeys(ctx context.Context, slot string, from, to *Redis) error {
	for {
		keys, err := from.Do(ctx, "CLUSTER", "GETKEYSINSLOT", slot, "100").AsStrSlice()
		if err != nil || len(keys) == 0 {
			return err
		}
		command := []string{"MIGRATE", "127.0.0.1", strconv.Itoa(to.port.number), "", "0", "5000",
			"AUTH2", adminUser, to.adminPassword, "KEYS"}
		if err := from.Do(ctx, append(command, keys...)...).Error(); err != nil {
			return err
		}
	}
}

// Close ends all nodes.
func (c *Cluster) Close() error { return closeAll(c.Nodes) }

package testservers_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

func TestRedisReplicaIsPromoted(t *testing.T) {
	t.Parallel()
	for _, cfg := range []testservers.RedisConfig{{}, {TLS: true, Password: "secret"}} {
		master := testservers.StartRedis(t, cfg)
		set(t, master, "k", "before")
		replica := master.StartReplica(t)
		if got := get(t, replica, "k"); got != "before" {
			t.Errorf("a new replica holds %q, want what its master had before", got)
		}
		set(t, master, "k", "after")
		testservers.Must(t, master.WaitForReplica(t.Context(), replica))
		if got := get(t, replica, "k"); got != "after" {
			t.Errorf("a replica that has caught up holds %q, want %q", got, "after")
		}
		if err := replica.Do(t.Context(), "SET", "k", "own").Error(); err == nil {
			t.Error("a replica accepted a write")
		}

		testservers.Must(t, master.Kill())
		testservers.Must(t, replica.Promote(t.Context()))
		set(t, replica, "k", "promoted")
		testservers.Must(t, replica.Restart(t.Context()))
		set(t, replica, "k", "promoted") // still a master

		testservers.Must(t, master.Restart(t.Context()))
		testservers.Must(t, master.Follow(t.Context(), replica))
		if got := get(t, master, "k"); got != "promoted" {
			t.Errorf("the old master holds %q, want what the new one has", got)
		}
	}
}

func TestSentinelReplacesTheMaster(t *testing.T) {
	t.Parallel()
	s := testservers.StartSentinel(t, testservers.SentinelConfig{})
	first, err := s.Master(t.Context())
	testservers.Must(t, err)
	if first != s.Nodes[0] {
		t.Errorf("the master is %s, want the first node, %s", first.Addr(), s.Nodes[0].Addr())
	}
	testservers.Must(t, first.Kill())
	second, err := s.WaitForOther(t.Context(), first)
	testservers.Must(t, err)
	set(t, second, "k", "v")
}

func TestSentinelsFailOverOnRequest(t *testing.T) {
	t.Parallel()
	s := testservers.StartSentinel(t, testservers.SentinelConfig{Sentinels: 3})
	if n := len(s.Addrs()); n != 3 {
		t.Errorf("%d sentinels, want 3", n)
	}
	second, err := s.Failover(t.Context())
	testservers.Must(t, err)
	if second != s.Nodes[1] {
		t.Errorf("the master is %s, want the only replica, %s", second.Addr(), s.Nodes[1].Addr())
	}
	set(t, second, "k", "v")
}

func TestClusterMovesASlot(t *testing.T) {
	t.Parallel()
	c := testservers.StartCluster(t, testservers.ClusterConfig{})
	for _, node := range c.Nodes {
		info, err := node.Do(t.Context(), "CLUSTER", "INFO").ToString()
		testservers.Must(t, err)
		if !strings.Contains(info, "cluster_state:ok") {
			t.Errorf("%s does not serve:\n%s", node.Addr(), info)
		}
	}

	slot, err := c.Slot(t.Context(), "k")
	testservers.Must(t, err)
	from, err := c.Owner(t.Context(), slot)
	testservers.Must(t, err)
	set(t, from, "k", "v")
	to := c.Nodes[0]
	if to == from {
		to = c.Nodes[1]
	}
	testservers.Must(t, c.MoveSlot(t.Context(), slot, to, func() error {
		err := from.Do(t.Context(), "GET", "{k}absent").Error()
		if want := "ASK " + strconv.Itoa(slot) + " " + to.Addr(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("during the move the old owner answers %v, want %s", err, want)
		}
		return nil
	}))
	if got := get(t, to, "k"); got != "v" {
		t.Errorf("the new owner holds %q, want %q", got, "v")
	}
	err = from.Do(t.Context(), "GET", "k").Error()
	if want := "MOVED " + strconv.Itoa(slot) + " " + to.Addr(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("after the move the old owner answers %v, want %s", err, want)
	}
	if now, err := c.Owner(t.Context(), slot); now != to {
		t.Errorf("the slot's owner is %v (%v), want %s", now, err, to.Addr())
	}
}

func TestClusterReplicaTakesOver(t *testing.T) {
	t.Parallel()
	c := testservers.StartCluster(t, testservers.ClusterConfig{Replicas: 1, Redis: testservers.RedisConfig{TLS: true}})
	testservers.Must(t, c.Nodes[0].Kill())
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		owner, err := c.Owner(t.Context(), 0)
		if err != nil {
			return false, err.Error()
		}
		return owner == c.Nodes[3], "slot 0 is served by " + owner.Addr()
	})
	testservers.Must(t, c.WaitUntilOK(t.Context()))
}

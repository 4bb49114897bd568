package redisstore_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

const tag = driver.Tag("course:1")

func raw(t testing.TB, r *testservers.Redis, key string) string {
	t.Helper()
	s, err := r.Do(t.Context(), "GET", key).ToString()
	testservers.Must(t, err)
	return s
}

func TestVersionsRolledBackByAnOldSnapshotAreOthers(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	p := prefix()
	var log logBuffer
	s := open(t, redisstore.Config{URL: r.URL(), Prefix: p, Logger: log.logger()})
	id := identify(t, s)
	first := state(t, s, tag)
	stored := raw(t, r, p+"tag:"+string(tag))
	testservers.Must(t, r.Do(t.Context(), "SAVE").Error())
	bump(t, s, tag)
	testservers.Must(t, r.Kill())
	testservers.Must(t, r.Restart(t.Context()))

	// The bump is lost, and the bytes are those of before it.
	if raw(t, r, p+"tag:"+string(tag)) != stored {
		t.Fatal("the server has not rolled back: the test shows nothing")
	}
	testservers.Eventually(t, 30*time.Second, func() (bool, string) { return strings.Contains(log.String(), "redis is available again"), log.String() })
	if _, err := s.Read(t.Context(), []driver.Tag{tag}, nil); !errors.Is(err, driver.ErrUnproven) {
		t.Errorf("a read from a new incarnation before a caller asked for its identity: %v", err)
	}
	if again := state(t, s, tag); again == first {
		t.Error("a version from before the restart is valid again although a bump was lost")
	}
	if identify(t, s) == id {
		t.Error("the identity is the same after a restart with an old snapshot")
	}
}

// Readers that never pause meet every moment in which an address leads to another server:
// a restart, a failover behind a name or a proxy. None shows a version that was rolled back.
func TestReadersWhileTheServerIsReplaced(t *testing.T) {
	t.Parallel()
	current, old := testservers.StartRedis(t, testservers.RedisConfig{}), testservers.StartRedis(t, testservers.RedisConfig{})
	servers := []*testservers.Redis{current, old}
	var target atomic.Int64
	p := prefix()
	s := open(t, redisstore.Config{Prefix: p, Client: &rueidis.ClientOption{
		InitAddress:       []string{"name.invalid:6379"},
		ForceSingleClient: true,
		DialCtxFn: func(ctx context.Context, _ string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", servers[target.Load()].Addr())
		},
	}})
	first := state(t, s, tag)
	testservers.Must(t, old.Do(t.Context(), "SET", p+"tag:"+string(tag), raw(t, current, p+"tag:"+string(tag))).Error())
	bump(t, s, tag)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var hits atomic.Int64
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				snap, err := s.Read(ctx, []driver.Tag{tag}, nil)
				switch {
				case errors.Is(err, driver.ErrUnproven):
					_, _ = s.Identity(ctx)
				case err != nil:
					runtime.Gosched()
				case snap.States[0] == first:
					t.Error("the version from before the bump is valid again")
					return
				default:
					hits.Add(1)
				}
			}
		})
	}
	for i := range 60 {
		now := int64(i+1) % 2
		target.Store(now)
		testservers.Must(t, servers[1-now].Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal").Error())
		before := hits.Load()
		testservers.Eventually(t, 30*time.Second, func() (bool, string) { return hits.Load() > before+20, "the readers have stopped" })
	}
	stop()
	wg.Wait()
}

func TestPromotedReplicaWithoutTheLastBumps(t *testing.T) {
	t.Parallel()
	set := testservers.StartSentinel(t, testservers.SentinelConfig{})
	s := open(t, redisstore.Config{URL: "redis+sentinel://" + strings.Join(set.Addrs(), ",") + "/" + testservers.MasterName})
	id := identify(t, s)
	before := state(t, s, tag)
	put(t, s, "k", "old", tag)
	master, err := set.Master(t.Context())
	testservers.Must(t, err)
	testservers.Must(t, master.WaitForReplica(t.Context(), set.Nodes[1]))

	// What is sent to a frozen server waits for it, so the two are parted first.
	testservers.Must(t, set.Nodes[1].Freeze())
	testservers.Must(t, master.Do(t.Context(), "CLIENT", "KILL", "TYPE", "replica").Error())
	bump(t, s, tag)
	testservers.Must(t, master.Kill())
	testservers.Must(t, set.Nodes[1].Thaw())
	_, err = set.WaitForOther(t.Context(), master)
	testservers.Must(t, err)

	snap := read(t, s, []driver.Tag{tag}, []string{"k"})
	if string(snap.Entries[0]) != "old" {
		t.Errorf("the replica holds entry %q: it was no replica", snap.Entries[0])
	}
	if snap.States[0].Version == before.Version {
		t.Error("the promoted replica lacks the bump, and its version is valid")
	}
	if identify(t, s) == id {
		t.Error("the identity is the same after a failover")
	}
	bump(t, s, tag)
}

func TestFlushedVersionsNeverComeBack(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	s := open(t, redisstore.Config{URL: r.URL()})
	before := state(t, s, tag)
	testservers.Must(t, r.Do(t.Context(), "FLUSHALL").Error())
	if state(t, s, tag) == before {
		t.Error("the version survived FLUSHALL")
	}
	before = state(t, s, tag)
	testservers.Must(t, r.RestartEmpty(t.Context()))
	if state(t, s, tag) == before {
		t.Error("the version survived the loss of all data")
	}
}

func TestEvictedTagsAreReplaced(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{Config: []string{"maxmemory 3mb", "maxmemory-policy allkeys-lru"}})
	p := prefix()
	s := open(t, redisstore.Config{URL: r.URL(), Prefix: p})
	before := state(t, s, tag)
	large := strings.Repeat("x", 2000) // below what is compressed
	testservers.Eventually(t, time.Minute, func() (bool, string) {
		for i := range 100 {
			put(t, s, "fill:"+time.Now().String()+string(rune('a'+i%26)), large)
		}
		n, err := r.Do(t.Context(), "EXISTS", p+"tag:"+string(tag)).AsInt64()
		testservers.Must(t, err)
		return n == 0, "the tag is still there"
	})
	if state(t, s, tag) == before {
		t.Error("an evicted tag has its version again")
	}
}

func TestReadsOverANewConnectionWaitForTheIdentity(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	proxy := testservers.StartProxy(t, r.Addr())
	s := open(t, redisstore.Config{URL: "redis://" + proxy.Addr()})
	before := state(t, s, tag)
	id := identify(t, s)

	// The same server behind a new connection is verified without a call of Identity.
	proxy.Reset()
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		snap, err := s.Read(t.Context(), []driver.Tag{tag}, nil)
		switch {
		case err != nil && !errors.Is(err, driver.ErrUnproven):
			t.Fatalf("a lost connection is no error of the server: %v", err)
		case err != nil:
			return false, err.Error()
		case snap.States[0] != before:
			t.Fatal("another version from the same server")
		}
		return true, ""
	})
	if identify(t, s) != id {
		t.Error("another identity from the same server")
	}
}

// A server that is made a replica by hand keeps its connections, and answers reads with
// what it has copied so far.
func TestDemotedMasterIsNotTrusted(t *testing.T) {
	t.Parallel()
	old := testservers.StartRedis(t, testservers.RedisConfig{})
	replica := old.StartReplica(t)
	reader := open(t, redisstore.Config{URL: old.URL(), Prefix: "shared:"})
	writer := open(t, redisstore.Config{URL: old.URL(), Prefix: "shared:"})
	state(t, reader, tag)

	testservers.Must(t, replica.Promote(t.Context()))
	testservers.Must(t, old.Follow(t.Context(), replica))
	if err := writer.Bump(t.Context(), []driver.Tag{tag}, driver.NoMark); err == nil {
		t.Fatal("a replica took a bump")
	} else if _, err := writer.Read(t.Context(), []driver.Tag{tag}, nil); err == nil {
		t.Error("a Store that was refused a write reads from the replica")
	}
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		_, err := reader.Read(t.Context(), []driver.Tag{tag}, nil)
		return err != nil && strings.Contains(err.Error(), "not the master"), "a Store that only reads does not notice: " + errText(err)
	})
	if _, err := reader.Identity(t.Context()); err == nil || !strings.Contains(err.Error(), "not the master") {
		t.Errorf("the identity of a replica: %v", err)
	}
	// It serves again when it is master again, under another identity.
	testservers.Must(t, old.Promote(t.Context()))
	state(t, reader, tag)
}

func TestClusterSlotMoves(t *testing.T) {
	t.Parallel()
	c := testservers.StartCluster(t, testservers.ClusterConfig{})
	p := prefix()
	cfg := redisstore.Config{URL: clusterURL(c), Prefix: p}
	reader, writer := open(t, cfg), open(t, cfg)
	slot, err := c.Slot(t.Context(), p+"tag:"+string(tag))
	testservers.Must(t, err)
	from, err := c.Owner(t.Context(), slot)
	testservers.Must(t, err)
	to := c.Nodes[0]
	if to == from {
		to = c.Nodes[1]
	}
	seen := map[driver.Version]bool{}
	fresh := func(when string) {
		t.Helper()
		st := state(t, reader, tag)
		if st.Fenced {
			return // nothing is believed of it
		}
		if seen[st.Version] {
			t.Errorf("%s: a version from before a bump is valid", when)
		}
		seen[st.Version] = true
	}
	fresh("at first")
	bump(t, writer, tag)
	fresh("before the move")
	testservers.Must(t, c.MoveSlot(t.Context(), slot, to, func() error {
		bump(t, writer, tag)
		fresh("during the move")
		// A new tag of the slot is made where the slot goes.
		testservers.Must(t, from.Do(t.Context(), "DEL", p+"tag:"+string(tag)).Error())
		if st := state(t, reader, tag); !st.Fenced {
			t.Error("a tag that is on its way is not fenced")
		}
		bump(t, writer, tag)
		return nil
	}))
	fresh("after the move")
	bump(t, writer, tag)
	fresh("after a bump at the new place")
	if st := state(t, reader, tag); st.Fenced {
		t.Error("the tag is fenced after the move")
	}
}

func TestClusterLosesAMaster(t *testing.T) {
	t.Parallel()
	c := testservers.StartCluster(t, testservers.ClusterConfig{Replicas: 1})
	p := prefix()
	s := open(t, redisstore.Config{URL: clusterURL(c), Prefix: p})
	slot, err := c.Slot(t.Context(), p+"tag:"+string(tag))
	testservers.Must(t, err)
	master, err := c.Owner(t.Context(), slot)
	testservers.Must(t, err)
	elsewhere := tagElsewhere(t, c, p, master)
	id, before, other := identify(t, s), state(t, s, tag), state(t, s, elsewhere)

	testservers.Must(t, master.Kill())
	if _, err := s.Read(t.Context(), []driver.Tag{tag}, nil); err == nil {
		t.Error("a read from the killed master was answered")
	}
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		owner, err := c.Owner(t.Context(), slot)
		return err == nil && owner != master, "no replica was promoted"
	})
	if state(t, s, tag) == before {
		t.Error("the version of the killed master is valid at its replica, which may lack a bump")
	}
	if identify(t, s) == id {
		t.Error("the identity is the same after a failover")
	}
	if state(t, s, elsewhere) != other {
		t.Error("a failover elsewhere killed this master's version")
	}
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		err := s.Bump(t.Context(), []driver.Tag{tag, elsewhere}, driver.NoMark)
		return err == nil, "bump: " + errText(err)
	})
}

// tagElsewhere returns a tag that another master holds.
func tagElsewhere(t *testing.T, c *testservers.Cluster, prefix string, master *testservers.Redis) driver.Tag {
	t.Helper()
	for tag := driver.Tag("course:"); ; tag += "x" {
		slot, err := c.Slot(t.Context(), prefix+"tag:"+string(tag))
		testservers.Must(t, err)
		owner, err := c.Owner(t.Context(), slot)
		testservers.Must(t, err)
		if owner != master {
			return tag
		}
	}
}

// A master that is silent costs the others nothing.
func TestClusterWithASilentMaster(t *testing.T) {
	t.Parallel()
	c := testservers.StartCluster(t, testservers.ClusterConfig{Redis: testservers.RedisConfig{
		Config: []string{"cluster-require-full-coverage no"},
	}})
	p := prefix()
	s := open(t, redisstore.Config{URL: clusterURL(c), Prefix: p, Timeout: time.Second})
	slot, err := c.Slot(t.Context(), p+"tag:"+string(tag))
	testservers.Must(t, err)
	silent, err := c.Owner(t.Context(), slot)
	testservers.Must(t, err)
	elsewhere := tagElsewhere(t, c, p, silent)
	id, before, there := identify(t, s), state(t, s, elsewhere), state(t, s, tag)

	testservers.Must(t, silent.Freeze())
	lost := false
	for deadline := time.Now().Add(30 * time.Second); !lost && time.Now().Before(deadline); {
		if got := state(t, s, elsewhere); got != before {
			t.Fatal("the version of another master changed")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := s.Read(ctx, []driver.Tag{tag}, nil)
		lost = err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, driver.ErrUnproven)
		cancel()
	}
	if !lost {
		t.Fatal("reads from the silent master wait for ever")
	}
	quick := 0
	for range 20 {
		start := time.Now()
		if identify(t, s) != id {
			t.Error("the identity changed with a silent master")
		}
		if time.Since(start) < 300*time.Millisecond {
			quick++
		}
		bump(t, s, elsewhere)
	}
	if quick < 15 {
		t.Errorf("with one silent master of three, %d of 20 identities came in time", quick)
	}
	testservers.Must(t, silent.Thaw())
	if state(t, s, tag) != there {
		t.Error("the version of the silent master changed")
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

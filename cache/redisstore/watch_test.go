package redisstore_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
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

// recorder is a driver.Listener that records what is reported to it.
type recorder struct {
	t     *testing.T
	ended chan error // receives what Watch returned

	mu      sync.Mutex
	changes map[driver.Tag]int // guarded by mu
	gaps    int                // guarded by mu
	proven  time.Time          // guarded by mu
}

func (w *recorder) Changed(tags ...driver.Tag) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, tag := range tags {
		w.changes[tag]++
	}
}

func (w *recorder) Missed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gaps++
}

func (w *recorder) Proven(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proven = at
}

// reported returns how often tag was reported as changed, and how many gaps there were.
func (w *recorder) reported(tag driver.Tag) (changes, gaps int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changes[tag], w.gaps
}

func (w *recorder) lastProof() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.proven
}

// watch watches s until the test ends.
func watch(t *testing.T, s *redisstore.Store) *recorder {
	t.Helper()
	w := &recorder{t: t, ended: make(chan error, 1), changes: map[driver.Tag]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		w.ended <- s.Watch(ctx, w)
		close(w.ended)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-w.ended; err != nil {
			t.Log("watching ended:", err)
		}
	})
	return w
}

// awaitProof waits until everything that happened before is reported.
func (w *recorder) awaitProof() {
	w.t.Helper()
	begin := time.Now()
	testservers.Eventually(w.t, 30*time.Second, func() (bool, string) {
		return w.lastProof().After(begin), "nothing is proven"
	})
}

// awaitSilence waits until nothing was proven for a second.
func (w *recorder) awaitSilence(why string) {
	w.t.Helper()
	testservers.Eventually(w.t, 30*time.Second, func() (bool, string) {
		return time.Since(w.lastProof()) > time.Second, "there are proofs although " + why
	})
}

// expectReport fails unless do is reported as a change of tag, or as a gap.
func (w *recorder) expectReport(tag driver.Tag, what string, do func()) {
	w.t.Helper()
	changes, gaps := w.reported(tag)
	do()
	w.awaitProof()
	if c, g := w.reported(tag); c == changes && g == gaps {
		w.t.Errorf("%s was proven to be reported; it was not", what)
	}
}

// expectGap fails unless do is reported as a gap.
func (w *recorder) expectGap(what string, do func()) {
	w.t.Helper()
	_, gaps := w.reported("")
	do()
	testservers.Eventually(w.t, 30*time.Second, func() (bool, string) {
		_, now := w.reported("")
		return now > gaps, "no gap was reported after " + what
	})
	w.awaitProof()
}

// connections returns the ids of the connections that track, or of those that do not.
func connections(t *testing.T, r *testservers.Redis, tracking bool) (ids []string) {
	t.Helper()
	list, err := r.Do(t.Context(), "CLIENT", "LIST", "TYPE", "normal").ToString()
	testservers.Must(t, err)
	for line := range strings.Lines(strings.TrimPrefix(list, "txt:")) {
		fields := map[string]string{}
		for field := range strings.FieldsSeq(line) {
			name, value, _ := strings.Cut(field, "=")
			fields[name] = value
		}
		if strings.Contains(fields["flags"], "t") == tracking {
			ids = append(ids, fields["id"])
		}
	}
	return ids
}

func killConnections(t *testing.T, r *testservers.Redis, tracking bool) {
	t.Helper()
	ids := connections(t, r, tracking)
	if len(ids) == 0 {
		t.Fatal("there is no such connection: the test shows nothing")
	}
	for _, id := range ids {
		// It may be gone already: our own, or one that a retry replaced.
		_ = r.Do(t.Context(), "CLIENT", "KILL", "ID", id).Error()
	}
}

func TestGapsAreReported(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	p := prefix()
	s, peer := open(t, redisstore.Config{URL: r.URL(), Prefix: p}), open(t, redisstore.Config{URL: r.URL(), Prefix: p})
	w := watch(t, s)
	w.awaitProof()
	state(t, peer, tag)

	w.expectGap("FLUSHALL", func() { testservers.Must(t, r.Do(t.Context(), "FLUSHALL").Error()) })
	w.expectGap("the connection was killed", func() { killConnections(t, r, true) })
	w.expectGap("a restart", func() {
		testservers.Must(t, r.Kill())
		testservers.Must(t, r.Restart(t.Context()))
	})
	w.expectReport(tag, "a bump after all this", func() {
		read(t, peer, []driver.Tag{tag}, nil)
		bump(t, peer, tag)
	})
	if ids := connections(t, r, true); len(ids) != 1 {
		t.Errorf("%d connections track for one watcher", len(ids))
	}
}

// Whatever a connection is killed in the middle of, what changed at that time is reported or
// lies in a gap before it is proven.
func TestConnectionsAreKilledWhileTagsChange(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	p := prefix()
	s, peer := open(t, redisstore.Config{URL: r.URL(), Prefix: p}), open(t, redisstore.Config{URL: r.URL(), Prefix: p})
	w := watch(t, s)
	w.awaitProof()
	for i := range 30 {
		w.expectReport(tag, fmt.Sprint("bump ", i), func() {
			var killed sync.WaitGroup
			killed.Go(func() { _ = r.Do(t.Context(), "CLIENT", "KILL", "ID", connections(t, r, true)[0]).Error() })
			bump(t, peer, tag)
			killed.Wait()
		})
	}
}

// A proof speaks of the time at which it was asked for: what changed while it was on its way is
// on its way as well.
func TestProofsOverASlowNetwork(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	proxy := testservers.StartProxy(t, r.Addr())
	p := prefix()
	s := open(t, redisstore.Config{URL: "redis://" + proxy.Addr(), Prefix: p})
	peer := open(t, redisstore.Config{URL: r.URL(), Prefix: p})
	w := watch(t, s)
	w.awaitProof()
	proxy.Delay(300*time.Millisecond, testservers.Replies) // longer than between proofs: one is always on its way
	for i := range 4 {
		w.expectReport(tag, fmt.Sprint("bump ", i), func() { bump(t, peer, tag) })
	}
}

func TestExpiryIsAChange(t *testing.T) {
	t.Parallel()
	s := open(t, redisstore.Config{URL: testservers.SharedRedis(t).URL(), TagLife: 5 * time.Second})
	w := watch(t, s)
	w.awaitProof()
	state(t, s, tag)
	w.awaitProof() // its creation has been reported; the machine has some seconds for that
	before, _ := w.reported(tag)
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		now, _ := w.reported(tag)
		return now > before, "the expiry of the tag is not reported"
	})
}

func TestWatchWaitsForAServerThatIsNotThere(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	testservers.Must(t, r.Kill())
	s := openUnproven(t, redisstore.Config{URL: r.URL(), Timeout: time.Second})
	w := watch(t, s)
	if err := s.Bump(t.Context(), []driver.Tag{tag}, driver.NoMark); err == nil {
		t.Fatal("the server is there: the test shows nothing")
	}
	testservers.Must(t, r.Restart(t.Context()))
	w.awaitProof()
	w.expectReport(tag, "a bump", func() { bump(t, s, tag) })
}

func TestWatchEndsWithItsStore(t *testing.T) {
	t.Parallel()
	s := open(t, redisstore.Config{URL: testservers.SharedRedis(t).URL()})
	w := watch(t, s)
	w.awaitProof()
	testservers.Must(t, s.Close())
	if err := <-w.ended; err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("Watch on a store that was closed returned %v", err)
	}
	if err := s.Watch(t.Context(), w); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("Watch on a closed store returned %v", err)
	}
}

// Watch returns at once also while the server is silent, and while it dials.
func TestWatchEndsWhateverTheServerDoes(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	s := open(t, redisstore.Config{URL: r.URL()})
	watch(t, s).awaitProof()
	testservers.Must(t, r.Freeze())
	for i := range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*50*time.Millisecond)
		err := s.Watch(ctx, &recorder{changes: map[driver.Tag]int{}})
		deadline, _ := ctx.Deadline()
		if late := time.Since(deadline); err != nil || late > slack {
			t.Errorf("Watch returned %v, %v after its context ended", err, late)
		}
		cancel()
	}
	testservers.Must(t, r.Thaw())
}

func TestRefusedTrackingIsAnError(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config []string
		user   string
		want   []string
	}{
		"the account may not": {[]string{"user app on >secret ~* &* +@all -client|tracking"}, "app:secret@",
			[]string{"NOPERM", "+client|tracking"}},
		"the host has no CLIENT": {[]string{`rename-command CLIENT ""`}, "", []string{"unknown command", "+client|tracking"}},
		"the host has no HELLO":  {[]string{`rename-command HELLO ""`}, "", []string{"RESP3"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testservers.StartRedis(t, testservers.RedisConfig{Config: test.config})
			s := open(t, redisstore.Config{URL: "redis://" + test.user + r.Addr()})
			w := watch(t, s)
			select {
			case err := <-w.ended:
				for _, want := range append(test.want, r.Addr()) {
					if !strings.Contains(errText(err), want) {
						t.Errorf("Watch returned %q, which does not say %q", errText(err), want)
					}
				}
			case <-time.After(30 * time.Second):
				t.Error("Watch goes on where nothing is reported")
			}
			if _, gaps := w.reported(tag); gaps > 0 || !w.lastProof().IsZero() {
				t.Error("something was proven, or missed, where nothing is reported")
			}
		})
	}
}

// A server that was made a replica answers, and has nothing to report: others are written to.
func TestDemotedMasterProvesNothing(t *testing.T) {
	t.Parallel()
	old := testservers.StartRedis(t, testservers.RedisConfig{})
	replica := old.StartReplica(t)
	w := watch(t, open(t, redisstore.Config{URL: old.URL()}))
	w.awaitProof()
	testservers.Must(t, replica.Promote(t.Context()))
	testservers.Must(t, old.Follow(t.Context(), replica))
	w.awaitSilence("the server is a replica")
	w.expectGap("it was promoted again", func() { testservers.Must(t, old.Promote(t.Context())) })
}

// A server that is replaced behind its address, while some connections to the old one go on:
// the one that tracks, and the one that writes.
func TestServerReplacedBehindItsAddressInPart(t *testing.T) {
	t.Parallel()
	servers := []*testservers.Redis{
		testservers.StartRedis(t, testservers.RedisConfig{}), testservers.StartRedis(t, testservers.RedisConfig{}),
	}
	var target atomic.Int64
	s := open(t, redisstore.Config{Client: &rueidis.ClientOption{
		InitAddress:       []string{"name.invalid:6379"},
		ForceSingleClient: true,
		DialCtxFn: func(ctx context.Context, _ string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", servers[target.Load()].Addr())
		},
	}})
	w := watch(t, s)
	w.awaitProof()
	for i := range 2 {
		now := int64(i+1) % 2
		w.expectGap("the server was replaced", func() {
			target.Store(now)
			killConnections(t, servers[1-now], false)
			state(t, s, tag) // opens the read connection
		})
		before := state(t, s, tag)
		w.expectReport(tag, "a bump", func() { bump(t, s, tag) })
		if state(t, s, tag) == before {
			t.Error("a bump went to another server than reads come from")
		}
	}
	target.Store(1)
	killConnections(t, servers[0], true)
	w.awaitSilence("it could track another server than reads come from")
	killConnections(t, servers[0], false)
	state(t, s, tag)
	w.awaitProof()
	w.expectReport(tag, "a bump", func() { bump(t, s, tag) })
}

func TestWatchFollowsAFailover(t *testing.T) {
	t.Parallel()
	set := testservers.StartSentinel(t, testservers.SentinelConfig{})
	s := open(t, redisstore.Config{URL: "redis+sentinel://" + strings.Join(set.Addrs(), ",") + "/" + testservers.MasterName})
	w := watch(t, s)
	w.awaitProof()
	master, err := set.Master(t.Context())
	testservers.Must(t, err)
	w.expectGap("a failover", func() {
		testservers.Must(t, master.Kill())
		_, err = set.WaitForOther(t.Context(), master)
		testservers.Must(t, err)
	})
	state(t, s, tag)
	w.expectReport(tag, "a bump at the new master", func() { bump(t, s, tag) })
}

// Slots move, and one is removed. Nothing is proven that was not reported.
func TestWatchFollowsSlots(t *testing.T) {
	t.Parallel()
	c := testservers.StartCluster(t, testservers.ClusterConfig{})
	p := prefix()
	cfg := redisstore.Config{URL: clusterURL(c), Prefix: p}
	s, writer := open(t, cfg), open(t, cfg)
	w := watch(t, s)
	slot, err := c.Slot(t.Context(), p+"tag:"+string(tag))
	testservers.Must(t, err)
	from, err := c.Owner(t.Context(), slot)
	testservers.Must(t, err)
	to := c.Nodes[0]
	if to == from {
		to = c.Nodes[1]
	}
	state(t, writer, tag)
	w.awaitProof()
	// s does not know yet that the slot moves. Its old master must report that it has given
	// the key away, or a bump at the new master would not be reported.
	w.expectReport(tag, "the move", func() {
		testservers.Must(t, c.MoveSlot(t.Context(), slot, to, func() error {
			w.expectReport(tag, "a bump during the move", func() { bump(t, writer, tag) })
			return nil
		}))
	})
	w.expectReport(tag, "a bump after the move", func() { bump(t, writer, tag) })
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		st := state(t, s, tag)
		return !st.Fenced, "the slot is on its way"
	})
	w.expectReport(tag, "a bump where s knows it to be", func() { bump(t, writer, tag) })

	// A master without its Cluster answers, and serves nothing.
	owner, err := c.Owner(t.Context(), 0)
	testservers.Must(t, err)
	testservers.Must(t, owner.Do(t.Context(), "CLUSTER", "DELSLOTS", "0").Error())
	w.awaitSilence("a master says that the cluster is down")
	testservers.Must(t, owner.Do(t.Context(), "CLUSTER", "ADDSLOTS", "0").Error())
	w.awaitProof()
}

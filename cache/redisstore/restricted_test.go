package redisstore_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/redisstore"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// logBuffer is a logger and what was logBuffer through it.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// leastCommands are all that a Store on one server needs; doc.go names them.
const leastCommands = "-@all +get +mget +set +del +unlink +scan +pttl +pexpire +time +evalsha +eval +publish +subscribe +info"

// watchCommands are what it needs beside them for near answers.
const watchCommands = " +client|tracking"

// reportsChanges fails unless s reports changes.
func reportsChanges(t *testing.T, s *redisstore.Store) {
	t.Helper()
	w := watch(t, s)
	w.awaitProof()
	w.expectReport(tag, "a bump", func() { bump(t, s, tag) })
}

func userURL(r *testservers.Redis, user, password string) string {
	return "redis://" + user + ":" + password + "@" + r.Addr()
}

func TestLeastRights(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{Config: []string{
		"user default off",
		"user app on >secret ~app:* &app:* " + leastCommands,
		"user other on >secret ~other:* &other:* " + leastCommands,
		"user near on >secret ~near:* &near:* " + leastCommands + watchCommands,
	}})
	var log logBuffer
	app := open(t, redisstore.Config{URL: userURL(r, "app", "secret"), Prefix: "app:", Logger: log.logger()})
	peer := open(t, redisstore.Config{URL: userURL(r, "app", "secret"), Prefix: "app:"})
	other := open(t, redisstore.Config{URL: userURL(r, "other", "secret"), Prefix: "other:"})
	for _, s := range []*redisstore.Store{app, other} {
		for name, call := range calls(s) {
			if name == "Renew" {
				continue // nothing to renew
			}
			if err := call(t.Context()); err != nil {
				t.Errorf("%s with the least rights: %v", name, err)
			}
		}
	}
	before := state(t, app, tag)
	if state(t, peer, tag) != before {
		t.Error("two processes of one account see different versions")
	}
	bump(t, other, tag)
	if state(t, app, tag) != before {
		t.Error("one account bumped the tag of another")
	}
	put(t, app, "k", "v", tag)
	put(t, other, "k", "of other", tag)
	testservers.Eventually(t, 30*time.Second, func() (bool, string) { return subscribers(t, r) == 2, "the accounts did not subscribe" })
	announced, end := other.Announced("k2")
	defer end()
	awaitAnnouncements(t, other)
	drain(announced) // the beginning of the subscription wakes all waiters
	token := newToken()
	claim(t, app, "k2", token, time.Minute)
	ch, cancel := peer.Announced("k2")
	defer cancel()
	claim(t, peer, "k2", newToken(), time.Minute)
	testservers.Must(t, app.Settle(t.Context(), []driver.Fill{{Key: "k2", Token: token}}))
	select {
	case <-ch:
	case <-time.After(30 * time.Second):
		t.Error("no announcement with the least rights")
	}
	if n, err := app.Purge(t.Context(), "*"); err != nil || n != 1 {
		t.Errorf("purge with the least rights removed %d: %v", n, err)
	}
	if got := entry(t, other, "k"); string(got) != "of other" {
		t.Errorf("after one account purged everything, the entry of another is %q", got)
	}
	awaitAnnouncements(t, other) // what came before has arrived
	if drain(announced) {
		t.Error("one account received the announcement of a key that another settled")
	}
	if got := log.String(); strings.Contains(got, "WARN") {
		t.Errorf("with the least rights something is missed:\n%s", got)
	}

	otherAccount := openUnproven(t, redisstore.Config{URL: userURL(r, "app", "secret"), Prefix: "other:"})
	identify(t, otherAccount)
	if _, err := otherAccount.Read(t.Context(), []driver.Tag{tag}, nil); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("a prefix that the account may not use: %v", err)
	}
	if n, err := otherAccount.Purge(t.Context(), "*"); n != 0 || err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("a purge of a prefix that the account may not use removed %d: %v", n, err)
	}
	if got := entry(t, other, "k"); string(got) != "of other" {
		t.Errorf("after a purge by an account that may not, the entry is %q", got)
	}

	reportsChanges(t, open(t, redisstore.Config{URL: userURL(r, "near", "secret"), Prefix: "near:"}))
}

// awaitAnnouncements waits until s has received everything that was announced before.
func awaitAnnouncements(t *testing.T, s *redisstore.Store) {
	t.Helper()
	ch, end := s.Announced("probe")
	defer end()
	for range 2 { // the first word may be the beginning of the subscription
		testservers.Must(t, s.Settle(t.Context(), []driver.Fill{{Key: "probe"}}))
		select {
		case <-ch:
		case <-time.After(30 * time.Second):
			t.Fatal("no announcement")
		}
	}
}

// drain reports whether ch had something to take.
func drain(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// Where the server does not tell its run id, every new connection may lead to another server.
func TestServerWithoutRunID(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{Config: []string{
		"user app on >secret ~app:* &app:* +@all -@dangerous",
		"user mute on >secret ~app:* resetchannels +@all -@dangerous",
	}})
	proxy := testservers.StartProxy(t, r.Addr())
	var log logBuffer
	s := open(t, redisstore.Config{URL: "redis://app:secret@" + proxy.Addr(), Prefix: "app:", Logger: log.logger()})
	id := identify(t, s)
	before := state(t, s, tag)
	for range 3 {
		if identify(t, s) != id || state(t, s, tag) != before {
			t.Error("the identity changed on one connection")
		}
	}
	put(t, s, "k", "v", tag)
	peer := open(t, redisstore.Config{URL: userURL(r, "app", "secret"), Prefix: "app:"})
	if state(t, peer, tag).Version == before.Version {
		t.Error("two processes share answers although neither knows the run id of its server")
	}
	if state(t, s, tag) != before {
		t.Error("a process that shares no answers took those of another")
	}
	proxy.Reset()
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		return identify(t, s) != id, "a new connection has the old identity"
	})
	if state(t, s, tag) == before {
		t.Error("a version from before a new connection is valid")
	}
	if got := log.String(); strings.Count(got, "does not tell its run id") != 1 {
		t.Errorf("the log does not say once what INFO is needed for:\n%s", got)
	}

	var muteLog logBuffer
	mute := open(t, redisstore.Config{URL: userURL(r, "mute", "secret"), Prefix: "app:", Logger: muteLog.logger()})
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		return strings.Contains(muteLog.String(), "refuses the subscription"), "no log message says that announcements are refused"
	})
	token := newToken()
	claim(t, mute, "k", token, time.Minute)
	claim(t, mute, "k", newToken(), time.Minute)
	if err := mute.Settle(t.Context(), []driver.Fill{{Key: "k", Token: token, Entry: []byte("v"), Life: time.Minute}}); err != nil {
		t.Errorf("an account that may not publish cannot settle: %v", err)
	}
}

func TestRenamedCommands(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{Config: []string{
		`rename-command CONFIG ""`, `rename-command KEYS ""`, `rename-command FLUSHALL ""`, `rename-command FLUSHDB ""`,
		`rename-command CLIENT ""`, `rename-command DEBUG ""`, `rename-command HELLO ""`, `rename-command MONITOR ""`,
	}})
	s := open(t, redisstore.Config{URL: r.URL()})
	for name, call := range calls(s) {
		if err := call(t.Context()); err != nil && name != "Renew" {
			t.Errorf("%s: %v", name, err)
		}
	}
	before := state(t, s, tag)
	if state(t, s, tag) != before {
		t.Error("the version changed by itself")
	}
	ch, cancel := s.Announced("k")
	defer cancel()
	testservers.Eventually(t, 30*time.Second, func() (bool, string) {
		testservers.Must(t, s.Settle(t.Context(), []driver.Fill{{Key: "k"}}))
		select {
		case <-ch:
			return true, ""
		default:
			return false, "no announcement over the older protocol"
		}
	})
}

func TestWhatTheServerLacksIsLoggedOnce(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]string{
		"noeviction":  "refuses writes when its memory is full",
		"allkeys-lru": "evicts keys when its memory is full",
	} {
		r := testservers.StartRedis(t, testservers.RedisConfig{Config: []string{"maxmemory 100mb", "maxmemory-policy " + policy}})
		var log logBuffer
		s := open(t, redisstore.Config{URL: r.URL(), Logger: log.logger()})
		testservers.Must(t, r.Restart(t.Context()))
		state(t, s, tag)
		if got := log.String(); strings.Count(got, want) != 1 {
			t.Errorf("policy %s was not reported once:\n%s", policy, got)
		}
	}
}

func TestClusterNodeUnderTheWrongScheme(t *testing.T) {
	t.Parallel()
	node, _, _ := strings.Cut(strings.TrimPrefix(cluster(t), "redis+cluster://"), ",")
	s := openUnproven(t, redisstore.Config{URL: "redis://" + node})
	if _, err := s.Identity(t.Context()); err == nil || !strings.Contains(err.Error(), "redis+cluster://") {
		t.Errorf("a node of a cluster as a single server: %v", err)
	}
	// One server under the scheme of a cluster simply works.
	single := open(t, redisstore.Config{URL: "redis+cluster://" + testservers.SharedRedis(t).Addr()})
	state(t, single, tag)
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{Password: "right"})
	var log logBuffer
	s := openUnproven(t, redisstore.Config{URL: "redis://:swordfish@" + r.Addr(), Logger: log.logger()})
	ctx, cancel := context.WithTimeout(t.Context(), ample)
	defer cancel()
	_, err := s.Identity(ctx)
	if err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Errorf("the wrong password: %v", err)
	}
	if text := log.String() + errText(err); strings.Contains(text, "swordfish") {
		t.Errorf("the log contains the password: %s", text)
	}
}

func TestLeastRightsInClusterAndUnderSentinel(t *testing.T) {
	t.Parallel()
	user := func(name, more string) string {
		return "user " + name + " on >secret ~" + name + ":* &" + name + ":* " + leastCommands + more
	}
	const inCluster = " +cluster|slots +cluster|shards"
	c := testservers.StartCluster(t, testservers.ClusterConfig{Redis: testservers.RedisConfig{Config: []string{
		user("app", inCluster), user("near", inCluster+watchCommands),
	}}})
	set := testservers.StartSentinel(t, testservers.SentinelConfig{Redis: testservers.RedisConfig{Config: []string{user("app", " +role")}}})
	for name, url := range map[string]string{
		"cluster":  "redis+cluster://app:secret@" + strings.Join(c.Addrs(), ","),
		"sentinel": "redis+sentinel://app:secret@" + strings.Join(set.Addrs(), ",") + "/" + testservers.MasterName,
	} {
		var log logBuffer
		s := open(t, redisstore.Config{URL: url, Prefix: "app:", Logger: log.logger()})
		for method, call := range calls(s) {
			if err := call(t.Context()); err != nil && method != "Renew" {
				t.Errorf("%s with the least rights: %s: %v", name, method, err)
			}
		}
		if got := log.String(); strings.Contains(got, "WARN") {
			t.Errorf("%s: with the least rights something is missed:\n%s", name, got)
		}
	}
	reportsChanges(t, open(t, redisstore.Config{URL: "redis+cluster://near:secret@" + strings.Join(c.Addrs(), ","), Prefix: "near:"}))
}

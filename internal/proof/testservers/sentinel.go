package testservers

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"
)

// SentinelConfig says how a set of servers under Redis Sentinel is set up.
type SentinelConfig struct {
	Redis     RedisConfig   // of master and replicas; the sentinels share only its TLS
	Replicas  int           // default 1
	Sentinels int           // most of them must agree on a failover; default 1
	DownAfter time.Duration // silence after which a server counts as down; default 500 ms
}

// MasterName is what the sentinels call the set.
const MasterName = "main"

// Sentinel is a master with replicas, and the sentinels that watch them.
type Sentinel struct {
	Nodes     []*Redis // the first one is the master to begin with
	Sentinels []*Redis
}

// StartSentinel starts such a set for the time of the test.
func StartSentinel(tb testing.TB, cfg SentinelConfig) *Sentinel {
	tb.Helper()
	s, err := OpenSentinel(context.Background(), cfg)
	check(tb, err)
	tb.Cleanup(func() { closeGroupAfter(tb, s.all()) })
	return s
}

// OpenSentinel starts such a set and waits until all sentinels know all of it,
// so that a failover can succeed at once. The caller must Close it.
func OpenSentinel(ctx context.Context, cfg SentinelConfig) (*Sentinel, error) {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	s := new(Sentinel)
	if err := s.open(ctx, cfg); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Sentinel) open(ctx context.Context, cfg SentinelConfig) error {
	cfg.Replicas = cmp.Or(cfg.Replicas, 1)
	cfg.Sentinels = cmp.Or(cfg.Sentinels, 1)
	cfg.DownAfter = cmp.Or(cfg.DownAfter, 500*time.Millisecond)

	master, err := OpenRedis(ctx, cfg.Redis)
	if err != nil {
		return err
	}
	s.Nodes = append(s.Nodes, master)
	for range cfg.Replicas {
		replica, err := master.OpenReplica(ctx)
		if err != nil {
			return err
		}
		s.Nodes = append(s.Nodes, replica)
	}
	watch := []string{
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d %d", MasterName, master.port.number, cfg.Sentinels/2+1),
		fmt.Sprintf("sentinel down-after-milliseconds %s %d", MasterName, cfg.DownAfter.Milliseconds()),
		fmt.Sprintf("sentinel failover-timeout %s 5000", MasterName),
		fmt.Sprintf("sentinel auth-user %s %s", MasterName, adminUser),
		fmt.Sprintf("sentinel auth-pass %s %s", MasterName, master.adminPassword),
	}
	for range cfg.Sentinels {
		sentinel, err := openRedisWith(ctx, RedisConfig{TLS: cfg.Redis.TLS}, rand.Text(), watch, "--sentinel")
		if err != nil {
			return err
		}
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	return Poll(ctx, func() (bool, string) {
		for _, sentinel := range s.Sentinels {
			if err := checkSentinel(ctx, sentinel, cfg.Replicas, cfg.Sentinels-1); err != nil {
				return false, fmt.Sprintf("the sentinel at %s: %v", sentinel.Addr(), err)
			}
		}
		return true, ""
	})
}

// checkSentinel returns an error unless the sentinel could fail the master over to any
// replica.
func checkSentinel(ctx context.Context, sentinel *Redis, replicas, others int) error {
	master, err := sentinel.Do(ctx, "SENTINEL", "MASTER", MasterName).AsStrMap()
	if err != nil {
		return err
	}
	if got := master["num-other-sentinels"]; got != fmt.Sprint(others) {
		return fmt.Errorf("knows %s other sentinels of %d", got, others)
	}
	answers, err := sentinel.Do(ctx, "SENTINEL", "REPLICAS", MasterName).ToArray()
	if err != nil {
		return err
	}
	linked := 0
	for _, answer := range answers {
		if replica, err := answer.AsStrMap(); err == nil && replica["master-link-status"] == "ok" {
			linked++
		}
	}
	if linked != replicas {
		return fmt.Errorf("knows %d linked replicas of %d", linked, replicas)
	}
	return nil
}

// Addrs returns the addresses of the sentinels.
func (s *Sentinel) Addrs() []string { return addrs(s.Sentinels) }

// Master returns the server that the first sentinel that answers names as the
// master.
func (s *Sentinel) Master(ctx context.Context) (*Redis, error) {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	var errs []error
	for _, sentinel := range s.Sentinels {
		hostPort, err := sentinel.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName).AsStrSlice()
		if err != nil || len(hostPort) != 2 {
			errs = append(errs, fmt.Errorf("the sentinel at %s: %w", sentinel.Addr(), err))
			continue
		}
		for _, node := range s.Nodes {
			if node.Addr() == net.JoinHostPort(hostPort[0], hostPort[1]) {
				return node, nil
			}
		}
		errs = append(errs, fmt.Errorf("the sentinel at %s names an unknown master: %v", sentinel.Addr(), hostPort))
	}
	return nil, errors.Join(errs...)
}

// Failover has the sentinels replace the master, as an operator does, and
// returns the new one once it accepts writes.
func (s *Sentinel) Failover(ctx context.Context) (*Redis, error) {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	old, err := s.Master(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Sentinels[0].Do(ctx, "SENTINEL", "FAILOVER", MasterName).Error(); err != nil {
		return nil, err
	}
	return s.WaitForOther(ctx, old)
}

// WaitForOther waits until another server than old is the master and accepts
// writes, as after old was killed or frozen.
func (s *Sentinel) WaitForOther(ctx context.Context, old *Redis) (*Redis, error) {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	var master *Redis
	err := Poll(ctx, func() (bool, string) {
		var err error
		if master, err = s.Master(ctx); err != nil {
			return false, err.Error()
		}
		if master == old {
			return false, old.Addr() + " is still the master"
		}
		info, err := master.info(ctx, "replication")
		return info["role"] == "master", fmt.Sprintf("%s is still a %s (%v)", master.Addr(), info["role"], err)
	})
	return master, err
}

func (s *Sentinel) all() []*Redis {
	return append(append([]*Redis(nil), s.Sentinels...), s.Nodes...)
}

// Close ends all servers of the set.
func (s *Sentinel) Close() error { return closeAll(s.all()) }

func addrs(servers []*Redis) []string {
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.Addr()
	}
	return list
}

func closeAll(servers []*Redis) error {
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

func closeGroupAfter(tb testing.TB, servers []*Redis) {
	for _, s := range servers {
		closeAfter(tb, s)
	}
}

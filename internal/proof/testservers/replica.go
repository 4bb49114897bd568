package testservers

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// StartReplica starts a replica of the server for the time of the test.
func (r *Redis) StartReplica(tb testing.TB) *Redis {
	tb.Helper()
	replica, err := r.OpenReplica(context.Background())
	check(tb, err)
	tb.Cleanup(func() { closeAfter(tb, replica) })
	return replica
}

// OpenReplica starts a server that is set up like r and follows it. It returns
// when the replica has r's data. The caller must Close it.
func (r *Redis) OpenReplica(ctx context.Context) (*Redis, error) {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	extra := []string{fmt.Sprintf("replicaof 127.0.0.1 %d", r.port.number)}
	replica, err := openRedisWith(ctx, r.cfg, r.adminPassword, extra)
	if err != nil {
		return nil, err
	}
	if err := replica.waitForMaster(ctx); err != nil {
		return nil, errors.Join(err, replica.Close())
	}
	return replica, nil
}

// Promote makes a replica a master, with what it has received so far. The old
// master is left as it is.
func (r *Redis) Promote(ctx context.Context) error {
	return r.replicaOf(ctx, "NO", "ONE")
}

// Follow makes the server a replica of master, which must have been set up
// together with it, and returns when it has master's data in place of its own.
func (r *Redis) Follow(ctx context.Context, master *Redis) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	if err := r.replicaOf(ctx, "127.0.0.1", strconv.Itoa(master.port.number)); err != nil {
		return err
	}
	return r.waitForMaster(ctx)
}

// replicaOf changes the role also for the next Restart.
func (r *Redis) replicaOf(ctx context.Context, host, port string) error {
	if err := r.Do(ctx, "REPLICAOF", host, port).Error(); err != nil {
		return err
	}
	return r.Do(ctx, "CONFIG", "REWRITE").Error()
}

// WaitForReplica waits until replica has everything that r had written when it
// was called.
func (r *Redis) WaitForReplica(ctx context.Context, replica *Redis) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	info, err := r.info(ctx, "replication")
	if err != nil {
		return err
	}
	target, err := strconv.ParseInt(info["master_repl_offset"], 10, 64)
	if err != nil {
		return err
	}
	return Poll(ctx, func() (bool, string) {
		info, err := replica.info(ctx, "replication")
		got, _ := strconv.ParseInt(info["slave_repl_offset"], 10, 64)
		return got >= target, fmt.Sprintf("the replica at %s is at %d, before %d (%v)", replica.Addr(), got, target, err)
	})
}

func (r *Redis) waitForMaster(ctx context.Context) error {
	return Poll(ctx, func() (bool, string) {
		info, err := r.info(ctx, "replication")
		status := info["master_link_status"]
		return status == "up", fmt.Sprintf("the replica's link is %q (%v)", status, err)
	})
}

// info returns the fields of one section of INFO.
func (r *Redis) info(ctx context.Context, section string) (map[string]string, error) {
	text, err := r.Do(ctx, "INFO", section).ToString()
	if err != nil {
		return nil, err
	}
	return fields(text), nil
}

// fields reads lines of the form "name:value", as INFO and CLUSTER INFO answer.
func fields(text string) map[string]string {
	found := make(map[string]string)
	text = strings.TrimPrefix(text, "txt:") // the format of a RESP3 verbatim string, which rueidis leaves in
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			found[name] = value
		}
	}
	return found
}

package redisstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// How changes are heard, and proven
//
// A near answer is served without asking Redis. That is allowed only while this process
// knows that no tag of the answer has changed. Two reports give it that knowledge, for each
// master: Changed names the tags whose keys the server says have changed, and Proven(at) says
// that every change from before at has been reported. A bound on the age of the last proof
// bounds how stale a near answer may be. So a missing proof costs near answers, and a wrong
// one costs consistency.
//
// One call of Watch has one tracking connection to each master: to one incarnation of it,
// over one network connection after the other. Tracking is in broadcasting mode: the server
// pushes the name of every tag key that changes, expires or is evicted. Default mode pushes
// only keys that the connection itself has read, each once until it is read again. Then all
// reads would go over this connection, and would lose the speed of a read connection (see
// connections). The server would also remember each key for each process and, beyond
// tracking-table-max-keys, forget some and report them. Measured with 1,800 writes a second
// of 1,000 tags that 16 processes use, a write took 63 µs of the server's time, 79 µs in
// default mode, and 15 µs without tracking.
//
// A proof is a change too: the connection writes a key of its own, and waits until the server has
// pushed the name of that. The server executes one command after the other, and pushes the
// names of what changed to each connection in the order in which it changed:
//
//	writer                  server                           tracking connection
//	BUMP t  ------------->  changes t                        at = now
//	        <-------------  acknowledges
//	                        SET proof 7    <---------------  SET proof 7
//	                        pushes t       --------------->  Changed(t)
//	                        pushes proof 7 --------------->  Proven(at)
//
// The reply to SET proves nothing. It need not stay behind the pushes: servers with I/O threads may
// send it while those wait for the end of their round.
//
// Redis collects the names of a round and pushes them by prefix, in the order of the prefixes. So the
// proofs have a prefix of their own, to which no other connection listens, and which comes after
// that of the tags. That is how Redis and Valkey do it; no manual promises it. So each connection
// sees for itself before its first proof: a script changes a tag and then the key of a proof, which
// is one round, and they have to be heard in this order. A proof has a name that no other has, so
// that what is heard of it, also that it has expired or was evicted, comes after its SET.
//
// The request begins with HELLO, because its reply names the role: a server that was demoted has
// nothing to report because writes go elsewhere. Most refuse the SET as well. A master of a
// Cluster that is cut off refuses it for certain, if the key is of its own slots.
//
// Changes can be lost where no connection tracks: before the first, between two, and where a
// slot or an address leads to another server. Each such gap is reported as Missed, which
// drops all near answers, before the next proof:
//
//   - Each network connection goes through dial, CLIENT TRACKING, identity, request, reply,
//     and then Missed and Proven. Whatever changed before tracking began lies in that Missed.
//   - rueidis would replace a lost connection within the next request. The new one would not
//     track, and its reply would prove changes that were not pushed. So each client may dial
//     once. When the connection ends, run begins again with another client, at first after
//     20 ms, then less often, until the context of Watch ends.
//   - The identity is compared with that of the topology, because an address may lead to
//     another server since. Where a server does not tell its run id, this cannot be noticed.
//   - When all keys are flushed, the server pushes no names. That is Missed as well. rueidis
//     reports the end of a connection in the same way; the next connection reports that gap.
//   - When masters, their incarnations or their slots change, the session reports Missed and
//     follows. From the moment a topology is published until the session follows it, proofs
//     count for nothing: slot 7 moves from A to B, a write to B is acknowledged, and a proof by
//     A would speak for slot 7 too. Afterwards nothing is proven until B has proven something,
//     because the session proves the least of what its connections prove.
//   - While this process does not know yet that a slot moves, the old master reports each key
//     that it gives away as changed.
//
// A server that will never track, because of its version or of the rights of the account, ends
// Watch with an error. Any other failure is tried again. All reports are made under the mutex
// of the session: after Watch has returned there are none.

const (
	// proofEvery is how often a master is asked for a proof. The bound of a near answer must
	// exceed it, with the way there and back.
	proofEvery = 200 * time.Millisecond

	// A tracking connection carries the commands of one proof at a time and what the server pushes.
	// It does not need what rueidis reserves for 1024 calls and for large replies.
	trackingRing   = 3 // 2^3 calls
	trackingBuffer = 16 << 10
)

// trackingConn reports the changes of one incarnation of one master.
type trackingConn struct {
	incarnation
	session *watchSession
	ctx     context.Context
	stop    context.CancelFunc
	done    chan struct{} // closed when run has returned

	proofKey string        // a key of this master, "" unless it is part of a Cluster; guarded by session.mu
	proven   time.Time     // every change before it has been reported; guarded by session.mu
	reports  bool          // has proven something over its network connection, which lasts; guarded by session.mu
	asked    chan struct{} // for a proof, before the next is due
}

func newTrackingConn(ctx context.Context, session *watchSession, in incarnation) *trackingConn {
	c := &trackingConn{incarnation: in, session: session, done: make(chan struct{}), asked: make(chan struct{}, 1)}
	c.ctx, c.stop = context.WithCancel(ctx)
	return c
}

// run connects again and again, until it is stopped.
func (c *trackingConn) run() {
	defer close(c.done)
	defer c.stop()
	log := c.session.store.log
	retry, interrupted := minRetry, false
	for {
		proven, err := c.runOnce(func() {
			if interrupted {
				log.Info("redis reports changes again", "server", c.addr)
			}
		})
		if c.ctx.Err() != nil {
			return
		}
		if proven {
			retry, interrupted = minRetry, true
			log.Warn("redis reports no changes: near answers wait for it", "server", c.addr, "err", err)
		}
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(retry + rand.N(retry)):
		}
		retry = min(2*retry, maxRetry)
	}
}

// runOnce tracks over one network connection until that ends. It reports whether anything was
// proven over it, and calls begun after the first proof.
func (c *trackingConn) runOnce(begun func()) (proven bool, err error) {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	conn := newTrackedConn(c)
	client, err := conn.dial(ctx)
	if client != nil {
		defer client.Close()
	}
	if err != nil {
		return false, err
	}
	if err := conn.enableTracking(ctx); err != nil {
		return false, err
	}
	if err := c.verifyIdentity(ctx, client); err != nil {
		return false, err
	}
	if err := conn.seeOrder(ctx); err != nil {
		return false, err
	}
	defer c.session.interrupted(c)
	tick := time.NewTicker(proofEvery)
	defer tick.Stop()
	for {
		at := time.Now()
		if err := conn.prove(ctx); err != nil {
			return proven, err
		}
		if c.session.proved(c, at, !proven) && !proven {
			proven = true
			begun()
		}
		select {
		case <-tick.C:
		case <-c.asked:
		case <-conn.ended: // reconnect before the next tick
			return proven, errConnectionLost
		case <-ctx.Done():
			return proven, ctx.Err()
		}
	}
}

var (
	errConnectionLost   = errors.New("the connection was lost")
	errSecondConnection = errors.New("another connection would not be tracked")
	errNotPushed        = errors.New("the server does not report what changes")
)

// isPermanent reports that the server has declined for a reason that time does not change.
func isPermanent(err error) bool {
	re, answered := rueidis.IsRedisErr(err)
	if !answered {
		return false
	}
	code, _, _ := strings.Cut(re.Error(), " ")
	return !slices.Contains([]string{"BUSY", "UNKILLABLE", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"}, code)
}

// refuse ends Watch for a reason that time does not change.
func (c *trackingConn) refuse(why string, err error) error {
	if err != nil {
		why = fmt.Sprintf("%s: %v", why, err)
	}
	err = fmt.Errorf("redis %s: %s", c.addr, why)
	c.session.fail(err)
	return err
}

// verifyIdentity fails if the server is not the incarnation that the topology names.
func (c *trackingConn) verifyIdentity(ctx context.Context, client rueidis.Client) error {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	info, err := fetchServerInfo(ctx, client, &endpoint{addr: c.addr}, 1)
	if err == nil && !info.withoutRunID && info.identity != c.identity {
		c.session.store.wake()
		err = fmt.Errorf("redis %s: it is not the server it was", c.addr)
	}
	return err
}

// withTimeout bounds how long the server may be silent.
func (c *trackingConn) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, max(c.session.store.opt.ConnWriteTimeout, silenceTimeout))
}

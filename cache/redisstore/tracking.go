package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
// A proof is a request and its reply. Pushes and replies share the connection and stay in
// order, and rueidis handles pushes, in the goroutine that reads, before it hands on the
// reply. Redis executes what it found readable, then queues the pushes for all changes of
// that round, then sends replies, then looks for new input:
//
//	writer                  server                           tracking connection
//	BUMP t  ------------->  changes t
//	                        queues push t  --------------->  Changed(t)
//	        <-------------  acknowledges
//	                        reads HELLO    <---------------  at = now, HELLO
//	                        queues reply   --------------->  Proven(at)
//
// A request that is sent after a change is read in a later round, so its reply is behind the
// push. This needs one request at a time. With two, the first makes the socket readable, the
// server changes t for another client, the second arrives, and both are read and answered in
// this round: the second reply would be ahead of the push for a change that is older than the
// second request. So rueidis must send no PING of its own here.
//
// The request is HELLO, because its reply names the role. A server that was demoted answers
// PING, and has nothing to report because writes go elsewhere. A master of a Cluster must also
// GET a key of its own slots: one that is cut off from its Cluster still says that it is a
// master, but refuses the key.
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

	// A tracking connection carries one command at a time and what the server pushes. It
	// does not need what rueidis reserves for 1024 calls and for large replies.
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

	proofKey string    // a key of this master, "" unless it is part of a Cluster; guarded by session.mu
	proven   time.Time // every change before it has been reported; guarded by session.mu
}

func newTrackingConn(ctx context.Context, session *watchSession, in incarnation) *trackingConn {
	c := &trackingConn{incarnation: in, session: session, done: make(chan struct{})}
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
	socket := &trackingSocket{ended: make(chan struct{})}
	client, err := c.dial(ctx, socket)
	if client != nil {
		defer client.Close()
	}
	if err != nil {
		return false, err
	}
	if err := c.enableTracking(ctx, client); err != nil {
		return false, err
	}
	if err := c.verifyIdentity(ctx, client); err != nil {
		return false, err
	}
	tick := time.NewTicker(proofEvery)
	defer tick.Stop()
	for {
		at := time.Now()
		if err := c.requestProof(ctx, client); err != nil {
			return proven, err
		}
		if c.session.proved(c, at, !proven) && !proven {
			proven = true
			begun()
		}
		select {
		case <-tick.C:
		case <-socket.ended: // reconnect before the next tick
			return proven, errConnectionLost
		case <-ctx.Done():
			return proven, ctx.Err()
		}
	}
}

var (
	errConnectionLost   = errors.New("the connection was lost")
	errSecondConnection = errors.New("another connection would not be tracked")
)

// trackingSocket is the network connection of one runOnce.
type trackingSocket struct {
	net.Conn // set when it is dialled
	once     sync.Once
	ended    chan struct{}
}

func (s *trackingSocket) Close() error {
	s.once.Do(func() { close(s.ended) })
	return s.Conn.Close()
}

// dial makes a client that has one connection and never another.
func (c *trackingConn) dial(ctx context.Context, socket *trackingSocket) (rueidis.Client, error) {
	opt := singleServer(c.session.store.opt, c.addr)
	dial := dialFuncOf(opt)
	var dialled atomic.Bool
	opt.DialCtxFn = func(dctx context.Context, addr string, d *net.Dialer, cfg *tls.Config) (net.Conn, error) {
		if dialled.Swap(true) {
			return nil, errSecondConnection
		}
		dctx, cancel := context.WithCancel(dctx)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		conn, err := dial(dctx, addr, d, cfg)
		if err != nil {
			return nil, err
		}
		socket.Conn = conn
		context.AfterFunc(ctx, func() { _ = socket.Close() })
		return socket, nil
	}
	opt.Dialer.KeepAlive = -1 // no PING by rueidis: one request at a time; requestProof notices silence
	opt.RingScaleEachConn = trackingRing
	opt.ReadBufferEachConn, opt.WriteBufferEachConn = trackingBuffer, trackingBuffer
	opt.OnInvalidations = func(keys []rueidis.RedisMessage) {
		switch {
		case keys != nil:
			names := make([]string, len(keys))
			for i := range keys {
				names[i], _ = keys[i].ToString()
			}
			c.session.changed(names)
		case !socket.hasEnded():
			c.session.missed() // all keys were flushed
		}
	}
	return rueidis.NewClient(opt)
}

// hasEnded reports whether s was closed. rueidis closes it before it reports the end of the
// connection as an invalidation of everything.
func (s *trackingSocket) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// enableTracking tells the server to push. It ends Watch if the server never will.
//
// rueidis.ClientOption.ClientTrackingOptions would do the same, but would not tell a refusal
// by the server from other failures of a connection.
func (c *trackingConn) enableTracking(ctx context.Context, client rueidis.Client) error {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	b := client.B()
	hello, err := client.Do(ctx, b.Arbitrary("HELLO").Build()).AsMap()
	proto := hello["proto"]
	if version, _ := proto.AsInt64(); isPermanent(err) || err == nil && version < 3 {
		// A server that speaks only RESP2 accepts CLIENT TRACKING, and pushes nothing.
		return c.refuse("it does not speak RESP3, over which changes are reported: allow HELLO 3, "+
			"or use Redis 6.2 or later, or Valkey", err)
	}
	if err != nil {
		return err
	}
	err = client.Do(ctx, b.Arbitrary("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", c.session.store.names.tag("")).Build()).Error()
	if isPermanent(err) {
		return c.refuse("it does not report changes: allow the account CLIENT TRACKING, as +client|tracking does, "+
			"or use a server that has it", err)
	}
	return err
}

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

// requestProof returns nil if the server answers, and is still a master that serves.
func (c *trackingConn) requestProof(ctx context.Context, client rueidis.Client) error {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	c.session.mu.Lock()
	key := c.proofKey
	c.session.mu.Unlock()
	hello := client.B().Arbitrary("HELLO").Build()
	if key == "" {
		_, err := parseHello(client.Do(ctx, hello))
		return err
	}
	replies := client.DoMulti(ctx, hello, client.B().Get().Key(key).Build())
	if _, err := parseHello(replies[0]); err != nil {
		return err
	}
	err := replies[1].Error()
	if err == nil || rueidis.IsRedisNil(err) || isAsk(err) || isWrongType(err) {
		return nil
	}
	if re, ok := rueidis.IsRedisErr(err); ok {
		if _, moved := re.IsMoved(); moved {
			c.session.store.wake()
		}
	}
	return err
}

// withTimeout bounds how long the server may be silent.
func (c *trackingConn) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, max(c.session.store.opt.ConnWriteTimeout, silenceTimeout))
}

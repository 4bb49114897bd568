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

const (
	// proofEvery is how often a master is asked to prove that it has reported everything.
	// It is what the bound of a near answer must exceed, with the way there and back.
	proofEvery = 200 * time.Millisecond

	// A tracking connection carries one command at a time and what the server pushes:
	// what rueidis keeps for 1024 calls, and for large replies, is not needed.
	earRing   = 3 // 8 places
	earBuffer = 16 << 10
)

// ear listens to one incarnation of one master, over one connection after the other.
//
// It tracks in broadcasting mode: the server pushes the name of every tag key that
// changes. Default mode pushes only keys that the connection itself has read, each of them
// once until it is read again. Then all reads would have to go over this connection, which
// would end what makes a lane fast (see link), and the server would remember each key for
// each process and, beyond tracking-table-max-keys, forget some and report them. Measured
// with 1,800 writes a second of 1,000 tags that 16 processes use, a write took 63 µs of the
// server's time, 79 µs in default mode, and 15 µs with nobody told.
type ear struct {
	place
	audience *audience
	ctx      context.Context
	stop     context.CancelFunc
	done     chan struct{} // closed when listen has returned

	probe  string    // a key of this master, "" unless it is part of a Cluster; guarded by audience.mu
	proven time.Time // everything before has been reported; guarded by audience.mu
}

func newEar(ctx context.Context, a *audience, p place) *ear {
	e := &ear{place: p, audience: a, done: make(chan struct{})}
	e.ctx, e.stop = context.WithCancel(ctx)
	return e
}

// listen connects again and again, until it is stopped.
func (e *ear) listen() {
	defer close(e.done)
	defer e.stop()
	log := e.audience.store.log
	retry, interrupted := minRetry, false
	for {
		heard, err := e.session(func() {
			if interrupted {
				log.Info("redis reports changes again", "server", e.addr)
			}
		})
		if e.ctx.Err() != nil {
			return
		}
		if heard {
			retry, interrupted = minRetry, true
			log.Warn("redis reports no changes: near answers wait for it", "server", e.addr, "err", err)
		}
		select {
		case <-e.ctx.Done():
			return
		case <-time.After(retry + rand.N(retry)):
		}
		retry = min(2*retry, maxRetry)
	}
}

// session listens over one connection until that ends. It reports whether changes were
// ever heard over it; begun is called when they are.
//
// Redis queues what it pushes before it looks for more input, and so before it reads a
// request that was sent after the change: rueidis hands on the pushes, in the goroutine
// that reads, before the reply. That holds because one request at a time is under way.
// If there were two, the server might read the second together with the first, and
// answer both before it pushes what somebody changed in between.
func (e *ear) session(begun func()) (heard bool, err error) {
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	ec := &earConn{ended: make(chan struct{})}
	client, err := e.connect(ctx, ec)
	if client != nil {
		defer client.Close()
	}
	if err != nil {
		return false, err
	}
	if err := e.track(ctx, client); err != nil {
		return false, err
	}
	if err := e.recognise(ctx, client); err != nil {
		return false, err
	}
	tick := time.NewTicker(proofEvery)
	defer tick.Stop()
	for {
		at := time.Now()
		if err := e.ask(ctx, client); err != nil {
			return heard, err
		}
		if e.audience.proved(e, at, !heard) && !heard {
			heard = true
			begun()
		}
		select {
		case <-tick.C:
		case <-ec.ended: // not to wait for the next tick
			return heard, errConnectionLost
		case <-ctx.Done():
			return heard, ctx.Err()
		}
	}
}

var (
	errConnectionLost = errors.New("the connection was lost")
	errConnectedOnce  = errors.New("another connection would not be tracked")
)

// earConn is the connection of a session.
type earConn struct {
	net.Conn // set when it is dialled
	once     sync.Once
	ended    chan struct{}
}

func (c *earConn) Close() error {
	c.once.Do(func() { close(c.ended) })
	return c.Conn.Close()
}

// connect makes a client that has one connection and never another.
func (e *ear) connect(ctx context.Context, ec *earConn) (rueidis.Client, error) {
	opt := direct(e.audience.store.opt, e.addr)
	dial := dialer(opt)
	var dialled atomic.Bool
	opt.DialCtxFn = func(dctx context.Context, addr string, d *net.Dialer, cfg *tls.Config) (net.Conn, error) {
		if dialled.Swap(true) {
			// rueidis would dial within the next request, and what changed meanwhile would
			// be taken for reported.
			return nil, errConnectedOnce
		}
		dctx, cancel := context.WithCancel(dctx)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		conn, err := dial(dctx, addr, d, cfg)
		if err != nil {
			return nil, err
		}
		ec.Conn = conn
		context.AfterFunc(ctx, func() { _ = ec.Close() })
		return ec, nil
	}
	opt.Dialer.KeepAlive = -1 // no PING by rueidis: one request at a time; ask notices silence
	opt.RingScaleEachConn = earRing
	opt.ReadBufferEachConn, opt.WriteBufferEachConn = earBuffer, earBuffer
	opt.OnInvalidations = func(keys []rueidis.RedisMessage) {
		switch {
		case keys != nil:
			names := make([]string, len(keys))
			for i := range keys {
				names[i], _ = keys[i].ToString()
			}
			e.audience.changed(names)
		case !ec.hasEnded():
			e.audience.missed() // all keys are gone
		}
	}
	return rueidis.NewClient(opt)
}

// hasEnded reports whether c was closed, by anybody: rueidis closes it before it says that
// everything is invalid because of that, and the next session says so itself.
func (c *earConn) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// track tells the server to push. Where it never will, it ends Watch.
//
// Not by rueidis.ClientOption.ClientTrackingOptions: what the server answers would not be
// told from what else may go wrong with a connection.
func (e *ear) track(ctx context.Context, client rueidis.Client) error {
	ctx, cancel := e.bound(ctx)
	defer cancel()
	b := client.B()
	hello, err := client.Do(ctx, b.Arbitrary("HELLO").Build()).AsMap()
	proto := hello["proto"]
	if version, _ := proto.AsInt64(); permanent(err) || err == nil && version < 3 {
		// A server that speaks RESP2 alone accepts to track, and pushes nothing.
		return e.refused("it does not speak RESP3, over which changes are reported: allow HELLO 3, "+
			"or use Redis 6.2 or later, or Valkey", err)
	}
	if err != nil {
		return err
	}
	err = client.Do(ctx, b.Arbitrary("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", e.audience.store.names.tag("")).Build()).Error()
	if permanent(err) {
		return e.refused("it does not report changes: allow the account CLIENT TRACKING, as +client|tracking does, "+
			"or use a server that has it", err)
	}
	return err
}

// permanent reports that the server has declined for a reason that does not pass.
func permanent(err error) bool {
	re, answered := rueidis.IsRedisErr(err)
	if !answered {
		return false
	}
	code, _, _ := strings.Cut(re.Error(), " ")
	return !slices.Contains([]string{"BUSY", "UNKILLABLE", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"}, code)
}

// refused ends Watch for a reason that time alone does not change.
func (e *ear) refused(why string, err error) error {
	if err != nil {
		why = fmt.Sprintf("%s: %v", why, err)
	}
	err = fmt.Errorf("redis %s: %s", e.addr, why)
	e.audience.refuse(err)
	return err
}

// recognise fails if the server is not the one that is read from and written to: its address
// may lead to another since.
func (e *ear) recognise(ctx context.Context, client rueidis.Client) error {
	ctx, cancel := e.bound(ctx)
	defer cancel()
	info, err := interrogate(ctx, client, &node{addr: e.addr}, 1)
	if err == nil && !info.nameless && info.identity != e.identity {
		e.audience.store.kick()
		err = fmt.Errorf("redis %s: it is not the server it was", e.addr)
	}
	return err
}

// ask returns nil if the server answers, and is still a master that serves. PING would be
// answered by one that was demoted, or cut off from its Cluster, and has nothing to report
// because others are written to.
func (e *ear) ask(ctx context.Context, client rueidis.Client) error {
	ctx, cancel := e.bound(ctx)
	defer cancel()
	e.audience.mu.Lock()
	probe := e.probe
	e.audience.mu.Unlock()
	hello := client.B().Arbitrary("HELLO").Build()
	if probe == "" {
		_, err := greet(client.Do(ctx, hello))
		return err
	}
	replies := client.DoMulti(ctx, hello, client.B().Get().Key(probe).Build())
	if _, err := greet(replies[0]); err != nil {
		return err
	}
	err := replies[1].Error()
	if err == nil || rueidis.IsRedisNil(err) || isAsk(err) || isWrongType(err) {
		return nil
	}
	if re, ok := rueidis.IsRedisErr(err); ok {
		if _, moved := re.IsMoved(); moved {
			e.audience.store.kick()
		}
	}
	return err
}

// bound is how long the server may be silent.
func (e *ear) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, max(e.audience.store.opt.ConnWriteTimeout, deadAfter))
}

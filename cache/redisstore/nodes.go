package redisstore

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// node counts the connections to one address. Its generation changes before the first
// byte can pass over a new connection and after the last one over an old: as long as it
// stands still, everything came from the server process that was there before.
type node struct {
	addr string
	gen  atomic.Uint64
	live atomic.Int32 // open connections

	mu        sync.Mutex
	anonymous identity // made up for nameless, where the server tells no identity; guarded by mu
	nameless  uint64   // the generation that anonymous belongs to, 0 for none; guarded by mu
}

// nodes dials for rueidis, and knows every connection that is open.
type nodes struct {
	dialFn dialFn
	ctx    context.Context // ends all dialling
	lost   func()          // called when a connection has ended; must not block

	mu     sync.Mutex
	byAddr map[string]*node   // address → node; guarded by mu
	conns  map[*conn]struct{} // open ones; guarded by mu
}

func newNodes(ctx context.Context, opt rueidis.ClientOption, lost func()) *nodes {
	return &nodes{
		dialFn: dialer(opt),
		ctx:    ctx,
		lost:   lost,
		byAddr: make(map[string]*node),
		conns:  make(map[*conn]struct{}),
	}
}

type dialFn func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

// dialer is how opt says that connections are made.
func dialer(opt rueidis.ClientOption) dialFn {
	switch {
	case opt.DialCtxFn != nil:
		return opt.DialCtxFn
	case opt.DialFn != nil:
		return func(_ context.Context, addr string, d *net.Dialer, cfg *tls.Config) (net.Conn, error) {
			return opt.DialFn(addr, d, cfg)
		}
	}
	return dialTCP
}

func dialTCP(ctx context.Context, addr string, d *net.Dialer, cfg *tls.Config) (net.Conn, error) {
	if cfg != nil {
		// tls.Dialer expects the host of addr in the certificate, unless cfg names another.
		return (&tls.Dialer{NetDialer: d, Config: cfg}).DialContext(ctx, "tcp", addr)
	}
	return d.DialContext(ctx, "tcp", addr)
}

func (n *nodes) at(addr string) *node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.find(addr)
}

// find returns the node at addr; mu is held.
func (n *nodes) find(addr string) *node {
	nd := n.byAddr[addr]
	if nd == nil {
		nd = &node{addr: addr}
		n.byAddr[addr] = nd
	}
	return nd
}

// dial is rueidis.ClientOption.DialCtxFn.
func (n *nodes) dial(ctx context.Context, addr string, d *net.Dialer, cfg *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	raw, err := n.dialFn(ctx, addr, d, cfg)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	c := &conn{Conn: raw, nodes: n, node: n.find(addr)}
	n.conns[c] = struct{}{}
	c.node.live.Add(1) // before mu is let go: forget must not take it for one of the past
	c.node.gen.Add(1)
	return c, nil
}

// forget drops the addresses of the past: those that v does not have, and no connection leads to.
// What an older view proved of them ended with their last connection.
func (n *nodes) forget(v *view) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for addr, nd := range n.byAddr {
		if nd.live.Load() == 0 && v.find(addr) == nil {
			delete(n.byAddr, addr)
		}
	}
}

// cut ends the connections to addr.
func (n *nodes) cut(addr string) {
	n.mu.Lock()
	var open []*conn
	for c := range n.conns {
		if c.node.addr == addr {
			open = append(open, c)
		}
	}
	n.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
}

// closeAll waits for the connections to end, and ends those that are still open after
// grace: a server that does not answer keeps rueidis waiting.
func (n *nodes) closeAll(grace time.Duration) {
	deadline := time.After(grace)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		n.mu.Lock()
		open := make([]*conn, 0, len(n.conns))
		for c := range n.conns {
			open = append(open, c)
		}
		n.mu.Unlock()
		if len(open) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			for _, c := range open {
				_ = c.Close()
			}
			return
		}
	}
}

// conn tells its node when it ends.
type conn struct {
	net.Conn
	nodes *nodes
	node  *node
	once  sync.Once
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.node.gen.Add(1)
		c.node.live.Add(-1)
		c.nodes.mu.Lock()
		delete(c.nodes.conns, c)
		c.nodes.mu.Unlock()
		c.nodes.lost()
	})
	return err
}

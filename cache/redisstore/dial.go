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

// endpoint counts the connections to one address. Its generation changes before the first byte
// can pass over a new connection, and after the last byte has passed over an old one. While it
// stays the same, every reply came from the same server process.
type endpoint struct {
	addr       string
	generation atomic.Uint64
	openConns  atomic.Int32

	// For a server that does not tell its run id.
	mu                 sync.Mutex
	randomID           identity // of one generation; guarded by mu
	randomIDGeneration uint64   // that randomID belongs to, 0 for none; guarded by mu
}

// dialer dials for rueidis, and knows every connection that is open.
type dialer struct {
	dialFunc dialFunc
	ctx      context.Context // ends all dialling
	onClose  func()          // called when a connection has ended; must not block

	mu        sync.Mutex
	byAddr    map[string]*endpoint      // guarded by mu
	openConns map[*countedConn]struct{} // guarded by mu
}

func newDialer(ctx context.Context, opt rueidis.ClientOption, onClose func()) *dialer {
	return &dialer{
		dialFunc:  dialFuncOf(opt),
		ctx:       ctx,
		onClose:   onClose,
		byAddr:    make(map[string]*endpoint),
		openConns: make(map[*countedConn]struct{}),
	}
}

type dialFunc func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

// dialFuncOf returns the function by which opt says that connections are made.
func dialFuncOf(opt rueidis.ClientOption) dialFunc {
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

func (d *dialer) endpoint(addr string) *endpoint {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.endpointLocked(addr)
}

// endpointLocked returns the endpoint at addr; mu is held.
func (d *dialer) endpointLocked(addr string) *endpoint {
	e := d.byAddr[addr]
	if e == nil {
		e = &endpoint{addr: addr}
		d.byAddr[addr] = e
	}
	return e
}

// dial is rueidis.ClientOption.DialCtxFn.
func (d *dialer) dial(ctx context.Context, addr string, nd *net.Dialer, cfg *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	raw, err := d.dialFunc(ctx, addr, nd, cfg)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &countedConn{Conn: raw, dialer: d, endpoint: d.endpointLocked(addr)}
	d.openConns[c] = struct{}{}
	c.endpoint.openConns.Add(1) // while mu is held: forget must not drop an endpoint in use
	c.endpoint.generation.Add(1)
	return c, nil
}

// forget drops the endpoints that are not in t and have no connection. What an older topology
// verified of them ended with their last connection.
func (d *dialer) forget(t *topology) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for addr, e := range d.byAddr {
		if e.openConns.Load() == 0 && t.find(addr) == nil {
			delete(d.byAddr, addr)
		}
	}
}

// cut ends the connections to addr.
func (d *dialer) cut(addr string) {
	d.mu.Lock()
	var open []*countedConn
	for c := range d.openConns {
		if c.endpoint.addr == addr {
			open = append(open, c)
		}
	}
	d.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
}

// closeAll waits for the connections to end, and ends those that are still open after grace.
// rueidis would wait longer for a server that does not answer.
func (d *dialer) closeAll(grace time.Duration) {
	deadline := time.After(grace)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		d.mu.Lock()
		open := make([]*countedConn, 0, len(d.openConns))
		for c := range d.openConns {
			open = append(open, c)
		}
		d.mu.Unlock()
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

// countedConn updates its endpoint when it ends.
type countedConn struct {
	net.Conn
	dialer   *dialer
	endpoint *endpoint
	once     sync.Once
}

func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.endpoint.generation.Add(1)
		c.endpoint.openConns.Add(-1)
		c.dialer.mu.Lock()
		delete(c.dialer.openConns, c)
		c.dialer.mu.Unlock()
		c.dialer.onClose()
	})
	return err
}

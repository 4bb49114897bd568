package testservers

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Direction is one of the two ways bytes go through a [Proxy].
type Direction int

// The directions.
const (
	Requests Direction = iota // from the client to the server
	Replies                   // from the server to the client
)

// Proxy is a TCP proxy in front of a server that can inject faults. A
// change holds for connections that are open as well as for new ones, until the
// next call of Heal.
//
// It is ours rather than toxiproxy, whose Stop leaves goroutines behind for each
// connection that is cut while data is under way (they wait to hand it on), so
// that every test that looks for leaks after a cut would have to look away.
type Proxy struct {
	port     *port
	upstream string
	pumps    sync.WaitGroup // the accept loop and everything that it starts

	mu       sync.Mutex
	listener net.Listener          // nil while cut off; guarded by mu
	conns    map[*proxied]struct{} // guarded by mu
	faults   [2]fault              // by direction; guarded by mu
	changed  chan struct{}         // closed when faults change; guarded by mu
	closed   bool                  // guarded by mu
}

// A fault is what happens to one direction. The zero value lets all pass.
type fault struct {
	held    bool          // nothing passes
	latency time.Duration // everything passes this much later
	budget  *int          // bytes after which a connection is closed; nil: none
	rate    int           // bytes a second of all connections together; 0: no limit
	free    time.Time     // when what was let pass under rate has passed
}

// StartProxy starts a proxy in front of the server at addr for the time of the
// test.
func StartProxy(tb testing.TB, addr string) *Proxy {
	tb.Helper()
	p, err := OpenProxy(addr)
	check(tb, err)
	tb.Cleanup(func() { Must(tb, p.Close()) })
	return p
}

// OpenProxy starts a proxy in front of the server at addr, which need not run.
// The caller must Close it.
func OpenProxy(addr string) (*Proxy, error) {
	for {
		port, err := reservePort()
		if err != nil {
			return nil, err
		}
		p := &Proxy{port: port, upstream: addr, conns: make(map[*proxied]struct{}), changed: make(chan struct{})}
		if err = p.Heal(); err == nil {
			return p, nil
		}
		if err = errors.Join(err, p.Close()); !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
}

// Addr returns where the proxy listens, as host:port.
func (p *Proxy) Addr() string { return p.port.addr() }

// Heal ends all faults. What was held back goes on; connections that were cut
// stay cut.
func (p *Proxy) Heal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	p.faults = [2]fault{}
	p.notifyPumps()
	if p.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", p.Addr())
	if err != nil {
		return err
	}
	p.listener = l
	p.pumps.Go(func() { p.accept(l) })
	return nil
}

// Cut resets all connections and refuses new ones, as a host does whose server
// is gone.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopListening()
	p.resetConns()
}

// Reset resets all connections once; new ones are served.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resetConns()
}

// Hold lets nothing pass in the given directions, both if none is given, and
// keeps all connections: the other side accepts and never answers. Bytes that
// are held back arrive after Heal, as they do after a partition. With only
// Replies held the server does its work and no client gets the reply.
func (p *Proxy) Hold(directions ...Direction) {
	p.fault(directions, func(f *fault) { f.held = true })
}

// Delay lets everything arrive by latency later in the given directions, both if
// none is given. Throughput is hardly affected.
func (p *Proxy) Delay(latency time.Duration, directions ...Direction) {
	p.fault(directions, func(f *fault) { f.latency = latency })
}

// Limit lets so many bytes a second pass in the given directions, both if none is given: all
// connections share them, as they share a network link.
func (p *Proxy) Limit(bytesPerSecond int, directions ...Direction) {
	p.fault(directions, func(f *fault) { f.rate, f.free = bytesPerSecond, time.Now() })
}

// CutAfter closes each connection once n more bytes have passed in the given
// direction, counted for each connection by itself. These n bytes arrive.
func (p *Proxy) CutAfter(n int, direction Direction) {
	p.fault([]Direction{direction}, func(f *fault) { f.budget = &n })
}

// Close ends the proxy and all its connections.
func (p *Proxy) Close() error {
	p.mu.Lock()
	again := p.closed
	p.closed = true
	p.stopListening()
	p.resetConns()
	p.mu.Unlock()
	p.pumps.Wait()
	if !again {
		p.port.release()
	}
	return nil
}

func (p *Proxy) fault(directions []Direction, change func(*fault)) {
	if len(directions) == 0 {
		directions = []Direction{Requests, Replies}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range directions {
		change(&p.faults[d])
	}
	p.notifyPumps()
}

// notifyPumps makes the pumps read the faults again. p.mu is held.
func (p *Proxy) notifyPumps() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) stopListening() {
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
}

func (p *Proxy) resetConns() {
	for c := range p.conns {
		c.reset()
	}
}

func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return // it was closed
		}
		p.pumps.Go(func() { p.serve(l, client.(*net.TCPConn)) })
	}
}

// A proxied connection is one client and its connection to the server.
type proxied struct {
	ctx    context.Context // ends with the connection
	end    context.CancelFunc
	client *net.TCPConn

	mu     sync.Mutex
	server *net.TCPConn // nil until connected; guarded by mu
}

// reset ends both sides with a TCP reset and drops what is under way.
func (c *proxied) reset() { c.close((*net.TCPConn).SetLinger) }

// closeGracefully closes both sides: what has been written still arrives.
func (c *proxied) closeGracefully() { c.close(func(*net.TCPConn, int) error { return nil }) }

func (c *proxied) close(prepare func(conn *net.TCPConn, linger int) error) {
	c.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range []*net.TCPConn{c.client, c.server} {
		if conn != nil {
			_ = prepare(conn, 0) // either fails only on a connection that is closed,
			_ = conn.Close()     // which is what was wanted
		}
	}
}

func (p *Proxy) serve(l net.Listener, client *net.TCPConn) {
	c := &proxied{client: client}
	c.ctx, c.end = context.WithCancel(context.Background())
	p.mu.Lock()
	if p.listener != l { // cut since it was accepted
		p.mu.Unlock()
		c.reset()
		return
	}
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
		c.closeGracefully()
	}()

	var d net.Dialer
	conn, err := d.DialContext(c.ctx, "tcp", p.upstream)
	if err != nil {
		return
	}
	server := conn.(*net.TCPConn)
	c.mu.Lock()
	c.server = server
	c.mu.Unlock()
	if c.ctx.Err() != nil {
		return // reset while it was being dialled, before reset could see the server's side
	}
	var both sync.WaitGroup
	both.Go(func() { p.pump(c, Requests, client, server) })
	both.Go(func() { p.pump(c, Replies, server, client) })
	both.Wait()
}

// A chunk is what one read gave, and when.
type chunk struct {
	data []byte
	at   time.Time
}

// pump carries one direction of a connection until its end.
func (p *Proxy) pump(c *proxied, d Direction, from, to *net.TCPConn) {
	// Reading and writing are apart, or a delay would apply to one chunk after
	// the other in place of to each by itself. A sender that is this many chunks
	// ahead feels the delay as a full window.
	chunks := make(chan chunk, 64)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(chunks)
		c.read(from, chunks)
	})
	defer reader.Wait()

	var passed meter
	for next := range chunks {
		n, last, ok := p.admit(c, d, next, &passed)
		if !ok || !p.pace(c, d, n) {
			return
		}
		if _, err := to.Write(next.data[:n]); err != nil {
			c.reset()
			return
		}
		if last {
			c.closeGracefully()
			return
		}
	}
	_ = to.CloseWrite() // it fails only where the connection is gone already
}

// read passes on what comes until the sender has nothing more to say.
func (c *proxied) read(from *net.TCPConn, chunks chan<- chunk) {
	for {
		buf := make([]byte, 16<<10)
		n, err := from.Read(buf)
		if n > 0 {
			select {
			case chunks <- chunk{buf[:n], time.Now()}:
			case <-c.ctx.Done():
				return
			}
		}
		if errors.Is(err, io.EOF) {
			return // the other direction may go on
		}
		if err != nil {
			c.reset()
			return
		}
	}
}

// pacingSlack is what a timer may be late by without costing throughput.
const pacingSlack = 5 * time.Millisecond

// pace waits until n bytes have passed a limited link. It returns false if the connection has
// ended.
func (p *Proxy) pace(c *proxied, d Direction, n int) bool {
	p.mu.Lock()
	f, changed := &p.faults[d], p.changed
	if f.rate == 0 {
		p.mu.Unlock()
		return true
	}
	if earliest := time.Now().Add(-pacingSlack); f.free.Before(earliest) {
		f.free = earliest
	}
	f.free = f.free.Add(time.Duration(n) * time.Second / time.Duration(f.rate))
	due := time.NewTimer(time.Until(f.free))
	p.mu.Unlock()
	defer due.Stop()
	select {
	case <-due.C:
	case <-changed: // healed, or soon limited again
	case <-c.ctx.Done():
		return false
	}
	return true
}

// A meter counts the bytes of one connection against one budget.
type meter struct {
	budget *int
	passed int
}

// admit waits until a chunk may pass. It returns how much of it may and whether
// that is the last of the connection, or false if the connection has ended.
func (p *Proxy) admit(c *proxied, d Direction, next chunk, m *meter) (n int, last, ok bool) {
	for {
		p.mu.Lock()
		f, changed := p.faults[d], p.changed
		p.mu.Unlock()
		wait := time.Until(next.at.Add(f.latency))
		if !f.held && (f.latency == 0 || wait <= 0) {
			if f.budget != m.budget {
				*m = meter{budget: f.budget}
			}
			if m.budget == nil {
				return len(next.data), false, true
			}
			n = min(len(next.data), *m.budget-m.passed)
			m.passed += n
			return n, m.passed == *m.budget, true
		}
		var due <-chan time.Time
		if !f.held {
			due = time.After(wait)
		}
		select {
		case <-due:
		case <-changed:
		case <-c.ctx.Done():
			return 0, false, false
		}
	}
}

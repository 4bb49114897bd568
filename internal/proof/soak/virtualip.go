package soak

import (
	"context"
	"io"
	"net"
	"sync"
)

// virtualIP is an address behind which one server can be replaced by another, as the virtual
// IP of a hosted Redis does at a failover.
type virtualIP struct {
	listener net.Listener
	running  sync.WaitGroup

	mu       sync.Mutex
	upstream string                // guarded by mu
	conns    map[net.Conn]struct{} // guarded by mu
	closed   bool                  // guarded by mu
}

func openVirtualIP(upstream string) (*virtualIP, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &virtualIP{listener: l, upstream: upstream, conns: map[net.Conn]struct{}{}}
	f.running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // it was closed
			}
			f.running.Go(func() { f.serve(client) })
		}
	})
	return f, nil
}

func (f *virtualIP) addr() string { return f.listener.Addr().String() }

// switchTo sends new connections to upstream, and ends those to the server before.
func (f *virtualIP) switchTo(upstream string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.upstream = upstream
	f.closeConns()
}

// closeConns ends all connections; mu is held.
func (f *virtualIP) closeConns() {
	for c := range f.conns {
		_ = c.Close()
	}
}

// register records a connection, unless the address was closed or has another server by now.
func (f *virtualIP) register(c net.Conn, upstream string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.upstream != upstream {
		_ = c.Close()
		return false
	}
	f.conns[c] = struct{}{}
	return true
}

func (f *virtualIP) unregister(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	_ = c.Close()
}

func (f *virtualIP) serve(client net.Conn) {
	f.mu.Lock()
	upstream := f.upstream
	f.mu.Unlock()
	if !f.register(client, upstream) {
		return
	}
	defer f.unregister(client)
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", upstream) // a server here answers or refuses at once
	if err != nil || !f.register(server, upstream) {
		return
	}
	defer f.unregister(server)
	var requests sync.WaitGroup
	requests.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close() // Redis has no reply for a client that left
	})
	_, _ = io.Copy(client, server)
	_ = client.Close()
	requests.Wait()
}

func (f *virtualIP) close() error {
	f.mu.Lock()
	f.closed = true
	f.closeConns()
	f.mu.Unlock()
	err := f.listener.Close()
	f.running.Wait()
	return err
}

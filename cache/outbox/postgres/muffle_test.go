package postgres

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/chainlearn/chainlearn/internal/testservers"
)

// muffle starts a proxy that passes everything on except notifications, as one that pools
// transactions does: the server sends them to a connection that no client has.
func muffle(t *testing.T, server string) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	testservers.Must(t, err)
	var wg sync.WaitGroup
	t.Cleanup(func() { listener.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				return
			}
			wg.Go(func() { io.Copy(upstream, client); upstream.Close() })
			wg.Go(func() { withoutNotifications(client, upstream); client.Close() })
		}
	})
	return listener.Addr().String()
}

func withoutNotifications(to io.Writer, from io.Reader) {
	const notificationResponse = 'A'
	var head [5]byte // type and length, which counts itself
	for {
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return
		}
		into := to
		if head[0] == notificationResponse {
			into = io.Discard
		}
		if _, err := into.Write(head[:]); err != nil {
			return
		}
		if _, err := io.CopyN(into, from, int64(binary.BigEndian.Uint32(head[1:]))-4); err != nil {
			return
		}
	}
}

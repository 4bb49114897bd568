package redisstore

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"testing"

	"github.com/redis/rueidis"
)

// However many addresses a deployment has had, those are known that it has, and those that
// connections still lead to.
func TestAddressesOfFormerMastersAreForgotten(t *testing.T) {
	opt := rueidis.ClientOption{DialCtxFn: func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
		here, there := net.Pipe()
		t.Cleanup(func() { there.Close() })
		return here, nil
	}}
	d := newDialer(t.Context(), opt, func() {})
	dial := func(addr string) net.Conn {
		c, err := d.dial(t.Context(), addr, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	present, old := d.endpoint("present:6379"), dial("old:6379")
	lingering := d.endpoint("old:6379")
	current := &topology{shards: []shard{{addr: "present:6379"}}}
	for i := range 1000 {
		if err := dial(fmt.Sprintf("10.0.%d.%d:6379", i/256, i%256)).Close(); err != nil {
			t.Fatal(err)
		}
		d.forget(current)
	}
	if len(d.byAddr) != 2 || d.endpoint("present:6379") != present || d.endpoint("old:6379") != lingering {
		t.Errorf("%d addresses are known, want the present one and the one with a connection", len(d.byAddr))
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	d.forget(current)
	if len(d.byAddr) != 1 {
		t.Errorf("%d addresses are known after the last connection to a former master ended", len(d.byAddr))
	}
	d.closeAll(0)
}

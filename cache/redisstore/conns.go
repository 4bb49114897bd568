package redisstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// connections holds, for each master, a read connection that carries nothing but reads, and a
// control connection for everything else. It belongs to the goroutine of monitor.
//
// A client with one caller at a time writes and reads in that caller's own goroutine. The first
// two calls that overlap end that for as long as the connection lives, and so would a
// subscription or a probe. Measured against one connection for everything, on two cores: a hit
// by a single reader takes 30 µs (median) instead of 41, until calls overlap. After that there
// is no difference, for 1, 8 or 64 readers, except while large entries are written: with fills of
// 1 MB, hits by 8 readers take 0.4 to 0.5 ms instead of 0.8 to 1.0. With fills of 4 KB they take
// up to a third less over one connection.
// Decision 13.
type connections struct {
	opt           rueidis.ClientOption
	control       rueidis.Client // follows redirections and failovers; nil until it is connected
	controlDialer *dialer        // dials for control
	readDialer    *dialer        // dials for reads
	reads         map[string]*readConn

	ctx  context.Context // ends when the Store closes
	wake func()          // probe now
	wg   sync.WaitGroup  // of clients that are closing and servers that are reconnecting
}

// readConn reads from one address. It follows no redirection and repeats no request, so every
// reply came from there.
type readConn struct {
	endpoint     *endpoint
	client       rueidis.Client
	reconnecting chan error // receives the result of the attempt under way; nil if there is none
}

func newConnections(ctx context.Context, opt rueidis.ClientOption, wake func()) *connections {
	return &connections{
		opt:           opt,
		controlDialer: newDialer(ctx, opt, wake),
		readDialer:    newDialer(ctx, opt, wake),
		reads:         make(map[string]*readConn),
		ctx:           ctx,
		wake:          wake,
	}
}

// connect makes the control client if there is none yet. It waits as long as dialling takes.
func (c *connections) connect() error {
	if c.control != nil {
		return nil
	}
	opt := c.opt
	opt.DialCtxFn = c.controlDialer.dial
	// The subscription would make it pipeline anyway, and a late reply does not end a
	// pipelining connection.
	opt.AlwaysPipelining = true
	client, err := rueidis.NewClient(opt)
	if err != nil {
		if client != nil {
			client.Close()
		}
		return fmt.Errorf("connect to redis: %w", err)
	}
	c.control = client
	return nil
}

// readConn returns the read connection to addr. It dials with its first request.
func (c *connections) readConn(addr string) *readConn {
	if read := c.reads[addr]; read != nil {
		return read
	}
	opt := singleServer(c.opt, addr)
	opt.DialCtxFn = c.readDialer.dial
	// With ForceSingleClient there is a client also when the server is not there.
	client, _ := rueidis.NewClient(opt)
	read := &readConn{endpoint: c.readDialer.endpoint(addr), client: client}
	c.reads[addr] = read
	return read
}

// singleServer is opt for a client of the server at addr alone.
func singleServer(opt rueidis.ClientOption, addr string) rueidis.ClientOption {
	opt.InitAddress = []string{addr}
	opt.ForceSingleClient = true
	opt.Sentinel = rueidis.SentinelOption{}
	opt.Standalone = rueidis.StandaloneOption{}
	return opt
}

// reconnect tries to reach a server that was unavailable. It returns nil if the server answers
// again, the error of the attempt, or errSilent if there is no result yet. The attempt outlasts
// probes, and causes another probe when it succeeds.
func (c *connections) reconnect(ctx context.Context, read *readConn) error {
	if read.reconnecting == nil {
		result := make(chan error, 1)
		read.reconnecting = result
		c.wg.Go(func() {
			ctx, cancel := context.WithTimeout(c.ctx, c.opt.Dialer.Timeout+connectTimeout)
			defer cancel()
			// Any answer will do.
			err := read.client.Do(ctx, read.client.B().Ping().Build()).NonRedisError()
			result <- err
			if err == nil {
				c.wake()
			}
		})
	}
	timer := time.NewTimer(reconnectWait)
	defer timer.Stop()
	select {
	case err := <-read.reconnecting:
		read.reconnecting = nil
		return err
	case <-timer.C:
	case <-ctx.Done():
	}
	return errSilent
}

var errSilent = errors.New("it does not answer")

// forgetOthers closes the read connections to servers that are not in t. Their endpoints are
// forgotten when their connections have ended.
func (c *connections) forgetOthers(t *topology) {
	for addr, read := range c.reads {
		if t.find(addr) == nil {
			delete(c.reads, addr)
			c.wg.Go(read.client.Close)
		}
	}
	c.controlDialer.forget(t)
	c.readDialer.forget(t)
}

// cut ends the connections to addr. The next request dials again.
func (c *connections) cut(addr string) {
	c.controlDialer.cut(addr)
	c.readDialer.cut(addr)
}

// closeAll ends all connections. Connections to a server that does not answer are cut after grace.
func (c *connections) closeAll(grace time.Duration) {
	for _, read := range c.reads {
		c.wg.Go(read.client.Close)
	}
	if c.control != nil {
		c.wg.Go(c.control.Close)
	}
	c.controlDialer.closeAll(grace)
	c.readDialer.closeAll(grace)
	c.wg.Wait()
}

package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"
)

// link is the connections of a Store: to each master one that carries nothing but reads,
// the lane, and one for all the rest. It belongs to the keeper.
//
// A client that is asked by one caller at a time writes and reads in that caller's own
// goroutine, which is nearly twice as fast; the first two calls that meet end that for as
// long as the connection lives, and so would a subscription or a heartbeat.
type link struct {
	opt    rueidis.ClientOption
	client rueidis.Client // follows redirections and failovers; nil until it is connected
	ctl    *nodes         // dials for client
	reads  *nodes         // dials for the lanes
	lanes  map[string]*lane
}

// lane reads from one address. It follows nothing and retries nothing, so whatever it
// returns came from there.
type lane struct {
	node   *node
	client rueidis.Client
}

func newLink(ctx context.Context, opt rueidis.ClientOption, lost func()) *link {
	return &link{
		opt:   opt,
		ctl:   newNodes(ctx, opt, lost),
		reads: newNodes(ctx, opt, lost),
		lanes: make(map[string]*lane),
	}
}

// connect makes the client if there is none yet. It may take as long as connecting may.
func (l *link) connect() error {
	if l.client != nil {
		return nil
	}
	opt := l.opt
	opt.DialCtxFn = l.ctl.dial
	// The subscription would make it so anyway, and late replies take no connection with
	// them.
	opt.AlwaysPipelining = true
	client, err := rueidis.NewClient(opt)
	if err != nil {
		if client != nil {
			client.Close()
		}
		return fmt.Errorf("connect to redis: %w", err)
	}
	l.client = client
	return nil
}

// lane returns the lane to addr. Whether it is connected turns out when it is asked.
func (l *link) lane(addr string) *lane {
	if ln := l.lanes[addr]; ln != nil {
		return ln
	}
	opt := l.opt
	opt.DialCtxFn = l.reads.dial
	opt.InitAddress = []string{addr}
	opt.ForceSingleClient = true
	opt.Sentinel = rueidis.SentinelOption{}
	opt.Standalone = rueidis.StandaloneOption{}
	// With ForceSingleClient there is a client also when the server is not there.
	client, _ := rueidis.NewClient(opt)
	ln := &lane{node: l.reads.at(addr), client: client}
	l.lanes[addr] = ln
	return ln
}

// keepLanes closes the lanes to servers that are no masters any more.
func (l *link) keepLanes(v *view) {
	for addr, ln := range l.lanes {
		if v.find(addr) == nil {
			delete(l.lanes, addr)
			go ln.client.Close()
		}
	}
}

// close ends all connections. Those to a server that does not answer are cut after grace.
func (l *link) close(grace time.Duration) {
	for _, ln := range l.lanes {
		go ln.client.Close()
	}
	if l.client != nil {
		go l.client.Close()
	}
	l.ctl.closeAll(grace)
	l.reads.closeAll(grace)
}

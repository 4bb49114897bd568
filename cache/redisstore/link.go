package redisstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

	ctx  context.Context // ends when the Store closes
	kick func()          // survey again
	wg   sync.WaitGroup  // of clients that are being closed and servers that are being revived
}

// lane reads from one address. It follows nothing and retries nothing, so whatever it
// returns came from there.
type lane struct {
	node    *node
	client  rueidis.Client
	revival chan error // the result of an attempt to reach a server that was lost; nil if there is none
}

func newLink(ctx context.Context, opt rueidis.ClientOption, kick func()) *link {
	return &link{
		opt:   opt,
		ctl:   newNodes(ctx, opt, kick),
		reads: newNodes(ctx, opt, kick),
		lanes: make(map[string]*lane),
		ctx:   ctx,
		kick:  kick,
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
	opt := direct(l.opt, addr)
	opt.DialCtxFn = l.reads.dial
	// With ForceSingleClient there is a client also when the server is not there.
	client, _ := rueidis.NewClient(opt)
	ln := &lane{node: l.reads.at(addr), client: client}
	l.lanes[addr] = ln
	return ln
}

// direct is opt for a client of the server at addr alone.
func direct(opt rueidis.ClientOption, addr string) rueidis.ClientOption {
	opt.InitAddress = []string{addr}
	opt.ForceSingleClient = true
	opt.Sentinel = rueidis.SentinelOption{}
	opt.Standalone = rueidis.StandaloneOption{}
	return opt
}

// revive tries to reach the lost server at the end of ln, and returns nil if it answers
// again, what came of the attempt, or errSilent if that is not known yet. The attempt goes
// on for as long as connecting may take, while surveys come and go, and has another made
// when it succeeds.
func (l *link) revive(ctx context.Context, ln *lane) error {
	if ln.revival == nil {
		result := make(chan error, 1)
		ln.revival = result
		l.wg.Go(func() {
			ctx, cancel := context.WithTimeout(l.ctx, l.opt.Dialer.Timeout+connectTimeout)
			defer cancel()
			// Any answer will do.
			err := ln.client.Do(ctx, ln.client.B().Ping().Build()).NonRedisError()
			result <- err
			if err == nil {
				l.kick()
			}
		})
	}
	timer := time.NewTimer(reviveTimeout)
	defer timer.Stop()
	select {
	case err := <-ln.revival:
		ln.revival = nil
		return err
	case <-timer.C:
	case <-ctx.Done():
	}
	return errSilent
}

var errSilent = errors.New("it does not answer")

// keepLanes closes the lanes to servers that are no masters any more, and forgets them when their
// connections have ended.
func (l *link) keepLanes(v *view) {
	for addr, ln := range l.lanes {
		if v.find(addr) == nil {
			delete(l.lanes, addr)
			l.wg.Go(ln.client.Close)
		}
	}
	l.ctl.forget(v)
	l.reads.forget(v)
}

// cut ends the connections to addr. They are made again when they are needed.
func (l *link) cut(addr string) {
	l.ctl.cut(addr)
	l.reads.cut(addr)
}

// close ends all connections. Those to a server that does not answer are cut after grace.
func (l *link) close(grace time.Duration) {
	for _, ln := range l.lanes {
		l.wg.Go(ln.client.Close)
	}
	if l.client != nil {
		l.wg.Go(l.client.Close)
	}
	l.ctl.closeAll(grace)
	l.reads.closeAll(grace)
	l.wg.Wait()
}

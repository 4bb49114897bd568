package redisstore

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// trackedConn is one network connection over which a trackingConn hears of changes.
type trackedConn struct {
	*trackingConn
	client rueidis.Client
	toldAs string // begins the names of its proofs, which no other connection's do
	order  string // begins the name of the tag that it changes to see the order

	net.Conn // set when it is dialled
	once     sync.Once
	ended    chan struct{}

	proofs  uint64        // that were asked for
	told    atomic.Uint64 // the number of the latest that the server has pushed
	ordered atomic.Bool   // the change that comes before the first was heard, and the first was not
	pushed  chan struct{} // told was raised
}

func newTrackedConn(c *trackingConn) *trackedConn {
	name, names := rand.Text(), c.session.store.names
	return &trackedConn{
		trackingConn: c, toldAs: names.told(name), order: names.order(name),
		ended: make(chan struct{}), pushed: make(chan struct{}, 1),
	}
}

// Close implements net.Conn.
func (t *trackedConn) Close() error {
	t.once.Do(func() { close(t.ended) })
	return t.Conn.Close()
}

// hasEnded reports whether t was closed. rueidis closes it before it reports the end of the
// connection as an invalidation of everything.
func (t *trackedConn) hasEnded() bool {
	select {
	case <-t.ended:
		return true
	default:
		return false
	}
}

// dial makes a client that has one connection and never another.
func (t *trackedConn) dial(ctx context.Context) (rueidis.Client, error) {
	opt := singleServer(t.session.store.opt, t.addr)
	dial := dialFuncOf(opt)
	var dialled atomic.Bool
	opt.DialCtxFn = func(dctx context.Context, addr string, d *net.Dialer, cfg *tls.Config) (net.Conn, error) {
		if dialled.Swap(true) {
			return nil, errSecondConnection
		}
		dctx, cancel := context.WithCancel(dctx)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		conn, err := dial(dctx, addr, d, cfg)
		if err != nil {
			return nil, err
		}
		t.Conn = conn
		context.AfterFunc(ctx, func() { _ = t.Close() })
		return t, nil
	}
	opt.Dialer.KeepAlive = -1 // no PING by rueidis: prove notices silence
	opt.RingScaleEachConn = trackingRing
	opt.ReadBufferEachConn, opt.WriteBufferEachConn = trackingBuffer, trackingBuffer
	opt.OnInvalidations = func(keys []rueidis.RedisMessage) {
		switch {
		case keys != nil:
			t.hear(keys)
		case !t.hasEnded():
			t.session.missed() // all keys were flushed
		}
	}
	client, err := rueidis.NewClient(opt)
	t.client = client
	return client, err
}

// enableTracking tells the server to push. It ends Watch if the server never will.
//
// rueidis.ClientOption.ClientTrackingOptions would do the same, but would not tell a refusal
// by the server from other failures of a connection.
func (t *trackedConn) enableTracking(ctx context.Context) error {
	ctx, cancel := t.withTimeout(ctx)
	defer cancel()
	b := t.client.B()
	hello, err := t.client.Do(ctx, b.Arbitrary("HELLO").Build()).AsMap()
	proto := hello["proto"]
	if version, _ := proto.AsInt64(); isPermanent(err) || err == nil && version < 3 {
		// A server that speaks only RESP2 accepts CLIENT TRACKING, and pushes nothing.
		return t.refuse("it does not speak RESP3, over which changes are reported: allow HELLO 3, "+
			"or use Redis 6.2 or later, or Valkey", err)
	}
	if err != nil {
		return err
	}
	err = t.client.Do(ctx, b.Arbitrary("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", t.session.store.names.tag(""), "PREFIX", t.toldAs).Build()).Error()
	if isPermanent(err) {
		return t.refuse("it does not report changes: allow the account CLIENT TRACKING, as +client|tracking does, "+
			"or use a server that has it", err)
	}
	return err
}

// hear is told by the server which keys have changed.
func (t *trackedConn) hear(keys []rueidis.RedisMessage) {
	var tags, proofs []string
	for i := range keys {
		name, _ := keys[i].ToString()
		if rest, ok := strings.CutPrefix(name, t.toldAs); ok {
			proofs = append(proofs, rest)
			continue
		}
		if strings.HasPrefix(name, t.order) && t.told.Load() == 0 {
			t.ordered.Store(true)
		}
		tags = append(tags, name)
	}
	if len(tags) > 0 {
		t.session.changed(tags)
	}
	for _, rest := range proofs { // last: they speak of what stands before them in the same message, too
		t.hearProof(rest)
	}
}

// hearProof notes that the server has pushed the proof of a number, which may be followed by a hash
// tag.
func (t *trackedConn) hearProof(rest string) {
	digits, _, _ := strings.Cut(rest, "{")
	number, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || number <= t.told.Load() {
		return
	}
	t.told.Store(number) // only rueidis's reading goroutine does
	select {
	case t.pushed <- struct{}{}:
	default:
	}
}

// hashTag puts what it ends into a slot of the server, which in a Cluster has only some.
func (t *trackedConn) hashTag() string {
	t.session.mu.Lock()
	defer t.session.mu.Unlock()
	if t.proofKey == "" {
		return ""
	}
	return "{" + t.proofKey + "}"
}

// proofLife is for a connection that ends between SET and DEL.
const proofLife = time.Minute

// next returns the key of another proof.
func (t *trackedConn) next(hashTag string) string {
	t.proofs++
	return t.toldAs + strconv.FormatUint(t.proofs, 10) + hashTag
}

// orderScript changes a tag and then the key of a proof.
var orderScript = strings.TrimSpace(`
for _, key in ipairs(KEYS) do
  redis.call('SET', key, '', 'PX', ARGV[1])
  redis.call('DEL', key)
end
`)

// seeOrder sees for itself that a proof is heard after what changed before it. It ends Watch if not.
func (t *trackedConn) seeOrder(ctx context.Context) error {
	ctx, cancel := t.withTimeout(ctx)
	defer cancel()
	hashTag := t.hashTag()
	err := t.client.Do(ctx, t.client.B().Eval().Script(orderScript).Numkeys(2).
		Key(t.order+hashTag, t.next(hashTag)).
		Arg(strconv.FormatInt(proofLife.Milliseconds(), 10)).Build()).Error()
	if err != nil && !rueidis.IsRedisNil(err) {
		t.noteMoved(err)
		return err
	}
	if err := t.awaitPush(ctx); err != nil {
		return err
	}
	if !t.ordered.Load() {
		return t.refuse("it reports changes in another order than they happened in", nil)
	}
	return nil
}

// prove returns nil if all that changed before has been reported, by a server that is still a master
// and serves.
func (t *trackedConn) prove(ctx context.Context) error {
	ctx, cancel := t.withTimeout(ctx)
	defer cancel()
	key := t.next(t.hashTag())
	b := t.client.B()
	replies := t.client.DoMulti(ctx, b.Arbitrary("HELLO").Build(), b.Set().Key(key).Value("").Px(proofLife).Build(), b.Del().Key(key).Build())
	if _, err := parseHello(replies[0]); err != nil {
		return err
	}
	if err := replies[1].Error(); err != nil {
		t.noteMoved(err)
		return err
	}
	return t.awaitPush(ctx)
}

// awaitPush waits until the proof that was asked for last has been pushed.
func (t *trackedConn) awaitPush(ctx context.Context) error {
	for t.told.Load() < t.proofs {
		select {
		case <-t.pushed:
		case <-t.ended:
			return errConnectionLost
		case <-ctx.Done():
			return errors.Join(errNotPushed, context.Cause(ctx))
		}
	}
	return nil
}

// noteMoved has the masters looked for where one says that a slot is another's.
func (t *trackedConn) noteMoved(err error) {
	if re, ok := rueidis.IsRedisErr(err); ok {
		if _, moved := re.IsMoved(); moved {
			t.session.store.wake()
		}
	}
}

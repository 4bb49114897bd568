package testservers_test

import (
	"bufio"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// A inlineClient is a client that speaks Redis's inline protocol through a proxy.
type inlineClient struct {
	*testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, addr string) inlineClient {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	testservers.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	return inlineClient{t, conn, bufio.NewReader(conn)}
}

func (l inlineClient) send(command string) {
	l.Helper()
	_, err := io.WriteString(l.conn, command+"\r\n")
	testservers.Must(l, err)
}

// receive returns one line of the answer.
func (l inlineClient) receive(within time.Duration) (string, error) {
	l.Helper()
	testservers.Must(l, l.conn.SetReadDeadline(time.Now().Add(within)))
	s, err := l.r.ReadString('\n')
	return strings.TrimSpace(s), err
}

func (l inlineClient) want(answer string) {
	l.Helper()
	if got, err := l.receive(10 * time.Second); got != answer {
		l.Errorf("got %q (%v), want %q", got, err, answer)
	}
}

func (l inlineClient) wantSilence() {
	l.Helper()
	if got, err := l.receive(100 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		l.Errorf("got %q (%v), want no answer", got, err)
	}
}

func (l inlineClient) wantEnd() {
	l.Helper()
	if got, err := l.receive(10 * time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		l.Errorf("got %q (%v), want the connection to end", got, err)
	}
}

func TestProxyCutsAndHeals(t *testing.T) {
	t.Parallel()
	p := testservers.StartProxy(t, testservers.SharedRedis(t).Addr())
	l := dial(t, p.Addr())
	l.send("PING")
	l.want("+PONG")

	p.Reset()
	l.wantEnd()
	l = dial(t, p.Addr())
	l.send("PING")
	l.want("+PONG")

	p.Cut()
	l.wantEnd()
	if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection got %v, want it refused", err)
	}
	testservers.Must(t, p.Heal())
	l = dial(t, p.Addr())
	l.send("PING")
	l.want("+PONG")
}

func TestProxyHoldsBothWays(t *testing.T) {
	t.Parallel()
	p := testservers.StartProxy(t, testservers.SharedRedis(t).Addr())
	before := dial(t, p.Addr())
	before.send("PING")
	before.want("+PONG")

	p.Hold()
	after := dial(t, p.Addr())
	for _, l := range []inlineClient{before, after} {
		l.send("PING")
		l.wantSilence()
	}
	testservers.Must(t, p.Heal())
	for _, l := range []inlineClient{before, after} {
		l.want("+PONG")
	}
}

func TestProxyHoldsRepliesOfWorkThatIsDone(t *testing.T) {
	t.Parallel()
	r := testservers.SharedRedis(t)
	p := testservers.StartProxy(t, r.Addr())
	l := dial(t, p.Addr())
	key := rand.Text() // for a run with -count, which has one server
	p.Hold(testservers.Replies)
	l.send("SET " + key + " done")
	testservers.Eventually(t, 10*time.Second, func() (bool, string) {
		return get(t, r, key) == "done", "the server has not done its work"
	})
	l.wantSilence()
	p.Reset()
	l.wantEnd()
}

func TestProxyDelaysEachChunkAndKeepsTheOrder(t *testing.T) {
	t.Parallel()
	p := testservers.StartProxy(t, testservers.SharedRedis(t).Addr())
	l := dial(t, p.Addr())
	const latency = 200 * time.Millisecond
	p.Delay(latency, testservers.Replies)
	began := time.Now()
	words := strings.Fields("a b c d e f g h i j k l m n o p q r s t")
	for _, word := range words {
		l.send("PING " + word)
	}
	for _, word := range words {
		l.want("$1")
		l.want(word)
	}
	// Were they delayed one after the other, it would take twenty times as long.
	if took := time.Since(began); took < latency || took > 10*latency {
		t.Errorf("20 commands at once took %s, want about %s", took, latency)
	}
}

func TestProxyCutsInTheMiddleOfAReply(t *testing.T) {
	t.Parallel()
	r := testservers.SharedRedis(t)
	value := strings.Repeat("x", 1<<20)
	set(t, r, t.Name(), value)
	p := testservers.StartProxy(t, r.Addr())
	const n = 100_000
	p.CutAfter(n, testservers.Replies)
	for range 2 { // each connection has a budget of its own
		l := dial(t, p.Addr())
		l.send("GET " + t.Name())
		testservers.Must(t, l.conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		got, err := io.ReadAll(l.r)
		if len(got) != n {
			t.Errorf("%d bytes of the reply arrived (%v), want %d", len(got), err, n)
		}
	}
	testservers.Must(t, p.Heal())
	l := dial(t, p.Addr())
	l.send("GET " + t.Name())
	l.want("$1048576")
	l.want(value)
}

func TestProxyPassesOnHowAConnectionEnds(t *testing.T) {
	t.Parallel()
	p := testservers.StartProxy(t, testservers.SharedRedis(t).Addr())
	l := dial(t, p.Addr())
	l.send("PING")
	l.send("QUIT")
	l.want("+PONG")
	l.want("+OK")
	if got, err := l.receive(10 * time.Second); !errors.Is(err, io.EOF) {
		t.Errorf("after QUIT got %q (%v), want the end of the stream", got, err)
	}
}

func TestProxyWithoutServer(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	p := testservers.StartProxy(t, r.Addr())
	testservers.Must(t, r.Kill())
	dial(t, p.Addr()).wantEnd()
	testservers.Must(t, r.Restart(t.Context()))
	l := dial(t, p.Addr())
	l.send("PING")
	l.want("+PONG")
}

func TestProxyLimitsBandwidth(t *testing.T) {
	r := testservers.SharedRedis(t)
	p := testservers.StartProxy(t, r.Addr())
	const size, rate = 1 << 20, 4 << 20
	key := rand.Text()
	testservers.Must(t, r.Do(t.Context(), "SETRANGE", key, "1048575", "x").Error())
	defer r.Do(t.Context(), "DEL", key)
	p.Limit(rate, testservers.Replies)
	clients := []inlineClient{dial(t, p.Addr()), dial(t, p.Addr())}
	start := time.Now()
	for _, c := range clients {
		c.send("GET " + key)
	}
	for _, c := range clients {
		c.want("$1048576")
		_, err := io.CopyN(io.Discard, c.r, size)
		testservers.Must(t, err)
	}
	if took := time.Since(start); took < 480*time.Millisecond { // they share it
		t.Errorf("two replies of %d bytes took %v at %d bytes a second", size, took, rate)
	}
	testservers.Must(t, p.Heal())
	c := dial(t, p.Addr())
	c.send("PING")
	c.want("+PONG")
}

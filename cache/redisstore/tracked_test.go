package redisstore

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/cache/driver"
)

// trackingServer speaks as much of RESP3 as a tracking connection needs. It pushes when the test says
// so: a real server does not show in which order it might.
type trackingServer struct {
	t    *testing.T
	addr string

	mu    sync.Mutex
	conn  net.Conn
	order func(names []string) []string // in which it pushes what a script has changed
	sets  chan string                   // the keys that SET wrote, which are not pushed
}

func startTrackingServer(t *testing.T, order func([]string) []string) *trackingServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &trackingServer{t: t, addr: l.Addr().String(), order: order, sets: make(chan string, 16)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.conn = conn
		s.serve(bufio.NewReader(conn))
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return s
}

func (s *trackingServer) serve(r *bufio.Reader) {
	for {
		command, err := readCommand(r)
		if err != nil {
			_ = s.conn.Close()
			return
		}
		switch strings.ToUpper(command[0]) {
		case "HELLO":
			s.write("%5\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:3\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n")
		case "EVAL":
			s.push(s.order(command[3:5])...)
			s.write("_\r\n")
		case "SET":
			s.sets <- command[1]
			s.write("+OK\r\n")
		case "DEL":
			s.write(":1\r\n")
		default:
			s.write("+OK\r\n")
		}
	}
}

// push says that keys have changed, one message for each.
func (s *trackingServer) push(names ...string) {
	for _, name := range names {
		s.write(fmt.Sprintf(">2\r\n$10\r\ninvalidate\r\n*1\r\n$%d\r\n%s\r\n", len(name), name))
	}
}

func (s *trackingServer) write(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = io.WriteString(s.conn, text)
}

func readCommand(r *bufio.Reader) (command []string, err error) {
	length := func(sign byte) (int, error) {
		line, err := r.ReadString('\n')
		if err != nil || line[0] != sign {
			return 0, io.ErrUnexpectedEOF
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := length('*')
	for range n {
		size, err := length('$')
		if err != nil {
			return nil, err
		}
		text := make([]byte, size+2)
		if _, err := io.ReadFull(r, text); err != nil {
			return nil, err
		}
		command = append(command, string(text[:size]))
	}
	return command, err
}

// changes is a driver.Listener that keeps what it is told.
type changes struct {
	mu   sync.Mutex
	tags []driver.Tag
}

func (c *changes) Changed(tags ...driver.Tag) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tags = append(c.tags, tags...)
}
func (c *changes) Missed()          {}
func (c *changes) Proven(time.Time) {}

func (c *changes) has(tag driver.Tag) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.tags, tag)
}

// track makes a tracking connection to s, and begins to track.
func track(t *testing.T, s *trackingServer) (conn *trackedConn, heard *changes, ended context.Context) {
	t.Helper()
	ended, fail := context.WithCancelCause(t.Context())
	heard = &changes{}
	store := &Store{names: "app:", log: slog.New(slog.DiscardHandler), wakes: make(chan struct{}, 1), opt: rueidis.ClientOption{
		DisableCache: true, PipelineMultiplex: -1, ConnWriteTimeout: 2 * time.Second,
	}}
	session := &watchSession{store: store, listener: heard, fail: fail, advanced: make(chan struct{})}
	conn = newTrackedConn(newTrackingConn(t.Context(), session, incarnation{addr: s.addr}))
	client, err := conn.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := conn.enableTracking(t.Context()); err != nil {
		t.Fatal(err)
	}
	return conn, heard, ended
}

func asExecuted(names []string) []string { return names }

// A reply may come before what was to be reported before it, as it does from servers with I/O threads.
func TestProofIsHeardAndNotReplied(t *testing.T) {
	s := startTrackingServer(t, asExecuted)
	conn, heard, _ := track(t, s)
	if err := conn.seeOrder(t.Context()); err != nil {
		t.Fatal(err)
	}
	proven := make(chan error, 1)
	go func() { proven <- conn.prove(t.Context()) }()
	key := <-s.sets
	s.push("app:told:other:9", strings.Replace(key, ":2", ":1", 1)) // another's, and one of before
	select {
	case err := <-proven:
		t.Fatalf("proven by a reply (error %v)", err)
	case <-time.After(100 * time.Millisecond):
	}
	s.push("app:tag:course:7", key)
	if err := <-proven; err != nil {
		t.Fatal(err)
	}
	if !heard.has("course:7") {
		t.Error("proven before the change was reported")
	}
}

func TestServerThatReportsOutOfOrderProvesNothing(t *testing.T) {
	s := startTrackingServer(t, func(names []string) []string { return []string{names[1], names[0]} })
	conn, _, ended := track(t, s)
	if err := conn.seeOrder(t.Context()); err == nil {
		t.Error("the order is taken for that of the changes")
	}
	if err := context.Cause(ended); err == nil || !strings.Contains(err.Error(), "another order") {
		t.Errorf("Watch goes on (error %v)", err)
	}
}

// A server that tracks and pushes nothing proves nothing.
func TestServerThatPushesNothingProvesNothing(t *testing.T) {
	s := startTrackingServer(t, func([]string) []string { return nil })
	conn, _, _ := track(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := conn.seeOrder(ctx); err == nil || conn.ordered.Load() {
		t.Errorf("the order was seen (error %v)", err)
	}
}

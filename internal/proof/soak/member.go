package soak

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// A Member is one worker process of a Fleet, from its start to its end. A worker that is
// started again is another Member.
type Member struct {
	number   int
	seat     int // which of the fleet's places it has, and so which proxies
	cmd      *exec.Cmd
	stdin    io.WriteCloser
	gone     chan struct{} // closed when the process has ended and all that it said was heard
	diedAt   int64         // valid once gone is closed
	hear     func(*Member, []event)
	complain *tail

	mu      sync.Mutex
	enc     *gob.Encoder          // guarded by mu
	asked   int64                 // guarded by mu
	waiting map[int64]chan *reply // guarded by mu; nil once the process has ended
}

// errGone is returned by a call whose worker died before it answered.
var errGone = errors.New("soak: the worker has died")

// startMember starts a process. hear is called with what it says, in order.
func startMember(cfg workerConfig, seat int, hear func(*Member, []event)) (*Member, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	m := &Member{
		number: cfg.Number, seat: seat, hear: hear, complain: &tail{},
		gone: make(chan struct{}), waiting: map[int64]chan *reply{},
	}
	m.cmd = exec.Command(self)
	m.cmd.Env = append(os.Environ(), workerVariable+"="+string(text))
	m.cmd.Stderr = m.complain
	// Not StdoutPipe: Wait would close it before everything that a killed worker had said
	// was read.
	said, says, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	m.cmd.Stdout = says
	if m.stdin, err = m.cmd.StdinPipe(); err != nil {
		return nil, errors.Join(err, said.Close(), says.Close())
	}
	m.enc = gob.NewEncoder(m.stdin)
	wait, err := spawn(m.cmd)
	if err = errors.Join(err, says.Close()); err != nil {
		return nil, errors.Join(err, said.Close())
	}
	go func() {
		defer close(m.gone)
		defer said.Close()
		m.listen(said)
		wait()
		m.diedAt = now()
		m.forsake()
	}()
	return m, nil
}

// listen hears what the worker says until it has nothing more to say.
func (m *Member) listen(said io.Reader) {
	dec := gob.NewDecoder(said)
	for {
		var msg message
		if dec.Decode(&msg) != nil {
			return // it ended, perhaps in the middle of a word
		}
		if len(msg.Events) > 0 {
			m.hear(m, msg.Events)
		}
		if msg.Reply != nil {
			m.mu.Lock()
			ch := m.waiting[msg.Reply.ID]
			delete(m.waiting, msg.Reply.ID)
			m.mu.Unlock()
			if ch != nil {
				ch <- msg.Reply
			}
		}
	}
}

// forsake ends all calls that are still waiting.
func (m *Member) forsake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ch := range m.waiting {
		close(ch)
	}
	m.waiting = nil
}

// call sends a request and waits for the answer.
func (m *Member) call(ctx context.Context, r request) (*reply, error) {
	ch := make(chan *reply, 1)
	m.mu.Lock()
	if m.waiting == nil {
		m.mu.Unlock()
		return nil, errGone
	}
	m.asked++
	r.ID = m.asked
	m.waiting[r.ID] = ch
	err := m.enc.Encode(r) // a worker always reads, unless it is stopped; the pipe holds many requests
	m.mu.Unlock()
	if err != nil {
		select {
		case <-m.gone:
			return nil, errGone
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		}
	}
	select {
	case answer, ok := <-ch:
		if !ok {
			return nil, errGone
		}
		if answer.Err != "" {
			return answer, fmt.Errorf("worker %d: %s", m.number, answer.Err)
		}
		return answer, nil
	case <-ctx.Done():
		m.mu.Lock()
		delete(m.waiting, r.ID)
		m.mu.Unlock()
		return nil, fmt.Errorf("worker %d does not answer: %w", m.number, context.Cause(ctx))
	}
}

// kill ends the process at once, and returns when everything it said has been heard.
func (m *Member) kill() error {
	err := m.signal(syscall.SIGKILL)
	<-m.gone
	return err
}

// freeze stops the process; thaw lets it go on as if nothing had been.
func (m *Member) freeze() error { return m.signal(syscall.SIGSTOP) }
func (m *Member) thaw() error   { return m.signal(syscall.SIGCONT) }

func (m *Member) signal(sig syscall.Signal) error {
	if err := m.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to worker %d: %w", sig, m.number, err)
	}
	return nil
}

// alive reports whether the process has not ended, as far as is known.
func (m *Member) alive() bool {
	select {
	case <-m.gone:
		return false
	default:
		return true
	}
}

// close ends the process in order: it closes everything it has opened.
func (m *Member) close(ctx context.Context) error {
	if !m.alive() {
		return nil
	}
	m.mu.Lock()
	err := m.stdin.Close()
	m.mu.Unlock()
	select {
	case <-m.gone:
		if !m.cmd.ProcessState.Success() {
			err = errors.Join(err, fmt.Errorf("worker %d ended with %v:\n%s", m.number, m.cmd.ProcessState, m.complain))
		}
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("worker %d does not end: %w", m.number, context.Cause(ctx)), m.kill())
	}
	return err
}

// tail keeps the end of what is written to it, for an error report.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailHolds = 64 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-tailHolds):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

// raced reports whether the race detector of the worker found something.
func (m *Member) raced() bool {
	m.complain.mu.Lock()
	defer m.complain.mu.Unlock()
	return bytes.Contains(m.complain.text, []byte("DATA RACE"))
}

// seat is a place of the fleet: the proxies that lead from it to the servers. They stay when
// its worker dies and another takes the place.
type seat struct {
	redis, postgres *testservers.Proxy
	member          *Member
}

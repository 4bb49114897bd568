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

// A Process is one worker process of a Fleet, from its start to its end. A worker that is
// started again is another Member.
type Process struct {
	number   int
	slot     int // which of the fleet's places it has, and so which proxies
	cmd      *exec.Cmd
	stdin    io.WriteCloser
	exited   chan struct{} // closed when the process has exited and all its events were handled
	exitedAt int64         // valid once gone is closed
	onEvents func(*Process, []event)
	stderr   *logTail

	mu      sync.Mutex
	enc     *gob.Encoder          // guarded by mu
	lastID  int64                 // guarded by mu
	pending map[int64]chan *reply // guarded by mu; nil once the process has ended
}

// errExited is returned by a call whose worker exited before it answered.
var errExited = errors.New("soak: the worker has exited")

// startProcess starts a process. onEvents is called with its events, in order.
func startProcess(cfg workerConfig, slot int, onEvents func(*Process, []event)) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	m := &Process{
		number: cfg.Number, slot: slot, onEvents: onEvents, stderr: &logTail{},
		exited: make(chan struct{}), pending: map[int64]chan *reply{},
	}
	m.cmd = exec.Command(self)
	m.cmd.Env = append(os.Environ(), workerVariable+"="+string(text))
	m.cmd.Stderr = m.stderr
	// Not StdoutPipe: Wait would close it before everything that a killed worker had sent
	// was read.
	output, outputEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	m.cmd.Stdout = outputEnd
	if m.stdin, err = m.cmd.StdinPipe(); err != nil {
		return nil, errors.Join(err, output.Close(), outputEnd.Close())
	}
	m.enc = gob.NewEncoder(m.stdin)
	wait, err := spawn(m.cmd)
	if err = errors.Join(err, outputEnd.Close()); err != nil {
		return nil, errors.Join(err, output.Close())
	}
	go func() {
		defer close(m.exited)
		defer output.Close()
		m.receive(output)
		wait()
		m.exitedAt = now()
		m.failPending()
	}()
	return m, nil
}

// receive reads what the worker sends until its output ends.
func (m *Process) receive(output io.Reader) {
	dec := gob.NewDecoder(output)
	for {
		var msg message
		if dec.Decode(&msg) != nil {
			return // the output ended, perhaps within a message
		}
		if len(msg.Events) > 0 {
			m.onEvents(m, msg.Events)
		}
		if msg.Reply != nil {
			m.mu.Lock()
			ch := m.pending[msg.Reply.ID]
			delete(m.pending, msg.Reply.ID)
			m.mu.Unlock()
			if ch != nil {
				ch <- msg.Reply
			}
		}
	}
}

// failPending ends all calls that still wait.
func (m *Process) failPending() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ch := range m.pending {
		close(ch)
	}
	m.pending = nil
}

// call sends a request and waits for the answer.
func (m *Process) call(ctx context.Context, r request) (*reply, error) {
	ch := make(chan *reply, 1)
	m.mu.Lock()
	if m.pending == nil {
		m.mu.Unlock()
		return nil, errExited
	}
	m.lastID++
	r.ID = m.lastID
	m.pending[r.ID] = ch
	err := m.enc.Encode(r) // a worker always reads, unless it is stopped; the pipe holds many requests
	m.mu.Unlock()
	if err != nil {
		select {
		case <-m.exited:
			return nil, errExited
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		}
	}
	select {
	case answer, ok := <-ch:
		if !ok {
			return nil, errExited
		}
		if answer.Err != "" {
			return answer, fmt.Errorf("worker %d: %s", m.number, answer.Err)
		}
		return answer, nil
	case <-ctx.Done():
		m.mu.Lock()
		delete(m.pending, r.ID)
		m.mu.Unlock()
		return nil, fmt.Errorf("worker %d does not answer: %w", m.number, context.Cause(ctx))
	}
}

// kill ends the process at once, and returns when everything it sent has been handled.
func (m *Process) kill() error {
	err := m.signal(syscall.SIGKILL)
	<-m.exited
	return err
}

// freeze stops the process; thaw lets it continue.
func (m *Process) freeze() error { return m.signal(syscall.SIGSTOP) }
func (m *Process) thaw() error   { return m.signal(syscall.SIGCONT) }

func (m *Process) signal(sig syscall.Signal) error {
	if err := m.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to worker %d: %w", sig, m.number, err)
	}
	return nil
}

// running reports whether the process has not ended, as far as is known.
func (m *Process) running() bool {
	select {
	case <-m.exited:
		return false
	default:
		return true
	}
}

// close shuts the process down: it closes everything it has opened.
func (m *Process) close(ctx context.Context) error {
	if !m.running() {
		return nil
	}
	m.mu.Lock()
	err := m.stdin.Close()
	m.mu.Unlock()
	select {
	case <-m.exited:
		if !m.cmd.ProcessState.Success() {
			err = errors.Join(err, fmt.Errorf("worker %d ended with %v:\n%s", m.number, m.cmd.ProcessState, m.stderr))
		}
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("worker %d does not end: %w", m.number, context.Cause(ctx)), m.kill())
	}
	return err
}

// logTail keeps the end of what is written to it, for an error report.
type logTail struct {
	mu   sync.Mutex
	text []byte
}

const logTailSize = 64 << 10

func (t *logTail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-logTailSize):]
	return len(b), nil
}

func (t *logTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

// explain returns what may show why the worker does not do what it should: the end of its log, and what its
// goroutines wait for.
func (m *Process) explain(ctx context.Context) string {
	if m == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	const most = 8 << 10
	log := m.stderr.String()
	text := "  its log ends with\n" + log[max(0, len(log)-most):]
	answer, err := m.call(ctx, request{Stacks: true})
	if err != nil {
		return text + "  " + err.Error() + "\n"
	}
	return text + "  its goroutines\n" + answer.Stacks
}

// hasDataRace reports whether the race detector of the worker found something.
func (m *Process) hasDataRace() bool {
	m.stderr.mu.Lock()
	defer m.stderr.mu.Unlock()
	return bytes.Contains(m.stderr.text, []byte("DATA RACE"))
}

// slot is a place of the fleet: the proxies that lead from it to the servers. They stay when
// its worker dies and another takes the place.
type slot struct {
	redis, postgres *testservers.Proxy
	process         *Process
}

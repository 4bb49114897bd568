// Package child runs parts of a benchmark in processes of their own: this program, started
// again in another role.
//
// A child and its parent talk in JSON values: the child gets a specification on its
// standard input, reports when it is ready, receives the moment to begin, and sends back one
// result. A child whose parent is gone ends.
package child

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// Role is what a child does. It must call Ready once, and returns what the parent is sent.
type Role func(ctx context.Context, p *Parent) (any, error)

const roleVariable = "CHAINLEARN_BENCH_CHILD"

// messages is the file a child writes its messages to. Standard output is left to
// the libraries.
const messages = 3

// Serve plays the role that this process was started for, and ends the process. It
// returns if it was started for none.
func Serve(roles map[string]Role) {
	name := os.Getenv(roleVariable)
	if name == "" {
		return
	}
	if err := playRole(name, roles); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func playRole(name string, roles map[string]Role) error {
	role, ok := roles[name]
	if !ok {
		return fmt.Errorf("no role is called %q", name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p := &Parent{
		in:  json.NewDecoder(os.Stdin),
		out: json.NewEncoder(os.NewFile(messages, "messages")),
	}
	if err := p.in.Decode(&p.spec); err != nil {
		return fmt.Errorf("read specification: %w", err)
	}
	result, err := role(ctx, p)
	if err != nil {
		return err
	}
	return p.out.Encode(result)
}

// Parent is the process that started this one.
type Parent struct {
	spec json.RawMessage
	in   *json.Decoder
	out  *json.Encoder
}

// Spec decodes what the parent wants into v.
func (p *Parent) Spec(v any) error { return json.Unmarshal(p.spec, v) }

// Send sends the parent a value that it needs before the result, and that it takes with
// Receive. It must be called before Ready.
func (p *Parent) Send(v any) error { return p.out.Encode(v) }

// Ready reports to the parent that preparations are over, and returns the moment that the
// parent has chosen for the beginning, when it has come.
func (p *Parent) Ready() (time.Time, error) {
	if err := p.out.Encode("ready"); err != nil {
		return time.Time{}, err
	}
	var at int64
	if err := p.in.Decode(&at); err != nil {
		return time.Time{}, fmt.Errorf("wait for the beginning: %w", err)
	}
	// From here on nothing comes but the end of a parent that died.
	go func() {
		var more json.RawMessage
		if err := p.in.Decode(&more); err != nil {
			os.Exit(1)
		}
	}()
	begin := time.Unix(0, at)
	if wait := time.Until(begin); wait > 0 {
		time.Sleep(wait)
	}
	return begin, nil
}

// Process is a child.
type Process struct {
	cmd    *exec.Cmd
	in     *json.Encoder
	stdin  io.Closer
	out    *json.Decoder
	pipe   *os.File
	stderr logTail
	wait   func() error
}

// Start starts this program again in the named role. The caller must Close the process.
func Start(ctx context.Context, role string, spec any) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.CommandContext(ctx, self)}
	p.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	p.cmd.Stdout, p.cmd.Stderr = &p.stderr, &p.stderr
	p.cmd.WaitDelay = time.Second
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.ExtraFiles = []*os.File{write}
	err = p.cmd.Start()
	_ = write.Close() // the child has its own
	if err != nil {
		_ = read.Close()
		return nil, fmt.Errorf("start a child as %s: %w", role, err)
	}
	p.in, p.stdin, p.out, p.pipe = json.NewEncoder(stdin), stdin, json.NewDecoder(read), read
	p.wait = sync.OnceValue(p.cmd.Wait)
	if err := p.in.Encode(spec); err != nil {
		return nil, errors.Join(p.failed("specification", err), p.Close())
	}
	return p, nil
}

// PID returns the child's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Receive waits for the value that the child Sends, and decodes it into v.
func (p *Process) Receive(v any) error {
	if err := p.out.Decode(v); err != nil {
		return p.failed("sending", err)
	}
	return nil
}

// Ready waits until the child is.
func (p *Process) Ready() error {
	var word string
	if err := p.out.Decode(&word); err != nil {
		return p.failed("getting ready", err)
	}
	return nil
}

// Begin sends the child the moment to begin.
func (p *Process) Begin(at time.Time) error {
	if err := p.in.Encode(at.UnixNano()); err != nil {
		return p.failed("beginning", err)
	}
	return nil
}

// Result waits for the child's result, decodes it into v and ends the child.
func (p *Process) Result(v any) error {
	if err := p.out.Decode(v); err != nil {
		return p.failed("running", err)
	}
	return p.Close()
}

// Kill ends the child at once, as a crash does.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_ = p.wait() // with the signal
	return nil
}

// Close ends the child and waits for it. It may be called again.
func (p *Process) Close() error {
	_ = p.stdin.Close() // a child that still runs ends by this
	err := p.wait()
	_ = p.pipe.Close()
	if _, ended := errors.AsType[*exec.ExitError](err); ended {
		return nil // the error was reported where it occurred
	}
	return err
}

// failed describes an error of a child with the end of its output.
func (p *Process) failed(when string, err error) error {
	_ = p.Kill()
	return &DeathError{When: when, Output: p.stderr.String(), Err: err}
}

// DeathError says that a child ended before it had a result.
type DeathError struct {
	When   string
	Output string // the end of what it printed
	Err    error
}

func (e *DeathError) Error() string {
	return fmt.Sprintf("child ended while %s: %v; its output:\n%s", e.When, e.Err, e.Output)
}

func (e *DeathError) Unwrap() error { return e.Err }

// RunTogether starts n children in one role, each with the specification spec returns for it,
// lets them begin at the same moment, and returns their results. after, if not nil, is
// called when all are ready, before they begin.
func RunTogether[R any](ctx context.Context, role string, n int, spec func(i int) any, after func() error) ([]R, error) {
	children := make([]*Process, n)
	defer func() {
		for _, c := range children {
			if c != nil {
				_ = c.Kill()
				_ = c.Close()
			}
		}
	}()
	for i := range children {
		var err error
		if children[i], err = Start(ctx, role, spec(i)); err != nil {
			return nil, err
		}
	}
	for _, c := range children {
		if err := c.Ready(); err != nil {
			return nil, err
		}
	}
	if after != nil {
		if err := after(); err != nil {
			return nil, err
		}
	}
	at := time.Now().Add(100 * time.Millisecond) // by then all of them have received it
	for _, c := range children {
		if err := c.Begin(at); err != nil {
			return nil, err
		}
	}
	results := make([]R, n)
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i, c := range children {
		wg.Go(func() { errs[i] = c.Result(&results[i]) })
	}
	wg.Wait()
	return results, errors.Join(errs...)
}

// logTail keeps the end of what is written to it.
type logTail struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

const logTailSize = 8 << 10

func (t *logTail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b.Write(b)
	if t.b.Len() > 2*logTailSize {
		t.b.Next(t.b.Len() - logTailSize)
	}
	return len(b), nil
}

func (t *logTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

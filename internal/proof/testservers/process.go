package testservers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// Supervisor names the goroutine that stands behind each running server, for
// goleak.IgnoreAnyFunction in a package whose shared server runs on while the
// tests look for leaks. It ends with its server.
const Supervisor = "github.com/chainlearn/chainlearn/internal/proof/testservers.(*process).supervise"

// A process is one running server program.
type process struct {
	cmd     *exec.Cmd
	logPath string        // path of the file that holds what it printed
	exited  chan struct{} // closed when the process has been reaped
}

// startProcess starts a program whose output is appended to the file log.
// orphaned is the signal it gets if this process dies first.
func startProcess(cmd *exec.Cmd, log string, parentDeathSignal syscall.Signal, as *syscall.Credential) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = processAttr(parentDeathSignal, as)

	p := &process{cmd: cmd, logPath: log, exited: make(chan struct{})}
	started := make(chan error, 1)
	go p.supervise(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// supervise starts the process and waits for it on one and the same thread. The
// kernel sends the parent-death signal when the thread that forked the child
// ends, not when the process does, and the Go runtime ends a thread whenever a
// goroutine locked to it does. Locked to this goroutine it lasts as long as the
// child.
func (p *process) supervise(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.exited)
	err := p.cmd.Start()
	started <- err
	if err == nil {
		_ = p.cmd.Wait() // how it ended is in ProcessState
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// signal sends sig; a process that has already ended is no error.
func (p *process) signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to %s (process %d): %w", sig, p.cmd.Path, p.pid(), err)
	}
	return nil
}

// kill ends the process at once and waits until it is gone.
func (p *process) kill() error {
	err := p.signal(syscall.SIGKILL)
	<-p.exited // a stopped process dies of SIGKILL too, so this always comes
	return err
}

// freeze stops every thread of the process and waits until they stand.
func (p *process) freeze() error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return waitStopped(p.pid())
}

func waitStopped(pid int) error {
	ctx, cancel := cleanupContext()
	defer cancel()
	return Poll(ctx, func() (bool, string) {
		ok, err := stopped(pid)
		if errors.Is(err, fs.ErrNotExist) {
			return true, "" // it has ended, which is as still as can be
		}
		return ok && err == nil, fmt.Sprintf("process %d still runs (%v)", pid, err)
	})
}

// stop asks the process to end, and kills it if ctx ends first.
func (p *process) stop(ctx context.Context, sig os.Signal) error {
	if err := p.signal(sig); err != nil {
		return err
	}
	if err := p.signal(syscall.SIGCONT); err != nil { // a frozen process handles sig only when it runs
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("%s did not stop: %w", p.cmd.Path, context.Cause(ctx)), p.kill())
	}
}

// ready polls probe until it succeeds. A process that ends meanwhile, or stays
// unready, is reported with the end of its log.
func (p *process) ready(ctx context.Context, probe func(context.Context) error) error {
	err := Poll(ctx, func() (bool, string) {
		if !p.running() {
			return true, ""
		}
		if err := probe(ctx); err != nil {
			return false, err.Error()
		}
		return true, ""
	})
	if !p.running() {
		err = fmt.Errorf("ended with %v", p.cmd.ProcessState)
	}
	if err != nil {
		return fmt.Errorf("%s: %w; its log ends:\n%s", p.cmd.Path, err, p.logTail())
	}
	return nil
}

// logTail returns the last lines of the log, or why they cannot be read.
func (p *process) logTail() string {
	b, err := os.ReadFile(p.logPath)
	if err != nil {
		return err.Error()
	}
	const most = 20
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	lines = lines[max(0, len(lines)-most):]
	return string(bytes.Join(lines, []byte("\n")))
}

// addressInUse reports whether the process ended because its port was taken.
func (p *process) addressInUse() bool {
	return !p.running() && strings.Contains(p.logTail(), "Address already in use")
}

// run runs a program to its end; a failure carries what it printed.
func run(ctx context.Context, as *syscall.Credential, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = programEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

package testservers

import (
	"errors"
	"fmt"
	"syscall"
)

// A PostgreSQL server is a tree of processes: the postmaster, and a child for
// every session and task. Each child is the leader of its own session, so no
// signal reaches all of them; but none has children of its own.

// freezeTree stops the parent first, so that it makes no more children.
func freezeTree(p *process) error {
	if err := p.freeze(); err != nil {
		return err
	}
	pids, err := children(p.pid())
	if err != nil {
		return errors.Join(err, p.signal(syscall.SIGCONT))
	}
	if err := signalAll(pids, syscall.SIGSTOP); err != nil {
		return err
	}
	for _, pid := range pids {
		if err := waitStopped(pid); err != nil {
			return err
		}
	}
	return nil
}

func thawTree(p *process) error {
	pids, err := children(p.pid())
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return errors.Join(signalAll(pids, syscall.SIGCONT), p.signal(syscall.SIGCONT))
}

// killTree kills parent and children, and waits for all of them: a child that
// still holds the shared memory would keep the next server from starting.
func killTree(p *process) error {
	if err := p.freeze(); err != nil {
		return err
	}
	pids, err := children(p.pid())
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return errors.Join(err, p.kill())
	}
	if err := errors.Join(p.kill(), signalAll(pids, syscall.SIGKILL)); err != nil {
		return err
	}
	ctx, cancel := cleanupContext()
	defer cancel()
	for _, pid := range pids {
		if err := Poll(ctx, func() (bool, string) {
			return processHasEnded(pid), fmt.Sprintf("process %d is still there", pid)
		}); err != nil {
			return err
		}
	}
	return nil
}

func signalAll(pids []int, sig syscall.Signal) error {
	var errs []error
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("send %v to process %d: %w", sig, pid, err))
		}
	}
	return errors.Join(errs...)
}

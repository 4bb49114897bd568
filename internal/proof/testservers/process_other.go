//go:build unix && !linux

package testservers

import (
	"errors"
	"fmt"
	"syscall"
)

// processAttr cannot bind the child to the life of this process: only Linux has
// a parent-death signal.
func processAttr(_ syscall.Signal, as *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: as}
}

// stopped trusts kill(2).
func stopped(int) (bool, error) { return true, nil }

func children(int) ([]int, error) {
	return nil, fmt.Errorf("list the processes of a server: %w", errors.ErrUnsupported)
}

func processHasEnded(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

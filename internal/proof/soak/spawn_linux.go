package soak

import (
	"os/exec"
	"runtime"
	"syscall"
)

// spawn starts cmd so that the kernel kills it when this process ends. A stopped child could not
// notice the end of its input. It returns a function that waits for the end of the child. The
// kernel ties the child to the thread that forked it, so that thread stays.
func spawn(cmd *exec.Cmd) (wait func(), err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, exited := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in ProcessState
		}
	}()
	return func() { <-exited }, <-started
}

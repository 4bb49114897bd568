//go:build !linux

package soak

import "os/exec"

// spawn starts cmd and returns a function that waits for the end of the process. A worker
// ends with its input, so it outlives this process only while it is stopped.
func spawn(cmd *exec.Cmd) (wait func(), err error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	return func() { <-exited }, nil
}

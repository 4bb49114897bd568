package soak

import "golang.org/x/sys/unix"

// now is CLOCK_MONOTONIC in nanoseconds: the same clock in every process of the machine.
// Package time knows it only relative to the start of the process.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // Linux has it
	}
	return ts.Nano()
}

package measure

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ProcessCPU returns the processor time that this process has used so far.
func ProcessCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// CPUOf returns the processor time that another process has used so far. Only Linux has it:
// each process has a clock there. /proc has it in hundredths of a second,
// which is too coarse for what is measured in tenths.
func CPUOf(pid int) (time.Duration, error) {
	const schedule = 2 // CPUCLOCK_SCHED, of all threads
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedule), &ts); err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

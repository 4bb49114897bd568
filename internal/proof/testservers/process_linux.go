package testservers

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

func processAttr(parentDeathSignal syscall.Signal, as *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		// A group of its own: Ctrl-C on the tests reaches the tests, which then
		// shut their servers down.
		Setpgid:    true,
		Pdeathsig:  parentDeathSignal,
		Credential: as,
	}
}

// stat returns the state letter and the parent of a process, from
// /proc/PID/stat. The name in parentheses may itself hold spaces and
// parentheses, so the fields are counted from the last one.
func stat(path string) (state byte, parent int, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 2 {
		return 0, 0, fmt.Errorf("%s: cannot be understood: %q", path, s)
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0][0], parent, err
}

// stopped reports whether every thread of the process is stopped. kill(2)
// returns when SIGSTOP is queued, and a thread that runs on another CPU may
// still answer a request after that.
func stopped(pid int) (bool, error) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, task := range tasks {
		state, _, err := stat(dir + "/" + task.Name() + "/stat")
		if err != nil {
			continue // the thread has ended
		}
		if state != 'T' && state != 'Z' && state != 'X' {
			return false, nil
		}
	}
	return true, nil
}

// children returns the processes whose parent is pid.
func children(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, parent, err := stat("/proc/" + e.Name() + "/stat"); err == nil && parent == pid {
			found = append(found, child)
		}
	}
	return found, nil
}

// processHasEnded reports whether the process has ended; whether its parent has noticed
// does not matter.
func processHasEnded(pid int) bool {
	state, _, err := stat(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || state == 'Z' || state == 'X'
}

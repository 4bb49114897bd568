package report

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Machine describes where this runs, as far as the system reports it.
func Machine() []Fact {
	facts := []Fact{
		{"System", runtime.GOOS + "/" + runtime.GOARCH},
		{"Go", runtime.Version()},
		{"Processors", fmt.Sprintf("%d, of which Go uses %d", runtime.NumCPU(), runtime.GOMAXPROCS(0))},
	}
	add := func(name, value string) {
		if value != "" {
			facts = append(facts, Fact{name, value})
		}
	}
	add("Processor", field("/proc/cpuinfo", "model name"))
	add("Memory", field("/proc/meminfo", "MemTotal"))
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // not every system has one
	add("Kernel", strings.TrimSpace(string(kernel)))
	load, _ := os.ReadFile("/proc/loadavg")
	add("Load average at the end", strings.TrimSpace(string(load)))
	return facts
}

// field returns the first value of a "name : value" line of a file, or "".
func field(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

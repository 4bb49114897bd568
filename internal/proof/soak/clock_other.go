//go:build !linux

package soak

import "time"

// now is the wall clock: there is no monotonic clock that processes share. If the clock is set
// during a run, the run's verdict is worthless.
func now() int64 { return time.Now().UnixNano() }

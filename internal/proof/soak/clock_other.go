//go:build !linux

package soak

import "time"

// now is the wall clock, for want of a monotonic one that processes share. Whoever sets the
// clock during a run makes its verdict worthless.
func now() int64 { return time.Now().UnixNano() }

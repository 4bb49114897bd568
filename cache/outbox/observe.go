package outbox

import "time"

// Delivered is the cache.Event of rows whose tags this process has bumped.
type Delivered struct {
	By   string // ByWriter or ByRelay
	Rows int
	// Delays are the times from the recording of rows to their delivery: one for each row that
	// a relay delivered, and one for all of a writer's own.
	Delays []time.Duration
}

// CacheEvent marks Delivered as a cache.Event.
func (Delivered) CacheEvent() {}

// What delivers rows.
const (
	ByWriter = "writer"
	ByRelay  = "relay"
)

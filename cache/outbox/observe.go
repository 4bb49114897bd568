package outbox

import (
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// Delivered is the cache.Event of rows whose tags this process has bumped.
type Delivered struct {
	By   string // ByWriter or ByRelay
	Rows int
	// Delays are the times from the recording of rows to their delivery: one for each row that
	// a relay delivered, and one for all of a writer's own.
	Delays []time.Duration
}

// SetAside is the cache.Event of rows that could not be delivered for their own sake, while others
// could: they are no tags, or the store refuses to bump them. Instead was bumped in their place, a
// family or cache.Everything, so no invalidation is lost and the rows count as delivered.
type SetAside struct {
	Row     int64 // that was found to be to blame; others may be, too
	Rows    int   // in whose place Instead was bumped
	Instead cache.Tag
	Err     error
}

// CacheEvent marks SetAside as a cache.Event.
func (SetAside) CacheEvent() {}

// CacheEvent marks Delivered as a cache.Event.
func (Delivered) CacheEvent() {}

// What delivers rows.
const (
	ByWriter = "writer"
	ByRelay  = "relay"
)

// Undelivered is the cache.Event of a statement outside of a transaction that took effect, and whose
// invalidations could not be delivered before it returned: this process serves nothing stored
// until they are. Other processes may serve the answers of before. It is also that of a write to a
// database that has no outbox yet.
type Undelivered struct{ Err error }

// CacheEvent marks Undelivered as a cache.Event.
func (Undelivered) CacheEvent() {}

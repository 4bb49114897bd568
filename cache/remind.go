package cache

import (
	"sync"
	"time"
)

// remindEvery is how often what lasts, or comes again and again, is logged after the first time.
const remindEvery = 5 * time.Minute

// reminders keep the log short. Each name is that of one thing to say: a constant, or one for each query.
type reminders struct {
	mu     sync.Mutex
	byName map[string]reminder
}

type reminder struct {
	next  time.Time
	count int // since it was last said
}

// due counts an occurrence. It returns how many there were since the last one that was to be
// said, if this one is; else 0.
func (r *reminders) due(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	said := r.byName[name]
	said.count++
	due := 0
	if now := time.Now(); !now.Before(said.next) {
		due = said.count
		said = reminder{next: now.Add(remindEvery)}
	}
	if r.byName == nil {
		r.byName = map[string]reminder{}
	}
	r.byName[name] = said
	return due
}

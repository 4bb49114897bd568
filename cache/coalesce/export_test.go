package coalesce

// Running returns how many keys have calls that run, as far as c remembers.
func (c *Calls[K, A, R]) Running() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.keys)
}

package redisstore

// Waiting returns how many keys somebody waits for.
func Waiting(s *Store) int {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return len(s.hub.waiters)
}

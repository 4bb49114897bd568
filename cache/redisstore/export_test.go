package redisstore

// Waiting returns for how many keys callers wait.
func Waiting(s *Store) int {
	s.waiters.mu.Lock()
	defer s.waiters.mu.Unlock()
	return len(s.waiters.byKey)
}

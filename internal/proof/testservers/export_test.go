package testservers

// Gone reports whether a process has ended.
func Gone(pid int) bool { return processHasEnded(pid) }

// Home returns the directory of a server.
func (p *Postgres) Home() string { return p.dir.path }

// Home returns the directory of a server.
func (r *Redis) Home() string { return r.dir.path }

// Home returns the directory of a server.
func (m *MariaDB) Home() string { return m.dir.path }

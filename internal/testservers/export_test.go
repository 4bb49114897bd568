package testservers

// PIDs returns the processes of a running server.
func (r *Redis) PIDs() ([]int, error) { return pids(r.process()) }

// PIDs returns the processes of a running server.
func (p *Postgres) PIDs() ([]int, error) { return pids(p.process()) }

func pids(p *process, err error) ([]int, error) {
	if err != nil {
		return nil, err
	}
	all, err := children(p.pid())
	return append(all, p.pid()), err
}

// Gone reports whether a process has ended.
func Gone(pid int) bool { return gone(pid) }

// Home returns the directory of a server.
func (p *Postgres) Home() string { return p.home.path }

// Home returns the directory of a server.
func (r *Redis) Home() string { return r.home.path }

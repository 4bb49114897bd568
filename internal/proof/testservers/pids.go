package testservers

// PIDs returns the processes of a running server.
func (r *Redis) PIDs() ([]int, error) { return pids(r.process()) }

// PIDs returns the processes of a running server: those of its connections, too.
func (p *Postgres) PIDs() ([]int, error) { return pids(p.process()) }

func pids(p *process, err error) ([]int, error) {
	if err != nil {
		return nil, err
	}
	all, err := children(p.pid())
	return append(all, p.pid()), err
}

// PIDs returns the process of a running server.
func (m *MariaDB) PIDs() ([]int, error) { return pids(m.process()) }

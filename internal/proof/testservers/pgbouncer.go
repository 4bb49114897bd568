package testservers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PgBouncer is a PgBouncer that the package started: it pools the connections
// to a PostgreSQL server by transaction, so that each transaction of a client
// may run in another session. Which program runs is decided by the environment
// variable PGBOUNCER_BIN, by default pgbouncer.
type PgBouncer struct {
	server *Postgres
	dir    *serverDir
	port   *port
	proc   *process
}

// StartPgBouncer starts a PgBouncer in front of the server for the time of the
// test. Further lines of its section [pgbouncer] come last and so win.
func (p *Postgres) StartPgBouncer(tb testing.TB, config ...string) *PgBouncer {
	tb.Helper()
	b, err := p.OpenPgBouncer(context.Background(), config...)
	check(tb, err)
	tb.Cleanup(func() { closeAfter(tb, b) })
	return b
}

// OpenPgBouncer starts a PgBouncer in front of the server and waits until it
// passes queries on. Its error is a [*MissingError] where the program is not
// installed. The caller must Close it.
func (p *Postgres) OpenPgBouncer(ctx context.Context, config ...string) (*PgBouncer, error) {
	program, err := pgBouncerProgram()
	if err != nil {
		return nil, err
	}
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	for {
		b, err := p.newPgBouncer()
		if err != nil {
			return nil, err
		}
		err = b.start(ctx, program, config)
		if err == nil {
			return b, nil
		}
		again := b.proc != nil && b.proc.addressInUse() && ctx.Err() == nil
		if err = errors.Join(err, b.Close()); !again {
			return nil, err
		}
	}
}

func pgBouncerProgram() (string, error) {
	names := []string{os.Getenv("PGBOUNCER_BIN")}
	if names[0] == "" {
		names = []string{"pgbouncer", "/usr/sbin/pgbouncer"} // the PATH of users does not lead to the latter
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", &MissingError{Program: names[0], Package: "pgbouncer", Hint: "name another with PGBOUNCER_BIN"}
}

func (p *Postgres) newPgBouncer() (*PgBouncer, error) {
	port, err := reservePort()
	if err != nil {
		return nil, err
	}
	dir, err := newServerDir("pgbouncer", p.install.as) // it refuses to run as root, as PostgreSQL does
	if err != nil {
		port.release()
		return nil, err
	}
	return &PgBouncer{server: p, dir: dir, port: port}, nil
}

func (b *PgBouncer) start(ctx context.Context, program string, config []string) error {
	lines := append([]string{
		"[databases]",
		fmt.Sprintf("* = host=127.0.0.1 port=%d user=postgres", b.server.port.number),
		"[pgbouncer]",
		"listen_addr = 127.0.0.1",
		fmt.Sprintf("listen_port = %d", b.port.number),
		"unix_socket_dir =", // their paths would have to stay under 107 bytes
		"auth_type = any",   // it listens on the loopback only
		"pool_mode = transaction",
		"max_client_conn = 500",
	}, config...)
	file := b.dir.file("pgbouncer.ini")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	cmd := exec.Command(program, file)
	cmd.Dir = b.dir.path
	cmd.Env = programEnv()
	var err error
	if b.proc, err = startProcess(cmd, b.dir.file("log"), syscall.SIGKILL, b.server.install.as); err != nil {
		return err
	}
	return b.proc.ready(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, b.URL(b.server.URL()))
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, "SELECT 1")
		return err
	})
}

// Addr returns host:port.
func (b *PgBouncer) Addr() string { return b.port.addr() }

// URL returns the address, through the PgBouncer, of a database whose URL the
// server gave.
func (b *PgBouncer) URL(direct string) string {
	return strings.Replace(direct, b.server.Addr(), b.Addr(), 1)
}

// Log returns what the program printed so far.
func (b *PgBouncer) Log() string {
	log, err := os.ReadFile(b.dir.file("log"))
	if err != nil {
		return err.Error()
	}
	return string(log)
}

// Close ends the program and removes its files. Closing twice is no error.
func (b *PgBouncer) Close() error {
	var err error
	if b.proc != nil {
		err = b.proc.kill() // nothing of it outlives a connection
	}
	err = errors.Join(err, b.dir.remove())
	b.port.release()
	return err
}

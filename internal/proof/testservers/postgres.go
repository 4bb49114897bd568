package testservers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresConfig says how a PostgreSQL server is set up. The zero value is a
// fast one.
type PostgresConfig struct {
	// Durable makes the server flush what it writes to disk. Without it a
	// commit still survives Kill, because it has been handed to the kernel;
	// only a crash of the machine would lose it.
	Durable bool

	// Settings are further server settings, such as "max_connections": "20".
	// They win over those of the harness.
	Settings map[string]string
}

// Postgres is a PostgreSQL server that the package started: the newest one
// under /usr/lib/postgresql, else the one on the PATH, or the one whose
// programs are in the directory that the environment variable POSTGRES_BIN_DIR
// names. The user of its URLs is its superuser and needs no password.
type Postgres struct {
	cfg     PostgresConfig
	install *postgresInstall
	dir     *serverDir
	port    *port
	primary *Postgres // of a standby; nil otherwise
	shared  bool      // outlives the test that asks for it

	mu     sync.Mutex
	proc   *process // the last one started; guarded by mu
	closed bool     // guarded by mu
}

// StartPostgres starts a server for the time of the test.
func StartPostgres(tb testing.TB, cfg PostgresConfig) *Postgres {
	tb.Helper()
	p, err := OpenPostgres(context.Background(), cfg)
	check(tb, err)
	tb.Cleanup(func() { closeAfter(tb, p) })
	return p
}

// OpenPostgres starts a server and waits until it answers. Its error is a
// [*MissingError] where PostgreSQL is not installed. The caller must Close it.
func OpenPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	install, err := findPostgres()
	if err != nil {
		return nil, err
	}
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	template, err := install.template(ctx)
	if err != nil {
		return nil, err
	}
	return startOnFreePort(ctx, &Postgres{cfg: cfg, install: install}, func(p *Postgres) error {
		return install.run(ctx, p.dir.path, "cp", "-Rp", template, p.dataDir())
	})
}

// startOnFreePort gives p a home, a port and, by fill, data, and starts it.
func startOnFreePort(ctx context.Context, p *Postgres, fill func(*Postgres) error) (*Postgres, error) {
	var err error
	if p.dir, err = newServerDir("postgres", p.install.as); err != nil {
		return nil, err
	}
	if err = fill(p); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	for {
		if p.port, err = reservePort(); err != nil {
			return nil, errors.Join(err, p.Close())
		}
		if err = p.start(ctx); err == nil {
			return p, nil
		}
		if p.proc == nil || !p.proc.addressInUse() || ctx.Err() != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.port.release()
		p.port = nil
	}
}

func (p *Postgres) dataDir() string { return p.dir.file("data") }

func (p *Postgres) settings() []string {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(p.port.number),
		"unix_socket_directories": "", // their paths would have to stay under 107 bytes
		// Shared memory that lies in the data directory goes with it.
		"dynamic_shared_memory_type": "mmap",
		"shared_buffers":             "32MB",
		"max_connections":            "200",
		"timezone":                   "UTC",
		// The walreceiver of a standby whose primary was restarted tries again
		// after this; the usual five seconds would be most of a test.
		"wal_retrieve_retry_interval": "100ms",
	}
	if !p.cfg.Durable {
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
		// synchronous_commit stays on: off would lose acknowledged commits when
		// the server is killed, and those are what the crash tests count.
	}
	maps.Copy(settings, p.cfg.Settings)
	var args []string
	for name, value := range settings {
		args = append(args, "-c", name+"="+value)
	}
	return args
}

// start runs the server on what is in the data directory.
func (p *Postgres) start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("the PostgreSQL server is closed")
	}
	if p.proc != nil && p.proc.running() {
		return fmt.Errorf("the PostgreSQL server at %s already runs", p.Addr())
	}
	cmd := exec.Command(p.install.program("postgres"), append([]string{"-D", p.dataDir()}, p.settings()...)...)
	cmd.Dir = p.dir.path
	cmd.Env = programEnv()
	// If this process dies, SIGQUIT makes the server end at once but release
	// its shared memory, of which a system has only so many segments.
	proc, err := startProcess(cmd, p.dir.file("log"), syscall.SIGQUIT, p.install.as)
	if err != nil {
		return err
	}
	p.proc = proc
	return proc.ready(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return p.exec(ctx, "SELECT 1")
	})
}

// process returns the process that runs, or an error if the server is down.
func (p *Postgres) process() (*process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proc == nil || !p.proc.running() {
		return nil, fmt.Errorf("the PostgreSQL server at %s does not run", p.Addr())
	}
	return p.proc, nil
}

// Addr returns host:port. It stays the same over restarts.
func (p *Postgres) Addr() string { return p.port.addr() }

// URL returns the address of the database "postgres". Tests that store
// something ask for a Database instead.
func (p *Postgres) URL() string { return p.DatabaseURL("postgres") }

// DatabaseURL returns the address of the named database.
func (p *Postgres) DatabaseURL(name string) string {
	return "postgres://postgres@" + p.Addr() + "/" + url.PathEscape(name) + "?sslmode=disable"
}

// Log returns what the server printed so far.
func (p *Postgres) Log() string {
	b, err := os.ReadFile(p.dir.file("log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Database creates an empty database and returns its URL. In a shared server it
// is dropped when the test ends, also with connections still open.
func (p *Postgres) Database(tb testing.TB) string {
	tb.Helper()
	name, err := p.CreateDatabase(context.Background())
	check(tb, err)
	if p.shared { // any other server is removed with all that is in it
		tb.Cleanup(func() {
			if err := p.DropDatabase(context.Background(), name); err != nil {
				tb.Error(err)
			}
		})
	}
	return p.DatabaseURL(name)
}

// CreateDatabase creates an empty database and returns its name.
func (p *Postgres) CreateDatabase(ctx context.Context) (name string, err error) {
	name = "test_" + strings.ToLower(rand.Text())
	return name, p.exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
}

// DropDatabase removes a database and ends its connections.
func (p *Postgres) DropDatabase(ctx context.Context, name string) error {
	return p.exec(ctx, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
}

// exec runs one statement in the database "postgres".
func (p *Postgres) exec(ctx context.Context, sql string, args ...any) error {
	return p.withConn(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql, args...)
		return err
	})
}

// queryValue runs one query that answers with a single value.
func (p *Postgres) queryValue(ctx context.Context, into any, sql string, args ...any) error {
	return p.withConn(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, sql, args...).Scan(into)
	})
}

func (p *Postgres) withConn(ctx context.Context, do func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if err := do(ctx, conn); err != nil {
		return fmt.Errorf("PostgreSQL at %s: %w", p.Addr(), err)
	}
	return nil
}

// Kill ends all processes of the server at once, as a crash of its host does,
// except that what they handed to the kernel is on disk. It returns when they
// are gone.
func (p *Postgres) Kill() error {
	proc, err := p.process()
	if err != nil {
		return err
	}
	return killTree(proc)
}

// Stop shuts the server down; sessions are cut off and their transactions
// rolled back.
func (p *Postgres) Stop(ctx context.Context) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	proc, err := p.process()
	if err != nil {
		return err
	}
	if err := thawTree(proc); err != nil {
		return err
	}
	return proc.stop(ctx, os.Interrupt)
}

// Restart starts the server again on the same port. One that still runs is
// stopped first; after Kill the server recovers from its log.
func (p *Postgres) Restart(ctx context.Context) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	if _, err := p.process(); err == nil {
		if err := p.Stop(ctx); err != nil {
			return err
		}
	}
	return p.start(ctx)
}

// Freeze stops the server and all its sessions from doing anything: connections
// stay open and new ones are accepted by the kernel, but nothing is answered.
func (p *Postgres) Freeze() error {
	proc, err := p.process()
	if err != nil {
		return err
	}
	return freezeTree(proc)
}

// Thaw lets a frozen server go on.
func (p *Postgres) Thaw() error {
	proc, err := p.process()
	if err != nil {
		return err
	}
	return thawTree(proc)
}

// Close ends the server and removes its files. Closing twice is no error.
func (p *Postgres) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var err error
	if p.proc != nil {
		if p.proc.running() {
			err = killTree(p.proc)
		}
		err = errors.Join(err, releaseSharedMemory(p.dataDir()))
	}
	err = errors.Join(err, p.dir.remove())
	if p.port != nil {
		p.port.release()
	}
	return err
}

// A postgresInstall is where the programs are and which user runs them.
type postgresInstall struct {
	bin string
	as  *syscall.Credential // nil: this process's own user
}

func findPostgres() (*postgresInstall, error) {
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dirs := []string{os.Getenv("POSTGRES_BIN_DIR")}
	if dirs[0] == "" {
		// Debian keeps the programs of each major version apart and off the PATH,
		// where the ones of some other build may lie.
		dirs, _ = filepath.Glob("/usr/lib/postgresql/*/bin")
		major := func(dir string) int {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
			return n
		}
		slices.SortFunc(dirs, func(a, b string) int { return major(b) - major(a) })
		if path, err := exec.LookPath("postgres"); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	for _, dir := range dirs {
		install := &postgresInstall{bin: dir, as: as}
		complete := true
		for _, name := range []string{"postgres", "initdb", "pg_basebackup"} {
			_, err := exec.LookPath(install.program(name))
			complete = complete && err == nil
		}
		if complete {
			return install, nil
		}
	}
	return nil, &MissingError{Program: "PostgreSQL", Package: "postgresql", Hint: "name the directory of its programs with POSTGRES_BIN_DIR"}
}

func (i *postgresInstall) program(name string) string { return filepath.Join(i.bin, name) }

func (i *postgresInstall) run(ctx context.Context, dir, name string, args ...string) error {
	return run(ctx, i.as, dir, name, args...)
}

package testservers

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// MariaDBConfig says how a MariaDB server is set up. The zero value is a fast one.
type MariaDBConfig struct {
	// Durable makes the server flush what it commits to disk. Without it a
	// commit still survives Kill, because it has been handed to the kernel.
	Durable bool

	// Settings are further server settings, such as "max_connections": "20".
	// They win over those of the harness.
	Settings map[string]string

	// TimeZone of the server's process. Default UTC.
	TimeZone string
}

// MariaDB is a MariaDB server that the package started: mariadbd of the PATH or of /usr/sbin, or the
// program that the environment variable MARIADBD_BIN names. The user of its data source names
// may do everything and needs no password.
type MariaDB struct {
	cfg    MariaDBConfig
	bin    string
	as     *syscall.Credential // nil: this process's own user
	dir    *serverDir
	port   *port
	shared bool // outlives the test that asks for it

	mu     sync.Mutex
	proc   *process // the last one started; guarded by mu
	closed bool     // guarded by mu
}

// StartMariaDB starts a server for the time of the test.
func StartMariaDB(tb testing.TB, cfg MariaDBConfig) *MariaDB {
	tb.Helper()
	m, err := OpenMariaDB(context.Background(), cfg)
	check(tb, err)
	tb.Cleanup(func() { closeAfter(tb, m) })
	return m
}

// OpenMariaDB starts a server and waits until it answers. Its error is a [*MissingError] where
// MariaDB is not installed. The caller must Close it.
func OpenMariaDB(ctx context.Context, cfg MariaDBConfig) (*MariaDB, error) {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	bin, err := findMariaDB()
	if err != nil {
		return nil, err
	}
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	m := &MariaDB{cfg: cfg, bin: bin, as: as}
	template, err := m.template(ctx)
	if err != nil {
		return nil, err
	}
	if m.dir, err = newServerDir("mariadb", as); err != nil {
		return nil, err
	}
	if err := run(ctx, as, m.dir.path, "cp", "-Rp", template, m.dataDir()); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	for {
		if m.port, err = reservePort(); err != nil {
			return nil, errors.Join(err, m.Close())
		}
		if err = m.start(ctx); err == nil {
			return m, nil
		}
		if m.proc == nil || !m.proc.addressInUse() || ctx.Err() != nil {
			return nil, errors.Join(err, m.Close())
		}
		m.port.release()
		m.port = nil
	}
}

func findMariaDB() (string, error) {
	names := []string{"mariadbd", "/usr/sbin/mariadbd"} // Debian puts it where the PATH of users does not lead
	if name := os.Getenv("MARIADBD_BIN"); name != "" {
		names = []string{name}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			if _, err := exec.LookPath("mariadb-install-db"); err == nil {
				return path, nil
			}
		}
	}
	return "", &MissingError{Program: "MariaDB", Package: "mariadb-server", Hint: "name another mariadbd with MARIADBD_BIN"}
}

// template returns a directory with freshly made system tables. Making them takes seconds, so they
// are kept, and all processes of this user share those of their version.
func (m *MariaDB) template(ctx context.Context) (string, error) {
	base, err := baseDir()
	if err != nil {
		return "", err
	}
	version, err := exec.CommandContext(ctx, m.bin, "--no-defaults", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", m.bin, err)
	}
	args := []string{"--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=16M", "--skip-name-resolve"}
	key := sha256.Sum256(fmt.Append(nil, m.bin, string(bytes.TrimSpace(version)), args, m.as))
	dir := filepath.Join(base, fmt.Sprintf("mariadb-template-%x", key[:6]))

	held, err := lock(dir+".lock", true)
	if err != nil {
		return "", err
	}
	defer held.unlock()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	unfinished := dir + ".unfinished" // perhaps of a process that was killed here
	if err := os.RemoveAll(unfinished); err != nil {
		return "", err
	}
	if err := os.Mkdir(unfinished, 0o700); err != nil {
		return "", err
	}
	if m.as != nil {
		if err := os.Chown(unfinished, int(m.as.Uid), int(m.as.Gid)); err != nil {
			return "", err
		}
	}
	if err := run(ctx, m.as, base, "mariadb-install-db", append(args, "--datadir="+unfinished)...); err != nil {
		return "", err
	}
	return dir, os.Rename(unfinished, dir)
}

func (m *MariaDB) dataDir() string { return m.dir.file("data") }

// mariaUser may do everything, from 127.0.0.1.
const mariaUser = "tests"

func (m *MariaDB) settings() []string {
	settings := map[string]string{
		"datadir":                             m.dataDir(),
		"bind_address":                        "127.0.0.1",
		"port":                                strconv.Itoa(m.port.number),
		"socket":                              m.dir.file("s"),
		"pid_file":                            m.dir.file("pid"),
		"init_file":                           m.dir.file("init.sql"),
		"skip_name_resolve":                   "ON",
		"max_connections":                     "300",
		"performance_schema":                  "OFF",
		"innodb_buffer_pool_size":             "32M",
		"innodb_log_file_size":                "16M",
		"innodb_flush_log_at_trx_commit":      "1",
		"innodb_buffer_pool_dump_at_shutdown": "OFF",
	}
	if !m.cfg.Durable {
		settings["innodb_flush_log_at_trx_commit"] = "2" // given to the kernel, not to the disk
	}
	maps.Copy(settings, m.cfg.Settings)
	args := []string{"--no-defaults"}
	for name, value := range settings {
		args = append(args, "--"+name+"="+value)
	}
	return args
}

// start runs the server on what is in the data directory.
func (m *MariaDB) start(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errors.New("the MariaDB server is closed")
	}
	if m.proc != nil && m.proc.running() {
		return fmt.Errorf("the MariaDB server at %s already runs", m.Addr())
	}
	init := "CREATE USER IF NOT EXISTS " + mariaUser + "@'127.0.0.1';\nGRANT ALL ON *.* TO " + mariaUser + "@'127.0.0.1' WITH GRANT OPTION;\n"
	if err := os.WriteFile(m.dir.file("init.sql"), []byte(init), 0o644); err != nil {
		return err
	}
	cmd := exec.Command(m.bin, m.settings()...)
	cmd.Dir = m.dir.path
	cmd.Env = append(programEnv(), "TZ="+m.cfg.TimeZone)
	if m.cfg.TimeZone == "" {
		cmd.Env = programEnv()
	}
	proc, err := startProcess(cmd, m.dir.file("log"), syscall.SIGKILL, m.as)
	if err != nil {
		return err
	}
	m.proc = proc
	return proc.ready(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return m.exec(ctx, "DO 1")
	})
}

// process returns the process that runs, or an error if the server is down.
func (m *MariaDB) process() (*process, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proc == nil || !m.proc.running() {
		return nil, fmt.Errorf("the MariaDB server at %s does not run", m.Addr())
	}
	return m.proc, nil
}

// Addr returns host:port. It stays the same over restarts.
func (m *MariaDB) Addr() string { return m.port.addr() }

// DSN returns the data source name of the named database, for github.com/go-sql-driver/mysql.
func (m *MariaDB) DSN(database string) string {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName = mariaUser, "tcp", m.Addr(), database
	cfg.Timeout = 5 * time.Second
	return cfg.FormatDSN()
}

// Shell returns the arguments of the mariadb client for the named database.
func (m *MariaDB) Shell(database string) []string {
	return []string{"--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--port=" + strconv.Itoa(m.port.number), "--user=" + mariaUser, database}
}

// Log returns what the server printed so far.
func (m *MariaDB) Log() string {
	b, err := os.ReadFile(m.dir.file("log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Database creates an empty database and returns its name. In a shared server it is dropped
// when the test ends.
func (m *MariaDB) Database(tb testing.TB) string {
	tb.Helper()
	name := "test_" + strings.ToLower(rand.Text())
	check(tb, m.exec(context.Background(), "CREATE DATABASE "+name+" CHARACTER SET utf8mb4"))
	if m.shared { // any other server is removed with all that is in it
		tb.Cleanup(func() {
			if err := m.exec(context.Background(), "DROP DATABASE "+name); err != nil {
				tb.Error(err)
			}
		})
	}
	return name
}

// exec runs one statement.
func (m *MariaDB) exec(ctx context.Context, statement string) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	cfg, err := mysql.ParseDSN(m.DSN(""))
	if err != nil {
		return err
	}
	cfg.Logger = &mysql.NopLogger{} // a server that is still starting is none of a reader's concern
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("MariaDB at %s: %w", m.Addr(), err)
	}
	return nil
}

// Kill ends the server at once, as a crash of its host does, except that what it handed to the
// kernel is on disk. It returns when it is gone.
func (m *MariaDB) Kill() error {
	proc, err := m.process()
	if err != nil {
		return err
	}
	return proc.kill()
}

// Stop shuts the server down; sessions are cut off and their transactions rolled back.
func (m *MariaDB) Stop(ctx context.Context) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	proc, err := m.process()
	if err != nil {
		return err
	}
	if err := proc.signal(syscall.SIGCONT); err != nil {
		return err
	}
	return proc.stop(ctx, syscall.SIGTERM)
}

// Restart starts the server again on the same port. One that still runs is stopped first; after Kill the
// server recovers from its log.
func (m *MariaDB) Restart(ctx context.Context) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	if _, err := m.process(); err == nil {
		if err := m.Stop(ctx); err != nil {
			return err
		}
	}
	return m.start(ctx)
}

// Freeze stops the server from doing anything: connections stay open and new ones are accepted by
// the kernel, but nothing is answered.
func (m *MariaDB) Freeze() error {
	proc, err := m.process()
	if err != nil {
		return err
	}
	return proc.freeze()
}

// Thaw lets a frozen server go on.
func (m *MariaDB) Thaw() error {
	proc, err := m.process()
	if err != nil {
		return err
	}
	return proc.signal(syscall.SIGCONT)
}

// Close ends the server and removes its files. Closing twice is no error.
func (m *MariaDB) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	var err error
	if m.proc != nil && m.proc.running() {
		err = m.proc.kill()
	}
	err = errors.Join(err, m.dir.remove())
	if m.port != nil {
		m.port.release()
	}
	return err
}

// DataFile writes a file that the server may read, and returns its path.
func (m *MariaDB) DataFile(tb testing.TB, name, text string) string {
	tb.Helper()
	path := m.dir.file(name)
	Must(tb, os.WriteFile(path, []byte(text), 0o644))
	return path
}

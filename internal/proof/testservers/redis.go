package testservers

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// RedisConfig says how a Redis server is set up. The zero value is one without
// password, encryption and persistence.
type RedisConfig struct {
	// Password of the default user. Default none.
	Password string

	// TLS closes the plain port and opens an encrypted one, with a certificate
	// for 127.0.0.1 by an authority made for this process. Clients need no
	// certificate of their own.
	TLS bool

	// AppendOnly keeps every write on disk before it is acknowledged, so that
	// Kill loses nothing. Without it a killed server forgets what was written
	// since the last SAVE.
	AppendOnly bool

	// Config holds further lines of redis.conf, such as "maxmemory 8mb" or
	// "user app on >secret ~app:* +@all". They come last and so win.
	Config []string
}

// Redis is a Redis or Valkey server that the package started. Which program
// runs is decided by the environment variable REDIS_SERVER_BIN, by default
// redis-server.
type Redis struct {
	cfg  RedisConfig
	args []string // of the program, after the configuration file
	dir  *serverDir
	port *port

	// The harness has a user of its own, so that it can look after a server
	// whose default user a test has locked out.
	adminPassword string

	mu     sync.Mutex
	proc   *process // the last one started; guarded by mu
	closed bool     // guarded by mu
}

const adminUser = "testservers"

// StartRedis starts a server for the time of the test.
func StartRedis(tb testing.TB, cfg RedisConfig) *Redis {
	tb.Helper()
	r, err := OpenRedis(context.Background(), cfg)
	check(tb, err)
	tb.Cleanup(func() { closeAfter(tb, r) })
	return r
}

// OpenRedis starts a server and waits until it answers. Its error is a
// [*MissingError] where the program is not installed. The caller must Close it.
func OpenRedis(ctx context.Context, cfg RedisConfig) (*Redis, error) {
	return openRedisWith(ctx, cfg, rand.Text(), nil)
}

// openRedisWith starts a server on any port. extra makes further lines of its
// configuration, for a password that other servers may have to know.
func openRedisWith(ctx context.Context, cfg RedisConfig, adminPassword string, extra []string, args ...string) (*Redis, error) {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	for {
		r, err := newRedis(cfg, adminPassword, extra, args)
		if err != nil {
			return nil, err
		}
		err = r.start(ctx)
		if err == nil {
			return r, nil
		}
		again := r.proc != nil && r.proc.addressInUse() && ctx.Err() == nil
		if err = errors.Join(err, r.Close()); !again {
			return nil, err
		}
	}
}

// newRedis prepares the files of a server.
func newRedis(cfg RedisConfig, adminPassword string, extra, args []string) (*Redis, error) {
	if _, err := redisProgram(); err != nil {
		return nil, err
	}
	port, err := reservePort()
	if err != nil {
		return nil, err
	}
	dir, err := newServerDir("redis", nil)
	if err != nil {
		port.release()
		return nil, err
	}
	r := &Redis{cfg: cfg, args: args, dir: dir, port: port, adminPassword: adminPassword}
	if err := r.writeConfig(extra); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func redisProgram() (string, error) {
	name := os.Getenv("REDIS_SERVER_BIN")
	if name == "" {
		name = "redis-server"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &MissingError{Program: name, Package: "redis-server", Hint: "name another with REDIS_SERVER_BIN"}
	}
	return path, nil
}

func (r *Redis) writeConfig(extra []string) error {
	if err := r.emptyData(); err != nil {
		return err
	}
	lines := []string{
		"bind 127.0.0.1",
		"protected-mode no", // it would refuse all but the loopback, as bind already does
		"daemonize no",
		"dir " + r.dataDir(),
		"user " + adminUser + " on >" + r.adminPassword + " ~* &* +@all",
	}
	if r.cfg.TLS {
		files, err := writeCertificates(r.dir.path)
		if err != nil {
			return err
		}
		lines = append(lines, "port 0", fmt.Sprintf("tls-port %d", r.port.number), "tls-auth-clients no",
			"tls-ca-cert-file "+files.ca, "tls-cert-file "+files.cert, "tls-key-file "+files.key)
	} else {
		lines = append(lines, fmt.Sprintf("port %d", r.port.number))
	}
	if !r.isSentinel() {
		lines = append(lines,
			`save ""`,
			"repl-diskless-sync-delay 0", // the usual 5 s wait for more replicas would be most of a test
			"masteruser "+adminUser,
			"masterauth "+r.adminPassword,
		)
		if r.cfg.AppendOnly {
			lines = append(lines, "appendonly yes", "appendfsync always")
		}
		if r.cfg.TLS {
			lines = append(lines, "tls-replication yes", "tls-cluster yes")
		}
	} else if r.cfg.TLS {
		lines = append(lines, "tls-replication yes")
	}
	if r.cfg.Password != "" {
		lines = append(lines, "requirepass "+r.cfg.Password)
	}
	lines = append(lines, extra...)
	lines = append(lines, r.cfg.Config...)
	return os.WriteFile(r.dir.file("redis.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

func (r *Redis) isSentinel() bool { return len(r.args) > 0 && r.args[0] == "--sentinel" }

func (r *Redis) dataDir() string { return r.dir.file("data") }

// emptyData replaces the data directory by an empty one.
func (r *Redis) emptyData() error {
	if err := os.RemoveAll(r.dataDir()); err != nil {
		return err
	}
	return os.Mkdir(r.dataDir(), 0o755)
}

// start runs the program on what is in the data directory.
func (r *Redis) start(ctx context.Context) error {
	program, err := redisProgram()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errors.New("the Redis server is closed")
	}
	if r.proc != nil && r.proc.running() {
		return fmt.Errorf("the Redis server at %s already runs", r.Addr())
	}
	cmd := exec.Command(program, append([]string{r.dir.file("redis.conf")}, r.args...)...)
	proc, err := startProcess(cmd, r.dir.file("log"), syscall.SIGKILL, nil)
	if err != nil {
		return err
	}
	r.proc = proc
	return proc.ready(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		// A server that still loads its data answers LOADING, a replica that has
		// none yet MASTERDOWN, to anything but PING.
		return r.Do(ctx, "PING").Error()
	})
}

// process returns the process that runs, or an error if the server is down.
func (r *Redis) process() (*process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proc == nil || !r.proc.running() {
		return nil, fmt.Errorf("the Redis server at %s does not run", r.Addr())
	}
	return r.proc, nil
}

// Addr returns host:port. It stays the same over restarts.
func (r *Redis) Addr() string { return r.port.addr() }

// URL returns the address as redis:// or rediss://, with the password of the
// default user if there is one.
func (r *Redis) URL() string {
	u := url.URL{Scheme: "redis", Host: r.Addr()}
	if r.cfg.TLS {
		u.Scheme = "rediss"
	}
	if r.cfg.Password != "" {
		u.User = url.UserPassword("default", r.cfg.Password)
	}
	return u.String()
}

// TLSConfig returns what a client needs to trust the server, or nil if it is
// not encrypted.
func (r *Redis) TLSConfig() *tls.Config {
	if !r.cfg.TLS {
		return nil
	}
	return clientTLS()
}

// CAFile returns the path of the authority's certificate, or "" if the server
// is not encrypted.
func (r *Redis) CAFile() string {
	if !r.cfg.TLS {
		return ""
	}
	return r.dir.file(caName)
}

// Log returns what the server printed so far.
func (r *Redis) Log() string {
	b, err := os.ReadFile(r.dir.file("log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Do sends one command as the harness's own user, over a connection of its own,
// and returns the answer. It is for looking after a server; what a test is
// about goes through the client under test.
func (r *Redis) Do(ctx context.Context, command ...string) rueidis.RedisResult {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	client, err := r.client(ctx)
	if err != nil {
		return rueidis.NewErrorResult(fmt.Errorf("connect to %s: %w", r.Addr(), err))
	}
	defer client.Close()
	return client.Do(ctx, client.B().Arbitrary(command...).Build())
}

func (r *Redis) client(ctx context.Context) (rueidis.Client, error) {
	deadline, _ := ctx.Deadline()
	// NewClient knows no context, so the connection carries its deadline.
	left := max(time.Until(deadline), time.Millisecond)
	option := rueidis.ClientOption{
		InitAddress:         []string{r.Addr()},
		Username:            adminUser,
		Password:            r.adminPassword,
		TLSConfig:           r.TLSConfig(),
		ClientSetInfo:       rueidis.DisableClientSetInfo,
		ConnWriteTimeout:    left,
		ReadBufferEachConn:  16 << 10,
		WriteBufferEachConn: 16 << 10,
		ForceSingleClient:   true,
		DisableCache:        true,
		DisableRetry:        true,
	}
	option.Dialer.Timeout = left
	return rueidis.NewClient(option)
}

// Kill ends the server as a crash does. It returns when the process is gone and
// its port refuses connections.
func (r *Redis) Kill() error {
	p, err := r.process()
	if err != nil {
		return err
	}
	return p.kill()
}

// Stop shuts the server down. It does not write its data, except to the
// append-only file.
func (r *Redis) Stop(ctx context.Context) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	p, err := r.process()
	if err != nil {
		return err
	}
	return p.stop(ctx, syscall.SIGTERM)
}

// Freeze stops the server from doing anything: connections stay open and new
// ones are accepted by the kernel, but nothing is answered.
func (r *Redis) Freeze() error {
	p, err := r.process()
	if err != nil {
		return err
	}
	return p.freeze()
}

// Thaw lets a frozen server go on. It then answers what arrived meanwhile.
func (r *Redis) Thaw() error {
	p, err := r.process()
	if err != nil {
		return err
	}
	return p.signal(syscall.SIGCONT)
}

// Restart starts the server again on the same port. One that still runs saves
// its data first and keeps all of them; after Kill or Stop it has what is on
// disk: everything with AppendOnly, else the state of the last SAVE.
func (r *Redis) Restart(ctx context.Context) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	if p, err := r.process(); err == nil {
		if !r.isSentinel() {
			if err := r.Do(ctx, "SAVE").Error(); err != nil {
				return fmt.Errorf("save before the restart: %w", err)
			}
		}
		if err := p.stop(ctx, syscall.SIGTERM); err != nil {
			return err
		}
	}
	return r.start(ctx)
}

// RestartEmpty starts the server again on the same port without its data, as a
// host that lost its disk does. It need not run.
func (r *Redis) RestartEmpty(ctx context.Context) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	if p, err := r.process(); err == nil {
		if err := p.kill(); err != nil {
			return err
		}
	}
	if err := r.emptyData(); err != nil {
		return err
	}
	return r.start(ctx)
}

// Close ends the server and removes its files. Closing twice is no error.
func (r *Redis) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	var err error
	if r.proc != nil {
		err = r.proc.kill() // its data is not needed any more
	}
	err = errors.Join(err, r.dir.remove())
	r.port.release()
	return err
}

// closeAfter closes a server at the end of a test, and shows its log if the
// test failed.
func closeAfter(tb testing.TB, s interface {
	Addr() string
	Log() string
	Close() error
}) {
	if tb.Failed() {
		const most = 4 << 10
		log := s.Log()
		tb.Logf("log of the server at %s:\n%s", s.Addr(), log[max(0, len(log)-most):])
	}
	if err := s.Close(); err != nil {
		tb.Errorf("close the server at %s: %v", s.Addr(), err)
	}
}

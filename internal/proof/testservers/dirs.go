package testservers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Ports lie below the range from which Linux takes the local ports of outgoing
// connections (32768 and up), or a client anywhere on the machine could hold
// the port of a server that is being restarted. Redis Cluster adds 10000 for
// its bus, and that sum stays below the range and apart from this one as well.
const (
	firstPort = 12000
	lastPort  = 20999
)

// baseDir returns the directory, one per user, that holds all the files of all
// servers. It has to be searchable by others: PostgreSQL refuses to run as root
// and runs as another user then.
var baseDir = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("chainlearn-testservers-%d", os.Getuid()))
	if err := os.MkdirAll(filepath.Join(dir, "ports"), 0o755); err != nil {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	// The name can be guessed, so another user may have made it first.
	if sys, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || !ok || int(sys.Uid) != os.Getuid() {
		return "", fmt.Errorf("%s belongs to another user: remove it or set TMPDIR", dir)
	}
	removeAbandoned(dir)
	return dir, nil
})

// A lockFile is an advisory lock between processes. The kernel drops it when
// its holder dies, however that happens.
type lockFile struct{ f *os.File }

var errLocked = errors.New("locked by another process")

// lock takes the lock at path, and returns errLocked if wait is false and
// another process holds it.
func lock(path string, wait bool) (*lockFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	how := syscall.LOCK_EX
	if !wait {
		how |= syscall.LOCK_NB
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &lockFile{f}, nil
}

func (l *lockFile) unlock() { _ = l.f.Close() }

// A serverDir is the directory of one server and the lock that says it is in use.
type serverDir struct {
	path string
	held *lockFile
}

const lockName = "in-use"

// newServerDir makes a directory whose name begins with kind. as, if not nil, is the
// user that owns it.
func newServerDir(kind string, as *syscall.Credential) (*serverDir, error) {
	base, err := baseDir()
	if err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp(base, kind+"-server-")
	if err != nil {
		return nil, err
	}
	h := &serverDir{path: path}
	if h.held, err = lock(h.file(lockName), false); err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	if as != nil {
		if err := os.Chown(path, int(as.Uid), int(as.Gid)); err != nil {
			return nil, errors.Join(err, h.remove())
		}
	}
	return h, nil
}

func (h *serverDir) file(name string) string { return filepath.Join(h.path, name) }

func (h *serverDir) remove() error {
	err := os.RemoveAll(h.path)
	h.held.unlock()
	return err
}

// removeAbandoned removes the directories whose owner was killed before it could. A fresh one is left
// alone, for its owner may not have come to lock it yet.
func removeAbandoned(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, "*-server-*"))
	for _, path := range dirs {
		info, err := os.Stat(path)
		if err != nil || time.Since(info.ModTime()) < 10*time.Minute {
			continue
		}
		if l, err := lock(filepath.Join(path, lockName), false); err == nil {
			_ = os.RemoveAll(path) // another process may be removing it, too
			l.unlock()
		}
	}
}

// A port is a TCP port of 127.0.0.1 that no other process using this package
// takes, also while the server on it is down.
type port struct {
	number int
	held   *lockFile
}

func (p *port) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number)) }
func (p *port) release()     { p.held.unlock() }

// reservePort finds a free port. One that another program takes between this check
// and the start of the server shows as addressInUse, and callers try another.
func reservePort() (*port, error) {
	base, err := baseDir()
	if err != nil {
		return nil, err
	}
	const tries = 200
	for range tries {
		n := firstPort + rand.IntN(lastPort-firstPort+1)
		held, err := lock(filepath.Join(base, "ports", strconv.Itoa(n)), false)
		if errors.Is(err, errLocked) {
			continue
		}
		if err != nil {
			return nil, err
		}
		p := &port{number: n, held: held}
		if free(n) && free(n+10000) {
			return p, nil
		}
		p.release()
	}
	return nil, fmt.Errorf("no free port between %d and %d after %d tries", firstPort, lastPort, tries)
}

func free(n int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

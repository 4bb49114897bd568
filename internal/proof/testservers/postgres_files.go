package testservers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// unprivileged returns the user that runs PostgreSQL when this process is
// root's, which the server refuses to be; nil when it is not.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as: add one, or run the tests as another user")
}

// programEnv is the environment of every program of PostgreSQL: none of the PG*
// variables that a developer may have set for another server.
func programEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
}

// template returns a directory with a freshly made, empty database cluster.
// Making one takes more than a second, so it is kept, and all processes of this
// user share the one of their version.
func (i *postgresInstall) template(ctx context.Context) (string, error) {
	base, err := baseDir()
	if err != nil {
		return "", err
	}
	version, err := exec.CommandContext(ctx, i.program("postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", i.program("postgres"), err)
	}
	args := []string{
		"--username=postgres", "--auth=trust", // it listens on the loopback only
		"--no-locale", "--encoding=UTF8", "--no-sync", "--no-instructions",
	}
	// The owner is part of the name: a root whose machine got a user postgres
	// since would find files of the user nobody.
	key := sha256.Sum256(fmt.Append(nil, i.bin, string(bytes.TrimSpace(version)), args, i.as))
	dir := filepath.Join(base, fmt.Sprintf("postgres-template-%x", key[:6]))

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
	if i.as != nil {
		if err := os.Chown(unfinished, int(i.as.Uid), int(i.as.Gid)); err != nil {
			return "", err
		}
	}
	if err := i.run(ctx, base, i.program("initdb"), append(args, unfinished)...); err != nil {
		return "", err
	}
	return dir, os.Rename(unfinished, dir)
}

// releaseSharedMemory removes the segment that a killed server left behind. A
// server that shut down has removed it, and the file that names it.
func releaseSharedMemory(dataDir string) error {
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	const line = 7 // "key id"
	lines := strings.Split(string(b), "\n")
	if len(lines) < line {
		return nil // killed before it had one
	}
	fields := strings.Fields(lines[line-1])
	if len(fields) != 2 {
		return nil
	}
	id, err := strconv.Atoi(fields[1])
	if err != nil {
		return fmt.Errorf("%s/postmaster.pid: shared memory segment %q: %w", dataDir, fields[1], err)
	}
	if _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EIDRM) {
		return fmt.Errorf("remove shared memory segment %d: %w", id, err)
	}
	return nil
}

package main

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// The embedded database cannot be written: no file of the process may grow, as on a full disk, and what the
// write-ahead log has is not written over.
func TestTroubleOfTheEmbeddedDatabase(t *testing.T) {
	t.Parallel()
	dir, db := migrated(t)
	for _, s := range learnerSQL() {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	f := &fleet{t: t, dir: dir, env: map[string]string{"JWT_SECRET": "ssssssssssssssssssssssssssssssss"}}
	p := f.start()
	all := everyRoute(t, p, f.token(userID(1)))
	limit := func(size uint64) {
		t.Helper()
		testservers.Must(t, unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: unix.RLIM_INFINITY}, nil))
	}
	trouble{
		name: "disk full", inject: func() { limit(1) }, heal: func() { limit(unix.RLIM_INFINITY) },
		reads: well, writes: doneOrNot, update: refused, ready: asMayBe, says: `"database":"read-only"`,
	}.run(t, p.api, all)

	locking, err := db.Conn(t.Context())
	testservers.Must(t, err)
	defer locking.Close()
	exec := func(statement string) {
		t.Helper()
		_, err := locking.ExecContext(t.Context(), statement)
		testservers.Must(t, err)
	}
	trouble{
		name: "another program writes", inject: func() { exec(`BEGIN IMMEDIATE`) }, heal: func() { exec(`ROLLBACK`) },
		reads: well, writes: refused, update: refused, ready: well,
	}.run(t, p.api, all)
	p.stop(syscall.SIGTERM)
}

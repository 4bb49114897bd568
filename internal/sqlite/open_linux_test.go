package sqlite

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// withoutPrivileges runs f with the file rights of a user without any, also when the tests run as
// root, which file modes do not restrict.
func withoutPrivileges(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if os.Geteuid() == 0 {
			const nobody = 65534
			if err := syscall.Setfsuid(nobody); err != nil {
				done <- err
				return
			}
		}
		f()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestOpenWhatCannotBeWritten(t *testing.T) {
	for _, c := range []struct {
		name         string
		file, folder os.FileMode
		exists       bool
		says         string
	}{
		{"file", 0o444, 0o777, true, "cannot be written"},
		{"folder of a file", 0o666, 0o555, true, "its folder cannot be written"},
		{"folder of none", 0, 0o555, false, "its folder cannot be written"},
	} {
		t.Run(c.name, func(t *testing.T) {
			folder := t.TempDir()
			if err := os.Chmod(filepath.Dir(folder), 0o755); err != nil { // for the other user to enter
				t.Fatal(err)
			}
			path := filepath.Join(folder, "x.db")
			var before []byte
			if c.exists {
				s, err := Open(t.Context(), path, Config{})
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(path, c.file); err != nil {
					t.Fatal(err)
				}
				if before, err = os.ReadFile(path); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(folder, c.folder); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Chmod(folder, 0o755) })
			withoutPrivileges(t, func() {
				s, err := Open(t.Context(), path, Config{Exclusive: true})
				if err == nil {
					s.Close()
				}
				if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
					t.Errorf("error %v, want one that says %q and names the file", err, c.says)
				}
			})
			after, err := os.ReadFile(path)
			if c.exists != (err == nil) || !bytes.Equal(before, after) {
				t.Errorf("the refused file was changed (error %v)", err)
			}
			if files, err := filepath.Glob(filepath.Join(folder, "*")); err != nil || len(files) != len(before[:min(1, len(before))]) {
				t.Errorf("left behind: %v, %v", files, err)
			}
		})
	}
}

package sqlite

import (
	"bytes"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenCreatesFolderAndReopens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "some where", "100%#?&new.db")
	for range 2 {
		s, err := Open(t.Context(), path, Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Close left the write-ahead log behind: %v", err)
	}
}

func TestOpenRefusesAndLeavesUntouched(t *testing.T) {
	withSchema := func(t *testing.T, path, statements string) {
		db, err := openPool(path, Config{}, url.Values{"_journal_mode": {"WAL"}}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), statements); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		make  func(t *testing.T, path string)
		is    error // nil: says decides
		says  string
		isDir bool
	}{
		{
			name: "text",
			make: func(t *testing.T, path string) {
				if err := os.WriteFile(path, []byte("dear diary,\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			},
			is: ErrNotDatabase, says: "not a SQLite database",
		},
		{
			name: "header only",
			make: func(t *testing.T, path string) {
				if err := os.WriteFile(path, []byte("SQLite format 3\x00 and then nothing of the kind"), 0o600); err != nil {
					t.Fatal(err)
				}
			},
			says: "not a database",
		},
		{
			name: "another program's",
			make: func(t *testing.T, path string) { withSchema(t, path, `CREATE TABLE bookmarks (url)`) },
			is:   ErrOtherProgram, says: "another program",
		},
		{
			name: "newer",
			make: func(t *testing.T, path string) {
				s, err := Open(t.Context(), path, Config{})
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				withSchema(t, path, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9001, 1)`)
			},
			says: "has schema version 9001 and this program knows 4: run the newer release",
		},
		{
			name:  "directory",
			make:  func(t *testing.T, path string) { mkdir(t, path) },
			says:  "is a directory",
			isDir: true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.db")
			c.make(t, path)
			before, err := os.ReadFile(path)
			if err != nil && !c.isDir {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), path, Config{})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %q: want one that says %q and names the file", err, c.says)
			}
			if c.isDir {
				return
			}
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(before, after) {
				t.Error("the refused file was changed")
			}
			files, err := filepath.Glob(path + "*")
			if err != nil {
				t.Fatal(err)
			}
			if len(files) != 1 {
				t.Errorf("left behind: %v", files)
			}
		})
	}

	t.Run("in memory", func(t *testing.T) {
		if _, err := Open(t.Context(), ":memory:", Config{}); err == nil || !strings.Contains(err.Error(), "name a file") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("folder is a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), filepath.Join(file, "x.db"), Config{}); err == nil {
			t.Error("opened")
		}
	})
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestExclusive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	first, err := Open(t.Context(), path, Config{Exclusive: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, Config{Exclusive: true}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second server: %v, want ErrInUse", err)
	}
	tool, err := Open(t.Context(), path, Config{})
	if err != nil {
		t.Fatalf("a tool beside the server: %v", err)
	}
	if err := errors.Join(tool.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	next, err := Open(t.Context(), path, Config{Exclusive: true})
	if err != nil {
		t.Fatalf("after the server has ended: %v", err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

func TestEveryConnectionIsConfigured(t *testing.T) {
	s := storage(t, Config{Readers: 3})
	for _, p := range []struct {
		name string
		db   *sql.DB
		size int
	}{{"read", s.readPool, 4}, {"write", s.writePool, 1}} {
		for range p.size { // held until the end, so each is another
			conn, err := p.db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for pragma, want := range map[string]string{
				"foreign_keys": "1", "busy_timeout": "5000", "journal_mode": "wal",
				"query_only": map[string]string{"read": "1", "write": "0"}[p.name],
			} {
				var got string
				if err := conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
					t.Errorf("%s connection: %s = %q, %v; want %q", p.name, pragma, got, err, want)
				}
			}
		}
	}
}

// storage opens a database that lasts for the test.
func storage(t *testing.T, cfg Config) *Storage {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "test.db"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

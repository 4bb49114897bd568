package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"modernc.org/sqlite"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/outbox"
	outboxsqlite "github.com/chainlearn/chainlearn/cache/outbox/sqlite"
)

var (
	// ErrInUse says that another process holds the database exclusively.
	ErrInUse = errors.New("in use by another process")
	// ErrNotDatabase says that the file is no SQLite database.
	ErrNotDatabase = errors.New("not a SQLite database")
	// ErrOtherProgram says that the database holds tables of some other program.
	ErrOtherProgram = errors.New("a database of another program")
)

// NewerError says that a newer release of the program has migrated the database.
type NewerError struct {
	Path         string
	Found, Known int64 // schema versions
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("%s has schema version %d and this program knows %d: run the newer release", e.Path, e.Found, e.Known)
}

// Config of Open. Its zero value is good.
type Config struct {
	// Cache holds the answers that writes invalidate, and Relay is how its relay delivers
	// what other programs wrote. Default nil: this process caches nothing, and
	// what it writes is delivered by those that do.
	Cache *cache.Cache
	Relay outbox.RelayConfig
	// NoRelay is for a command that looks, beside the services that deliver.
	NoRelay bool

	// Exclusive keeps every other process that asks for the same from opening the database.
	// A server whose cache is its own must ask: each of two would miss the other's
	// fences. Programs that do not ask may still open it.
	Exclusive bool

	// Readers is how many reads may run at once. Default: 4, or one for each CPU if
	// those are more.
	Readers int

	// BusyTimeout is how long a write waits for another process to finish its own, and how long
	// it may take in all. Default 5 s.
	BusyTimeout time.Duration

	// OnQuery, if set, is called with every statement that is sent to the database,
	// transaction control and the relay's housekeeping (on the table cache_outbox, and
	// PRAGMA data_version) included. It must be safe for concurrent use.
	OnQuery func(query string)
}

func (c Config) withDefaults() Config {
	c.Readers = cmp.Or(c.Readers, max(4, runtime.GOMAXPROCS(0)))
	c.BusyTimeout = cmp.Or(c.BusyTimeout, 5*time.Second)
	return c
}

// drainTimeout bounds how long a start waits for the outbox and the shared tier.
const drainTimeout = 2 * time.Second

// Open opens the database in the file at path, which it creates, with its folder, if there is
// none, and brings its schema up to date. A file that it refuses (ErrNotDatabase,
// ErrOtherProgram, ErrInUse, a NewerError, one that cannot be written) it leaves as it was.
func Open(ctx context.Context, path string, cfg Config) (*Storage, error) {
	s, err := openStorage(ctx, path, cfg.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("open database %q: %w", path, err)
	}
	return s, nil
}

func openStorage(ctx context.Context, path string, cfg Config) (_ *Storage, err error) {
	if path == "" || strings.HasPrefix(path, ":memory:") {
		return nil, errors.New("name a file: a database in memory cannot be shared by several connections")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	s := &Storage{writeTimeout: cfg.BusyTimeout}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := checkFile(path); err != nil {
		return nil, err
	}
	if cfg.Exclusive {
		if s.lock, err = lockFile(path + ".lock"); err != nil {
			return nil, err
		}
	}
	if err := checkSchema(ctx, path, cfg); err != nil {
		return nil, err
	}
	// An acknowledged write survives a power cut, hence synchronous=FULL: one fsync for
	// each commit.
	s.writePool, err = openPool(path, cfg, url.Values{
		"_txlock": {"immediate"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"}, "mode": {"rwc"},
		"_pragma": {"cache_size(-32768)"}, // KiB at most: a large transaction in less spills early
	}, 1)
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, s.writePool); err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	// One more than Readers, for the watch over the outbox.
	s.readPool, err = openPool(path, cfg, url.Values{
		"_query_only": {"1"}, "mode": {"rw"}, "_pragma": {"cache_size(-8192)"},
	}, cfg.Readers+1)
	if err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	s.log = outboxsqlite.NewLog(s.readPool, s.writePool)
	if cfg.Cache != nil && !cfg.NoRelay {
		if s.relay, err = outbox.NewRelay(cfg.Cache, s.log, cfg.Relay); err != nil {
			return nil, err
		}
		s.relay.Start()
		// What was written while no relay ran is delivered before the first request. If the
		// shared tier is down, the cache waits for it before it serves what is stored.
		waiting, cancel := context.WithTimeout(ctx, drainTimeout)
		defer cancel()
		if err := cfg.Cache.WaitServing(waiting); err != nil && cfg.Relay.Logger != nil {
			cfg.Relay.Logger.WarnContext(ctx, "the outbox was not drained at start; stored answers are not served until it is", "err", err)
		}
	}
	s.db = outboxsqlite.NewDB(s.log, cfg.Cache, outbox.Options{Relay: s.relay})
	return s, nil
}

// openPool opens connections to the database; params are added to what all of them need.
func openPool(path string, cfg Config, params url.Values, size int) (*sql.DB, error) {
	params.Set("_foreign_keys", "1")
	params.Set("_busy_timeout", fmt.Sprint(cfg.BusyTimeout.Milliseconds()))
	params.Add("_pragma", "temp_store(memory)")
	params.Set("_dqs", "0") // "text" is a name and never a string
	params.Set("_error_rc", "1")
	connector, err := sqlite.NewConnector("file:" + (&url.URL{Path: path}).EscapedPath() + "?" + params.Encode())
	if err != nil {
		return nil, err
	}
	if cfg.OnQuery != nil {
		connector = &hookedConnector{connector, cfg.OnQuery}
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size) // a new connection would read the schema again
	return db, nil
}

// checkFile refuses what SQLite would refuse late, with less to say, or would overwrite.
func checkFile(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return checkFolder(filepath.Dir(path))
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return errors.New("is a directory: name a file in it")
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot be written: %w", err)
	}
	defer f.Close()
	if info.Size() > 0 {
		const magic = "SQLite format 3\x00"
		head := make([]byte, len(magic))
		if n, _ := f.ReadAt(head, 0); string(head[:n]) != magic {
			return ErrNotDatabase
		}
	}
	return checkFolder(filepath.Dir(path))
}

// checkFolder tries whether files can be made beside the database, as its log must be.
func checkFolder(folder string) error {
	f, err := os.CreateTemp(folder, ".chainlearn-*")
	if err != nil {
		return fmt.Errorf("its folder cannot be written: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

func migrationProvider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true), goose.WithGoMigrations(migrateWatches))
}

func migrate(ctx context.Context, db *sql.DB) error {
	p, err := migrationProvider(db)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	if err == nil {
		return nil
	}
	// Another process may have migrated between our read of the version and our
	// write. Then there is nothing left to do.
	if pending, again := p.HasPending(ctx); again == nil && !pending {
		return nil
	}
	return err
}

// checkSchema refuses a database that is not ours to migrate. It only reads.
func checkSchema(ctx context.Context, path string, cfg Config) error {
	if info, err := os.Stat(path); errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	db, err := openPool(path, cfg, url.Values{"_query_only": {"1"}, "mode": {"rw"}}, 1)
	if err != nil {
		return err
	}
	defer db.Close()
	var tables, ours int
	err = db.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE name = ?) FROM sqlite_schema WHERE type = 'table'`,
		goose.DefaultTablename).Scan(&tables, &ours)
	switch {
	case err != nil:
		return fmt.Errorf("read schema: %w", err)
	case tables == 0:
		return nil
	case ours == 0:
		return ErrOtherProgram
	}
	p, err := migrationProvider(db)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	known := sources[len(sources)-1].Version
	var found int64
	if err := db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM `+goose.DefaultTablename).Scan(&found); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if found > known {
		return &NewerError{path, found, known}
	}
	return nil
}

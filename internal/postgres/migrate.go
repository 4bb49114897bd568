package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	outbox "github.com/chainlearn/chainlearn/cache/outbox/postgres"
)

// NewerError says that a newer release of the program has migrated the database.
type NewerError struct {
	Found, Known int64 // schema versions
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("the database has schema version %d and this program knows %d: run the newer release", e.Found, e.Known)
}

// versionTable keeps apart from the bookkeeping of other programs that use goose.
const versionTable = "chainlearn_schema_version"

//go:embed migrations/*.sql
var migrations embed.FS

func migrationProvider(db *sql.DB, log *slog.Logger) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(versionTable),
		goose.WithDisableGlobalRegistry(true),
		goose.WithGoMigrations(
			goose.NewGoMigration(3, &goose.GoFunc{RunDB: func(ctx context.Context, db *sql.DB) error {
				return buildIndexes(ctx, db, log)
			}}, nil),
			goose.NewGoMigration(5, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, `SET LOCAL lock_timeout = '3s';`+outbox.Migration())
				return err
			}}, nil),
			goose.NewGoMigration(7, &goose.GoFunc{RunDB: upgradeWatches}, nil),
		))
}

// upgradeWatches brings a database up to date whose migrations 5 and 6 are those of an earlier
// release, in which the functions of the outbox took other arguments: it applies the outbox
// again and then declares the watches of migration 6, one after another. On any other it
// declares what is declared already.
func upgradeWatches(ctx context.Context, db *sql.DB) error {
	watches, err := migrations.ReadFile("migrations/00006_watch.sql")
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `SET LOCAL lock_timeout = '3s';`+outbox.Migration()); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	for _, statement := range regexp.MustCompile(`(?s)SELECT cache_watch\(.*?\);`).FindAllString(string(watches), -1) {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// migrate brings the schema up to date. Any number of processes may do so at once; one
// does it and the others wait.
func migrate(ctx context.Context, cfg *pgx.ConnConfig, log *slog.Logger) error {
	cfg = cfg.Copy()
	cfg.Tracer = nil                                                      // OnQuery does not report migrations
	for _, limit := range []string{"statement_timeout", "lock_timeout"} { // an index takes as long as it takes
		if _, set := cfg.RuntimeParams[limit]; set {
			cfg.RuntimeParams[limit] = "0"
		}
	}
	// Statements run once: nothing to prepare, and nothing for a proxy to trip over.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	db := stdlib.OpenDB(*cfg)
	defer db.Close()
	db.SetMaxOpenConns(4) // the lock, the migration, its version, the report

	p, err := migrationProvider(db, log)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	known := sources[len(sources)-1].Version
	if done, err := upToDate(ctx, db, known); done || err != nil {
		return err
	}
	return withMigrationLock(ctx, db, log, func() error {
		if done, err := upToDate(ctx, db, known); done || err != nil {
			return err // another process was faster
		}
		return applyMigrations(ctx, p, log)
	})
}

// upToDate compares the database's version with the program's.
func upToDate(ctx context.Context, db *sql.DB, known int64) (bool, error) {
	var there bool
	if err := db.QueryRowContext(ctx, `SELECT to_regclass($1::text) IS NOT NULL`, versionTable).Scan(&there); err != nil || !there {
		return false, err
	}
	var found int64
	if err := db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM `+versionTable).Scan(&found); err != nil {
		return false, err
	}
	if found > known {
		return false, &NewerError{found, known}
	}
	return found == known, nil
}

const (
	migrationLockKey            = 0x636861696e6c6561 // "chainlea"
	migrationLockPollInterval   = 250 * time.Millisecond
	migrationLockReportInterval = 10 * time.Second
)

// withMigrationLock runs f while no other process does. The lock belongs to an open transaction, not to
// a session: a proxy that pools transactions would lose a session's. It is tried again
// and again instead of waited for, since a statement that waits holds a snapshot, and the
// building of an index waits for all older snapshots: each would wait for the other.
func withMigrationLock(ctx context.Context, db *sql.DB, log *slog.Logger, f func() error) error {
	var reported time.Time
	for {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		var ours bool
		err = tx.QueryRowContext(ctx, `SELECT pg_try_advisory_xact_lock($1::bigint)`, migrationLockKey).Scan(&ours)
		if err == nil {
			// Apart from what it says, this ends the query before, whose portal and
			// snapshot would otherwise stay open for as long as the transaction.
			_, err = tx.ExecContext(ctx, `SET LOCAL idle_in_transaction_session_timeout = 0`)
		}
		if err == nil && ours {
			return errors.Join(f(), tx.Rollback())
		}
		if err := errors.Join(err, tx.Rollback()); err != nil {
			return err
		}
		if time.Since(reported) > migrationLockReportInterval {
			reported = time.Now()
			log.InfoContext(ctx, "another process is migrating the database, waiting")
		}
		if err := sleep(ctx, migrationLockPollInterval); err != nil {
			return err
		}
	}
}

// maxMigrationAttempts bounds how often a migration is tried that could not get a lock: with a
// lock timeout of 3 s and a growing pause, some two minutes in all.
const maxMigrationAttempts = 20

// applyMigrations applies what is missing. A migration that waits for a lock blocks every
// later query on the table, so it gives up soon and tries again later.
func applyMigrations(ctx context.Context, p *goose.Provider, log *slog.Logger) error {
	for attempt := 1; ; {
		began := time.Now()
		results, err := p.UpByOne(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return nil
		}
		if err == nil {
			log.InfoContext(ctx, "migrated", "version", results.Source.Version, "took", time.Since(began).Round(time.Millisecond))
			attempt = 1
			continue
		}
		if !isLockFailure(err) || attempt == maxMigrationAttempts {
			return err
		}
		log.WarnContext(ctx, "the tables to migrate are in use, trying again", "attempt", attempt, "of", maxMigrationAttempts, "err", err)
		if err := sleep(ctx, time.Duration(min(attempt, 4))*time.Second); err != nil {
			return err
		}
		attempt++
	}
}

// isLockFailure says whether another session held a lock for too long.
func isLockFailure(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == "55P03" || e.Code == "40P01") // lock timeout, deadlock
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

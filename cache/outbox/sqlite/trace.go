package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chainlearn/chainlearn/cache"
)

var _ cache.Tracer = (*DB)(nil)

// How Tables sees what a loader reads, by whichever pool and through whichever view.
//
// No reader waits for a lock of SQLite, and modernc.org/sqlite has no authorizer. So all tables
// get other names, in a transaction that commits. The reader fails, with an error that names the
// first table it needs. That one gets its name back, and the reader runs again, until it succeeds.
//
// A process that is killed meanwhile leaves tables behind that are hidden. They lack nothing but
// their names, which the next Tables gives back. Check finds them. Decision 50.

const (
	hidden = "cache_hidden_" // what a hidden table's name begins with

	toHideSQL = `SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual') AND name NOT GLOB 'sqlite_*'
	AND name NOT IN ('cache_outbox', 'cache_consumers', 'cache_delivered', 'cache_watches') ORDER BY name`
	hiddenSQL = `SELECT substr(name, 14) FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual') AND name GLOB '` + hidden + `*' ORDER BY name`
)

// traceTurn is held by the one trace that may be under way: another would give its tables back.
var traceTurn = make(chan struct{}, 1)

// Tables implements cache.Tracer: the tables and virtual tables of the file that read asks for, also
// through views. It runs read several times. read must return the errors of its statements, or
// their texts, and must not write.
//
// It is for test databases that nothing else uses: it renames every table that there is, for
// milliseconds at a time, with what belongs to it. Tables of attached files and temporary ones
// are not seen, nor is what read does not ask for under its present arguments and rows.
func (db *DB) Tables(ctx context.Context, read func(context.Context) error) ([]string, error) {
	tables, err := db.log.trace(ctx, read)
	if err != nil {
		return nil, fmt.Errorf("trace what is read: %w", err)
	}
	return tables, nil
}

func (l *Log) trace(ctx context.Context, read func(context.Context) error) (found []string, err error) {
	select {
	case traceTurn <- struct{}{}:
		defer func() { <-traceTurn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	left, err := scanStrings(l.read.QueryContext(ctx, hiddenSQL)) // by a trace that was killed
	if err == nil {
		err = l.rename(ctx, left, show)
	}
	if err != nil {
		return nil, err
	}
	before, err := schemaOf(ctx, l.read)
	if err != nil {
		return nil, err
	}
	tables, err := scanStrings(l.read.QueryContext(ctx, toHideSQL))
	if err == nil {
		err = l.rename(ctx, tables, hide)
	}
	if err != nil {
		return nil, err
	}
	defer func() { // also if read panics
		after := context.WithoutCancel(ctx)
		err = errors.Join(err, l.rename(after, tables, show), l.respell(after, before))
	}()
	for {
		failed := read(ctx)
		if failed == nil {
			slices.Sort(found)
			return found, nil
		}
		table := lacks(failed, tables)
		if table == "" {
			return nil, fmt.Errorf("with its tables renamed, the read fails and does not say which it lacks: %w", failed)
		}
		if err := l.rename(ctx, []string{table}, show); err != nil {
			return nil, err
		}
		found = append(found, table)
		tables = slices.DeleteFunc(tables, func(t string) bool { return t == table })
	}
}

// lacks returns which of tables an error of SQLite says does not exist, or nothing. The name ends
// where the text does, or before the code, so that of several the longest is meant.
func lacks(err error, tables []string) (longest string) {
	text := strings.ToLower(err.Error())
	for _, t := range tables {
		name := strings.ToLower(t)
		if len(t) > len(longest) && (strings.Contains(text, "no such table: "+name) || strings.Contains(text, "no such table: main."+name)) {
			longest = t
		}
	}
	return longest
}

func hide(table string) (from, to string) { return table, hidden + table }
func show(table string) (from, to string) { return hidden + table, table }

// rename gives tables other names in one transaction. What names them elsewhere, such as a view or the
// trigger of another table, goes on naming what they were called.
func (l *Log) rename(ctx context.Context, tables []string, names func(table string) (from, to string)) error {
	if len(tables) == 0 {
		return nil
	}
	return l.inTx(ctx, func(tx *sql.Tx) error {
		return with(ctx, tx, "legacy_alter_table", func() error {
			for _, t := range tables {
				from, to := names(t)
				if _, err := tx.ExecContext(ctx, fmt.Sprintf(`ALTER TABLE %s RENAME TO %s`, ident(from), ident(to))); err != nil {
					return fmt.Errorf("rename table %s to %s: %w", from, to, err)
				}
			}
			return nil
		})
	})
}

// object of the schema, and the statement that creates it.
type object struct{ kind, name, sql string }

func schemaOf(ctx context.Context, db Conn) (objects []object, err error) {
	err = query(ctx, db, `SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL`, nil, func(scan func(...any) error) error {
		var o object
		err := scan(&o.kind, &o.name, &o.sql)
		objects = append(objects, o)
		return err
	})
	return objects, err
}

// respell gives the statements of the schema back the text that they had. They mean the same: two renames
// have left quotes around the names of tables.
func (l *Log) respell(ctx context.Context, objects []object) error {
	return l.inTx(ctx, func(tx *sql.Tx) error {
		return with(ctx, tx, "writable_schema", func() error {
			for _, o := range objects {
				if _, err := tx.ExecContext(ctx, `UPDATE sqlite_schema SET sql = ?3 WHERE type = ?1 AND name = ?2 AND sql <> ?3`, o.kind, o.name, o.sql); err != nil {
					return fmt.Errorf("spell the schema as it was: %w", err)
				}
			}
			return nil
		})
	})
}

// with runs fn while a setting of the connection is on.
func with(ctx context.Context, tx *sql.Tx, setting string, fn func() error) error {
	var was int
	if err := queryRow(ctx, tx, `PRAGMA `+setting, nil, &was); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `PRAGMA `+setting+` = 1`); err != nil {
		return err
	}
	err := fn()
	_, undone := tx.ExecContext(context.WithoutCancel(ctx), fmt.Sprintf(`PRAGMA %s = %d`, setting, was))
	return errors.Join(err, undone)
}

package mysql

import (
	"context"
	"database/sql"
	driversql "database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/sqldb"
)

// Dialect is the sqldb.Config.Dialect of MariaDB and MySQL:
//
//	db, err := sqldb.Open("mysql", dsn, c, sqldb.Config{Dialect: mysql.Dialect})
//
// The driver is github.com/go-sql-driver/mysql, or one that wraps it and returns its errors. Package sqldb says what
// is promised, and what becomes of a statement outside of a transaction. On MariaDB and MySQL:
//
//   - As it is: one SELECT, WITH, TABLE or VALUES that calls only functions that both servers have of their own, without
//     INTO, FOR UPDATE and :=; SHOW, USE, and SET of what is not autocommit, completion_type, a role or a password.
//   - In a transaction of its own: INSERT, UPDATE, DELETE, REPLACE, DO, LOAD DATA, EXPLAIN, and a SELECT that
//     may write, such as one that calls a stored function.
//   - As it is, and the outbox is delivered before it returns: everything else, such as DDL, TRUNCATE and CALL; several statements in
//     one string; comments that the server runs; and strings that end elsewhere in another sql_mode. A connection on
//     which such a statement may have left a transaction or locks (CALL, XA, LOCK TABLES, SET autocommit) is
//     closed when it comes back to the pool, and takes no BeginTx before that.
//
// A statement that commits by itself within a transaction, as DDL does, has Commit and Rollback fail with
// ErrImplicitCommit: what came before it is committed, and relays deliver it. After a deadlock the server has undone
// the transaction: roll it back, as ever.
//
// Sessions that begin with autocommit off, or with another completion_type than NO_CHAIN, are refused: the
// first write fails and says so. One database of the server is watched: that of the data source, also after USE. What
// a transaction changes in tables of another database with an outbox of its own is an external writer's.
//
// A transaction costs five round trips more than before, and one more if it has recorded something: the driver sends one
// statement at a time. A statement in a transaction of its own has BEGIN and COMMIT besides. Without interpolateParams, the
// driver prepares each statement that has arguments, as ever.
//
// Only the wait for COMMIT is limited (see Limits of the package), not those between statements.
func Dialect() sqldb.Dialect { return &dialect{} }

// dialect sends one statement at a time: by default the driver takes no more.
type dialect struct {
	home atomic.Pointer[string] // the database with the outbox, quoted; nil until it is found
}

var errSession = errors.New("outbox/mysql: sessions begin with autocommit off, or with completion_type other than NO_CHAIN: what is written could not be told to be committed. " +
	"Remove both from the name of the data source, and from init_connect of the server")

// Ready looks for the outbox in the session's database. USE may lead to another one later.
func (d *dialect) Ready(ctx context.Context, s sqldb.Sender) (bool, error) {
	if d.home.Load() != nil {
		return true, nil
	}
	plain := false
	name := ""
	err := s.Ask(ctx, `SELECT IF(@@SESSION.autocommit = 1 AND @@SESSION.completion_type = 'NO_CHAIN', 'plain', ''),
		(SELECT table_schema FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'cache_outbox')`, func(row []driversql.Value) error {
		plain, name = asText(row[0]) == "plain", asText(row[1])
		return nil
	})
	switch {
	case err != nil:
		return false, fmt.Errorf("outbox/mysql: look for the outbox: %w", err)
	case !plain:
		return false, errSession
	case name == "":
		return false, nil
	}
	name = ident(name)
	d.home.Store(&name)
	return true, nil
}

// asText returns a text as a driver returns it.
func asText(v driversql.Value) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	}
	return ""
}

// KindOf asks nothing: see kindOf.
func (d *dialect) KindOf(_ context.Context, _ sqldb.Sender, query string) sqldb.Kind {
	return kindOf(query)
}

// Begin sets the mark before the transaction begins: a variable is the session's. Unlike OpeningSQL it limits no
// wait yet: a program may do what it likes between two statements.
func (d *dialect) Begin(ctx context.Context, s sqldb.Sender, level sql.IsolationLevel, mark driver.Mark, _ time.Duration) error {
	statements := []string{markSQL(mark), "START TRANSACTION", BegunSQL}
	switch level {
	case sql.LevelDefault:
	case sql.LevelReadUncommitted, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable:
		statements = append([]string{"SET TRANSACTION ISOLATION LEVEL " + strings.ToUpper(level.String())}, statements...)
	default:
		return fmt.Errorf("outbox/mysql: the database has no isolation level %v", level)
	}
	return sendEach(ctx, s, statements...)
}

func sendEach(ctx context.Context, s sqldb.Sender, statements ...string) error {
	for _, statement := range statements {
		if _, err := s.Send(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// release fails if the transaction is not the one that Begin opened.
func release(ctx context.Context, s sqldb.Sender) error {
	_, err := s.Send(ctx, "RELEASE "+BegunSQL)
	if isCode(err, noSavepoint) {
		return fmt.Errorf("%w: %w", ErrImplicitCommit, outbox.ErrUnknownOutcome)
	}
	return err
}

// Touched is as the function Touched. If there is something to fence, it sets the limit of OpeningSQL.
func (d *dialect) Touched(ctx context.Context, s sqldb.Sender, mark driver.Mark, lease time.Duration) (rows []outbox.Row, err error) {
	if err := release(ctx, s); err != nil {
		return nil, err
	}
	err = s.Ask(ctx, `SELECT id, tag FROM `+*d.home.Load()+`.cache_outbox WHERE mark = `+blob(mark[:]), func(row []driversql.Value) error {
		id, ok := row[0].(int64)
		if !ok {
			return fmt.Errorf("outbox/mysql: the driver returned a %T for a BIGINT", row[0])
		}
		rows = append(rows, outbox.Row{ID: id, Tag: cache.Tag(asText(row[1])), Mark: mark})
		return nil
	})
	if err == nil && len(rows) > 0 {
		_, err = s.Send(ctx, "SET SESSION wait_timeout = "+waitTimeout(lease))
	}
	return rows, err
}

// Rollback undoes the transaction, and what is the session's.
func (d *dialect) Rollback(ctx context.Context, s sqldb.Sender, check bool) error {
	var ended error
	if check {
		if ended = release(ctx, s); ended != nil && !errors.Is(ended, ErrImplicitCommit) {
			return ended
		}
	}
	return errors.Join(ended, sendEach(ctx, s, "ROLLBACK", ClosingSQL))
}

// Committed undoes what is the session's.
func (d *dialect) Committed(ctx context.Context, s sqldb.Sender) error {
	return sendEach(ctx, s, ClosingSQL)
}

// Undone knows the errors with which a server refuses a COMMIT.
func (d *dialect) Undone(err error) bool {
	return isCode(err, deadlock, lockWaitTimeout, groupRolledBack)
}

// Log is NewLog.
func (d *dialect) Log(pool *sql.DB, logger *slog.Logger) outbox.Log { return NewLog(pool, logger) }

// Source is a DB.
func (d *dialect) Source(pool *sql.DB, c *cache.Cache, o outbox.Options) cache.Source {
	return NewDB(NewLog(pool, nil), c, o)
}

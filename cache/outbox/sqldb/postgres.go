package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	cachedriver "github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/cache/outbox"
)

// postgres is the dialect of PostgreSQL. It sends nothing with arguments, so that any driver sends
// several statements in one trip, by the simple protocol.
type postgres struct {
	home  atomic.Pointer[home]            // nil until it is found
	words atomic.Pointer[map[string]bool] // that known knows; nil until they are asked for
}

// home is where the outbox is. The search path of a session may be another than that of the
// migration, and change.
type home struct {
	schema  string // quoted
	version int    // of the server, such as 170002
}

// Ready looks for the outbox.
func (p *postgres) Ready(ctx context.Context, s Sender) (bool, error) {
	if p.home.Load() != nil {
		return true, nil
	}
	err := s.Ask(ctx, `SELECT quote_ident(nspname), current_setting('server_version_num')::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relname = 'cache_outbox' AND relkind = 'r' AND relpersistence = 'p'
ORDER BY c.oid = to_regclass('cache_outbox') DESC NULLS LAST, c.oid LIMIT 1`, func(row []driver.Value) error {
		version, err := number(row[1])
		if err == nil {
			p.home.Store(&home{schema: texts(row[0]), version: int(version)})
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("outbox/sqldb: look for the outbox: %w", err)
	}
	return p.home.Load() != nil, nil
}

// knownWords gives the words that may stand before a parenthesis in a statement that reads: keywords
// that are no name of a function, and names of which each function is one of the server's own, or
// immutable and written in C. Those of the server that run SQL are left out.
const knownWords = `WITH f AS (
	SELECT proname, p.oid < 16384 AND proname !~ '_to_xml|^ts_stat$|^ts_rewrite$'
		OR prokind = 'f' AND provolatile = 'i' AND lanname IN ('internal', 'c') AS harmless
	FROM pg_proc p JOIN pg_language l ON l.oid = prolang)
SELECT string_agg(word, ' ') FROM (
	SELECT proname AS word FROM f GROUP BY proname HAVING bool_and(harmless)
	UNION SELECT word FROM pg_get_keywords()
	WHERE (catcode IN ('R', 'C') OR word IN ('by', 'filter', 'groups', 'ilike', 'is', 'join', 'like', 'materialized', 'over', 'partition', 'range', 'rows', 'sets', 'within'))
		AND word NOT IN (SELECT proname FROM f WHERE NOT harmless)) AS w`

// KindOf takes a statement for a read if no word in it can change a table: it is one SELECT, WITH, TABLE or
// VALUES, without INTO, INSERT, UPDATE, DELETE and MERGE, and calls no function but those of
// knownWords, which the server is asked for once.
func (p *postgres) KindOf(ctx context.Context, s Sender, query string) Kind {
	return lex(query).kindOf(func(names map[string]bool) bool {
		if len(names) == 0 {
			return true
		}
		known := p.known(ctx, s)
		for name := range names {
			if !known[name] {
				return false
			}
		}
		return true
	})
}

func (p *postgres) known(ctx context.Context, s Sender) map[string]bool {
	if words := p.words.Load(); words != nil {
		return *words
	}
	words := map[string]bool{}
	err := s.Ask(ctx, knownWords, func(row []driver.Value) error {
		for word := range strings.FieldsSeq(texts(row[0])) {
			words[word] = true
		}
		return nil
	})
	if err != nil {
		return nil // no function is known, and the next statement asks again
	}
	p.words.Store(&words)
	return words
}

// Begin sends BEGIN and the mark.
func (p *postgres) Begin(ctx context.Context, s Sender, level sql.IsolationLevel, mark cachedriver.Mark, _ time.Duration) error {
	begin := "BEGIN"
	switch level {
	case sql.LevelDefault:
	case sql.LevelReadUncommitted, sql.LevelReadCommitted, sql.LevelSerializable:
		begin += " ISOLATION LEVEL " + strings.ToUpper(level.String())
	case sql.LevelRepeatableRead, sql.LevelSnapshot:
		begin += " ISOLATION LEVEL REPEATABLE READ"
	default:
		return fmt.Errorf("%w: %v", errIsolation, level)
	}
	_, err := s.Send(ctx, begin, fmt.Sprintf("SET LOCAL cache.mark = '%x'", mark))
	return err
}

// Touched runs deferred constraints, and sets the limits.
func (p *postgres) Touched(ctx context.Context, s Sender, mark cachedriver.Mark, lease time.Duration) ([]outbox.Row, error) {
	l := limitsFor(lease)
	h := p.home.Load()
	isMark := fmt.Sprintf("decode('%x', 'hex')", mark)
	statements := []string{
		"SET CONSTRAINTS ALL IMMEDIATE",
		fmt.Sprintf("SET LOCAL statement_timeout = %d", l.statement.Milliseconds()),
		fmt.Sprintf("SET LOCAL idle_in_transaction_session_timeout = %d", l.idle.Milliseconds()),
	}
	if h.version >= 170000 {
		statements = append(statements, fmt.Sprintf("SET LOCAL transaction_timeout = %d", l.both.Milliseconds()))
	}
	// Its rows are counted by every driver, and most transactions are known to have recorded nothing by
	// that: one for the mark, and one for each row with it.
	statements = append(statements, fmt.Sprintf(
		"SELECT 1 WHERE %[1]s.cache_mark() = %[2]s UNION ALL SELECT 1 FROM %[1]s.cache_touched(%[2]s)", h.schema, isMark))
	counted, err := s.Send(ctx, statements...)
	if err != nil {
		return nil, err
	}
	n, err := counted.RowsAffected()
	if err != nil || n == 0 { // the driver does not count, or the mark is gone
		if err := s.Ask(ctx, "SELECT encode("+h.schema+".cache_mark(), 'hex')", func(row []driver.Value) error {
			if texts(row[0]) != hex.EncodeToString(mark[:]) {
				return errEnded
			}
			return nil
		}); err != nil {
			return nil, err
		}
		n = 0
	} else if n == 1 {
		return nil, nil
	}
	// Its text is always the same: some drivers prepare what they send, and keep it.
	var rows []outbox.Row
	err = s.Ask(ctx, fmt.Sprintf("SELECT id, left(tag, 201) FROM %[1]s.cache_touched(%[1]s.cache_mark())", h.schema), func(row []driver.Value) error {
		id, err := number(row[0])
		rows = append(rows, outbox.Row{ID: id, Tag: cache.Tag(texts(row[1])), Mark: mark})
		return err
	})
	if err == nil && n > 0 && int64(len(rows)) != n-1 {
		err = fmt.Errorf("outbox/sqldb: the transaction has recorded %d tags, and the driver returned %d", n-1, len(rows))
	}
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// Rollback undoes the transaction. PostgreSQL has no statement that commits one by itself.
func (p *postgres) Rollback(ctx context.Context, s Sender, _ bool) error {
	_, err := s.Send(ctx, "ROLLBACK")
	return err
}

// Committed does nothing: all settings are those of the transaction.
func (p *postgres) Committed(context.Context, Sender) error { return nil }

// Log returns the outbox.
func (p *postgres) Log(pool *sql.DB, _ *slog.Logger) outbox.Log { return newLog(pool) }

// Source returns what looks at the outbox.
func (p *postgres) Source(pool *sql.DB, c *cache.Cache, o outbox.Options) cache.Source {
	return &source{newLog(pool), c, o.Relay}
}

// Undone knows the classes of errors with which a server refuses a COMMIT. One that goes away while it
// commits, or cannot write its log, has others.
func (p *postgres) Undone(err error) bool {
	var e interface{ SQLState() string } // of pgx, lib/pq and others
	if !errors.As(err, &e) || len(e.SQLState()) != 5 {
		return false
	}
	switch code := e.SQLState(); code {
	case "40003", "25P04": // statement completion unknown; the session was ended for the time of its transaction
		return false
	case "57014": // canceled
		return true
	default:
		switch code[:2] {
		case "0A", "21", "22", "23", "25", "27", "2D", "40", "42", "44", "55", "P0":
			return true
		}
	}
	return false
}

// limits of what follows a transaction's last statement, which the server enforces. A fence stands for
// a lease, and a commit must not take effect after it: an old answer could have been stored
// meanwhile. The process looks at the lease before it commits, but it may be suspended between
// the look and the commit for any time. So the server must have ended the transaction by then. No
// limit of the server ends a COMMIT that waits for a standby: outbox.Commit renews the fence.
//
// The statements of the program are not limited: no fence stands yet.
type limits struct {
	idle      time.Duration // until COMMIT comes
	statement time.Duration // that COMMIT takes, with idle within the lease
	both      time.Duration
}

func limitsFor(lease time.Duration) limits {
	return limits{idle: idleFor(lease), statement: lease * 6 / 10, both: lease * 8 / 10}
}

// texts returns a text as a driver returns it.
func texts(v driver.Value) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	}
	return ""
}

// number returns a bigint as a driver returns it.
func number(v driver.Value) (int64, error) {
	n, ok := v.(int64)
	if !ok {
		return 0, fmt.Errorf("outbox/sqldb: the driver returned a %T for a bigint", v)
	}
	return n, nil
}

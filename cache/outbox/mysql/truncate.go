package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chainlearn/chainlearn/cache/outbox"
	"github.com/chainlearn/chainlearn/cache/outbox/internal/sqltemplate"
)

// TRUNCATE runs no trigger, nor does ALTER TABLE that drops, truncates or exchanges a partition. They give the table, or the
// partition, a new number in InnoDB's dictionary. A relay compares the numbers with those of before,
// and records the families of the table's templates when they differ: a second late at most, while
// the relay waits, and at once when it is drained, as sqldb does after TRUNCATE. What else gives a new number (a table that is rebuilt) invalidates more than it must.

const incarnationsEvery = time.Second

// compareIncarnations records what watched tables gave if their rows have gone without a trigger, unless
// that was looked for within a time.
func (l *Log) compareIncarnations(ctx context.Context, every time.Duration) error {
	l.mu.Lock()
	late := time.Since(l.looked) >= every
	if late {
		l.looked = time.Now()
	}
	l.mu.Unlock()
	if !late {
		return nil
	}
	var list []declaration
	err := declarations(ctx, l.db, func(d declaration) error { list = append(list, d); return nil })
	if err != nil || len(list) == 0 {
		return err
	}
	now, err := incarnations(ctx, l.db)
	if err != nil && codeOf(err) == 0 {
		return err // the connection, not the rights
	}
	l.mu.Lock()
	said := l.blind
	l.blind = err != nil
	l.mu.Unlock()
	if err != nil {
		if !said {
			l.logger.WarnContext(ctx, "TRUNCATE of a watched table is not seen: apply the outbox's schema with an account that has the privilege PROCESS, and grant EXECUTE on its routines to this one", "err", err)
		}
		return nil
	}
	for _, w := range list {
		is, known := now[strings.ToLower(fileName(w.table))]
		if !known || w.incarnation == is {
			continue // a table that is gone is for Check
		}
		err := l.inTx(ctx, func(tx *sql.Tx) error {
			changed, err := tx.ExecContext(ctx, `UPDATE cache_watches SET incarnation = `+blob(is)+
				` WHERE watch = `+blob(w.watch)+` AND watched = `+blob(w.table)+` AND NOT (incarnation <=> `+blob(is)+`)`)
			if err != nil {
				return err
			}
			if n, err := changed.RowsAffected(); err != nil || n == 0 {
				return err // another relay has
			}
			var tags []string
			for _, template := range w.templates {
				tag := outbox.KindOf(template) + ":*"
				if !strings.ContainsAny(template, "{ ") {
					tag = strings.TrimSpace(template) // the same for all rows
				}
				if !slices.Contains(tags, tag) {
					tags = append(tags, tag)
				}
			}
			for _, tag := range tags {
				if _, err := tx.ExecContext(ctx, `INSERT INTO cache_outbox (tag) VALUES (`+blob(tag)+`)`); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// incarnations returns, by the names of tables as in file names, what TRUNCATE changes.
func incarnations(ctx context.Context, db Conn) (map[string]string, error) {
	type numbers struct{ count, most, sum int64 }
	found := map[string]numbers{}
	err := query(ctx, db, `CALL cache_table_ids()`, func(scan func(...any) error) error {
		var name string
		var id int64
		if err := scan(&name, &id); err != nil {
			return err
		}
		_, name, _ = strings.Cut(name, "/")
		name = strings.ToLower(name)
		name, _, _ = strings.Cut(name, "#p#") // a partition
		n := found[name]
		found[name] = numbers{n.count + 1, max(n.most, id), n.sum + id}
		return nil
	})
	all := map[string]string{}
	for name, n := range found {
		all[name] = fmt.Sprintf("%d-%d-%d", n.count, n.most, n.sum)
	}
	return all, err
}

// fileName is how the server spells a table's name in the names of files, as far as ASCII goes.
func fileName(table string) string {
	var b strings.Builder
	for _, r := range table {
		if r < 0x80 && !sqltemplate.IsNameByte(byte(r)) {
			fmt.Fprintf(&b, "@%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

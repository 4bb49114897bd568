package sqldbtest

import (
	"database/sql"
	"slices"
	"testing"

	"github.com/chainlearn/chainlearn/cache/outbox/sqldb"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// The search path of a session does not matter.
func TestOutboxIsFoundInAnySearchPath(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p := start(t, options{driver: driver, url: database(t, slices.Concat(items, []string{`CREATE SCHEMA tenant`})...)})
		p.warm(t, 1, 0)
		testservers.Must(t, inTx(t.Context(), p.db.DB, func(tx *sql.Tx) error {
			run(t, tx, `SET LOCAL search_path = tenant`, `UPDATE public.items SET value = 1 WHERE id = 1`)
			return nil
		}))
		if got := p.get(t, 1); got != 1 {
			t.Errorf("the answer is %d", got)
		}
	})
}

// lib/pq copies rows through a prepared statement.
func TestCopyIn(t *testing.T) {
	t.Parallel()
	p := start(t, options{driver: "postgres", url: database(t, items...)})
	p.warm(t, 3, -1)
	testservers.Must(t, inTx(t.Context(), p.db.DB, func(tx *sql.Tx) error {
		stmt, err := tx.PrepareContext(t.Context(), `COPY items (id, value) FROM STDIN`)
		if err != nil {
			return err
		}
		defer stmt.Close()
		for id := 3; id < 10; id++ {
			if _, err := stmt.ExecContext(t.Context(), id, id); err != nil {
				return err
			}
		}
		_, err = stmt.ExecContext(t.Context())
		return err
	}))
	if got := p.get(t, 3); got != 3 {
		t.Errorf("the answer is %d", got)
	}
}

// A transaction of the database's own can be migrated through the wrapped database, and what was
// written before there is an outbox was no mistake.
func TestMigrationThroughTheWrappedDatabase(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		url := testservers.SharedPostgres(t).Database(t)
		run(t, plain(t, url), `CREATE TABLE items (id int PRIMARY KEY, value int NOT NULL)`, `INSERT INTO items VALUES (1, 0)`)
		p := startUnserved(t, options{driver: driver, url: url})
		run(t, p.db, `UPDATE items SET value = 1`)
		if p.counts.undelivered.Load() == 0 {
			t.Error("a write to a database without an outbox is not counted")
		}
		testservers.Must(t, inTx(t.Context(), p.db.DB, func(tx *sql.Tx) error {
			run(t, tx, sqldb.Migration())
			return sqldb.Watch(t.Context(), tx, "test", "items", "item:{id}", `item:{id} ON DELETE`)
		}))
		p.waitServing(t)
		p.warm(t, 1, 1)
		testservers.Must(t, ways["Exec"](t.Context(), p.db.DB, 2))
		if got := p.get(t, 1); got != 2 {
			t.Errorf("the answer is %d", got)
		}
		findings, err := p.cache.Check(t.Context(), p.db)
		testservers.Must(t, err)
		for _, f := range findings {
			t.Errorf("found %+v", f)
		}
		testservers.Must(t, sqldb.Unwatch(t.Context(), p.db, "test", "items"))
		kinds, err := p.db.Kinds(t.Context())
		testservers.Must(t, err)
		if len(kinds) != 0 {
			t.Errorf("kinds %v are left", kinds)
		}
	})
}

// Through a proxy that pools transactions, every transaction meets another session.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	url := database(t, slices.Concat(items, routines)...)
	bouncer := testservers.SharedPostgres(t).StartPgBouncer(t, "default_pool_size = 1").URL(url)
	p := start(t, options{url: bouncer + "&default_query_exec_mode=exec", plainURL: url})
	for value, way := range []string{"Tx", "Exec", "RETURNING", "function", "procedure that commits"} {
		p.warm(t, 1, value)
		testservers.Must(t, ways[way](t.Context(), p.db.DB, value+1))
		if got := p.get(t, 1); got != value+1 {
			t.Errorf("%s: the answer is %d, want %d", way, got, value+1)
		}
	}
}

package sqldb

import (
	"slices"
	"strings"
	"testing"
)

// knownIn says that the functions of a list are harmless.
func knownIn(list string) func(map[string]bool) bool {
	return func(names map[string]bool) bool {
		for name := range names {
			if !strings.Contains(" "+list+" ", " "+name+" ") {
				return false
			}
		}
		return true
	}
}

func TestKindOfAStatement(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]kind{
		// Reads, whatever they quote.
		`SELECT 1`: reads,
		`-- name: GetItem :one
SELECT * FROM items WHERE id = $1`: reads,
		` /* a /* nested */ comment; INSERT */ select count(*), lower ( name ) from "insert" where x in ($1,$2);`: reads,
		`WITH a AS (SELECT 1) SELECT * FROM a WHERE b = 'it''s; (f('`:                                             reads,
		`WITH a AS MATERIALIZED (SELECT 1) TABLE a /*traceparent='00-f(x)'*/`:                                     reads,
		`VALUES (1), (2)`:             reads,
		`(SELECT 1) UNION (SELECT 2)`: reads,
		`SELECT $tag$ f(';') $x$ $tag$, E'\'; f(', e'\\', 'C:\dir', U&'\0041' FROM t`: reads,
		`SELECT "a""b(" FROM t WHERE a->>'x' = '(' AND 1.5e3 (`:                       reads, // no statement at all, which the server says
		`SELECT 1;  ; -- nothing more`:                                                reads,

		// What may write is no read.
		`SELECT f(1)`:                    writes,
		`SELECT shop.f (1)`:              writes,
		"SELECT f -- a comment\n(1)":     writes,
		`SELECT f/**/(1)`:                writes,
		`SELECT "f"(1)`:                  writes,
		`SELECT "lower"(x)`:              writes,
		`SELECT U&"\0066"(1)`:            writes,
		`SELECT ё(1)`:                    writes,
		`SELECT a$b(1)`:                  writes,
		`SELECT count(f(1))`:             writes,
		`SELECT * INTO copy FROM items`:  writes,
		`SELECT * FROM items FOR UPDATE`: writes,
		`WITH w AS (DELETE FROM items RETURNING id) SELECT * FROM w`: writes,
		`with w as (select 1) insert into t select * from w`:         writes,
		`INSERT INTO "t" ("a") VALUES ($1) RETURNING "id"`:           writes,
		`update t set a = 'x\y'`:                                     writes,
		`Merge INTO t USING s ON (true) WHEN MATCHED THEN DELETE`:    writes,
		`TRUNCATE t`:   writes,
		`EXECUTE p(1)`: writes,
		`EXPLAIN ANALYZE INSERT INTO t VALUES (1)`: writes,

		// The session.
		`SET LOCAL x = 1`: session, `show all`: session, `LISTEN a`: session, `SAVEPOINT a`: session, `PREPARE p AS INSERT INTO t VALUES (1)`: session,
		`ROLLBACK TO SAVEPOINT a`: session, `ROLLBACK PREPARED 'x'`: session, `abort to a`: session,
		`BEGIN`: beginsTx, `/* x */ start transaction read only`: beginsTx,
		`COMMIT`: commitsTx, `end;`: commitsTx, `COMMIT AND CHAIN`: unclear, `ROLLBACK AND CHAIN`: unclear,
		`ROLLBACK`: rollsTxBack, `ABORT WORK`: rollsTxBack, `PREPARE TRANSACTION 'x'`: rollsTxBack,

		// Everything else.
		``: other, ` ; `: other, `-- nothing`: other,
		`CALL p()`: other, `DO $$ BEGIN COMMIT; END $$`: other, `VACUUM t`: other, `CREATE INDEX CONCURRENTLY i ON t (a)`: other,
		`CREATE TABLE c AS SELECT f()`: other, `COPY t FROM STDIN`: other, `COMMIT PREPARED 'x'`: other, `REFRESH MATERIALIZED VIEW m`: other,
		`SELECT 1; SELECT 2`: other, `SELECT 1; DELETE FROM t`: other, `SAVEPOINT a; DELETE FROM t`: other, `LOCK t`: other,
		`DECLARE c CURSOR WITH HOLD FOR SELECT f()`: other,
		`nonsense`:                     other,
		`BEGIN; DELETE FROM t; COMMIT`: unclear, `DELETE FROM t; BEGIN`: unclear, `SELECT 1; end`: unclear,

		// Where it ends depends on a setting, or it does not end.
		`SELECT 'it\'s', f(1) --'`: unclear, `SELECT '\\\'; BEGIN --'`: unclear,
		`SELECT 'open`: unclear, `SELECT "open`: unclear, `SELECT $a$ open $b$`: unclear, `SELECT 1 /* open /* */`: unclear, `SELECT E'\'`: unclear,
		`DELETE FROM t WHERE a = 'x\' OR b`: unclear,
	} {
		if got := lex(query).kindOf(knownIn("count lower in as materialized values union and")); got != want {
			t.Errorf("%q is of kind %d, want %d", query, got, want)
		}
	}
}

// Whatever the text, a statement that is taken for a read, or for one that can have a transaction of its
// own, is one statement; and appending to a read does not make another kind of read of what must
// not be one.
func FuzzKindOfAStatement(f *testing.F) {
	for _, q := range []string{`SELECT 1`, `SELECT 'a''b', "c" -- d`, `/* /* */ */ SELECT $x$ ; $x$`, `SELECT E'\'' ;`, `insert into t values ('\')`, "SELECT f\x00("} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		known := knownIn("count")
		k := lex(query).kindOf(known)
		// A comment in front changes nothing.
		if got := lex("/* ' /**/ */ --'\n" + query).kindOf(known); got != k {
			t.Errorf("%q is of kind %d, and behind a comment %d", query, k, got)
		}
		if k != reads {
			return
		}
		// On a line of its own, nothing of what follows is part of a comment or a literal that ends.
		for suffix, allowed := range map[string][]kind{
			"\n; COMMIT":     {unclear},
			"\n; DELETE":     {other, unclear},
			"\n, unknown(1)": {writes, unclear},
			"\n, \"x\" (1)":  {writes, unclear},
			"\nINTO t":       {writes, unclear},
		} {
			if strings.Contains(query, ";") {
				continue // what follows may be another statement
			}
			if got := lex(query + suffix).kindOf(known); !slices.Contains(allowed, got) {
				t.Errorf("%q is a read, and with %q of kind %d", query, suffix, got)
			}
		}
	})
}

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
	for query, want := range map[string]Kind{
		// Reads, whatever they quote.
		`SELECT 1`: Reads,
		`-- name: GetItem :one
SELECT * FROM items WHERE id = $1`: Reads,
		` /* a /* nested */ comment; INSERT */ select count(*), lower ( name ) from "insert" where x in ($1,$2);`: Reads,
		`WITH a AS (SELECT 1) SELECT * FROM a WHERE b = 'it''s; (f('`:                                             Reads,
		`WITH a AS MATERIALIZED (SELECT 1) TABLE a /*traceparent='00-f(x)'*/`:                                     Reads,
		`VALUES (1), (2)`:             Reads,
		`(SELECT 1) UNION (SELECT 2)`: Reads,
		`SELECT $tag$ f(';') $x$ $tag$, E'\'; f(', e'\\', 'C:\dir', U&'\0041' FROM t`: Reads,
		`SELECT "a""b(" FROM t WHERE a->>'x' = '(' AND 1.5e3 (`:                       Reads, // no statement at all, which the server says
		`SELECT 1;  ; -- nothing more`:                                                Reads,

		// What may write is no read.
		`SELECT f(1)`:                    Writes,
		`SELECT shop.f (1)`:              Writes,
		"SELECT f -- a comment\n(1)":     Writes,
		`SELECT f/**/(1)`:                Writes,
		`SELECT "f"(1)`:                  Writes,
		`SELECT "lower"(x)`:              Writes,
		`SELECT U&"\0066"(1)`:            Writes,
		`SELECT ё(1)`:                    Writes,
		`SELECT a$b(1)`:                  Writes,
		`SELECT count(f(1))`:             Writes,
		`SELECT * INTO copy FROM items`:  Writes,
		`SELECT * FROM items FOR UPDATE`: Writes,
		`WITH w AS (DELETE FROM items RETURNING id) SELECT * FROM w`: Writes,
		`with w as (select 1) insert into t select * from w`:         Writes,
		`INSERT INTO "t" ("a") VALUES ($1) RETURNING "id"`:           Writes,
		`update t set a = 'x\y'`:                                     Writes,
		`Merge INTO t USING s ON (true) WHEN MATCHED THEN DELETE`:    Writes,
		`TRUNCATE t`:   Writes,
		`EXECUTE p(1)`: Writes,
		`EXPLAIN ANALYZE INSERT INTO t VALUES (1)`: Writes,

		// The session.
		`SET LOCAL x = 1`: Session, `show all`: Session, `LISTEN a`: Session, `SAVEPOINT a`: Session, `PREPARE p AS INSERT INTO t VALUES (1)`: Session,
		`ROLLBACK TO SAVEPOINT a`: Session, `ROLLBACK PREPARED 'x'`: Session, `abort to a`: Session,
		`BEGIN`: BeginsTx, `/* x */ start transaction read only`: BeginsTx,
		`COMMIT`: CommitsTx, `end;`: CommitsTx, `COMMIT AND CHAIN`: Unclear, `ROLLBACK AND CHAIN`: Unclear,
		`ROLLBACK`: RollsTxBack, `ABORT WORK`: RollsTxBack, `PREPARE TRANSACTION 'x'`: RollsTxBack,

		// Everything else.
		``: Other, ` ; `: Other, `-- nothing`: Other,
		`CALL p()`: Other, `DO $$ BEGIN COMMIT; END $$`: Other, `VACUUM t`: Other, `CREATE INDEX CONCURRENTLY i ON t (a)`: Other,
		`CREATE TABLE c AS SELECT f()`: Other, `COPY t FROM STDIN`: Other, `COMMIT PREPARED 'x'`: Other, `REFRESH MATERIALIZED VIEW m`: Other,
		`SELECT 1; SELECT 2`: Other, `SELECT 1; DELETE FROM t`: Other, `SAVEPOINT a; DELETE FROM t`: Other, `LOCK t`: Other,
		`DECLARE c CURSOR WITH HOLD FOR SELECT f()`: Other,
		`nonsense`:                     Other,
		`BEGIN; DELETE FROM t; COMMIT`: Unclear, `DELETE FROM t; BEGIN`: Unclear, `SELECT 1; end`: Unclear,

		// Where it ends depends on a setting, or it does not end.
		`SELECT 'it\'s', f(1) --'`: Unclear, `SELECT '\\\'; BEGIN --'`: Unclear,
		`SELECT 'open`: Unclear, `SELECT "open`: Unclear, `SELECT $a$ open $b$`: Unclear, `SELECT 1 /* open /* */`: Unclear, `SELECT E'\'`: Unclear,
		`DELETE FROM t WHERE a = 'x\' OR b`: Unclear,
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
		if k != Reads {
			return
		}
		// On a line of its own, nothing of what follows is part of a comment or a literal that ends.
		for suffix, allowed := range map[string][]Kind{
			"\n; COMMIT":     {Unclear},
			"\n; DELETE":     {Other, Unclear},
			"\n, unknown(1)": {Writes, Unclear},
			"\n, \"x\" (1)":  {Writes, Unclear},
			"\nINTO t":       {Writes, Unclear},
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

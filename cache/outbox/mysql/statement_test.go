package mysql

import (
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/cache/outbox/sqldb"
)

func TestKindOfAStatement(t *testing.T) {
	t.Parallel()
	for kind, queries := range map[sqldb.Kind][]string{
		sqldb.Reads: {
			`SELECT 1`, `select * from items where id in (?, ?) and lower(name) = 'it''s' -- ; DELETE`,
			"SELECT `items`.`id` FROM `items` WHERE `a``b(` = ? ORDER BY `items`.`id` LIMIT ? # f(1)",
			`(SELECT 1) UNION ALL (SELECT 2);`, `WITH a AS (SELECT 1) SELECT COUNT(*) FROM a`, `VALUES (1), (2)`, `TABLE t`,
			`SELECT REPLACE(a, 'x', 'INTO'), INSERT(a, 1, 2, 'b'), '\\', "a b", 'C:\dir' FROM t`, `/* INSERT; f(1) */ SELECT a --1, b`,
			`SELECT CAST(a AS DECIMAL(10,2)), DATE_ADD(NOW(6), INTERVAL 1 DAY) FROM t WHERE (a) AND (b) OR EXISTS (SELECT 1)`,
			`SELECT a FROM t LOCK IN SHARE MODE`, `SELECT JSON_EXTRACT(a, '$.b'), @x, @@sql_mode FROM t`,
		},
		sqldb.Writes: {
			`SELECT f(1)`, `SELECT shop.lower(1)`, `SELECT shop . lower(1)`, "SELECT `lower`(1)", `SELECT "lower"(1)`, "SELECT shop.`f`(1)", `SELECT lower (1)`, `SELECT count/**/(1)`, "SELECT count -- x\n(1)",
			`SELECT 1f(1)`, `SELECT ё(1)`, `SELECT $f(1)`, `SELECT a INTO @x FROM t`, `SELECT a FROM t INTO OUTFILE 'x'`, `SELECT a FROM t FOR UPDATE`, `SELECT @x := 1`,
			`SELECT 1 --1, f(1)`, "SELECT 1 # a\n, f(1)", `SELECT a FROM t WHERE id IN (SELECT f(1))`, `SELECT NEXTVAL(s)`,
			`INSERT INTO t (a) VALUES (?) ON DUPLICATE KEY UPDATE a = VALUES(a)`, `REPLACE t VALUES (1)`, `update t set a = 'x\y'`, `DELETE FROM t`,
			`WITH a AS (SELECT 1) DELETE FROM t`, `DO f(1)`, `LOAD DATA LOCAL INFILE 'x' INTO TABLE t`, `EXPLAIN SELECT 1`,
		},
		sqldb.Session: {
			`SET NAMES utf8mb4`, `SET @x = 1, SESSION sql_mode = 'ANSI'`, `SET TRANSACTION ISOLATION LEVEL READ COMMITTED`, `SHOW TABLES`, `SAVEPOINT a`, `RELEASE SAVEPOINT a`, `ROLLBACK TO a`, `ROLLBACK WORK TO SAVEPOINT a`,
			`PREPARE p FROM 'DELETE FROM t'`, `DEALLOCATE PREPARE p`, `USE shop`,
		},
		sqldb.BeginsTx:    {`BEGIN`, `begin work;`, `START TRANSACTION READ ONLY`},
		sqldb.CommitsTx:   {`COMMIT`, `COMMIT WORK`, `CREATE TABLE c (a INT)`, `ALTER TABLE t ADD b INT`, `DROP TABLE t`, `RENAME TABLE t TO u`, `TRUNCATE t`, `CREATE TABLE c AS SELECT f(1)`},
		sqldb.RollsTxBack: {`ROLLBACK`, `ROLLBACK WORK`},
		sqldb.Other:       {``, `-- nothing`, `/* nothing */ ;`},
		sqldb.Unclear: {
			// What is run of a comment, and what ends elsewhere in another mode or never.
			`/*! INSERT INTO t VALUES (1) */`, `SELECT 1 /*!50000 , f(1) */`, `SELECT 1 /*M! , f(1) */`, `SELECT 1 /* a /* b */ c */`, `SELECT 1 /* open`, `SELECT 1 /*/`,
			`SELECT 'it\'s', f(1) -- '`, `SELECT "a\", f(1) -- "`, `SELECT '\\\'; BEGIN -- '`, `SELECT 'open`, `SELECT "open`, "SELECT `open", "SELECT '\xbf\\\\', f(1) -- '",
			// Several.
			`SELECT 1; SELECT 2`, `DELETE FROM t; COMMIT`, `SELECT 1;;f`,
			// What may leave a transaction open, or locks.
			`CALL p()`, `XA START 'x'`, `LOCK TABLES t WRITE`, `UNLOCK TABLES`, `FLUSH TABLES WITH READ LOCK`, `SET autocommit = 0`, `SET @@session.AUTOCOMMIT=0`, "SET `autocommit` = 0", `SET "autocommit" = 0`,
			`SET completion_type = 1`, `SET STATEMENT max_statement_time = 1 FOR DELETE FROM t`, `SET @x = f(1)`, `EXECUTE p`, `EXECUTE IMMEDIATE 'x'`, `COMMIT AND CHAIN`, `ROLLBACK AND CHAIN`, `COMMIT RELEASE`,
			`BEGIN NOT ATOMIC DELETE FROM t; END`, `CREATE TEMPORARY TABLE t (a INT)`, `DROP TEMPORARY TABLE t`, `ANALYZE UPDATE t SET a = 1`, `LOAD INDEX INTO CACHE t`, `HANDLER t OPEN`, `GRANT ALL ON t TO u`, `nonsense`,
		},
	} {
		for _, query := range queries {
			if got := kindOf(query); got != kind {
				t.Errorf("%q is of kind %d, want %d", query, got, kind)
			}
		}
	}
}

// Whatever the text, appending to what is taken for a read does not make another read of what must
// not be one.
func FuzzKindOfAStatement(f *testing.F) {
	for _, q := range []string{`SELECT 1`, `SELECT 'a''b', "c" -- d`, "SELECT `a` # b", `/* */ SELECT '\\'`, "SELECT f\x00(", `SELECT 1 --`, `insert into t values ('\')`} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		k := kindOf(query)
		if got := kindOf("/* ' */ # '\n" + query); got != k {
			t.Errorf("%q is of kind %d, and behind a comment %d", query, k, got)
		}
		if k != sqldb.Reads || strings.Contains(query, ";") {
			return
		}
		for _, suffix := range []string{"\n; COMMIT", "\n, unknown(1)", "\n, `x` (1)", "\n, a.lower(1)", "\nINTO @t", "\n, @x := 1", "\n/*! , f(1) */"} {
			if kindOf(query+suffix) == sqldb.Reads {
				t.Errorf("%q is a read, and with %q, too", query, suffix)
			}
		}
	})
}

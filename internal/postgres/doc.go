// Package postgres keeps the platform's data in PostgreSQL 14 and later.
//
// The tables stand in migrations, and which change of which row invalidates which answers in
// the last of them. Any other program may write to the database meanwhile.
//
// Through a proxy that pools transactions (PgBouncer in transaction mode) everything works
// except LISTEN: changes by other programs are then found by polling, which is logged.
// Behind any proxy that can be told statements are not prepared; one that shares prepared
// statements among sessions may have default_query_exec_mode=cache_statement in the URL.
package postgres

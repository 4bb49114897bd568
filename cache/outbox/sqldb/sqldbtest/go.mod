module github.com/chainlearn/chainlearn/cache/outbox/sqldb/sqldbtest

go 1.25.0

// In a clone the modules build as one. Released versions require released versions.
replace (
	github.com/chainlearn/chainlearn/cache => ../../..
	github.com/chainlearn/chainlearn/cache/outbox/mysql => ../../mysql
	github.com/chainlearn/chainlearn/cache/outbox/sqldb => ..
	github.com/chainlearn/chainlearn/internal/proof/testservers => ../../../../internal/proof/testservers
)

require (
	github.com/chainlearn/chainlearn/cache v0.0.0-00010101000000-000000000000
	github.com/chainlearn/chainlearn/cache/outbox/mysql v0.0.0-00010101000000-000000000000
	github.com/chainlearn/chainlearn/cache/outbox/sqldb v0.0.0-00010101000000-000000000000
	github.com/chainlearn/chainlearn/internal/proof/testservers v0.0.0-00010101000000-000000000000
	github.com/go-sql-driver/mysql v1.9.3
	github.com/jackc/pgx/v5 v5.13.0
	github.com/jmoiron/sqlx v1.4.0
	github.com/lib/pq v1.12.3
	github.com/uptrace/bun v1.3.0
	github.com/uptrace/bun/dialect/pgdialect v1.3.0
	go.uber.org/goleak v1.3.0
	gorm.io/driver/mysql v1.6.0
	gorm.io/driver/postgres v1.6.3
	gorm.io/gorm v1.31.2
)

require (
	filippo.io/edwards25519 v1.1.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/jinzhu/inflection v1.0.0 // indirect
	github.com/jinzhu/now v1.1.5 // indirect
	github.com/maypok86/otter/v2 v2.4.0 // indirect
	github.com/puzpuzpuz/xsync/v3 v3.5.1 // indirect
	github.com/redis/rueidis v1.0.79 // indirect
	github.com/sony/gobreaker/v2 v2.4.0 // indirect
	github.com/tmthrgd/go-hex v0.0.0-20190904060850-447a3041c3bc // indirect
	github.com/vmihailenco/msgpack/v5 v5.4.1 // indirect
	github.com/vmihailenco/tagparser/v2 v2.0.0 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.41.0 // indirect
)

module github.com/chainlearn/chainlearn/cache/outbox/mysql

go 1.25.0

// In a clone the modules build as one. Released versions require released versions.
replace (
	github.com/chainlearn/chainlearn/cache => ../..
	github.com/chainlearn/chainlearn/cache/outbox/sqldb => ../sqldb
	github.com/chainlearn/chainlearn/internal/proof/testservers => ../../../internal/proof/testservers
)

require (
	github.com/chainlearn/chainlearn/cache v0.0.0-00010101000000-000000000000
	github.com/chainlearn/chainlearn/cache/outbox/sqldb v0.0.0-00010101000000-000000000000
	github.com/chainlearn/chainlearn/internal/proof/testservers v0.0.0-00010101000000-000000000000
	github.com/go-sql-driver/mysql v1.9.3
	go.uber.org/goleak v1.3.0
)

require (
	filippo.io/edwards25519 v1.1.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/pgx/v5 v5.13.0 // indirect
	github.com/maypok86/otter/v2 v2.4.0 // indirect
	github.com/redis/rueidis v1.0.79 // indirect
	github.com/sony/gobreaker/v2 v2.4.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.41.0 // indirect
)

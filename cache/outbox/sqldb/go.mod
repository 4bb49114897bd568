module github.com/chainlearn/chainlearn/cache/outbox/sqldb

go 1.25.0

// In a clone the modules build as one. Released versions require released versions.
replace (
	github.com/chainlearn/chainlearn/cache => ../..
	github.com/chainlearn/chainlearn/internal/proof/testservers => ../../../internal/proof/testservers
)

require (
	github.com/chainlearn/chainlearn/cache v0.0.0-00010101000000-000000000000
	go.uber.org/goleak v1.3.0
)

require (
	github.com/maypok86/otter/v2 v2.4.0 // indirect
	github.com/sony/gobreaker/v2 v2.4.0 // indirect
)

module github.com/chainlearn/chainlearn/cache/cacheprom

go 1.25.0

// In a clone the modules build as one. Released versions require released versions.
replace github.com/chainlearn/chainlearn/cache => ..

require (
	github.com/chainlearn/chainlearn/cache v0.0.0-00010101000000-000000000000
	github.com/prometheus/client_golang v1.24.0
	go.uber.org/goleak v1.3.0
)

require (
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/maypok86/otter/v2 v2.4.0 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/prometheus/client_model v0.6.2 // indirect
	github.com/prometheus/common v0.70.0 // indirect
	github.com/prometheus/procfs v0.21.1 // indirect
	github.com/sony/gobreaker/v2 v2.4.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	google.golang.org/protobuf v1.36.11 // indirect
)

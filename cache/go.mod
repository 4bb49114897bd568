module github.com/chainlearn/chainlearn/cache

go 1.25.0

require (
	github.com/maypok86/otter/v2 v2.4.0
	github.com/sony/gobreaker/v2 v2.4.0
	go.uber.org/goleak v1.3.0
)

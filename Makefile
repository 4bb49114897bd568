.DEFAULT_GOAL := help
.PHONY: help run build test alone lint bench soak ablate mutate fuzz

ARGS     ?=
DURATION ?= 10m
FUZZTIME ?= 30s

# Each has a go.mod of its own; scripts/modules.sh builds the library's as its users do.
MODULES = $(shell git ls-files '*go.mod' | grep -v '^tools/' | xargs -n1 dirname)

# The race detector is linked by the C compiler; without one the tests run
# without it, and scripts/install-deps.sh has said so. SQLite, a translation of C
# by machine, is compiled as ever: the detector makes it six times as slow.
RACE = $(shell command -v $$(go env CC) >/dev/null 2>&1 && echo CGO_ENABLED=1 go test -race -gcflags=modernc.org/...=-race=false || echo go test)

help: ## show what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## start the service with demo data on http://127.0.0.1:3000 (ARGS="--help" for its options)
	@exec bin/chainlearn serve --demo $(ARGS)

build: ## compile the one static binary, bin/chainlearn
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/chainlearn

test: ## install what the tests need if it is missing, and run them all
	@scripts/install-deps.sh
	@set -e; for module in $(MODULES); do echo "-- $$module"; (cd $$module && $(RACE) -timeout 20m ./...); done
	go test -run 'TestEverySchedule|TestNamedTagsHold|TestStrictNearHolds|TestEveryRuleIsNeeded' ./internal/proof/model/... # with the race detector they are too many

alone: ## build and test each module of the library by itself, as a program that uses it does
	@scripts/modules.sh

lint: ## look at the code without running it
	@scripts/lint.sh

bench: ## measure against other libraries (ARGS="…" is passed on)
	@scripts/install-deps.sh
	cd bench && go run . $(ARGS)

soak: ## attack the cache with real servers for DURATION (default 10m) and report what broke
	@scripts/install-deps.sh
	go run ./internal/proof/soak/cmd/soak -duration $(DURATION) $(ARGS)

ablate: ## take out each mechanism of the protocol in turn and see that tests fail
	@scripts/install-deps.sh
	go test ./internal/proof/soak -run TestEveryMechanismIsMissed -ablate -v -timeout 120m

mutate: ## take out each if of the protocol, and name those that no test misses (ARGS="cache/outbox" for some packages)
	@scripts/install-deps.sh
	go run ./internal/proof/mutate $(ARGS)

fuzz: ## run each fuzz test for FUZZTIME (default 30s)
	@scripts/fuzz.sh $(FUZZTIME)

#!/usr/bin/env bash
# Builds and tests the library as a program that uses it does: in a module of its own, with
# nothing but what it asks for, under the oldest Go that the library promises. Prints what
# each build holds, and fails when it holds more modules than it may.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
base=github.com/chainlearn/chainlearn
oldest=$(awk '$1 == "go" { print $2 }' cache/go.mod)
failed=0

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# The modules of the library, without what only tests import.
modules=(cache cache/cacheprom cache/redisstore cache/outbox/postgres cache/outbox/sqldb cache/outbox/sqlite cache/outbox/mysql)

# build NAME MOST PACKAGE…: a program that imports the packages of the library.
build() {
	local name=$1 most=$2 dir=$tmp/$1
	shift 2
	mkdir "$dir"
	{
		echo "package main"
		for package; do echo "import _ \"$base/$package\""; done
		echo "func main() {}"
	} >"$dir/main.go"
	(
		cd "$dir"
		export GOFLAGS=-mod=mod
		go mod init "example.org/$name" 2>/dev/null
		go mod edit -go="$oldest"
		for module in "${modules[@]}" internal/proof/testservers; do
			go mod edit -replace="$base/$module=$root/$module"
		done
		for module in "${modules[@]}"; do
			for package; do
				if [[ $package == "$module" || $package == "$module"/* ]]; then go mod edit -require="$base/$module@v0.0.0-00010101000000-000000000000"; fi
			done
		done
		go mod tidy 2>/dev/null
		go build -o program .
	)
	local all packages
	all=$(cd "$dir" && go version -m program | awk '$1 == "dep" { n++ } END { print n + 0 }')
	packages=$(cd "$dir" && go list -deps . | grep -c '\.[a-z]*/')
	printf '%-28s %2d modules (at most %d), %3d packages outside the standard library\n' "$name" "$all" "$most" "$packages"
	if [ "$all" -gt "$most" ]; then
		go version -m "$dir/program" | awk '$1 == "dep" { print "  " $2 }'
		failed=1
	fi
}

go version | grep -q "go${oldest%.*}" || export GOTOOLCHAIN=go$oldest
go version >/dev/null 2>&1 || { echo "Go $oldest cannot be had here, so the library is built with $(GOTOOLCHAIN=local go version)."; export GOTOOLCHAIN=local; [ -z "${CI:-}" ] || failed=1; }
go version
build cache-memstore 5 cache cache/memstore
build cache-redis 8 cache cache/redisstore
build cache-redis-postgres 14 cache cache/redisstore cache/outbox/postgres
build cache-sql 8 cache/memstore cache/outbox/sqldb
build cache-metrics 14 cache cache/memstore cache/cacheprom
build cache-sqlite 14 cache cache/memstore cache/outbox/sqlite
build cache-mysql 8 cache cache/memstore cache/outbox/mysql

# Each module by itself, at the versions that its own go.mod names.
for module in "${modules[@]}"; do
	echo "-- $module"
	case $module in
	cache | cache/cacheprom | cache/outbox/sqldb) (cd "$module" && GOWORK=off go test ./...) || failed=1 ;;
	cache/outbox/sqlite) (cd "$module" && GOWORK=off go build ./...) || failed=1 ;; # its tests compile all of SQLite
	*) (cd "$module" && GOWORK=off go vet ./...) || failed=1 ;; # tested with the newest, against servers
	esac
done
exit "$failed"

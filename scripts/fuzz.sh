#!/usr/bin/env bash
# Runs each fuzz test of the module for the time given, one after another: go test
# fuzzes one at a time.
#
# usage: scripts/fuzz.sh TIME, for instance 30s
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?usage: scripts/fuzz.sh TIME}

found=0
for package in $(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...); do
	dir=$(go list -f '{{.Dir}}' "$package")
	for name in $(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //'); do
		found=1
		echo "-- $package $name"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "$package"
	done
done
[ "$found" -eq 1 ] || { echo "There is no fuzz test in this module."; exit 1; }

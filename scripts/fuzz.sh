#!/usr/bin/env bash
# Runs each fuzz test of every module for the time given, one after another: go test
# fuzzes one at a time. What a test finds wrong does not keep the others from running.
#
# usage: scripts/fuzz.sh TIME [PATTERN], for instance 30s, or 5m 'cache FuzzKey'
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?usage: scripts/fuzz.sh TIME [PATTERN]}
pattern=${2:-}

found=0
failed=()
while read -r package dir; do
	for name in $(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //' | sort); do
		[[ "$package $name" =~ $pattern ]] || continue
		found=1
		echo "-- $package $name"
		# An input that reaches new code is made smaller for a minute by default, and
		# nothing is tried meanwhile.
		(cd "$dir" && go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 100x .) || failed+=("$package $name")
	done
done < <(for module in $(git ls-files '*go.mod' | grep -v '^tools/' | xargs -n1 dirname); do
	(cd "$module" && go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}' ./... | grep .)
done)
[ "$found" -eq 1 ] || { echo "There is no fuzz test${pattern:+ that matches $pattern}."; exit 1; }
if [ ${#failed[@]} -gt 0 ]; then
	printf 'failed: %s\n' "${failed[@]}"
	exit 1
fi

#!/usr/bin/env bash
# Looks at the code without running it: formatting, golangci-lint in each module (which has
# the analyzers of go vet), and known vulnerabilities where their database can be reached.
set -euo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0 # needs no C compiler, and there is no cgo here
failed=0
complain() {
	echo "$1"
	failed=1
}
heading() { echo "-- $1"; }

heading gofmt
unformatted=$(git ls-files -z --cached --others --exclude-standard -- '*.go' | while IFS= read -r -d '' f; do
	if [ -e "$f" ]; then printf '%s\0' "$f"; fi # removed, but not committed yet
done | xargs -0 -r gofmt -l)
[ -z "$unformatted" ] || complain "not formatted, run gofmt -w:
$unformatted"

heading "sleeping tests"
# No linter tells virtual time from real time; a package whose tests sleep
# virtually uses testing/synctest.
sleeping=
while IFS= read -r dir; do
	grep -qF '"testing/synctest"' "$dir"/*_test.go || sleeping+="$dir"$'\n'
done < <(git grep -lF 'time.Sleep(' -- '*_test.go' | xargs -r dirname | sort -u)
[ -z "$sleeping" ] || complain "packages whose tests sleep in real time; wait on a signal, poll with testservers.Eventually, or use testing/synctest:
$sleeping"

heading "tools"
# Compiled once and kept: go run or go tool would link them again for each call.
go -C tools build -o ../.tools/ tool
tools=$PWD/.tools

for module in $(git ls-files '*go.mod' | grep -v '^tools/' | xargs -n1 dirname); do
	heading "golangci-lint ($module)"
	(cd "$module" && "$tools/golangci-lint" run --allow-parallel-runners ./...) || failed=1
done

heading govulncheck
status=0
report=$("$tools/govulncheck" ./... 2>&1) || status=$? # the service has every module in its build
case $status in
0) ;;
3) complain "$report" ;; # it found some
*)
	if [[ $report == *"fetching vulnerabilities"* ]]; then
		echo "The vulnerability database at vuln.go.dev cannot be reached; going on without it."
	else
		complain "$report"
	fi
	;;
esac

exit "$failed"

#!/bin/sh
# Usage: bench.sh BENCHSTAT
# Measures the time of the functions themselves, then whole processes compared with
# bare handlers, and prints the medians. `go run` runs BENCHSTAT for the tables.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

measure() {
	file=$1
	shift
	go test -run '^$' -bench . "$@" > "$dir/$file" || {
		cat "$dir/$file" >&2
		exit 1
	}
}
measure functions -count 7 -benchtime 0.3s ./functions/...
measure processes -benchtime 1x -timeout 15m ./internal/e2e

go run "$1" -filter '.unit:(sec/op OR B/op)' -table goos -row .name "own=$dir/functions"
echo
go run "$1" -col /handler -row .name,/connections -ignore /round "$dir/processes"

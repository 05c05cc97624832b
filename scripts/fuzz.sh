#!/bin/sh
# Usage: fuzz.sh TIME
# Runs each fuzz target of the module for that long, one after the other.
set -eu
git grep -ho '^func Fuzz[A-Za-z0-9_]*' -- '*_test.go' | sort -u | while read -r _ target; do
	git grep -l "^func $target(" -- '*_test.go' | while read -r file; do
		echo "== $target in $(dirname "$file")"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" "./$(dirname "$file")" < /dev/null
	done
done

#!/bin/sh
# Usage: test.sh [ARGUMENT OF GO TEST …]
# Runs Go's tests and Terraform's, the latter even after the former have failed.
# At the end it says loudly which of Go's were skipped, and why; in CI that is a
# failure.
set -u
failed=0
skipped=$(mktemp -d)
trap 'rm -rf "$skipped"' EXIT
# In the simulation one thing happens at a time, and with the race detector it
# would try only a tenth of the seeds.
simulation=$(go list ./internal/simulation)
# shellcheck disable=SC2046 # a word for each package
go run ./internal/gotest "$skipped/most" "$@" $(go list ./... | grep -vx "$simulation") || failed=1
go run ./internal/gotest "$skipped/simulation" -timeout 30m "$simulation" || failed=1
scripts/terraform-test.sh || failed=1
if [ -s "$skipped/most" ] || [ -s "$skipped/simulation" ]; then
	printf '\n*** NOT RUN ***\n' >&2
	cat "$skipped/most" "$skipped/simulation" >&2
	[ -z "${CI:-}" ] || failed=1
fi
exit $failed

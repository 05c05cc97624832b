#!/bin/sh
# Usage: lint.sh STATICCHECK@VERSION GOVULNCHECK@VERSION ACTIONLINT@VERSION
# Runs every check, even after one has failed. It lists the checks that cannot be
# run here; in CI that is a failure.
set -u
failed=0
not_run() {
	echo "*** NOT RUN *** $1" >&2
	[ -z "${CI:-}" ] || failed=1
}

echo "== gofmt"
unformatted=$(gofmt -l .)
[ -z "$unformatted" ] || { echo "not formatted: $unformatted"; failed=1; }

echo "== go vet"
go vet ./... || failed=1

echo "== staticcheck"
go run "$1" ./... || failed=1

echo "== govulncheck"
if ! found=$(go run "$2" ./... 2>&1); then
	case $found in
	*vuln.go.dev*) echo "*** NOT RUN *** govulncheck: its database cannot be reached from here" >&2 ;;
	*) echo "$found"; failed=1 ;;
	esac
fi

echo "== shellcheck"
if command -v shellcheck > /dev/null; then
	shellcheck scripts/*.sh terraform/*.sh .ci/run || failed=1
else
	not_run "shellcheck is not installed"
fi

scripts/lint-template.sh || failed=1

echo "== workflows"
go run "$3" || failed=1

echo "== Dockerfiles"
if command -v npm > /dev/null; then
	for file in images/*/Dockerfile; do
		npm exec --yes --package=dockerfile-utils@0.16.3 -- dockerfile-utils lint "$file" || failed=1
	done
else
	not_run "npm is not installed: the Dockerfiles cannot be read"
fi

echo "== terraform fmt"
if command -v terraform > /dev/null; then
	terraform fmt -check -recursive terraform || failed=1
else
	not_run "terraform is not installed"
fi

echo "== tables of terraform/README.md"
terraform/tables.sh --check || failed=1
exit $failed
